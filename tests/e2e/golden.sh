#!/usr/bin/env bash
# The program on the reference models: tokens, tuning, resuming, merging, exporting, hostile files.
set -uo pipefail
. "$(dirname "$0")/lib.sh"
need_dir "$golden/models"
need_dir "$data/models/tinystories-656k"
model=$data/models/tinystories-656k

run 0 tok tokenize "$model" --text "Once upon a time" --json &&
  check tok "len(j['ids']) == len(j['pieces']) > 0"
run 0 gen1 generate "$model" --prompt "Once upon a time" --max-tokens 16 --temperature 0 --threads 1 \
  --json && check gen1 "len(j['ids']) == 16 and j['text'] and j['tokens_per_second'] > 0"
run 0 gen2 generate "$model" --prompt "Once upon a time" --max-tokens 16 --temperature 0 --threads 2 \
  --json && [ "$(json gen1 "j['ids']")" = "$(json gen2 "j['ids']")" ] ||
  fail "other tokens with another number of threads"
for name in seed1 seed2; do
  run 0 $name generate "$model" --prompt "Once" --max-tokens 12 --temperature 1 --seed 7 --json
done
[ "$(json seed1 "j['ids']")" = "$(json seed2 "j['ids']")" ] || fail "a seed does not repeat"
run 0 stop generate "$model" --prompt "Once upon a time" --max-tokens 40 --temperature 0 --stop " a" \
  --json && check stop "' a' not in j['text'] and j['finish_reason'] == 'stop'"
run 0 inspect inspect "$model" --json && check inspect "j['config']['layers'] == 2"

# Tuning: a small learnable task, validated, interrupted, resumed, merged, exported.
python3 - "$WORK" <<'EOF'
import json, sys
rows = [{"prompt": f"Item {i % 7}:", "completion": [" red", " blue", " green"][i % 7 % 3]}
        for i in range(84)]
with open(sys.argv[1] + "/train.jsonl", "w") as f:
    f.writelines(json.dumps(r) + "\n" for r in rows)
EOF
tune=(tune "$model" --method lora --data "$WORK/train.jsonl" --max-steps 12 --grad-accum 2
  --batch-size 4 --lora-rank 4 --learning-rate 3e-3 --eval-every 6 --save-every 4 --max-seq-len 64 --json)
run 0 dry "${tune[@]}" --dry-run && check dry \
  "j['predicted_peak_bytes'] > 0 and len(j['samples']) == 3 and 1 in j['samples'][0]['mask']"
run 0 tune "${tune[@]}" -o "$WORK/run" --threads 1 && check tune \
  "j['steps'] == 12 and j['valid_loss'] < j['start_valid_loss'] and j['peak_rss_bytes'] > 0"
for key in predicted_seconds predicted_peak_bytes seconds tokens tokens_per_second train_loss exits \
  vote; do
  check tune "'$key' in j"
done
run 1 again "${tune[@]}" -o "$WORK/run" && says again "run"

# Stopped by SIGTERM at some moment and resumed: the same adapter, bit for bit.
"$EDGEWISE" "${tune[@]}" -o "$WORK/cut" --threads 2 >"$WORK/cut.out" 2>"$WORK/cut.err" &
pid=$!
for _ in $(seq 200); do
  [ -s "$WORK/cut/metrics.jsonl" ] && break
  sleep 0.05
done
kill -TERM $pid
wait $pid
code=$?
[ $code = 4 ] || [ $code = 0 ] || fail "SIGTERM: exit code $code, expected 4 (or 0 when too late)"
run 0 resumed "${tune[@]}" -o "$WORK/cut" --resume && check resumed "j['steps'] == 12"
cmp "$WORK/run/adapter_model.safetensors" "$WORK/cut/adapter_model.safetensors" ||
  fail "the resumed run ends in another adapter"

run 0 loss0 eval "$model" --data "$WORK/train.jsonl" --json
run 0 loss1 eval "$model" --adapter "$WORK/run" --data "$WORK/train.jsonl" --json &&
  check loss1 "j['loss'] < $(json loss0 "j['loss']")"
