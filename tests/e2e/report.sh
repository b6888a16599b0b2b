#!/usr/bin/env bash
# The model of the repository, a short run on the household's commands, and its report, looked at in
# a browser where there is one. No data from outside is needed.
set -uo pipefail
. "$(dirname "$0")/lib.sh"
model=models/hearth-10m

python3 examples/household/make_data.py "$WORK/data" --rows 200 --test 20 || fail "make_data.py"
python3 examples/household/make_data.py "$WORK/again" --rows 200 --test 20
diff -r "$WORK/data" "$WORK/again" >"$WORK/diff" || fail "the data are not reproducible"
python3 - "$WORK/data" <<'EOP' || fail "held-out combinations occur in the training data"
import json, sys
def actions(name):
    return {json.loads(line)["messages"][1]["content"] for line in open(f"{sys.argv[1]}/{name}.jsonl")}
sys.exit(bool(actions("test") & (actions("train") | actions("valid"))))
EOP

run 0 tune tune "$model" --data "$WORK/data" --method lora --max-steps 6 --batch-size 8 \
  --grad-accum 1 --eval-every 2 --report-samples 2 -o "$WORK/run" --json
[ -s "$WORK/run/report.html" ] || fail "tune left no report"
for what in "Learning" "Memory" "Compression" "What it answers" "Provenance"; do
  grep -q "<h2>$what" "$WORK/run/report.html" || fail "the report has no section '$what'"
done

# Two windows with exits under a memory limit, and a plan: what a run of adaptive tuning shows.
run 0 edge tune "$model" --data "$WORK/data" --max-steps 6 --batch-size 8 --grad-accum 1 \
  --eval-every 2 --method edge --exits 2 --trunk cumulative --first-layer 0 --rank 4 \
  --memory 256MiB --report-samples 0 -o "$WORK/edge" --json
run 0 plan plan "$model" --device devices/edge-llm-accelerator.json --method edge --exits 2 \
  --first-layer 0 -o "$WORK/plan.json"
# Losses as small as those of a task that was learned well: their ticks are wide.
python3 - "$WORK/edge/edgewise.json" <<'EOP'
import json, sys
run = json.load(open(sys.argv[1]))
for score in run["exits"] + list(run["vote"]["rules"].values()):
    score["loss"] *= 1e-4
json.dump(run, open(sys.argv[1], "w"))
EOP
echo '{"what": 1}' >"$WORK/what.json"
# refuses COMMAND ARGS...: what.json is not what the command writes.
refuses() {
  run 2 wrong report "$WORK/edge" -o "$WORK/wrong.html" "${@:2}" &&
    says wrong "what.json: not what 'edgewise $1"
}
refuses plan --plan "$WORK/what.json"
refuses profile --sensitivity "$WORK/what.json"
refuses eval --before "$WORK/what.json"
refuses eval --after "$WORK/what.json"
refuses eval --compare "same=$WORK/edge,$WORK/what.json"
# A plan is no score, and two scores have to be of the same figure.
run 2 wrong report "$WORK/edge" -o "$WORK/wrong.html" --after "$WORK/plan.json" &&
  says wrong "not what 'edgewise eval"
echo '{"accuracy": 0.5, "n": 4}' >"$WORK/accuracy.json"
echo '{"loss": 0.5, "perplexity": 1.6}' >"$WORK/loss.json"
run 1 wrong report "$WORK/edge" -o "$WORK/wrong.html" --before "$WORK/loss.json" \
  --after "$WORK/accuracy.json" && says wrong "accuracy"
[ ! -e "$WORK/wrong.html" ] || fail "a page is drawn of files that it cannot show"
run 0 edge_report report "$WORK/edge" -o "$WORK/edge.html" --plan "$WORK/plan.json"
for what in "Learning" "Exits and vote" "Memory" "Predicted and measured" "Schedule"; do
  grep -q "<h2>$what" "$WORK/edge.html" || fail "the report of an edge run has no section '$what'"
done
grep -q "validation, exit 2" "$WORK/edge.html" || fail "the exits have no curves of their own"
grep -q "activations: " "$WORK/edge.html" || fail "memory is not shown by purpose"

# What a sample holds must not become markup.
printf '%s\n' '{"messages": [{"role": "user", "content": "<script>alert(1)</script>"}, {"role": "assistant", "content": "<img src=x onerror=alert(2)>"}]}' \
  >"$WORK/hostile.jsonl"
run 0 eval0 eval "$model" --data "$WORK/data/test.jsonl" --task exact-match --limit 4 --json
cp "$WORK/eval0.out" "$WORK/before.json"
run 0 profile profile "$model" --calibration examples/household/make_data.py --windows 1 \
  --window-tokens 64 --quantizer rtn --pruner magnitude -o "$WORK/table.json"
run 0 report report "$WORK/run" -o "$WORK/page.html" --data "$WORK/hostile.jsonl" --samples 1 \
  --max-tokens 8 --before "$WORK/before.json" --after "$WORK/before.json" \
  --sensitivity "$WORK/table.json" --compare "the same=$WORK/run,$WORK/before.json" --json &&
  check report "j['report'].endswith('page.html')"
grep -q "<script\|<img" "$WORK/page.html" && fail "a sample became markup"
grep -q "<h2>Sensitivity" "$WORK/page.html" || fail "the report has no section 'Sensitivity'"
run 1 norun report && says norun "no RUN"
run 2 notarun report "$WORK/data" && says notarun "not a run"

for page in page edge; do
  python3 tests/report/check_page.py "$WORK/$page.html"
  code=$?
  [ $code = 0 ] || [ $code = 77 ] || fail "$page.html has faults"
done
finish
