#!/usr/bin/env bash
# The memory promise: a run stays within its limit, or it is refused; the predicted peak is never
# below the measured one (of the whole process, as the system counts it) and close to it.
set -uo pipefail
. "$(dirname "$0")/lib.sh"
model=$WORK/base
make_base "$model"
make_words "$WORK/data.jsonl" 2 1
tune=(tune "$model" --data "$WORK/data.jsonl" --max-steps 4 --batch-size 1 --grad-accum 1
  --val-fraction 0 --no-eval-at-start --max-seq-len 128 --json --quiet)

for limit in 400 200 150; do
  held lora$limit $limit 0 --method lora --rank 8 -o "$WORK/lora" --overwrite
  held edge$limit $limit 0 --method edge -o "$WORK/edge$limit"
  # The states below the window are there now.
  held again$limit $limit 0 --method edge -o "$WORK/edge$limit" --overwrite
done
# Whatever the limit, the same bits. (By edge so little is short that activations alone may do.)
for method in lora edge; do
  python3 - "$WORK/${method}400.out" "$WORK/${method}150.out" <<'EOP' || fail "$method differs"
import json, sys
a, b = (json.load(open(p)) for p in sys.argv[1:])
less = any(b[k] > a[k] for k in ("weights_read_bytes", "recompute", "spilled_layers"))
sys.exit(a["train_loss"] != b["train_loss"] or not less)
EOP
done
# The head is 27 MiB and is streamed in blocks, except where it is wanted as a whole.
run 1 column tune "$model" --data "$WORK/data.jsonl" -o "$WORK/column" --memory 170MiB --max-steps 1 \
  --batch-size 1 --grad-accum 2 --max-seq-len 128 --method edge --windows-per-step 2 --exits 2 \
  --order column
says column "--order column"
# So little is held here that planning itself may be the peak.
held small 200 0 --method edge --rank 4 -o "$WORK/edge200" --overwrite
# Where planning takes more than the limit the run is refused.
for limit in 110 100 90; do
  held tight$limit $limit 0 --method edge --rank 4 -o "$WORK/edge200" --overwrite
done
# Measuring the memory takes some for each thread, but not more than there is.
held threads 200 0 --method edge --threads 16 -o "$WORK/threads" --overwrite
# A teacher's weights, its pass and the logits of both are in the plan; so are all logits at once.
for limit in 400 285; do
  held taught$limit $limit 0 --method edge --distill "$model" -o "$WORK/taught" --overwrite
