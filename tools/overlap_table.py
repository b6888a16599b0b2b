#!/usr/bin/env python3
"""Whether reading weights hides behind computing: steps of offloaded tuning that read past the page
cache, next to the same run with all weights in memory (compute) and to the time that the disk takes
for the bytes of a step (measured by reading the file past the page cache). The three take turns,
--repeat times; columns are medians, and "over max" is the median, with the least and the greatest,
of the quotients of each turn, so that a machine whose speed drifts does so for both sides of them.
Prints a Markdown table. Expects bases and data as tools/schedule_table.py makes them. Cases that
name an order take micro-batches of 64 tokens, whose weights take longer to read than they compute;
others 256.

With --orders it compares, instead, the searched order of micro-batches with the fixed ones: every
case row by row, column by column and as searched, in turns and in any order within a turn, so that
a machine whose speed drifts does so for all three. "Over the better" is the median of the quotients
within a turn, too, by the fixed order that is the better one in most turns; the least and the
greatest are shown beside medians. A searched plan that is a fixed order's own ("= column") differs
from it by what the machine does alone. No activations go to the disk (--spill never): what wears a
disk is weighed against more than time, and more for the search, which has other ways.

usage: overlap_table.py EDGEWISE WORKDIR [--cases SHAPE:LIMIT:METHOD[:ORDER:ACCUM],...]
       overlap_table.py EDGEWISE WORKDIR --orders [--cases SHAPE:LIMIT:METHOD:ACCUM,...]
"""

import argparse
import json
import mmap
import os
import pathlib
import random
import statistics
import subprocess
import time

CASES = ("tinyllama-1.1b:512MiB:lora,tinyllama-1.1b:300MiB:lora,tinyllama-1.1b:300MiB:edge,"
         "qwen2.5-0.5b:400MiB:lora")
ORDERS = ("tinyllama-1.1b:300MiB:edge:8,qwen2.5-0.5b:300MiB:edge:8,tinyllama-1.1b:230MiB:edge:8,"
          "qwen2.5-0.5b:400MiB:lora:4,qwen2.5-0.5b:300MiB:lora:4,tinyllama-1.1b:300MiB:lora:4")
BLOCK = 8 << 20


def direct_gbps(path):
    """Sequential, past the page cache, of up to 1 GiB."""
    f = os.open(path, os.O_RDONLY | os.O_DIRECT)
    buffer = mmap.mmap(-1, BLOCK)
    start, total = time.monotonic(), 0
    while total < 1 << 30:
        n = os.readv(f, [buffer])
        total += n
        if n < BLOCK:
            break
    seconds = time.monotonic() - start
    os.close(f)
    return total * 1e-9 / seconds


def compare_orders(args):
    print("| shape | limit | method | micro-batches | row by row s | column by column s | searched s | "
          "group | over the better | predicted row | column | searched |")
    print("|---" * 12 + "|")
    for case in (args.cases or ORDERS).split(","):
        shape, limit, method, accum = case.split(":")
        base, directory = args.workdir / f"{shape}-4", args.workdir / f"overlap-{method}"
        if method == "edge":  # once, to have the states below the window
            tune(args, base, directory, method, args.memory, "64", "--grad-accum", accum)
        runs = {"row": [], "column": [], "searched": []}
        for _ in range(args.repeat):
            for order in random.sample(sorted(runs), len(runs)):
                runs[order].append(tune(args, base, directory, method, limit, "64", "--weights-io",
                                        "direct", "--grad-accum", accum, "--order", order,
                                        "--spill", "never", fits=False))
        print(orders_text(shape, limit, method, accum, runs), flush=True)


def spread(values, unit=""):
    """The median, and, of several, the least and the greatest."""
    text = f"{statistics.median(values):.2f}{unit}"
    return text if len(values) == 1 else f"{text} ({min(values):.2f} to {max(values):.2f})"


