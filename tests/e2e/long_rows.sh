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
for form in 600:none 400:mlp 240:layer 130:layer; do
  limit=${form%:*}
  held lora$limit $limit 0 "${lora[@]}" -o "$WORK/lora$limit"
  check lora$limit "j['recomputed'] == '${form#*:}'"
  cmp "$WORK/lora$limit/adapter_model.safetensors" "$WORK/lora600/adapter_model.safetensors" ||
    fail "lora within $limit MiB: other bits"
done
check lora130 "j['mlp_tokens'] == 256 and j['spilled_layers'] > 0"
held whole 400 0 "${lora[@]}" -o "$WORK/whole" --recompute
check whole "j['recomputed'] == 'layer'"
cmp "$WORK/whole/adapter_model.safetensors" "$WORK/lora600/adapter_model.safetensors" ||
  fail "lora --recompute: other bits"
# Gradients that are rounded at random are rounded by row.
for limit in 500 260 170; do
  held edge$limit $limit 0 "${edge[@]}" -o "$WORK/edge$limit"
  cmp "$WORK/edge$limit/edge.safetensors" "$WORK/edge500/edge.safetensors" ||
    fail "edge within $limit MiB: other bits"
done
check edge500 "j['recomputed'] == 'none'"
check edge170 "j['recomputed'] != 'none'"
run 1 form "${tune[@]}" -o "$WORK/form" --recompute=half
says form "layer or mlp"
finish
