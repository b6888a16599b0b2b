#!/usr/bin/env bash
# Adaptive layer tuning that is killed with SIGKILL while it makes its cache of trunk states and
# while it tunes, and is resumed each time, ends in the same bits as a run that was left alone.
set -uo pipefail
. "$(dirname "$0")/lib.sh"
model=$data/models/hearth-10m
need_dir "$model"
seed=${EDGEWISE_TEST_SEED:-$RANDOM}
echo "seed $seed (EDGEWISE_TEST_SEED repeats it)"
RANDOM=$seed

head -c 150000 "$data/datasets/tinystories/valid_0.8MB.txt" >"$WORK/train.txt"
tune=(tune "$model" --data "$WORK/train.txt" --val-fraction 0.02 --method edge --exits 2
  --first-layer 0 --rank 8 --lora-dropout 0.1 --max-steps 30 --batch-size 2 --grad-accum 2
  --windows-per-step 2 --fake-quant 8 --distill "$model" --distill-weight 0.3
  --max-seq-len 64 --learning-rate 1e-3 --save-every 2 --no-eval-at-start --report-samples 0
  --json --quiet)
run 0 whole "${tune[@]}" -o "$WORK/whole" --threads 1

cut=$WORK/cut
steps() { cat "$cut/metrics.jsonl" 2>/dev/null | grep -c '"event":"step"'; }
# Hashes of the states, absent while zero: 4096 bytes into the file, 8 bytes a document and start.
cached() {
  python3 - "$cut/trunk-states.cache" <<'PY'
import struct, sys
try:
    data = open(sys.argv[1], "rb").read()
    documents = struct.unpack("<Q", data[32:40])[0]
    print(sum(any(data[4096 + 8 * d:4104 + 8 * d]) for d in range(documents)))
except (OSError, struct.error):
    print(0)
PY
}

making=0 training=0 last=0
for i in $(seq 40); do
  [ $training -lt 5 ] || break
  "$EDGEWISE" "${tune[@]}" -o "$cut" --resume --threads $((i % 2 + 1)) \
    >"$WORK/cut.out" 2>"$WORK/cut.err" &
  pid=$!
  if [ $making -lt 4 ]; then
    # Until the cache has grown, then at any moment of a document.
    size=$(cached)
    while [ "$(cached)" -le "$size" ] && [ "$(steps)" = 0 ] && kill -0 $pid 2>/dev/null; do :; done
  else
    target=$((last + 1 + RANDOM % 4))
    while [ "$(steps)" -lt $target ] && kill -0 $pid 2>/dev/null; do sleep 0.01; done
    sleep "$(printf '0.%03d' $((RANDOM % 50)))"
  fi
  kill -KILL $pid 2>/dev/null
  wait $pid 2>/dev/null
  code=$?
  [ $code = 0 ] && break
  [ $code = 137 ] || {
    fail "attempt $i: exit code $code"
    tail -3 "$WORK/cut.err"
  }
  last=$(steps)
  if [ "$last" = 0 ]; then making=$((making + 1)); else training=$((training + 1)); fi
done
echo "killed $making times while caching, $training times while tuning; $last steps by then"
[ $making -ge 2 ] || fail "only $making kills met the making of the cache"
[ $training -ge 3 ] || fail "only $training kills met tuning"
run 0 end "${tune[@]}" -o "$cut" --resume --threads 2 && check end "j['steps'] == 30"
for file in edge.safetensors trunk-states.cache; do
  cmp "$WORK/whole/$file" "$cut/$file" || fail "the killed run ends in another $file"
done
[ "$(steps)" = 30 ] || fail "metrics.jsonl does not hold every step once"
finish
