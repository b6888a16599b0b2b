#!/usr/bin/env bash
# The command line itself: help, exit codes, one JSON object on stdout, config files. No data needed.
set -uo pipefail
. "$(dirname "$0")/lib.sh"

run 0 help --help
grep -q generate "$WORK/help.out" || fail "help does not list the commands"
run 0 version --version
run 0 help_eval help eval
grep -q protocol "$WORK/help_eval.out" || fail "help eval does not list its options"
# Help fits a terminal, and the many options of tune stand under headings.
for command in "" tune eval generate chat merge export profile compress plan device report inspect \
  tokenize bench; do
  run 0 "help_$command" help $command
  long=$(awk 'length($0) > 80' "$WORK/help_$command.out" | head -3)
  [ -z "$long" ] || fail "help $command has lines of more than 80 columns: $long"
done
for command in help completion man; do
  run 0 "help_$command" help $command
done
for words in "help tune" "man tune" "completion bash"; do
  "$EDGEWISE" $words >/dev/full 2>"$WORK/full.err"
  code=$?
  [ $code = 5 ] || fail "$words to a full disk: exit code $code"
done
for group in "Data and run:" "What is trained:" "Learning:" "Every command:"; do
  grep -q "^$group" "$WORK/help_tune.out" || fail "help tune has no group '$group'"
done
run 1 nothing
run 1 command tokenise x && says command "did you mean tokenize?"
run 1 flag eval x --protocl fixed && says flag "did you mean --protocol?"
run 1 extra tokenize a b --text x && says extra "unexpected argument 'b'"
run 1 value eval x --ctx lots && says value "'lots' is not a number" && says value "eval --help"
run 1 missing generate && says missing "--prompt"
run 1 isa generate "$WORK" --prompt x --isa sse9 && says isa "sse9"
# A limit that is none would be a promise that is not kept.
for command in "tune m" "generate m" "chat m" "eval m" "plan m" "profile m" "compress m" "bench tune"; do
  for size in 0 "" 0.1 -1 nan 2XB; do
    run 1 size $command m --memory "$size" && says size "--memory"
  done
done
run 1 cache_limit tune m --cache-limit 0 && says cache_limit "--cache-limit"
run 2 absent tokenize "$WORK/nothing-here" --text x && says absent "nothing-here"

# MODEL may be named as an option, as in other programs.
run 2 model_option tokenize --model "$WORK/nothing-here" --text x && says model_option "nothing-here"

run 1 json_error eval --json && check json_error "j['error']['code'] == 1 and j['error']['message']"
run 1 json_command bogus --json && check json_command "'bogus' in j['error']['message']"
[ "$(wc -l <"$WORK/json_error.out")" = 1 ] || fail "more than one line of JSON"

# Options from a file: unknown keys, wrong values and nesting are errors that name the line.
printf 'text: hello\nno_special: true\n' >"$WORK/good.yaml"
printf 'text: hello\ntxet: hello\n' >"$WORK/unknown.yaml"
printf 'max-tokens: many\n' >"$WORK/value.yaml"
printf 'text:\n  deep: 1\n' >"$WORK/nested.yaml"
printf 'text: [unclosed\n' >"$WORK/broken.yaml"
python3 -c 'print("[" * 100000)' >"$WORK/deep.yaml"
run 2 good tokenize "$WORK/nothing" --config "$WORK/good.yaml" && says good "nothing"
run 2 unknown tokenize m --config "$WORK/unknown.yaml" && says unknown "unknown.yaml:2" &&
  says unknown "did you mean text?"
run 2 badvalue generate m --config "$WORK/value.yaml" && says badvalue "value.yaml:1"
run 2 nested tokenize m --config "$WORK/nested.yaml" && says nested "single value"
run 2 broken tokenize m --config "$WORK/broken.yaml" && says broken "broken.yaml"
run 2 deep tokenize m --config "$WORK/deep.yaml" && says deep "deep.yaml"
run 2 noconfig tokenize m --config "$WORK/none.yaml" && says noconfig "none.yaml"

