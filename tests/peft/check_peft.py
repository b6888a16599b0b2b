#!/usr/bin/env python3
"""Holds adapters against real PEFT, both ways.

1. edgewise tunes an adapter and exports it; PeftModel.from_pretrained loads it, and the
   log-probability of every token of random texts is the same in both programs.
2. PEFT makes adapters (all linears; rsLoRA; rank_pattern and alpha_pattern; two modules);
   edgewise loads each, and the log-probabilities are the same again.
3. The merged model that edgewise writes loads in transformers with the same log-probabilities.
4. Adaptive layer tuning: each exit as an adapter on the base cut to its layers, and as a model cut
   there, with a shared head and with one of its own.

Needs torch, transformers and peft. Without them in this interpreter, a virtual environment is made
(--venv, default build/peft-venv) and the script runs itself there.

usage: check_peft.py [--edgewise build/release/edgewise] [--venv DIR]
"""

import argparse
import json
import math
import os
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
PACKAGES = ["torch==2.9.1", "transformers==5.23.0", "peft==0.21.2"]
TEXTS, LENGTH = 4, 32
# fp32 on both sides: a log-probability of size 6 behind 4 layers of sums over 96 terms carries an
# error of about sqrt(4 * 96) * 2^-24 * 6 = 7e-6 in each program.
TOLERANCE = 2e-5


def run_in_venv(venv):
    python = venv / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
    os.execv(python, [str(python), *sys.argv, "--no-venv"])


