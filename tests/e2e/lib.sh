# Helpers of the end-to-end tests. Sourced; expects EDGEWISE (the program) and WORK (an empty
# folder). Numbers are compared and JSON is read with python3's standard library.

golden=${EDGEWISE_GOLDEN:-../shared/golden}
data=${EDGEWISE_DATA:-../shared/data}
failures=0

# CTest counts 77 as skipped.
need_dir() {
  if [ ! -d "$1" ]; then
    echo "SKIP: no folder $1 (set EDGEWISE_GOLDEN/EDGEWISE_DATA)"
    exit 77
  fi
}

fail() {
  echo "FAIL: $*"
  failures=$((failures + 1))
}

# run CODE NAME ARGS...: runs the program; stdout to $WORK/NAME.out, stderr to $WORK/NAME.err.
run() {
  local want=$1 name=$2 got=0
  shift 2
  "$EDGEWISE" "$@" >"$WORK/$name.out" 2>"$WORK/$name.err" || got=$?
  if [ "$got" != "$want" ]; then
    fail "$name: exit code $got, expected $want: edgewise $*"
    tail -5 "$WORK/$name.err"
    return 1
  fi
}

# json NAME EXPRESSION: the value of a Python expression over `j`, the JSON on NAME's stdout.
json() {
  python3 -c 'import json, math, sys
j = json.load(open(sys.argv[1]))
v = eval(sys.argv[2])
print(v if isinstance(v, str) else json.dumps(v))' "$WORK/$1.out" "$2"
}

# check NAME EXPRESSION: the expression over `j` has to be true.
check() {
  [ "$(json "$1" "bool($2)" 2>&1)" = true ] || {
    fail "$1: not true: $2"
    head -c 600 "$WORK/$1.out"
    echo
  }
}

# says NAME TEXT: stderr has to contain the text.
says() {
  grep -qF -- "$2" "$WORK/$1.err" || {
    fail "$1: stderr does not say '$2'"
    tail -3 "$WORK/$1.err"
  }
}

# make_base DIRECTORY: smollm2-135m's shape in 4 bits with random weights.
make_base() {
  run 0 base random-base --shape smollm2-135m --bits 4 --tokenizer models/hearth-10m -o "$1"
}

# make_words FILE ROWS SEED: rows of 120 random words.
make_words() {
  python3 - "$2" "$3" >"$1" <<'EOP'
import json, random, sys
draw = random.Random(int(sys.argv[2]))
for _ in range(int(sys.argv[1])):
    print(json.dumps({"text": " ".join(draw.choice("the of and a to in is".split())
                                       for _ in range(120))}))
EOP
}

# held NAME LIMIT_MIB DATA_MIB ARGS...: runs `edgewise "${tune[@]}" ARGS` within the limit, under
# RLIMIT_DATA where that is not 0. Resident memory has to stay within the limit and what was predicted,
# which must not be much more. A run whose name begins with "tight" may be refused.
held() {
  python3 - "$WORK/$1.out" "$2" "$3" "$EDGEWISE" "${tune[@]}" "${@:4}" <<'EOP' || fail "$1"
import json, os, resource, subprocess, sys
out, limit, data = sys.argv[1], int(sys.argv[2]) << 20, int(sys.argv[3]) << 20
def enforce():
    if data:
        resource.setrlimit(resource.RLIMIT_DATA, (data, data))
with open(out, "w") as f:
    process = subprocess.Popen(sys.argv[4:] + ["--memory", f"{sys.argv[2]}MiB"], stdout=f,
                               preexec_fn=enforce)
    _, status, usage = os.wait4(process.pid, 0)
code = os.waitstatus_to_exitcode(status)
if code == 3 and "/tight" in out:
    sys.exit(0)
if code:
    sys.exit(f"exit code {code}")
peak = usage.ru_maxrss * 1024
result = json.load(open(out))
want, cut = result["predicted_peak_bytes"], result["split_tokens"]
print(f"limit {limit >> 20}, predicted {want / 2**20:.1f}, measured {peak / 2**20:.1f} MiB" +
      (f", cut to {cut}" if cut else ""))
# The rest (code of every phase, the allocator) is bounded by a few MiB.
sys.exit(0 if peak <= limit and peak <= want <= 1.05 * peak + (3 << 20) else "outside")
EOP
}

# least ARGS...: prints the smallest limit (MiB) that the refusal of `edgewise "${tune[@]}" ARGS` states.
# What fits differs by a few MiB from machine to machine, which limits of tests have to follow.
least() {
  "$EDGEWISE" "${tune[@]}" "$@" --memory 40MiB --overwrite --dry-run 2>&1 |
    grep -o -- '--memory [0-9]*MiB' | head -1 | grep -o '[0-9]*'
}

# killed DIR ARGS...: tunes in DIR and is killed when the first step is saved.
killed() {
  "$EDGEWISE" "${tune[@]}" -o "$1" --save-every 1 "${@:2}" >/dev/null 2>&1 &
  local pid=$!
  while [ ! -e "$1/checkpoints/checkpoint-000001" ] && kill -0 $pid 2>/dev/null; do
    sleep 0.02
  done
  kill -KILL $pid 2>/dev/null
  wait $pid 2>/dev/null
}

finish() {
  echo "$failures failures"
  [ "$failures" = 0 ]
}
