#!/usr/bin/env python3
"""Runs `edgewise tune` with several methods on several tasks and prints the tables of
docs/adaptation.md: held-out loss, task accuracy, processor time and memory, at equal steps and at
equal time.

Every run is one thread, so that its processor time does not depend on what else the machine does;
"equal time" gives a method as many steps as fit into the processor time of full-depth LoRA at the
given number of steps. Finished runs are kept in --state (JSON lines) and are not run again, so the
study can be stopped and continued.

usage: adaptation_study.py --edgewise build/release/edgewise --model MODEL --data DATASETS \\
         --state study.jsonl [--tasks ...] [--methods ...] [--steps 200] [--seeds 1] [--budget 240]
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
    "style": (["tiny-shakespeare/input.txt"], ["--batch-size", "1", "--max-seq-len", "512"], ""),
    "intents": (["clinc150/data_full.json"],
                ["--batch-size", "32", "--val-fraction", "0.02", "--max-seq-len", "128"],
                "exact-match"),
    "text-to-SQL": (["wikisql-1k"], ["--batch-size", "4"], ""),
}

# Name in the table -> options of tune. The rates are the best of a few tried for each (docs).
METHODS = {
    "lora": ["--method", "lora", "--rank", "16", "--learning-rate", "6e-3"],
    "last-n": ["--method", "last-n", "--last-layers", "6", "--rank", "16", "--learning-rate",
               "6e-3"],
    "full": ["--method", "full", "--learning-rate", "1e-3"],
    "edge": ["--method", "edge", "--learning-rate", "3e-3"],
    "edge, 4 exits that vote": ["--method", "edge", "--exits", "4", "--first-layer", "0",
                                "--rate-per-window", "--learning-rate", "3e-3"],
    "edge, cumulative": ["--method", "edge", "--trunk", "cumulative", "--learning-rate", "3e-3"],
    "edge, rising windows": ["--method", "edge", "--trunk", "cumulative", "--windows", "rising",
                             "--exits", "2", "--learning-rate", "3e-3"],
    "edge, no head LoRA": ["--method", "edge", "--head-lora-rank", "0", "--learning-rate", "3e-3"],
    "edge, no cache": ["--method", "edge", "--no-cache", "--learning-rate", "3e-3"],
    "edge, upper quarter": ["--method", "edge", "--first-layer", "9", "--learning-rate", "3e-3"],
}


def run(args, task, method, steps, seed):
    files, options, accuracy = TASKS[task]
    out = tempfile.mkdtemp(prefix="study-", dir=args.work)
    shutil.rmtree(out)
    command = [args.edgewise, "tune", args.model, "--data", os.path.join(args.data, *files),
               "-o", out, "--grad-accum", "1", "--max-steps", str(steps), "--seed", str(seed),
               "--threads", "1", "--no-eval-at-start", "--keep", "last", "--json", "--quiet",
               *options, *METHODS[method]]
    before = os.times()
    done = subprocess.run(command, capture_output=True, text=True)
    after = os.times()
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    result = json.loads(done.stdout)
    record = {"task": task, "method": method, "steps": steps, "seed": seed,
              "valid_loss": result["valid_loss"], "train_loss": result["train_loss"],
              "tokens": result["tokens"], "peak_rss_bytes": result["peak_rss_bytes"],
              "cpu_seconds": after.children_user + after.children_system
              - before.children_user - before.children_system,
              "trainable_parameters": result["trainable_parameters"], "vote": result["vote"]}
    if record["vote"] and record["vote"].get("rules"):
        record["valid_loss"] = record["vote"]["rules"][record["vote"]["rule"]]["loss"]
    if accuracy and args.accuracy_limit > 0:
        command = [args.edgewise, "eval", args.model, "--adapter", out, "--data",
                   os.path.join(args.data, *files), "--split", "test", "--task", accuracy,
                   "--limit", str(args.accuracy_limit), "--max-tokens", "12", "--threads", "1",
                   "--json", "--quiet"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
        record["accuracy"] = json.loads(done.stdout)["accuracy"]
    shutil.rmtree(out)
    return record


def mean_and_spread(values, form):
    text = format(statistics.mean(values), form)
    if len(values) > 1:
        text += f" ± {format(statistics.stdev(values), form)}"
    return text


def table(records, task, rows, title):
    print(f"\n{title}\n")
    print("| method | steps | seeds | held-out loss | accuracy | processor seconds | peak MiB |")
    print("|---|---|---|---|---|---|---|")
    for method, kind in rows:
        found = [r for r in records
                 if r["task"] == task and r["method"] == method and r["kind"] == kind]
        if not found:
            continue
        scores = [r["accuracy"] for r in found if "accuracy" in r]
        print(f"| {method} | {found[0]['steps']} | {len(found)} "
              f"| {mean_and_spread([r['valid_loss'] for r in found], '.4f')} "
              f"| {mean_and_spread(scores, '.3f') if scores else ''} "
              f"| {mean_and_spread([r['cpu_seconds'] for r in found], '.0f')} "
              f"| {max(r['peak_rss_bytes'] for r in found) / 2**20:.0f} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--edgewise", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True, help="folder with the data sets")
    parser.add_argument("--state", required=True, help="finished runs, JSON lines")
    parser.add_argument("--work", default=None, help="folder for run directories")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--methods", nargs="+", default=["lora", "edge"], choices=list(METHODS))
    parser.add_argument("--equal-time", nargs="*", default=[], choices=list(METHODS),
                        help="methods that also get the time of lora")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--accuracy-limit", type=int, default=200)
    parser.add_argument("--budget", type=float, default=1e9,
                        help="start no run after so many seconds")
    args = parser.parse_args()
    start = time.monotonic()
    records = []
    if os.path.exists(args.state):
        records = [json.loads(line) for line in open(args.state, encoding="utf-8")]

    def find(task, method, kind, seed):
        return next((r for r in records if (r["task"], r["method"], r["kind"], r["seed"]) ==
                     (task, method, kind, seed)), None)

    def want(task, method, kind, seed, steps):
        if find(task, method, kind, seed) or time.monotonic() - start > args.budget:
            return
        record = run(args, task, method, steps, seed)
        record["kind"] = kind
        records.append(record)
        with open(args.state, "a", encoding="utf-8") as out:
            out.write(json.dumps(record) + "\n")
        print(f"{task}, {method}, seed {seed}: {record['steps']} steps, loss "
              f"{record['valid_loss']:.4f}, {record['cpu_seconds']:.0f} s", file=sys.stderr,
              flush=True)

    for seed in range(42, 42 + args.seeds):
        for task in args.tasks:
            for method in args.methods:
                want(task, method, "steps", seed, args.steps)
            base = find(task, "lora", "steps", seed)
            for method in args.equal_time:
                same = find(task, method, "steps", seed)
                if base and same:
                    steps = round(args.steps * base["cpu_seconds"] / same["cpu_seconds"])
                    want(task, method, "time", seed, max(steps, args.steps))
    for task in args.tasks:
        table(records, task, [(m, "steps") for m in METHODS], f"{task}: equal steps")
        if args.equal_time:
            rows = [("lora", "steps")] + [(m, "time") for m in args.equal_time]
            table(records, task, rows, f"{task}: equal time")


if __name__ == "__main__":
    main()
