#!/usr/bin/env bash
# Method edge in more and smaller windows where one does not fit: a limit that is refused otherwise is
# kept, it is said beforehand, and what goes on after a kill keeps its windows, bit for bit.
set -uo pipefail
. "$(dirname "$0")/lib.sh"
model=$WORK/base
make_base "$model"
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
one=$(least --exits 1 -o "$WORK/one")
smallest=$(least -o "$WORK/least")
limit=$(((one + smallest) / 2))

# One window does not fit and is refused where it is asked for.
run 3 one "${tune[@]}" -o "$WORK/one" --memory ${limit}MiB --exits 1
held chosen $limit 0 -o "$WORK/chosen"
check chosen "j['windows'] > 1 and j['window_layers'] < 8 and len(j['exits']) == j['windows']"
windows=$(json chosen "j['windows']")
grep -q "\"windows\": *$windows" "$WORK/chosen/edgewise.json" || fail "the windows are not recorded"
run 0 said "${tune[@]}" -o "$WORK/said" --memory ${limit}MiB --dry-run
check said "j['windows'] == $windows"
# The same bits as with the windows asked for and room for everything.
held asked 400 0 -o "$WORK/asked" --exits "$windows"
cmp "$WORK/chosen/edge.safetensors" "$WORK/asked/edge.safetensors" || fail "limits differ"
# More room, one window.
held plenty 400 0 -o "$WORK/plenty"
check plenty "j['windows'] == 1 and j['window_layers'] == 8"

# Killed, it goes on with its windows under any limit, and in the same bits.
killed "$WORK/killed" --memory ${limit}MiB
held killed 400 0 -o "$WORK/killed" --resume
check killed "0 < j['resumed_from'] < 4 and j['windows'] == $windows"
cmp "$WORK/chosen/edge.safetensors" "$WORK/killed/edge.safetensors" || fail "resumed differs"
run 1 other "${tune[@]}" -o "$WORK/killed" --resume --exits 1

# A refusal has stated the smallest limit over all numbers of windows, and it works.
run 3 none "${tune[@]}" -o "$WORK/none" --memory 60MiB
check none "' windows of up to ' in j['error']['message']"
held least "$smallest" 0 -o "$WORK/least"
check least "j['window_layers'] < 8"
finish