run 0 inspect_run inspect "$WORK/run" --json && check inspect_run "j['config']['rank'] == 4"
run 0 merge merge "$model" --adapter "$WORK/run" -o "$WORK/merged" --dtype fp32 --json &&
  check merge "j['logit_error'] <= j['max_logit_error']"
run 0 loss2 eval "$WORK/merged" --data "$WORK/train.jsonl" --json &&
  check loss2 "abs(j['loss'] - $(json loss1 "j['loss']")) < 1e-4"
run 2 strict merge "$model" --adapter "$WORK/run" -o "$WORK/strict" --dtype bf16 --max-error 1e-9 &&
  says strict "more than 1.00e-09"
[ ! -e "$WORK/strict" ] || fail "a refused merge left a directory"
run 0 peft export "$WORK/run" --to peft -o "$WORK/peft" --json
run 0 loss3 eval "$model" --adapter "$WORK/peft" --data "$WORK/train.jsonl" --json &&
  check loss3 "j['loss'] == $(json loss1 "j['loss']")"
run 0 hf export "$WORK/run" --to hf -o "$WORK/hf" --json

run 0 full "${tune[@]}" --method full --learning-rate 1e-3 -o "$WORK/full" &&
  check full "j['valid_loss'] < j['start_valid_loss']"
run 0 loss4 eval "$WORK/full" --data "$WORK/train.jsonl" --json
run 0 lastn "${tune[@]}" --method last-n --last-layers 1 -o "$WORK/lastn"
run 3 memory "${tune[@]}" -o "$WORK/small" --memory 1MiB

# Answers: a question file with one right answer each.
python3 - "$WORK" <<'EOF'
import json, sys
rows = [{"question": f"Item {i % 7}:", "choices": ["red", "blue", "green"], "answer": i % 7 % 3}
        for i in range(7)]
with open(sys.argv[1] + "/questions.jsonl", "w") as f:
    f.writelines(json.dumps(r) + "\n" for r in rows)
EOF
run 0 task eval "$model" --task "$WORK/questions.jsonl" --json &&
  check task "j['n'] == 7 and 0 <= j['accuracy'] <= 1 and j['stderr'] >= 0"
run 0 exact eval "$model" --adapter "$WORK/run" --data "$WORK/train.jsonl" --task exact-match \
  --limit 14 --json && check exact "j['n'] == 14"
run 0 labels eval "$model" --adapter "$WORK/run" --data "$WORK/train.jsonl" --task labels \
  --limit 14 --json && check labels "j['n'] == 14 and j['accuracy'] >= $(json exact "j['accuracy']")"

# Hostile files end in exit code 2, name the file, and never crash.
for file in "$golden"/models/corrupt/gguf/*.gguf; do
  name=corrupt_$(basename "$file")
  "$EDGEWISE" generate "$file" --prompt x --json >"$WORK/$name.out" 2>"$WORK/$name.err"
  code=$?
  # A control that loads as a file may still be no model.
  [ $code = 2 ] || fail "$name: exit code $code, expected 2"
done
mkdir -p "$WORK/hostile"
for file in "$golden"/models/corrupt/safetensors/*.safetensors; do
  cp "$model"/*.json "$WORK/hostile/"
  cp "$file" "$WORK/hostile/model.safetensors"
  name=corrupt_$(basename "$file")
  run 2 "$name" generate "$WORK/hostile" --prompt x --json
done
printf '{"prompt": "a"}\n' >"$WORK/bad.jsonl"
run 2 badrow tune "$model" --data "$WORK/bad.jsonl" -o "$WORK/x" && says badrow "bad.jsonl:1"
printf '{"prompt": "a", \n' >"$WORK/torn.jsonl"
run 2 torn tune "$model" --data "$WORK/torn.jsonl" -o "$WORK/x" && says torn "torn.jsonl:1"
run 2 nodata tune "$model" --data "$WORK/none.jsonl" -o "$WORK/x" && says nodata "none.jsonl"
finish
