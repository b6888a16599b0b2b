#!/usr/bin/env bash
# A llama2.c model, converted, says what its card says it says.
set -uo pipefail
. "$(dirname "$0")/lib.sh"
model=$data/models/stories260K
need_dir "$model"
python3 tools/llama2c_to_gguf.py "$model/stories260K.bin" "$model/tok512.bin" "$WORK/s.gguf" ||
  fail "conversion"
run 0 story generate "$WORK/s.gguf" --prompt "" --max-tokens 256 --temperature 0 --json
python3 - "$model/stories260K.md" "$WORK/story.out" <<'EOF' || fail "the story differs from the card"
import json, sys
card = open(sys.argv[1], encoding="utf-8").read()
want = card.split("-t 0.0\n", 1)[1].split("\n```", 1)[0].strip()
got = json.load(open(sys.argv[2]))["text"].strip()
if got != want:
    print("expected", repr(want))
    print("got     ", repr(got))
    sys.exit(1)
EOF
finish
