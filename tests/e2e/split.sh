#!/usr/bin/env bash
# Micro-batches that are cut between documents: a limit that is refused otherwise is kept, the result
# depends on how they are cut and on nothing else, and what goes on after a kill keeps the cut.
set -uo pipefail
. "$(dirname "$0")/lib.sh"
model=$WORK/base
make_base "$model"
make_words "$WORK/data.jsonl" 16 2
tune=(tune "$model" --data "$WORK/data.jsonl" --max-steps 3 --batch-size 8 --grad-accum 1
  --val-fraction 0.2 --no-eval-at-start --max-seq-len 128 --report-samples 0 --json --quiet)

for method in lora edge; do
  options=(--method $method --rank 8) result=adapter_model.safetensors
  if [ $method = edge ]; then
    options=(--method edge) result=edge.safetensors
  fi
  whole=$(least "${options[@]}" --split never -o "$WORK/never")
  limit=$(((whole + $(least "${options[@]}" -o "$WORK/$method")) / 2))
  run 3 never "${tune[@]}" -o "$WORK/never" --memory ${limit}MiB "${options[@]}" --split never
  says never "--split auto"
  held $method $limit 0 -o "$WORK/$method" "${options[@]}"
  check $method "0 < j['split_tokens'] < 968"
  cut=$(json $method "j['split_tokens']")
  grep -q "\"split_tokens\": *$cut" "$WORK/$method/edgewise.json" || fail "$method: not recorded"
  # The same bits whatever the limit and the threads.
  held $method-400 400 0 -o "$WORK/$method-400" "${options[@]}" --split "$cut" --threads 1
  cmp "$WORK/$method/$result" "$WORK/$method-400/$result" || fail "$method: limits differ"
  # And where it was killed and goes on with more memory, or would with less.
  killed "$WORK/$method-killed" "${options[@]}" --memory ${limit}MiB
  run 3 less "${tune[@]}" -o "$WORK/$method-killed" "${options[@]}" --memory 60MiB --resume
  says less "cuts its micro-batches to $cut tokens, which has to stay"
  run 1 other "${tune[@]}" -o "$WORK/$method-killed" "${options[@]}" --resume --split never
  says other "cuts its micro-batches to $cut tokens"
  held $method-killed 400 0 -o "$WORK/$method-killed" "${options[@]}" --resume
  check $method-killed "j['resumed_from'] > 0 and j['split_tokens'] == $cut"
  cmp "$WORK/$method/$result" "$WORK/$method-killed/$result" || fail "$method: resumed differs"
done
# A run that does not cut goes on as it is.
run 0 whole "${tune[@]}" -o "$WORK/whole" --method lora --rank 8
check whole "j['split_tokens'] == 0"
run 3 still "${tune[@]}" -o "$WORK/whole" --method lora --rank 8 --memory 60MiB --resume
says still "does not cut its micro-batches, which has to stay"
# The limit that a refusal states for the longest document works.
run 3 document "${tune[@]}" -o "$WORK/document" --method lora --rank 8 --memory 40MiB
says document "the longest document has"
limit=$(least -o "$WORK/document" --method lora --rank 8)
held document "$limit" 0 -o "$WORK/document" --method lora --rank 8
run 1 words "${tune[@]}" -o "$WORK/words" --method lora --split some
says words "--split some"
finish