def orders_text(shape, limit, method, accum, runs):
    """runs: of every order the results of its runs; None is one that did not fit."""
    if None in runs["searched"]:
        return f"| {shape} | {limit} | {method} | {accum} | does not fit |" + " |" * 7
    took, want = {}, {}  # of the orders that fit
    for order, done in runs.items():
        if None not in done:
            took[order] = [r["step_seconds"] for r in done]
            want[order] = statistics.median(r["predicted_step_seconds"] for r in done)
    fixed = [took[order] for order in ("row", "column") if order in took]
    # One order for all turns: the lesser of two times that scatter is too low turn by turn.
    better = fixed[0] if fixed else []
    if len(fixed) == 2 and statistics.median(row / column for row, column in zip(*fixed)) > 1:
        better = fixed[1]
    over = [searched / other for searched, other in zip(took["searched"], better)]
    text = {o: spread(took[o]) if o in took else "does not fit" for o in runs}
    said = {o: f"{want[o]:.2f}" if o in want else "-" for o in runs}
    groups = "/".join(dict.fromkeys(str(r["group"]) for r in runs["searched"]))
    plans = {o: {(r["group"], r.get("recomputed"), r.get("weights_read_bytes")) for r in runs[o]}
             for o in took}
    groups += "".join(f" = {o}" for o in ("row", "column") if plans.get(o) == plans["searched"])
    quotient = spread(over, "x") if over else "-"
    return (f"| {shape} | {limit} | {method} | {accum} | {text['row']} | {text['column']} | "
            f"{text['searched']} | {groups} | {quotient} | {said['row']} | {said['column']} | "
            f"{said['searched']} |")


def overlap_text(case, turns):
    """case: the first cells and the micro-batches of a step; turns: of each the offloaded run, the
    one in memory and the disk's GB/s."""
    off, held, gbps = zip(*turns)
    read = [r["weights_read_bytes"] / r["steps"] * 1e-9 for r in off]
    disk = [r / g for r, g in zip(read, gbps)]
    compute, step = ([r["step_seconds"] for r in runs] for runs in (held, off))
    over = [s / max(d, c) for s, d, c in zip(step, disk, compute)]
    said = [r["predicted_step_seconds"] for r in off]
    read, gbps, disk, compute, step, said = map(statistics.median,
                                                (read, gbps, disk, compute, step, said))
    shape, limit, method, tokens, order, accum = case
    groups = "/".join(dict.fromkeys(str(r["group"]) for r in off))
    return (f"| {shape} | {limit} | {method} | {tokens} | {order} | {groups} of {accum} | "
            f"{read:.2f} | {gbps:.2f} | {disk:.2f} | {compute:.2f} | {step:.2f} | "
            f"{spread(over, 'x')} | {said:.2f} |")


def tune(args, base, directory, method, limit, tokens, *options, fits=True):
    command = [args.edgewise, "tune", base, "--data", args.workdir / "data.jsonl", "-o", directory,
               "--overwrite", "--method", method, "--memory", limit, "--max-steps",
               str(args.steps), "--batch-size", "1", "--max-seq-len", tokens, "--val-fraction", "0",
               "--no-eval-at-start", "--json", "--quiet", *options]
    if method == "lora":
        command += ["--rank", "8"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode == 3 and not fits:
        return None
    if result.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))}: {result.stderr[-400:]}")
    return json.loads(result.stdout.strip().splitlines()[-1])


def main():
    p = argparse.ArgumentParser()
    p.add_argument("edgewise")
    p.add_argument("workdir", type=pathlib.Path)
    p.add_argument("--cases")
    p.add_argument("--orders", action="store_true", help="compare orders of micro-batches")
    p.add_argument("--repeat", type=int, default=2, help="runs of each, in turns")
    p.add_argument("--steps", type=int, default=5)
    p.add_argument("--memory", default="12GiB", help="that holds everything")
    args = p.parse_args()
    if args.orders:
        compare_orders(args)
        return
    print("| shape | limit | method | tokens | order | group | read GB a step | disk GB/s | disk s | "
          "compute s | step s | over max | predicted s |")
    print("|---" * 13 + "|")
    for case in (args.cases or CASES).split(","):
        shape, limit, method, *rest = case.split(":")
        order, accum = rest if rest else ("searched", "1")
        tokens = "64" if rest else "256"
        base = args.workdir / f"{shape}-4"
        directory = args.workdir / f"overlap-{method}"
        if method == "edge":  # once, to have the states below the window
            tune(args, base, directory, method, args.memory, tokens, "--grad-accum", accum)
        turns = []
        for _ in range(args.repeat):
            off = tune(args, base, directory, method, limit, tokens, "--weights-io", "direct",
                       "--grad-accum", accum, "--order", order)
            again = [f"--recompute={off['recomputed']}"] if off["recompute"] else []
            held = tune(args, base, directory, method, args.memory, tokens, "--grad-accum", accum,
                        *again)
            turns.append((off, held, direct_gbps(base / "packed.safetensors")))
        print(overlap_text((shape, limit, method, tokens, order, accum), turns), flush=True)


if __name__ == "__main__":
    main()
