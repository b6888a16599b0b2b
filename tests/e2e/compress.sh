#!/usr/bin/env bash
# Compressed bases: a run that is killed with SIGKILL at random moments ends in the same bytes; what
# is written can be inspected, exported with the same values, and runs; a memory limit is kept.
set -uo pipefail
. "$(dirname "$0")/lib.sh"
model=$data/models/tinystories-656k
text=$data/datasets/tinystories/valid_0.8MB.txt
need_dir "$model"
seed=${EDGEWISE_TEST_SEED:-$RANDOM}
echo "seed $seed (EDGEWISE_TEST_SEED repeats it)"
RANDOM=$seed

head -c 60000 "$text" >"$WORK/calibration.txt"
args=(compress "$model" --calibration "$WORK/calibration.txt" --windows 8 --window-tokens 256
  --bits 4 --sparsity 0.5 --table "$WORK/table.json" --json --quiet)
run 0 whole "${args[@]}" -o "$WORK/whole" --threads 1
check whole "j['average_bits'] > 0 and len(j['layers']) == 2 and j['bytes'] > 0"

# Killed at moments spread over the time that a whole run takes.
start=$(date +%s%N)
run 0 timed "${args[@]}" -o "$WORK/timed"
span=$((($(date +%s%N) - start) / 1000000))
killed=0
for i in $(seq 20); do
  # A run that came to its end starts anew.
  [ -e "$WORK/cut/packed.safetensors" ] && [ $i -lt 20 ] && rm -rf "$WORK/cut"
  "$EDGEWISE" "${args[@]}" -o "$WORK/cut" --threads $((i % 2 + 1)) >"$WORK/cut.out" 2>&1 &
  pid=$!
  sleep "$(printf '%d.%03d' $((RANDOM % (span + 1) / 1000)) $((RANDOM % (span + 1) % 1000)))"
  kill -KILL $pid 2>/dev/null && killed=$((killed + 1))
  wait $pid 2>/dev/null
  code=$?
  [ $code = 137 ] || [ $code = 0 ] || fail "attempt $i: exit code $code"
done
echo "$killed of 20 runs were killed"
run 0 end "${args[@]}" -o "$WORK/cut" --threads 2
for file in packed.safetensors edgewise.json config.json tokenizer.json; do
  cmp "$WORK/whole/$file" "$WORK/cut/$file" || fail "the killed run ends in another $file"
done
[ ! -e "$WORK/cut/.partial" ] || fail ".partial is left behind"
run 0 again "${args[@]}" -o "$WORK/cut" && check again "j['resumed_layers'] == 2"
run 1 other "${args[@]}" --damp 0.02 -o "$WORK/cut" && says other "another compressed model"

# The policy alone: printed, or written to be edited and given back. Nothing else is left behind but
# the table that it was derived from.
policy=(compress "$model" --calibration "$WORK/calibration.txt" --windows 2 --window-tokens 128
  --quiet --policy-only)
mkdir "$WORK/policies"
run 0 printed "${policy[@]}" --table "$WORK/policies/table.json"
run 0 written "${policy[@]}" -o "$WORK/policies/policy.json"
[ "$(cat "$WORK/written.out")" = "$WORK/policies/policy.json" ] || fail "the file is not named"
cmp "$WORK/printed.out" "$WORK/policies/policy.json" || fail "another policy is written than printed"
check printed "len(j['layers']) == 2"
cmp "$WORK/policies/table.json" "$WORK/policies/policy-sensitivity.json" || fail "no table was kept"
[ "$(ls "$WORK/policies" | wc -l)" = 3 ] || fail "--policy-only leaves more behind: $(ls "$WORK/policies")"
run 0 given "${args[@]}" --policy "$WORK/policies/policy.json" -o "$WORK/given"
check given "all({k: v['bits'] for k, v in l['linears'].items()} == {k: v['bits'] for k, v in p.items()}
  for l, p in zip(j['layers'], json.load(open('$WORK/policies/policy.json'))['layers']))"
run 1 policy_base "${policy[@]}" -o "$WORK/policies/base" && says policy_base ".json"
[ ! -e "$WORK/policies/base" ] || fail "a policy took the place of a base"
run 1 no_output compress "$model" --calibration "$WORK/calibration.txt" && says no_output "-o"

# Inspect: what the policy asked for and what is stored.
run 0 inspect inspect "$WORK/whole" --json
check inspect "j['kind'] == 'packed base' and len(j['layers']) == 2"
check inspect "all(l['linears'][k]['error'] >= 0 and l['linears'][k]['bytes'] > 0
  for l in j['layers'] for k in ('q_proj', 'down_proj'))"
run 0 inspect_text inspect "$WORK/whole" --tensors
grep -q down_proj "$WORK/inspect_text.out" || fail "inspect --tensors does not list the linears"

# The dense export has the same values: the base in fp32 and the export have the same loss.
run 0 export export "$WORK/whole" --to hf -o "$WORK/dense"
run 0 ppl_packed eval "$WORK/whole" --dtype fp32 --data "$text" --protocol fixed --ctx 256 \
  --chunks 8 --json --quiet
run 0 ppl_dense eval "$WORK/dense" --data "$text" --protocol fixed --ctx 256 --chunks 8 --json --quiet
run 0 ppl_int8 eval "$WORK/whole" --data "$text" --protocol fixed --ctx 256 --chunks 8 --json --quiet
[ "$(json ppl_packed "j['nll']")" = "$(json ppl_dense "j['nll']")" ] ||
  fail "the export has another loss than the base"
# With activations rounded to 8 bits: the loss moves by far less than the compression's own error.
python3 - "$(json ppl_int8 "j['nll']")" "$(json ppl_dense "j['nll']")" <<'PY' ||
import sys
a, b = map(float, sys.argv[1:])
sys.exit(abs(a - b) > 0.02)
PY
  fail "packed and dense losses differ: $(json ppl_int8 "j['nll']") $(json ppl_dense "j['nll']")"

# A memory limit is kept, or refused with the smallest that is not.
run 3 tight "${args[@]}" -o "$WORK/tight" --memory 8MiB && says tight "at least"
run 0 limited "${args[@]}" -o "$WORK/limited" --memory 160MiB
check limited "j['peak_rss_bytes'] <= 160 * 2**20"
cmp "$WORK/whole/packed.safetensors" "$WORK/limited/packed.safetensors" ||
  fail "a memory limit changes the bytes"
finish
