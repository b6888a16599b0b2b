#!/usr/bin/env bash
# Adaptive layer tuning: exits and their vote in the run, eval of every exit and rule, generation of
# the vote, early stop, export of each exit as a model of its own.
set -uo pipefail
. "$(dirname "$0")/lib.sh"
model=$data/models/tinystories-656k
text=$data/datasets/tinystories/valid_0.8MB.txt
need_dir "$model"
head -c 60000 "$text" >"$WORK/train.txt"
head -c 90000 "$text" | tail -c 20000 >"$WORK/valid.txt"
tail -c 20000 "$text" | python3 -c 'import json, sys
for part in sys.stdin.read().split("\n\n"):
    if part.strip(): print(json.dumps({"text": part}))' >"$WORK/test.jsonl"

args=(tune "$model" --data "$WORK/train.txt" --valid-data "$WORK/valid.txt"
  --max-steps 12 --batch-size 1 --grad-accum 1 --max-seq-len 128 --learning-rate 2e-3 --rank 8
  --keep last --json --quiet)

# The default: one window, the upper half.
run 0 one "${args[@]}" -o "$WORK/one"
check one "len(j['exits']) == 1 and j['exits'][0]['adapted_from'] == 1 and j['vote']['rule'] == 'single:0'"
check one "j['valid_loss'] < j['start_valid_loss']"
grep -q '"method": "edge"' "$WORK/one/edgewise.json" || fail "edge is not the default method"
# An adapter to go on from is LoRA's business.
run 0 lora "${args[@]}" --method lora -o "$WORK/lora"
run 0 further "${args[@]}" --init-adapter "$WORK/lora" -o "$WORK/further"
grep -q '"method": "lora"' "$WORK/further/edgewise.json" || fail "--init-adapter is not tuned as LoRA"
run 1 both "${args[@]}" --method edge --init-adapter "$WORK/lora" -o "$WORK/both"

# Two exits of a frozen trunk that vote.
run 0 two "${args[@]}" --exits 2 --first-layer 0 --rate-per-window -o "$WORK/two"
check two "len(j['exits']) == 2 and set(j['vote']['rules']) >= {'single:0', 'single:1', 'mean',
  'max-prob', 'weighted', 'confident'} and len(j['vote']['temperatures']) == 2"
check two "j['vote']['gain_over_best_exit']['mean'] >= 0"
run 0 same "${args[@]}" --exits 2 --first-layer 0 --rate-per-window --threads 1 -o "$WORK/same"
cmp "$WORK/two/edge.safetensors" "$WORK/same/edge.safetensors" || fail "threads change the result"

# What another process is tuning, or an earlier run left, is not touched, the states included.
cp "$WORK/same/trunk-states.cache" "$WORK/states"
other=(--max-seq-len 64 --exits 2 --first-layer 0 -o "$WORK/same")
run 1 earlier "${args[@]}" "${other[@]}" && says earlier "earlier run"
exec 9>"$WORK/same/.lock"
flock 9
run 1 taken "${args[@]}" "${other[@]}" --overwrite && says taken "another process"
exec 9>&-
cmp "$WORK/states" "$WORK/same/trunk-states.cache" || fail "a refused run wrote into the directory"

run 0 eval eval "$WORK/two" --data "$WORK/test.jsonl" --json --quiet
check eval "len(j['exits']) == 2 and j['loss'] == j['vote']['rules'][j['vote']['rule']]['loss']"
# What stopping early costs, from all exits (no bound) down.
check eval "j['early_stop'][-1]['above'] is None and j['early_stop'][-1]['decided'] == [0, 1] and
  abs(j['early_stop'][-1]['loss'] - j['loss']) < 1e-5"
check eval "all(a['layers'] <= b['layers'] for a, b in zip(j['early_stop'], j['early_stop'][1:]))"
run 0 named eval "$WORK/two" --data "$WORK/test.jsonl" --vote mean --json --quiet
check named "j['vote']['rule'] == 'mean' and j['loss'] == j['vote']['rules']['mean']['loss']"
[ "$(json named "j['vote']['rules']['mean']['loss']")" = "$(json eval "j['vote']['rules']['mean']['loss']")" ] ||
  fail "the loss of a rule depends on the chosen rule"
