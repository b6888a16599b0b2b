#!/usr/bin/env python3
"""Runs `edgewise tune` with several methods on several tasks and bases, and prints the tables of
docs/adaptation.md: held-out loss, task accuracy, processor time and memory, at equal steps and at
equal time.

Every run is one thread, so that its processor time does not depend on what else the machine does;
"equal time" gives a method as many steps as fit into the processor time of full-depth LoRA on the
same base at the given number of steps. Finished runs are kept in --state (JSON lines) and are not
run again, so the study can be stopped and continued; --tables prints what there is. Compressed
bases are made below --work when they are not there.

usage: adaptation_study.py --edgewise build/release/edgewise --model MODEL --data DATASETS \\
         --state study.jsonl --work FOLDER [--rows dense:lora ...] [--tasks ...] [--steps 120]
         [--seeds 3] [--budget SECONDS] [--wrap COMMAND] [--tables]
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

# Data below --data, options of tune, and how accuracy is measured ("" : loss only).
TASKS = {
    "style": (["tiny-shakespeare/input.txt"], ["--batch-size", "2", "--max-seq-len", "256"], ""),
    "intents": (["clinc150/data_full.json"],
                ["--batch-size", "32", "--val-fraction", "0.02", "--max-seq-len", "128"],
                "exact-match"),
    "text-to-SQL": (["wikisql-1k"], ["--batch-size", "4"], ""),
}

# Name -> options of compress (none: the model as it is).
BASES = {
    "dense": None,
    "4-bit": ["--policy", "uniform", "--bits", "4"],
    "sparse": ["--policy", "uniform", "--bits", "4", "--sparsity", "0.5"],
}
BASE_NAMES = {"dense": "dense", "4-bit": "4 bits", "sparse": "4 bits, 50% of the weights zero"}

# Name -> options of tune. The rates are the best of a few tried for each (docs); method edge's B
# factors learn at 8 times the rate named, which "one rate" takes away and "lora+" gives to LoRA.
METHODS = {
    "lora": ["--method", "lora", "--rank", "16", "--learning-rate", "6e-3"],
    "lora+": ["--method", "lora", "--rank", "16", "--lora-plus", "8", "--learning-rate", "3e-3"],
    "last-n": ["--method", "last-n", "--last-layers", "6", "--rank", "16", "--learning-rate",
               "6e-3"],
    "full": ["--method", "full", "--learning-rate", "1e-3"],
    "edge": ["--method", "edge", "--learning-rate", "3e-3"],
    "edge, upper half": ["--method", "edge", "--first-layer", "6", "--learning-rate", "3e-3"],
    "edge, one rate": ["--method", "edge", "--lora-plus", "1", "--learning-rate", "6e-3"],
    "edge, upper half, one rate": ["--method", "edge", "--first-layer", "6", "--lora-plus", "1",
                                   "--learning-rate", "6e-3"],
    "edge, rate 1.5e-3": ["--method", "edge", "--learning-rate", "1.5e-3"],
    "edge, upper half, rate 1.5e-3": ["--method", "edge", "--first-layer", "6", "--learning-rate",
                                      "1.5e-3"],
    "lora+, rate 1.5e-3": ["--method", "lora", "--rank", "16", "--lora-plus", "8",
                           "--learning-rate", "1.5e-3"],
    "edge, 2 exits that vote": ["--method", "edge", "--exits", "2", "--first-layer", "6",
                                "--rate-per-window", "--learning-rate", "3e-3"],
    "edge, cumulative": ["--method", "edge", "--trunk", "cumulative", "--windows", "rising",
                         "--exits", "2", "--first-layer", "6", "--window-steps", "1,3",
                         "--learning-rate", "3e-3"],
    "edge, 2 exits that vote, one rate": [
        "--method", "edge", "--exits", "2", "--first-layer", "6", "--rate-per-window",
        "--lora-plus", "1", "--learning-rate", "6e-3"],
    "edge, cumulative, one rate": [
        "--method", "edge", "--trunk", "cumulative", "--windows", "rising", "--exits", "2",
        "--first-layer", "6", "--window-steps", "1,3", "--lora-plus", "1", "--learning-rate",
        "6e-3"],
    "edge, exact backward": ["--method", "edge", "--backward", "exact", "--learning-rate", "3e-3"],
    "edge, exact trunk": ["--method", "edge", "--trunk-forward", "exact", "--learning-rate",
                          "3e-3"],
    "edge, whole head": ["--method", "edge", "--whole-head", "--learning-rate", "3e-3"],
    "edge, no block left out": ["--method", "edge", "--head-skip", "0", "--learning-rate", "3e-3"],
    "edge, full depth": ["--method", "edge", "--first-layer", "0", "--learning-rate", "3e-3"],
    "edge, no cache": ["--method", "edge", "--no-cache", "--learning-rate", "3e-3"],
    "edge, no LoRA on the head": ["--method", "edge", "--head-lora-rank", "0", "--learning-rate",
                                  "3e-3"],
}

ROWS = ["dense:lora", "dense:edge", "sparse:lora", "sparse:edge", "dense:edge, upper half",
        "sparse:edge, upper half", "dense:lora+", "sparse:lora+", "dense:edge, one rate",
        "sparse:edge, one rate", "4-bit:lora", "dense:last-n", "dense:full",
        "dense:edge, cumulative, one rate", "dense:edge, 2 exits that vote, one rate"]
EQUAL_TIME = ["dense:edge", "sparse:edge", "dense:edge, one rate", "sparse:edge, one rate"]


def base_path(args, base):
    """The model, or its compressed form (made once, calibrated on the general text)."""
    if BASES[base] is None:
        return args.model
    path = os.path.join(args.work, "base-" + base)
    if not os.path.exists(os.path.join(path, "config.json")):
        text = os.path.join(args.data, "hearth-valid", "valid.txt")
        call(args, ["compress", args.model, "--calibration", text, "-o", path, *BASES[base]])
    return path


def call(args, command):
    """JSON result and processor seconds of an edgewise command; ends the study when it fails."""
    command = [*args.wrap.split(), args.edgewise, *command, "--threads", "1", "--json", "--quiet"]
    before = os.times()
    done = subprocess.run(command, capture_output=True, text=True)
    after = os.times()
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return json.loads(done.stdout), (after.children_user + after.children_system
                                     - before.children_user - before.children_system)


def scored_rows(args, data):
    """The file with every tenth row of its test split: it is sorted by intent."""
    path = os.path.join(args.work, "scored.json")
    if not os.path.exists(path):
        with open(data, encoding="utf-8") as file:
            splits = json.load(file)
        splits["test"] = splits["test"][::10]
        with open(path, "w", encoding="utf-8") as file:
            json.dump(splits, file)
    return path


def run(args, task, row, steps, seed):
    base, method = row.split(":")
    files, options, accuracy = TASKS[task]
    model, data = base_path(args, base), os.path.join(args.data, *files)
    out = tempfile.mkdtemp(prefix="study-", dir=args.work)
    shutil.rmtree(out)
    result, seconds = call(args, [
        "tune", model, "--data", data, "-o", out, "--grad-accum", "1", "--max-steps", str(steps),
        "--seed", str(seed), "--no-eval-at-start", "--keep", "last", "--report-samples", "0",
        *options, *METHODS[method]])
    record = {"task": task, "row": row, "steps": steps, "seed": seed,
              "valid_loss": result["valid_loss"], "train_loss": result["train_loss"],
              "tokens": result["tokens"], "peak_rss_bytes": result["peak_rss_bytes"],
              "cpu_seconds": seconds, "trainable_parameters": result["trainable_parameters"],
              "vote": result["vote"]}
    if record["vote"] and record["vote"].get("rules"):
        record["valid_loss"] = record["vote"]["rules"][record["vote"]["rule"]]["loss"]
    if accuracy:
        scored, _ = call(args, [
            "eval", model, "--adapter", out, "--data", scored_rows(args, data), "--split", "test",
            "--task", accuracy, "--max-tokens", "12"])
        record["accuracy"] = scored["accuracy"]
    shutil.rmtree(out)
    return record


def mean_and_spread(values, form):
    text = format(statistics.mean(values), form)
    if len(values) > 1:
        text += f" ± {format(statistics.stdev(values), form)}"
    return text


def against(found, base):
    """Mean over the seeds both have of the loss relative to full-depth LoRA's, in per cent."""
    of_seed = {r["seed"]: r["valid_loss"] for r in base}
    ratios = [r["valid_loss"] / of_seed[r["seed"]] - 1 for r in found if r["seed"] in of_seed]
    return f"{100 * statistics.mean(ratios):+.1f}%" if ratios else ""


