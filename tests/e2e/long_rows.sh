#!/usr/bin/env bash
# Rows too long for their activations: the MLPs, then whole layers are computed again, MLPs in pieces
# of tokens, and what a layer still keeps passes through the disk. Every limit gives the same bits.
set -uo pipefail
. "$(dirname "$0")/lib.sh"
model=$WORK/base
make_base "$model"
# Of 600 tokens.
make_words "$WORK/words.jsonl" 10 1
python3 - "$WORK/words.jsonl" >"$WORK/data.jsonl" <<'EOP'
import json, sys
rows = [json.loads(line)["text"] for line in open(sys.argv[1])]
for i in range(0, len(rows), 5):
    print(json.dumps({"text": " ".join(rows[i:i + 5])}))
EOP
tune=(tune "$model" --data "$WORK/data.jsonl" --max-steps 1 --batch-size 1 --grad-accum 1
  --val-fraction 0 --no-eval-at-start --max-seq-len 640 --report-samples 0 --json --quiet)
lora=(--method lora --rank 8 --lora-dropout 0.1)
edge=(--method edge --exits 1 --first-layer 15 --rank 8 --head-lora-rank 8)
# Which of several forms that fit is chosen depends on the machine.
held lora600 600 0 "${lora[@]}" -o "$WORK/lora600"
check lora600 "j['recomputed'] == 'none' and j['spilled_layers'] == 0"
same() {
  cmp "$WORK/$1/adapter_model.safetensors" "$WORK/lora600/adapter_model.safetensors" || fail "$1: other bits"
}
for form in mlp layer; do
  held $form 600 0 "${lora[@]}" -o "$WORK/$form" --recompute=$form
  check $form "j['recomputed'] == '$form' and j['mlp_tokens'] == 512"
  same $form
done
held lora240 240 0 "${lora[@]}" -o "$WORK/lora240"
check lora240 "j['recomputed'] != 'none' or j['spilled_layers'] > 0"
same lora240
for spill in never auto; do
  limit=$(least "${lora[@]}" --spill $spill -o "$WORK/$spill")
  held $spill "$limit" 0 "${lora[@]}" --spill $spill -o "$WORK/$spill"
  check $spill "j['recomputed'] != 'none' and (j['spilled_layers'] > 0) == ('$spill' == 'auto')"
  same $spill
done
# Gradients that are rounded at random are rounded by row.
for limit in 500 260 "$(least "${edge[@]}" --spill never -o "$WORK/edge")"; do
  held edge "$limit" 0 "${edge[@]}" --spill never -o "$WORK/edge$limit"
  check edge "j['recomputed'] == 'none' if $limit == 500 else j['recomputed'] != 'none' or $limit == 260"
  cmp "$WORK/edge$limit/edge.safetensors" "$WORK/edge500/edge.safetensors" ||
    fail "edge within $limit MiB: other bits"
done
run 1 form "${tune[@]}" -o "$WORK/form" --recompute=half
says form "layer or mlp"
finish
