#!/usr/bin/env bash
# merge and export keep --memory: a run stays within its limit, as the system counts it, or it is
# refused with the smallest that works; whatever the limit, the same bytes are written.
set -uo pipefail
. "$(dirname "$0")/lib.sh"
packed=$WORK/packed
run 0 packed random-base --shape smollm2-135m --bits 4 --tokenizer models/hearth-10m -o "$packed"
python3 -c 'import json
print(json.dumps({"text": "the of and a to in is " * 9}))' >"$WORK/data.jsonl"
for method in lora edge; do
  run 0 $method tune "$packed" --data "$WORK/data.jsonl" --method $method --rank 8 --max-steps 1 \
    --batch-size 1 --grad-accum 1 --val-fraction 0 --no-eval-at-start --max-seq-len 64 \
    -o "$WORK/$method" --json --quiet
done

# held NAME MOST_MIB OUT ARGS...: under the smallest limit that the refusal names, which is at most
# MOST_MIB; OUT has the bytes of a run without a limit.
held() {
  run 3 "$1.refused" "${@:4}" -o "$WORK/$3" --memory 1MiB
  [ ! -e "$WORK/$3" ] || fail "$1: a refused run wrote something"
  mkdir "$WORK/free"
  run 0 "$1.free" "${@:4}" -o "$WORK/free/$3" --json --quiet  # (a GGUF file holds its name)
  python3 - "$WORK/$1" "$2" "$WORK/$3" "$EDGEWISE" "${@:4}" <<'EOP' || fail "$1"
import json, os, re, subprocess, sys
name, most, out = sys.argv[1], int(sys.argv[2]), sys.argv[3]
least = int(re.search(r"works is --memory (\d+)MiB", open(name + ".refused.err").read()).group(1))
with open(name + ".out", "w") as f:
    process = subprocess.Popen(
        sys.argv[4:] + ["-o", out, "--memory", f"{least}MiB", "--json", "--quiet"], stdout=f)
    _, status, usage = os.wait4(process.pid, 0)
if os.waitstatus_to_exitcode(status):
    sys.exit(f"exit code {os.waitstatus_to_exitcode(status)} under {least} MiB")
peak = usage.ru_maxrss / 1024
want = json.load(open(name + ".out"))["predicted_peak_bytes"] / 2**20
print(f"{name}: limit {least}, predicted {want:.1f}, measured {peak:.1f} MiB")
sys.exit(0 if peak <= least <= most and peak <= want else "outside")
EOP
  diff -r "$WORK/free/$3" "$WORK/$3" >/dev/null || fail "$1: other bytes under a limit"
  rm -rf "$WORK/free"
}

held dense 120 dense export "$packed" --to hf --dtype bf16
held copy 60 copy export "$WORK/dense" --to hf
held merge 100 merged merge "$WORK/dense" --adapter "$WORK/lora"
held packed_merge 160 packed_merged merge "$packed" --adapter "$WORK/lora" --dtype bf16
held gguf 160 f16.gguf export "$WORK/lora" --to gguf
held exit_gguf 220 exit.gguf export "$WORK/edge" --to gguf --gguf-type q8_0
held exit 160 exit export "$WORK/edge" --to hf --dtype bf16
run 3 peft export "$WORK/lora" --to peft -o "$WORK/peft" --memory 1MiB
run 0 peft export "$WORK/lora" --to peft -o "$WORK/peft" --memory 200MiB
# What --overwrite is to replace stays until the new is complete, and nothing else is left behind.
sums() { (cd "$WORK" && find "$1"* -type f -exec md5sum {} + | sort); }
for what in "edge --to hf --exit all" "edge --to peft --exit all" "lora --to peft" \
  "packed --to hf" "lora --to hf --dtype bf16"; do
  run 0 kept export "$WORK/"$what -o "$WORK/kept/" --quiet
  before=$(sums kept)
  run 3 again export "$WORK/"$what -o "$WORK/kept/" --overwrite --memory 1MiB
  [ "$(sums kept)" = "$before" ] || fail "$what: a refused run changed what was there"
  run 0 over export "$WORK/"$what -o "$WORK/kept" --overwrite --json --quiet
  check over "j['output'] == '$WORK/kept'"
  [ "$(sums kept)" = "$before" ] || fail "$what: written over, it is another"
  run 1 there export "$WORK/"$what -o "$WORK/kept"
  rm -r "$WORK/kept"
done
run 1 nosize export "$WORK/lora" --to peft -o "$WORK/nothing" --memory lots
finish