def table(records, task, rows):
    """rows: (row, kind); every base has its own full-depth LoRA to compare with."""
    print(f"\n{task}:\n")
    print("| base | method | steps | seeds | held-out loss | against LoRA | exact answers "
          "| processor seconds | peak MiB |")
    print("|---|---|---|---|---|---|---|---|---|")
    for row, kind in rows:
        base, method = row.split(":")
        found = [r for r in records if (r["task"], r["row"], r["kind"]) == (task, row, kind)]
        lora = [r for r in records
                if (r["task"], r["row"], r["kind"]) == (task, base + ":lora", "steps")]
        if not found:
            continue
        scores = [100 * r["accuracy"] for r in found if "accuracy" in r]
        steps = sorted({r["steps"] for r in found})
        print(f"| {BASE_NAMES[base]} | {method}{', in the time of lora' * (kind == 'time')} "
              f"| {'-'.join(str(s) for s in (steps[0], steps[-1])[:len(steps)])} | {len(found)} "
              f"| {mean_and_spread([r['valid_loss'] for r in found], '.4f')} "
              f"| {against(found, lora)} "
              f"| {mean_and_spread(scores, '.1f') + '%' if scores else ''} "
              f"| {mean_and_spread([r['cpu_seconds'] for r in found], '.0f')} "
              f"| {max(r['peak_rss_bytes'] for r in found) / 2**20:.0f} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--edgewise", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True, help="folder with the data sets")
    parser.add_argument("--state", required=True, help="finished runs, JSON lines")
    parser.add_argument("--work", required=True, help="folder for run directories and bases")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--rows", nargs="+", default=ROWS, help="base:method")
    parser.add_argument("--equal-time", nargs="*", default=EQUAL_TIME,
                        help="rows that also get the time of lora on their base")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--budget", type=float, default=1e9,
                        help="start no run after so many seconds")
    parser.add_argument("--wrap", default="", help="command that starts every run")
    parser.add_argument("--tables", action="store_true", help="print the tables, run nothing")
    args = parser.parse_args()
    start = time.monotonic()
    os.makedirs(args.work, exist_ok=True)
    records = []
    if os.path.exists(args.state):
        records = [json.loads(line) for line in open(args.state, encoding="utf-8")]

    def find(task, row, kind, seed):
        return next((r for r in records if (r["task"], r["row"], r["kind"], r["seed"]) ==
                     (task, row, kind, seed)), None)

    def want(task, row, kind, seed, steps):
        if find(task, row, kind, seed) or time.monotonic() - start > args.budget:
            return
        record = run(args, task, row, steps, seed)
        record["kind"] = kind
        records.append(record)
        with open(args.state, "a", encoding="utf-8") as out:
            out.write(json.dumps(record) + "\n")
        print(f"{task}, {row}, seed {seed}: {record['steps']} steps, loss "
              f"{record['valid_loss']:.4f}, {record.get('accuracy', '')} "
              f"{record['cpu_seconds']:.0f} s", file=sys.stderr, flush=True)

    for seed in () if args.tables else range(42, 42 + args.seeds):
        for row in args.rows:
            for task in args.tasks:
                want(task, row, "steps", seed, args.steps)
        for row in args.equal_time:
            for task in args.tasks:
                lora = find(task, row.split(":")[0] + ":lora", "steps", seed)
                same = find(task, row, "steps", seed)
                if lora and same:
                    steps = round(args.steps * lora["cpu_seconds"] / same["cpu_seconds"])
                    want(task, row, "time", seed, steps)
    for task in args.tasks:
        rows = [(row, kind) for row in args.rows for kind in ("steps", "time")]
        table(records, task, rows)


if __name__ == "__main__":
    main()