run 1 bad eval "$WORK/two" --data "$WORK/test.jsonl" --vote loudest

generate=(--prompt "Once upon a time" --max-tokens 24 --temperature 0 --json --quiet)
run 0 vote generate "$WORK/two" "${generate[@]}"
run 0 early generate "$WORK/two" --vote mean --early-stop 0.5 "${generate[@]}"
check early "len(j['ids']) > 0 and abs(sum(j['decided']) - 1) < 1e-9"
# A bound that every token reaches leaves the lowest exit, one that none reaches the whole vote.
run 0 always generate "$WORK/two" --vote mean --early-stop 1e-9 "${generate[@]}"
run 0 lowest generate "$WORK/two" --vote single:0 "${generate[@]}"
run 0 never generate "$WORK/two" --vote mean --early-stop 1 "${generate[@]}"
run 0 voted generate "$WORK/two" --vote mean "${generate[@]}"
[ "$(json always "j['ids']")" = "$(json lowest "j['ids']")" ] || fail "stopping always is not the lowest exit"
[ "$(json never "j['ids']")" = "$(json voted "j['ids']")" ] || fail "stopping never is not the vote"
# Each exit as an ordinary model says what the exit says.
for k in 0 1; do
  run 0 hf$k export "$WORK/two" --to hf --exit $k --dtype fp32 -o "$WORK/hf$k" --json --quiet
  check hf$k "j['logit_error'] <= j['max_logit_error']"
  run 0 exit$k generate "$WORK/two" --vote single:$k "${generate[@]}"
  run 0 model$k generate "$WORK/hf$k" "${generate[@]}"
  [ "$(json exit$k "j['text']")" = "$(json model$k "j['text']")" ] || fail "exit $k is exported as another model"
done
# The same in a GGUF file; its own tokenizer gives the same ids.
for k in 0 1; do
  run 0 gguf$k export "$WORK/two" --to gguf --gguf-type f32 --exit $k -o "$WORK/exit$k.gguf" --json --quiet
  check gguf$k "j['logit_error'] <= j['max_logit_error']"
  run 0 file$k generate "$WORK/exit$k.gguf" "${generate[@]}"
  [ "$(json exit$k "j['text']")" = "$(json file$k "j['text']")" ] || fail "exit $k is another model as GGUF"
done
run 0 q8 export "$WORK/two" --to gguf --gguf-type q8_0 -o "$WORK/q8.gguf" --json --quiet
check q8 "0 < j['logit_error'] < 0.1 and j['bytes'] < $(json gguf1 "j['bytes']") / 3"
python3 - "$WORK/hf0/config.json" <<'PY' || fail "the export of the lower exit holds all layers"
import json, sys
sys.exit(json.load(open(sys.argv[1]))["num_hidden_layers"] != 1)
PY
run 0 peft export "$WORK/two" --to peft -o "$WORK/peft" --json --quiet
[ -e "$WORK/peft/adapter_config.json" ] || fail "no adapter was written"
# The released code's choices, but for what is named; every exit and schedule learns.
run 0 paper "${args[@]}" --paper-mode -o "$WORK/paper"
python3 - "$WORK/paper/edgewise.json" <<'PY' || fail "--paper-mode chooses something else"
import json, sys
o = json.load(open(sys.argv[1]))["options"]["method_options"]
sys.exit(not (len(o["exits"]) == 2 and o["head"] == "copy" and o["trunk"] == "frozen"
              and o["schedule"] == "sequential" and o["activation_bits"] == 8 and o["r"] == 8
              and o["lora_alpha"] == 16 and o["lora_dropout"] == 0.1 and not o["train_norm"]))
PY
check paper "j['valid_loss'] < j['start_valid_loss']"
run 1 paperlora "${args[@]}" --paper-mode --method lora -o "$WORK/paperlora"
for schedule in cyclic random adaptive; do
  run 0 $schedule "${args[@]}" --exits 2 --first-layer 0 --exit-schedule $schedule -o "$WORK/$schedule"
  check $schedule "j['valid_loss'] < j['start_valid_loss']"
