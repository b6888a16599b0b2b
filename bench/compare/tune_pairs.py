#!/usr/bin/env python3
"""`edgewise bench tune` and PyTorch + PEFT (pytorch_lora.py) in turn, pair by pair, on one machine.

The speed of a shared machine drifts from minute to minute, so the figure to trust is the ratio
within a pair; the table gives its median and range over all pairs of the log. With --edge every
turn also has a run of adaptive layer tuning by its defaults (4-bit base, 3 passes over 8 documents,
the making of the cached states included), and a second table holds it against the other two.

usage:
  tune_pairs.py run --log FILE --shape smollm2-135m --pairs 3 [--python VENV/bin/python]
                    [--edgewise build/release/edgewise] [--steps N] [--torch-steps N] [--edge]
  tune_pairs.py table --log FILE          Markdown on stdout
"""

import argparse
import json
import os
import statistics
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))


def result_of(command):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode != 0 or not lines:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return json.loads(lines[-1])


EDGE = ["--method", "edge", "--bits", "4", "--documents", "8", "--epochs", "3"]


def run(args):
    for _ in range(args.pairs):
        edge = result_of([args.edgewise, "bench", "tune", "--shape", args.shape, *EDGE,
                          "--json"]) if args.edge else None
        ours = result_of([args.edgewise, "bench", "tune", "--shape", args.shape, "--method",
                          "lora", "--steps", str(args.steps), "--json"])
        theirs = result_of([args.python, os.path.join(HERE, "pytorch_lora.py"), "--shape",
                            args.shape, "--steps", str(args.torch_steps)])
        with open(args.log, "a", encoding="utf-8") as log:
            log.write(json.dumps({"shape": args.shape, "edgewise": ours, "pytorch": theirs,
                                  "edge": edge}))
            log.write("\n")
        print(f"{args.shape}: {ours['tokens_per_second']:.0f} against "
              f"{theirs['tokens_per_second']:.0f} tokens/s"
              + (f", edge {edge['tokens_per_second']:.0f}" if edge else ""), file=sys.stderr)


def spread(values, digits):
    middle = f"{statistics.median(values):.{digits}f}"
    if len(values) == 1:
        return middle
    return f"{middle} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def table(args):
    with open(args.log, encoding="utf-8") as log:
        pairs = [json.loads(line) for line in log]
    print("| shape | pairs | edgewise, tokens/s | share of fp32 peak | PyTorch + PEFT, tokens/s "
          "| speed ratio | edgewise, MiB | PyTorch + PEFT, MiB | memory ratio |")
    print("|---|---|---|---|---|---|---|---|---|")
    for shape in dict.fromkeys(pair["shape"] for pair in pairs):
        mine = [pair["edgewise"] for pair in pairs if pair["shape"] == shape]
        torch = [pair["pytorch"] for pair in pairs if pair["shape"] == shape]
        speed = [a["tokens_per_second"] / b["tokens_per_second"] for a, b in zip(mine, torch)]
        memory = [a["peak_rss_bytes"] / b["peak_rss_bytes"] for a, b in zip(mine, torch)]
        print("| " + " | ".join([
            shape, str(len(mine)),
            spread([a["tokens_per_second"] for a in mine], 0),
            spread([100 * a["share_of_peak"] for a in mine], 0) + " %",
            spread([b["tokens_per_second"] for b in torch], 0),
            "**" + spread(speed, 2) + "**",
            spread([a["peak_rss_bytes"] / 2**20 for a in mine], 0),
            spread([b["peak_rss_bytes"] / 2**20 for b in torch], 0),
            "**" + spread(memory, 2) + "**"]) + " |")
    turns = [pair for pair in pairs if pair.get("edge")]
    if turns:
        edge_table(turns)


def edge_table(pairs):
    print("\n| shape | turns | edge, tokens/s | against PyTorch + PEFT | against LoRA in fp32 "
          "| edge, MiB | of PyTorch + PEFT's memory |")
    print("|---|---|---|---|---|---|---|")
    for shape in dict.fromkeys(pair["shape"] for pair in pairs):
        turns = [pair for pair in pairs if pair["shape"] == shape]
        speed = [t["edge"]["tokens_per_second"] for t in turns]
        print("| " + " | ".join([
            shape, str(len(turns)), spread(speed, 0),
            "**" + spread([e / t["pytorch"]["tokens_per_second"]
                           for e, t in zip(speed, turns)], 1) + "**",
            "**" + spread([e / t["edgewise"]["tokens_per_second"]
                           for e, t in zip(speed, turns)], 1) + "**",
            spread([t["edge"]["peak_rss_bytes"] / 2**20 for t in turns], 0),
            "1/" + spread([t["pytorch"]["peak_rss_bytes"] / t["edge"]["peak_rss_bytes"]
                           for t in turns], 1)]) + " |")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    runner = commands.add_parser("run")
    runner.add_argument("--log", required=True)
    runner.add_argument("--shape", required=True)
    runner.add_argument("--pairs", type=int, default=3)
    runner.add_argument("--steps", type=int, default=5)
    runner.add_argument("--torch-steps", type=int, default=5)
    runner.add_argument("--python", default=sys.executable)
    runner.add_argument("--edgewise", default="build/release/edgewise")
    runner.add_argument("--edge", action="store_true", help="adaptive layer tuning in every turn")
    runner.set_defaults(call=run)
    printer = commands.add_parser("table")
    printer.add_argument("--log", required=True)
    printer.set_defaults(call=table)
    args = parser.parse_args()
    args.call(args)


if __name__ == "__main__":
    main()
