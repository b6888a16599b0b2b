#!/usr/bin/env bash
# A run that is killed with SIGKILL at 20 random moments and resumed each time ends in the same
# adapter, bit for bit, as one that was left alone; with another number of threads too.
set -uo pipefail
. "$(dirname "$0")/lib.sh"
model=$data/models/tinystories-656k
need_dir "$model"
seed=${EDGEWISE_TEST_SEED:-$RANDOM}
echo "seed $seed (EDGEWISE_TEST_SEED repeats it)"
RANDOM=$seed

python3 - "$WORK" <<'EOF'
import json, sys
rows = [{"text": f"Tom has {i} cats. {i + 1} cats are more than {i} cats. " * 4} for i in range(60)]
with open(sys.argv[1] + "/train.jsonl", "w") as f:
    f.writelines(json.dumps(r) + "\n" for r in rows)
EOF
tune=(tune "$model" --method lora --data "$WORK/train.jsonl" --max-steps 150 --grad-accum 2
  --batch-size 2 --lora-rank 4 --lora-dropout 0.1 --learning-rate 1e-3 --eval-every 7 --save-every 2
  --max-seq-len 128 --json --quiet)
run 0 whole "${tune[@]}" -o "$WORK/whole" --threads 1

# The step of the last event of the run.
last_step() {
  tail -n 1 "$WORK/cut/metrics.jsonl" 2>/dev/null | sed -n 's/.*"step":\([0-9]*\).*/\1/p'
}

killed=0 step=0
# Up to the twentieth kill that met a running program.
for i in $(seq 60); do
  [ $killed -lt 20 ] || break
  "$EDGEWISE" "${tune[@]}" -o "$WORK/cut" --resume --threads $((i % 2 + 1)) \
    >"$WORK/cut.out" 2>"$WORK/cut.err" &
  pid=$!
  # Some steps further than before, and then at any moment of a step or a save.
  target=$((step + RANDOM % 5))
  for _ in $(seq 3000); do
    at=$(last_step)
    [ "${at:-0}" -lt $target ] && kill -0 $pid 2>/dev/null || break
    sleep 0.01
  done
  sleep "$(printf '0.%03d' $((RANDOM % 100)))"
  kill -KILL $pid 2>/dev/null
  wait $pid 2>/dev/null
  code=$?
  [ $code = 137 ] && killed=$((killed + 1))
  [ $code = 137 ] || [ $code = 0 ] || {
    fail "attempt $i: exit code $code"
    tail -3 "$WORK/cut.err"
  }
  step=$(last_step)
  step=${step:-0}
done
echo "$killed of $((i - 1)) runs were killed; the last one after step $step"
[ $killed = 20 ] || fail "only $killed kills met a running program"
run 0 end "${tune[@]}" -o "$WORK/cut" --resume --threads 2 && check end "j['steps'] == 150"
cmp "$WORK/whole/adapter_model.safetensors" "$WORK/cut/adapter_model.safetensors" ||
  fail "the killed run ends in another adapter"
cmp "$WORK/whole/adapter_config.json" "$WORK/cut/adapter_config.json" || fail "another configuration"
[ "$(grep -c '"event":"step"' "$WORK/cut/metrics.jsonl")" = 150 ] ||
  fail "metrics.jsonl does not hold every step once"
finish