done

# A run tuned on rounded activations is evaluated and used on them, unless told otherwise; so is one
# window on a cumulative trunk, an ordinary adapter, which leaves nothing of the run it overwrites.
for trunk in frozen cumulative; do
  run 0 rounded_$trunk "${args[@]}" --valid-data "$WORK/test.jsonl" --fake-quant 3 --trunk $trunk \
    --head-lora-rank 0 --overwrite -o "$WORK/rounded"
  evals=(eval "$WORK/rounded" --data "$WORK/test.jsonl" --max-seq-len 128 --json --quiet)
  run 0 with_$trunk "${evals[@]}"
  run 0 without_$trunk "${evals[@]}" --fake-quant 0
  check with_$trunk "abs(j['loss'] - $(json rounded_$trunk "j['valid_loss']")) < 0.01"
  check with_$trunk "abs(j['loss'] - $(json without_$trunk "j['loss']")) > 0.02"
  run 0 says_$trunk generate "$WORK/rounded" "${generate[@]}"
done

# Learning from the logits of the model itself, two windows a step; not resumed with another share.
distill=("${args[@]}" --exits 2 --first-layer 0 --exit-schedule cyclic --windows-per-step 2
  --distill "$model")
run 0 distill "${distill[@]}" --distill-weight 0.5 -o "$WORK/distill"
check distill "j['valid_loss'] < j['start_valid_loss']"
grep -q '"windows_per_step": 2' "$WORK/distill/edgewise.json" || fail "windows a step are not recorded"
run 1 share "${distill[@]}" --distill-weight 0.6 --resume -o "$WORK/distill"
run 2 stranger "${args[@]}" --distill "$data/models/hearth-10m" -o "$WORK/stranger"
says stranger "vocabulary"
run 0 whole "${args[@]}" --whole-head --head-skip 0 -o "$WORK/wholehead"
check whole "abs(j['valid_loss'] - $(json one "j['valid_loss']")) < 0.02"

# plan and bench tune take the method and the choices of tune for granted.
planned=(plan "$model" --device devices/edge-llm-accelerator.json --json --quiet)
run 0 planned "${planned[@]}"
run 0 choices "${planned[@]}" --method edge --exits 1 --first-layer 1 --rank 32 --head-lora-rank 32 \
  --backward integer
[ "$(json planned "(j['workload']['method'], j['predicted_peak_bytes'])")" = \
  "$(json choices "('edge', j['predicted_peak_bytes'])")" ] || fail "plan has other defaults than tune"
run 1 steps bench tune --shape smollm2-135m --steps 2
says steps "--method lora"

# Measured within a memory limit, on a base whose weights are read as they are needed.
run 0 base random-base --shape smollm2-135m --bits 4 --group 64 -o "$WORK/base" --quiet
bench=(bench tune --tokens 64 --documents 2 --epochs 2 --rank 4 --json --quiet)
run 0 limit "${bench[@]}" --base "$WORK/base" --memory 110MiB
check limit "j['method'] == 'edge' and j['peak_rss_bytes'] <= 110 << 20 and j['weight_budget'] < j['weight_bytes']"
run 3 tight "${bench[@]}" --base "$WORK/base" --memory 20MiB
check limit "j['average_bits'] == 4 and 'bits' not in j and 'dtype' not in j"
run 1 two "${bench[@]}" --base "$WORK/base" --shape smollm2-135m
run 1 nobase "${bench[@]}" --shape smollm2-135m --memory 1GiB
run 0 low export "$WORK/two" --to peft --exit 0 -o "$WORK/low" --json
check low "j['layers'] == 1" && says low "cut to 1 layers"
run 0 all export "$WORK/two" --to peft --exit all -o "$WORK/all" --json --quiet
for k in 0 1; do
  [ -e "$WORK/all/exit-$k/adapter_model.safetensors" ] || fail "exit $k is missing among all"
done
run 1 nothere export "$WORK/two" --to peft --exit 2 -o "$WORK/nothere"
run 1 allgguf export "$WORK/two" --to gguf --exit all -o "$WORK/all.gguf"
finish
