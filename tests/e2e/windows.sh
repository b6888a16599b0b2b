#!/usr/bin/env bash
# Method edge in more and smaller windows where one does not fit: a limit that is refused otherwise is
# kept, it is said beforehand, and what goes on after a kill keeps its windows, bit for bit.
set -uo pipefail
. "$(dirname "$0")/lib.sh"
model=$WORK/base
run 0 base random-base --shape smollm2-135m --bits 4 --tokenizer models/hearth-10m -o "$model"
python3 -c 'import json, random
draw = random.Random(2)
for _ in range(3):
    print(json.dumps({"text": " ".join(draw.choice("the of and a to in is".split()) for _ in range(1000))}))
' >"$WORK/data.jsonl"
# The layers' inputs are all that is kept of them, and the disk is not to help; without a LoRA on each
# exit's head smaller windows take less.
tune=(tune "$model" --data "$WORK/data.jsonl" --method edge --head-lora-rank 0 --spill never --max-steps 4
  --grad-accum 1 --val-fraction 0 --no-eval-at-start --max-seq-len 1024 --report-samples 0 --threads 2
  --json --quiet)
limit=134

# held NAME ARGS...: tunes in $WORK/NAME within the limit, as predicted.
held() {
  python3 - "$WORK/$1.out" $limit "$EDGEWISE" "${tune[@]}" -o "$WORK/$1" "${@:2}" <<'EOP' || fail "$1"
import json, os, subprocess, sys
out, limit = sys.argv[1], int(sys.argv[2]) << 20
with open(out, "w") as f:
    process = subprocess.Popen(sys.argv[3:] + ["--memory", f"{sys.argv[2]}MiB"], stdout=f)
    _, status, usage = os.wait4(process.pid, 0)
if code := os.waitstatus_to_exitcode(status):
    sys.exit(f"exit code {code}")
peak = usage.ru_maxrss * 1024
result = json.load(open(out))
want = result["predicted_peak_bytes"]
print(f"limit {limit >> 20}, predicted {want / 2**20:.1f}, measured {peak / 2**20:.1f} MiB, "
      f"{result['windows']} windows of up to {result['window_layers']} layers")
# The rest (code of every phase, the allocator) is bounded by a few MiB.
sys.exit(0 if peak <= limit and peak <= want <= 1.05 * peak + (3 << 20) else "outside")
EOP
}

# One window does not fit and is refused where it is asked for.
run 3 one "${tune[@]}" -o "$WORK/one" --memory ${limit}MiB --exits 1
held chosen
check chosen "j['windows'] > 1 and j['window_layers'] < 8 and len(j['exits']) == j['windows']"
windows=$(json chosen "j['windows']")
grep -q "\"windows\": *$windows" "$WORK/chosen/edgewise.json" || fail "the windows are not recorded"
run 0 said "${tune[@]}" -o "$WORK/said" --memory ${limit}MiB --dry-run
check said "j['windows'] == $windows"
# The same bits as with the windows asked for and room for everything.
limit=400 held asked --exits "$windows"
cmp "$WORK/chosen/edge.safetensors" "$WORK/asked/edge.safetensors" || fail "limits differ"
# More room, one window.
limit=400 held plenty
check plenty "j['windows'] == 1 and j['window_layers'] == 8"

# Killed, it goes on with its windows under any limit, and in the same bits.
"$EDGEWISE" "${tune[@]}" -o "$WORK/killed" --memory ${limit}MiB --save-every 1 >/dev/null 2>&1 &
pid=$!
while [ ! -e "$WORK/killed/checkpoints/checkpoint-000001" ] && kill -0 $pid 2>/dev/null; do
  sleep 0.02
done
kill -KILL $pid 2>/dev/null
wait $pid 2>/dev/null
limit=400 held killed --resume
check killed "0 < j['resumed_from'] < 4 and j['windows'] == $windows"
cmp "$WORK/chosen/edge.safetensors" "$WORK/killed/edge.safetensors" || fail "resumed differs"
run 1 other "${tune[@]}" -o "$WORK/killed" --resume --exits 1

# A refusal states the smallest limit over all numbers of windows, and it works.
run 3 none "${tune[@]}" -o "$WORK/none" --memory 60MiB
check none "' windows of up to ' in j['error']['message']"
limit=$(json none "j['error']['message'].split('--memory ')[1].split('MiB')[0]")
held least
check least "j['window_layers'] < 8"
finish
