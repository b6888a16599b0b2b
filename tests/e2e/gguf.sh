#!/usr/bin/env bash
# GGUF files as they are: perplexities of llama.cpp with its own quantised files, memory of the file's
# size, tuning on top, and the way out as a Hugging Face directory.
set -uo pipefail
. "$(dirname "$0")/lib.sh"
gguf=$data/models/hearth-10m/gguf
valid=$data/datasets/hearth-valid/valid.txt
need_dir "$gguf"
need_dir "$golden/hearth"

for q in Q4_0 Q4_K_M Q8_0; do
  run 0 "keep_$q" eval "$gguf/hearth-10m-$q.gguf" --keep-quant --data "$valid" \
    --protocol llama.cpp --ctx 512 --chunks 60 --json --quiet
  want=$(python3 -c "import json, sys
print(json.load(open(sys.argv[1]))['perplexity'][sys.argv[2] + ' hearth-valid']['ppl'])" \
    "$golden/hearth/llama_cpp.json" $q)
  echo "$q: $(json "keep_$q" "j['perplexity']"), llama.cpp $want"
  check "keep_$q" "abs(j['perplexity'] / $want - 1) < 0.01"
done

# Memory: the blocks, not floats of them (10.5 million weights: 42 MB in fp32).
peak() {
  python3 - "$EDGEWISE" "$@" <<'PY'
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
PY
}
ask=(generate "$gguf/hearth-10m-Q4_0.gguf" --prompt "Once upon a time" --max-tokens 8 --temperature 0
  --threads 1)
kept=$(peak "${ask[@]}" --keep-quant)
floats=$(peak "${ask[@]}")
echo "peak KiB: $kept with the file's blocks, $floats with floats"
[ $((floats - kept)) -gt 24000 ] || fail "keeping the blocks saves only $((floats - kept)) KiB"

# Tuning on the file, and the adapter on it.
python3 - "$WORK" <<'PY'
import json, sys
with open(sys.argv[1] + "/train.jsonl", "w") as f:
    f.writelines(json.dumps({"text": "Tom has a red hat and a blue hat. " * 6}) + "\n"
                 for _ in range(40))
PY
run 0 before eval "$gguf/hearth-10m-Q4_0.gguf" --keep-quant --data "$WORK/train.jsonl" --json --quiet
for method in edge lora; do
  run 0 tune tune "$gguf/hearth-10m-Q4_0.gguf" --keep-quant --data "$WORK/train.jsonl" \
    --method $method --max-steps 12 --batch-size 2 --lora-rank 4 --learning-rate 3e-3 \
    --max-seq-len 64 -o "$WORK/$method" --json --quiet
  run 0 $method eval "$gguf/hearth-10m-Q4_0.gguf" --keep-quant --adapter "$WORK/$method" \
    --data "$WORK/train.jsonl" --json --quiet
  check $method "j['loss'] < 0.6 * $(json before "j['loss']")"
done

# A memory limit is kept by refusing: these weights are held as a whole.
run 3 refused generate "$gguf/hearth-10m-Q4_0.gguf" --keep-quant --memory 10MiB --prompt Once \
  --max-tokens 4 --json --quiet
run 0 fits generate "$gguf/hearth-10m-Q4_0.gguf" --memory 200MiB --prompt Once --max-tokens 4 \
  --json --quiet

# Tuning computes activations again before it is refused, and learns the same bits.
python3 - "$WORK" <<'PY'
import json, sys
with open(sys.argv[1] + "/long.jsonl", "w") as f:
    f.writelines(json.dumps({"text": "Tom has a red hat and a blue hat. " * 24}) + "\n"
                 for _ in range(8))
PY
for method in edge lora; do
  tune=(tune "$gguf/hearth-10m-Q4_0.gguf" --keep-quant --data "$WORK/long.jsonl" --method $method
    $([ $method = edge ] && echo --exits 1) --max-steps 2 --batch-size 8 --grad-accum 1 --lora-rank 4
    --max-seq-len 256 --val-fraction 0 --no-eval-at-start --split never --threads 2 -o "$WORK/kept"
    --json --quiet)
  run 0 plenty "${tune[@]}" --overwrite --memory 400MiB
  run 0 less "${tune[@]}" --overwrite --memory "$(least)MiB"
  check plenty "not j['recompute']"
  check less "j['recompute'] and j['train_loss'] == $(json plenty "j['train_loss']") and
    j['peak_rss_bytes'] <= j['predicted_peak_bytes'] <= j['memory_limit_bytes']"
done

# Out again: the same tokens and the same loss.
run 0 export export "$gguf/hearth-10m-Q4_K_M.gguf" --to hf -o "$WORK/dense"
run 0 from_gguf eval "$gguf/hearth-10m-Q4_K_M.gguf" --data "$valid" --protocol fixed --chunks 4 \
  --json --quiet
run 0 from_hf eval "$WORK/dense" --data "$valid" --protocol fixed --chunks 4 --json --quiet
python3 - "$(json from_gguf "j['nll']")" "$(json from_hf "j['nll']")" <<'PY' ||
import sys
a, b = map(float, sys.argv[1:])
sys.exit(abs(a - b) > 1e-6)
PY
  fail "the export has another loss"
head -c 20000 "$valid" >"$WORK/text.txt"
run 0 ids_gguf tokenize "$gguf/hearth-10m-Q4_K_M.gguf" --file "$WORK/text.txt" --json
run 0 ids_hf tokenize "$WORK/dense" --file "$WORK/text.txt" --json
[ "$(json ids_gguf "j['ids']")" = "$(json ids_hf "j['ids']")" ] || fail "other tokens"
for method in edge lora; do
  run 0 merge merge "$gguf/hearth-10m-Q4_0.gguf" --adapter "$WORK/$method" -o "$WORK/merged-$method"
  run 0 merged eval "$WORK/merged-$method" --data "$WORK/train.jsonl" --json --quiet
  check merged "abs(j['loss'] - $(json $method "j['loss']")) < 0.02"
done
finish
