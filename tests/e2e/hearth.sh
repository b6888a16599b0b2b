#!/usr/bin/env bash
# A real pretrained model against what transformers and llama.cpp say about it.
set -uo pipefail
. "$(dirname "$0")/lib.sh"
need_dir "$golden/hearth"
need_dir "$data/models/hearth-10m"
model=$data/models/hearth-10m

# expected SET PROTOCOL KEY VALUE FIELD: a field of the matching entry of perplexity.json.
expected() {
  python3 -c 'import json, sys
path, name, protocol, key, value, field = sys.argv[1:]
for r in json.load(open(path))[name]["results"]:
    if r["protocol"] == protocol and r.get(key) == int(value):
        print(repr(r[field]))' "$golden/hearth/perplexity.json" "$@"
}

text=$data/datasets/hearth-valid/valid.txt
for ctx in 256 512; do
  run 0 fixed$ctx eval "$model" --data "$text" --protocol fixed --ctx $ctx --limit-tokens 60000 --json &&
    check fixed$ctx "abs(j['perplexity'] / $(expected hearth-valid fixed ctx $ctx perplexity) - 1) < 1e-3"
done
run 0 llama eval "$model" --data "$text" --protocol llama.cpp --ctx 512 --limit-tokens 60000 --json &&
  check llama "j['tokens'] == 29835 and abs(j['perplexity'] / $(expected hearth-valid llama.cpp ctx 512 perplexity) - 1) < 1e-3"
run 0 rolling eval "$model" --data "$data/datasets/hearth-valid/valid.jsonl" --protocol lm-eval \
  --limit 40 --json &&
  check rolling "j['words'] == 24143 and abs(j['perplexity'] / $(expected hearth-valid lm-eval documents 40 word_perplexity) - 1) < 1e-3"

for type in Q8_0 Q4_0 Q4_K_M; do
  want=$(python3 -c 'import json, sys
print(json.load(open(sys.argv[1]))["perplexity"][sys.argv[2] + " hearth-valid"]["ppl"])' \
    "$golden/hearth/llama_cpp.json" $type)
  run 0 gguf_$type eval "$model/gguf/hearth-10m-$type.gguf" --data "$text" --protocol llama.cpp \
    --ctx 512 --chunks 60 --json && check gguf_$type "abs(j['perplexity'] / $want - 1) < 0.01"
done

# Greedy text of every prompt, to the last character.
python3 - "$EDGEWISE" "$model" "$golden/hearth/prompts.json" <<'EOF' || fail "greedy texts differ"
import json, subprocess, sys
program, model, path = sys.argv[1:]
bad = 0
for case in json.load(open(path)):
    out = json.loads(subprocess.run(
        [program, "generate", model, "--prompt", case["prompt"], "--max-tokens", "48",
         "--temperature", "0", "--show-special", "--json"],
        check=True, capture_output=True).stdout)
    if out["text"] != case["greedy"]:
        bad += 1
        print("prompt", repr(case["prompt"]), "gave", repr(out["text"]), "expected",
              repr(case["greedy"]))
sys.exit(bad > 0)
EOF
finish