done
held whole 400 0 --method edge --distill "$model" --whole-head -o "$WORK/taught" --overwrite
# Exits hold adapters of their own, and opening them may be the peak. The limit that a refusal states
# works.
held exits 300 0 --method edge --exits 2 --first-layer 20 -o "$WORK/exits" --overwrite
stated() {
  "$EDGEWISE" "${@:2}" --memory 1MiB --json --quiet >"$WORK/$1.out" 2>"$WORK/$1.err"
  local limit
  limit=$(grep -o -- '--memory [0-9]*MiB' "$WORK/$1.err" | grep -o '[0-9]*')
  [ -n "$limit" ] || { fail "$1: no limit is stated"; return; }
  python3 - "$limit" "$EDGEWISE" "${@:2}" --memory "${limit}MiB" --json --quiet <<'EOP' || fail "$1"
import os, subprocess, sys
process = subprocess.Popen(sys.argv[2:], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
print(f"stated {sys.argv[1]} MiB, measured {usage.ru_maxrss / 1024:.1f} MiB")
sys.exit(status != 0 or usage.ru_maxrss > int(sys.argv[1]) << 10)
EOP
}
stated generate generate "$WORK/exits" --prompt the --max-tokens 4 --ctx 64
stated eval eval "$WORK/exits" --data "$WORK/data.jsonl"
stated fixed eval "$model" --data "$WORK/data.jsonl" --protocol fixed --ctx 64
# A context that the model does not know is wrong use, whatever the limit.
for command in "eval --task exact-match --data $WORK/data.jsonl" \
  "eval --protocol fixed --data $WORK/data.jsonl" "generate --prompt the" chat; do
  run 1 positions $command -m "$model" --ctx 9999999 --memory 200MiB
  says positions "positions"
done
# Of a long context as much is planned as prompt and answer take, or, in a conversation, as fits.
mkdir "$WORK/long"
cp "$model"/* "$WORK/long"
sed -i 's/\("max_position_embeddings": *\)[0-9]*/\1131072/' "$WORK/long/config.json"
grep -q 131072 "$WORK/long/config.json" || fail "the context is not long"
printf '{"prompt": "the of", "completion": "a"}\n' >"$WORK/answers.jsonl"
printf '{"question": "the of", "choices": ["a", "to"], "answer": 1}\n' >"$WORK/questions.jsonl"
run 0 needed generate "$WORK/long" --prompt "the of and" --max-tokens 4 --memory 110MiB
run 0 one_turn chat "$WORK/long" --prompt "the of and" --max-tokens 4 --memory 110MiB
run 0 answers eval "$WORK/long" --data "$WORK/answers.jsonl" --task exact-match --memory 110MiB
run 0 questions eval "$WORK/long" --task "$WORK/questions.jsonl" --memory 110MiB
run 3 unneeded generate "$WORK/long" --prompt "the of and" --max-tokens 100000 --memory 110MiB
says unneeded "--max-tokens"
for limit in 110 200 400; do
  python3 - "$limit" "$EDGEWISE" chat "$WORK/long" --max-tokens 4 --memory ${limit}MiB \
    2>"$WORK/talk.err" <<'EOP' || fail "chat within $limit MiB: $(tail -1 "$WORK/talk.err")"
import os, subprocess, sys
process = subprocess.Popen(sys.argv[2:], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
process.stdin.write(b"the of and\n")
process.stdin.close()
_, status, usage = os.wait4(process.pid, 0)
print(f"chat: limit {sys.argv[1]}, measured {usage.ru_maxrss / 1024:.1f} MiB")
sys.exit(status != 0 or usage.ru_maxrss > int(sys.argv[1]) << 10)
EOP
  says talk "so that it fits --memory"
done
# Scoring needs no keys and values: what decoding the whole context takes is not asked for.
check fixed "int(j['error']['message'].split('--memory ')[1].split('MiB')[0]) < 100"
# What the layers keep of larger micro-batches fits with some of it on disk only, which is said
# beforehand; without that the run is refused. The bits stay the same.
make_words "$WORK/data.jsonl" 16 2
spilled=(--method lora --rank 8 --batch-size 8 --split never -o "$WORK/spill")
unspilled=$(least "${spilled[@]}" --spill never)
limit=$(((unspilled + $(least "${spilled[@]}")) / 2))
held spill400 400 0 "${spilled[@]}"
check spill400 "j['spilled_layers'] == 0"
held spilled $limit 0 "${spilled[@]}" --overwrite
check spilled "j['spilled_layers'] > 0 and
  abs(j['activations_written_bytes'] - j['predicted_written_bytes']) < 0.1 * j['predicted_written_bytes']"
python3 - "$WORK/spill400.out" "$WORK/spilled.out" <<'EOP' || fail "spilled activations differ"
import json, sys
a, b = (json.load(open(p)) for p in sys.argv[1:])
sys.exit(a["train_loss"] != b["train_loss"])
EOP
unspilled=("${tune[@]}" "${spilled[@]}" --spill never --overwrite)
run 3 unspilled "${unspilled[@]}" --memory ${limit}MiB
grep -q RLIMIT_DATA "$WORK/unspilled.err" && fail "a limit that is not there is blamed"
# A smaller limit of the system is what has to be raised then, and no --memory helps.
data_limit=$(ulimit -S -d)
ulimit -S -d $((290 << 10))
run 3 data_limit "${unspilled[@]}" --memory 1GiB
ulimit -S -d "$data_limit"
says data_limit "RLIMIT_DATA (ulimit -d) leaves"
# Threads whose stacks it has no room for (at least 2 MiB each) are a refusal, too.
ulimit -S -d $((1 << 20))
OPENBLAS_NUM_THREADS=1 run 3 threads_limit generate models/hearth-10m --prompt the --max-tokens 2 \
  --threads 1024
ulimit -S -d "$data_limit"
says threads_limit "of 1024 threads"
# A file system in memory is no disk.
if [ "$(stat -f -c %T /dev/shm)" = tmpfs ] && shm=$(mktemp -d /dev/shm/edgewise-XXXXXX); then
  for use in auto:3 always:1; do
    run ${use#*:} "tmpfs_${use%:*}" tune "$model" --data "$WORK/data.jsonl" -o "$shm/run" \
      --memory 130MiB --max-steps 1 --batch-size 8 --grad-accum 1 --max-seq-len 128 --method lora \
      --rank 8 --spill ${use%:*} --split never
  done
  says tmpfs_always "tmpfs"
  rm -r "$shm"
else
  echo "SKIP: no file system in memory to refuse"
fi
# What libraries map and never touch counts for this limit, and is left out of the plan.
held data 400 400 --method lora --rank 8 -o "$WORK/data" --overwrite
check data "j['memory_limit_bytes'] < 400 << 20"
run 3 refused tune "$model" --data "$WORK/data.jsonl" -o "$WORK/refused" --memory 60MiB --max-steps 1
says refused "--memory"
finish
