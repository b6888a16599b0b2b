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

finish() {
  echo "$failures failures"
  [ "$failures" = 0 ]
}