class Checker:
    def __init__(self, program, work):
        self.program, self.work = program, work
        self.failures = 0

    def edgewise(self, *args):
        out = subprocess.run([self.program, *map(str, args), "--json", "--quiet"],
                             capture_output=True, text=True)
        if out.returncode != 0:
            raise SystemExit(f"edgewise {' '.join(map(str, args))}: {out.stdout}{out.stderr}")
        return json.loads(out.stdout)

    def compare(self, what, model, reference, adapter=None, options=()):
        """The log-probability of every token after the first, in edgewise and in torch."""
        import torch
        worst = 0.0
        path = self.work / "row.jsonl"
        for ids in self.texts:
            with torch.no_grad():
                logits = reference(input_ids=torch.tensor([ids])).logits[0]
            theirs = torch.log_softmax(logits.double(), -1)
            for at in range(1, len(ids)):
                # A row with one label: its loss is that token's.
                labels = [-100] * at + [ids[at]]
                path.write_text(json.dumps({"input_ids": ids[:at + 1], "labels": labels}) + "\n")
                args = ["eval", model, "--data", path, *options]
                ours = self.edgewise(*args, *(["--adapter", adapter] if adapter else []))["loss"]
                worst = max(worst, abs(ours + theirs[at - 1, ids[at]].item()))
        ok = worst < TOLERANCE and not math.isnan(worst)
        self.failures += not ok
        count = TEXTS * (LENGTH - 1)
        print(f"{'ok  ' if ok else 'FAIL'} {what}: {count} log-probabilities, largest difference "
              f"{worst:.1e}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--edgewise", default=str(ROOT / "build/release/edgewise"))
    parser.add_argument("--venv", type=pathlib.Path, default=ROOT / "build/peft-venv")
    parser.add_argument("--no-venv", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    try:
        import peft
        import torch
        import transformers
    except ImportError:
        if args.no_venv:
            raise
        run_in_venv(args.venv)

    print(f"torch {torch.__version__}, transformers {transformers.__version__}, "
          f"peft {peft.__version__}")
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as name:
        work = pathlib.Path(name)
        data, base = work / "data", work / "base"
        examples = ROOT / "examples/household"
        subprocess.run([sys.executable, examples / "make_data.py", data, "--rows", "200"],
                       check=True)
        subprocess.run([sys.executable, examples / "make_model.py", base, data / "train.jsonl"],
                       check=True)
        checker = Checker(args.edgewise, work)
        vocab = json.loads((base / "config.json").read_text())["vocab_size"]
        checker.texts = torch.randint(0, vocab, (TEXTS, LENGTH)).tolist()

        def load_base():
            return transformers.AutoModelForCausalLM.from_pretrained(
                base, dtype=torch.float32, attn_implementation="eager").eval()

        checker.compare("base model", base, load_base())

        # 1. ours -> PEFT
        steps = ["--data", data, "--max-steps", "10", "--lora-rank", "4", "--learning-rate", "5e-3",
                 "--max-seq-len", "64"]
        checker.edgewise("tune", base, "--method", "lora", *steps, "-o", work / "run")
        checker.edgewise("export", work / "run", "--to", "peft", "-o", work / "peft")
        for where in ["run", "peft"]:
            loaded = peft.PeftModel.from_pretrained(load_base(), work / where).eval()
            checker.compare(f"adapter of edgewise ({where}) in PEFT", base, loaded, work / where)
        keys = set(loaded.state_dict())
        stored = {k for k in peft.get_peft_model_state_dict(loaded)}
        print(f"     {len(stored)} adapter tensors of {len(keys)}")

        # 2. PEFT -> ours
        cases = {
            "all-linear": {"target_modules": "all-linear"},
            "rslora": {"target_modules": "all-linear", "use_rslora": True},
            "patterns": {"target_modules": ["q_proj", "v_proj", "down_proj"],
                         "rank_pattern": {"layers.1.self_attn.q_proj": 2},
                         "alpha_pattern": {"down_proj": 3}},
            "two modules": {"target_modules": ["q_proj", "v_proj"]},
        }
        for case, extra in cases.items():
            config = peft.LoraConfig(r=4, lora_alpha=6, task_type="CAUSAL_LM", **extra)
            model = peft.get_peft_model(load_base(), config).eval()
            for parameter_name, parameter in model.named_parameters():
                if "lora_" in parameter_name:
                    torch.nn.init.normal_(parameter, std=0.05)
            path = work / ("made-" + case.replace(" ", "-"))
            model.save_pretrained(path)
            checker.compare(f"adapter of PEFT ({case}) in edgewise", base, model, path)

        # 3. merged
        checker.edgewise("merge", base, "--adapter", work / "run", "-o", work / "merged")
        merged = transformers.AutoModelForCausalLM.from_pretrained(
            work / "merged", dtype=torch.float32, attn_implementation="eager").eval()
        checker.compare("merged model in transformers", base, merged, work / "run")
        transformers.AutoTokenizer.from_pretrained(work / "merged")

        # 4. exits; without validation data their votes have no temperatures
        steps[1] = data / "train.jsonl"
        for head in ["shared", "copy"]:
            run = work / f"edge-{head}"
            checker.edgewise("tune", base, "--method", "edge", *steps, "-o", run, "--exits", "2",
                             "--first-layer", "0", "--exit-schedule", "cyclic", "--exit-head", head,
                             "--val-fraction", "0")
            for form in ["peft", "hf"]:
                checker.edgewise("export", run, "--to", form, "--exit", "all", "--dtype", "fp32",
                                 "-o", work / f"{form}-{head}")
            for k, layers in enumerate([2, 4]):
                cut = transformers.AutoModelForCausalLM.from_pretrained(
                    base, dtype=torch.float32, attn_implementation="eager",
                    num_hidden_layers=layers).eval()
                loaded = peft.PeftModel.from_pretrained(cut, work / f"peft-{head}/exit-{k}").eval()
                whole = transformers.AutoModelForCausalLM.from_pretrained(
                    work / f"hf-{head}/exit-{k}", dtype=torch.float32,
                    attn_implementation="eager").eval()
                vote = ["--vote", f"single:{k}"]
                checker.compare(f"exit {k} ({head} head) in PEFT", run, loaded, options=vote)
                checker.compare(f"exit {k} ({head} head) in transformers", run, whole, options=vote)

    print(f"{checker.failures} failures")
    return 1 if checker.failures else 0


if __name__ == "__main__":
    sys.exit(main())
