#!/usr/bin/env python3
"""What models learn of the household's commands: one row of a table for each.

Every model is tuned with the same data, steps and seed as in ./quickstart (LoRA of rank 16 on all
linears), and asked for combinations that were never trained, before and after.

usage: household_table.py EDGEWISE WORKDIR NAME=MODEL... [--wrap COMMAND]
"""

import argparse
import json
import pathlib
import shlex
import subprocess
import sys

HEADER = ["model", "layers", "weights", "file MB", "right before", "right after", "validation loss",
          "tuning s", "peak MiB"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("edgewise")
    parser.add_argument("workdir", type=pathlib.Path)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--learning-rate", default="4e-3")
    parser.add_argument("--wrap", default="", help="a command to run every edgewise under")
    args = parser.parse_args()
    data = args.workdir / "data"
    root = pathlib.Path(__file__).resolve().parent.parent
    subprocess.run([sys.executable, root / "examples/household/make_data.py", data], check=True)

    def run(*command):
        out = subprocess.run(shlex.split(args.wrap) + [args.edgewise, *map(str, command), "--json",
                                                       "--quiet"],
                             stdout=subprocess.PIPE, text=True, check=False)
        result = json.loads(out.stdout)
        if "error" in result:
            raise SystemExit(f"{' '.join(map(str, command))}: {result['error']['message']}")
        return result

    def right(model, *more):
        return run("eval", model, "--data", data / "test.jsonl", "--task", "exact-match",
                   *more)["accuracy"]

    print("| " + " | ".join(HEADER) + " |\n" + "|---" * len(HEADER) + "|", flush=True)
    for named in args.models:
        name, _, model = named.rpartition("=")
        run_dir = args.workdir / (name or pathlib.Path(model).name).replace("/", "-").replace(" ", "-")
        files = [p for p in ([pathlib.Path(model)] if pathlib.Path(model).is_file()
                             else pathlib.Path(model).iterdir())
                 if p.suffix in (".safetensors", ".gguf")]
        before = right(model)
        tuned = run("tune", model, "--data", data, "--method", "lora", "--epochs", 2, "--batch-size",
                    16, "--grad-accum", 1, "--learning-rate", args.learning_rate, "--max-seq-len",
                    64, "--eval-every", 75, "--report-samples", 0, "--overwrite", "-o", run_dir)
        after = right(model, "--adapter", run_dir)
        row = [name or model, run("inspect", model)["config"]["layers"],
               f"{tuned['base_parameters'] / 1e6:.2f} M",
               f"{sum(p.stat().st_size for p in files) / 1e6:.1f}", f"{before:.1%}", f"{after:.1%}",
               f"{tuned['best_valid_loss']:.4f}", f"{tuned['seconds']:.1f}",
               f"{tuned['peak_rss_bytes'] / 2**20:.0f}"]
        print("| " + " | ".join(map(str, row)) + " |", flush=True)


if __name__ == "__main__":
    main()