# Completion and manual pages are made of the options that the program has.
for shell in bash zsh fish; do
  run 0 $shell completion $shell
  grep -q "report-samples" "$WORK/$shell.out" || fail "completion $shell lacks an option"
  if command -v $shell >/dev/null; then
    $shell -n "$WORK/$shell.out" || fail "$shell does not accept its completion"
  else
    echo "SKIP: no $shell to try its completion in"
  fi
done
run 1 csh completion csh
# complete WORDS...: what bash offers for the last word.
complete_words() {
  bash --norc -c '. "$1"; shift; COMP_WORDS=(edgewise "$@") COMP_CWORD=$#; _edgewise;
    printf "%s\n" "${COMPREPLY[@]}"' _ "$WORK/bash.out" "$@"
}
[ "$(complete_words repo)" = report ] || fail "bash does not complete a command"
complete_words tune --learn | grep -qx -- --learning-rate || fail "bash does not complete an option"
complete_words tune m --method la | grep -qx last-n || fail "bash does not complete a value"
[ -z "$(complete_words tune m --data x)" ] || fail "bash completes a file name with words"
run 0 man man tune
grep -q '^.TH EDGEWISE-TUNE 1' "$WORK/man.out" || fail "man tune has no title"
run 1 man_none man nothing && says man_none "nothing"
run 0 man_all man -o "$WORK/man1"
for name in edgewise edgewise-tune edgewise-report edgewise-eval; do
  [ -s "$WORK/man1/$name.1" ] || fail "no page $name.1"
done
if command -v groff >/dev/null; then
  for page in "$WORK"/man1/*.1; do
    groff -man -ww -Tutf8 -z "$page" 2>"$WORK/groff.err"
    [ ! -s "$WORK/groff.err" ] || { fail "$page: $(head -2 "$WORK/groff.err")"; }
  done
else
  echo "SKIP: no groff to check the manual pages with"
fi

# An option that says nothing about what is measured is not taken silently.
for args in "kernels --bits 4" "kernels --method lora" "tune --vote 2" "tune --cache-type int8" \
  "tune --steps 3" "tune --method lora --exits 2" "tune --method lora --last-layers 3" \
  "prefill --rank 8" "prefill --vote 2" "decode --rank 8" "decode --method edge" \
  "decode --filter x" "decode --sparsity 0.5" "decode --bits 4 --dtype bf16"; do
  run 1 scope bench $args --shape smollm2-135m && says scope " is for "
done
run 1 scope bench decode --base "$WORK/none" --bits 4 && says scope "--bits is for"
run 1 scope bench tune --method lora --shape smollm2-135m --tokens 1 && says scope "--tokens"

# What has nothing to save ends at the first signal.
"$EDGEWISE" bench kernels --shape llama-7b >/dev/null 2>&1 &
pid=$!
sleep 0.5
kill -TERM $pid
wait $pid
code=$?
[ $code = 143 ] || fail "SIGTERM to bench kernels: exit code $code, expected 143"

# What nobody reads or can hold does not end the work, and no file takes the place of a stream.
for stream in "2>/dev/full" "2>&-" "0<&- 1>&- 2>&-"; do
  bash -c '"$0" tokenize --text x '"$stream" "$EDGEWISE"
  code=$?
  [ $code = 1 ] || fail "wrong use with $stream: exit code $code"
done
bash -c '"$0" tokenize models/hearth-10m --text the --json 2>&-' "$EDGEWISE" >"$WORK/unheard.out" ||
  fail "a closed stderr is an error"
check unheard "len(j['ids']) > 0"
bash -c '"$0" tokenize models/hearth-10m --text the --json 1>&-' "$EDGEWISE" 2>/dev/null
code=$?
[ $code = 5 ] || fail "a closed stdout: exit code $code"
# A closed stdout is noticed, not a crash.
"$EDGEWISE" tokenize --help >/dev/full 2>/dev/null
code=$?
[ $code -lt 128 ] || fail "a full stdout ended in a signal ($code)"
finish
