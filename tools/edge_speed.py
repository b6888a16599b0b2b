#!/usr/bin/env python3
"""Speed and memory of adaptive layer tuning (`edgewise bench tune --method edge`) in several
settings, beside what the machine's peaks would allow, and with the time of each part.

The ceiling is arithmetic: the multiplications of a run at fixed shares of the peaks given with
--fp32 and --int8 (Gop/s of all threads, see `edgewise device`): 0.85 of fp32 for exact products,
0.70 of int8 for integer ones, 0.60 of fp32 for attention and low-rank factors. Norms, activation
functions, rounding and memory traffic are left out of it, so it is never reached.

In the setting "a tenth of the rival's memory" the weights are read from disk as they are needed; the
base is written to --work first. The limit counts what the plan sums up, a few MiB more than the
process takes.

usage: edge_speed.py --edgewise build/release/edgewise --fp32 490 --int8 1950 \\
         [--shapes smollm2-135m ...] [--settings default ...] [--threads 2] [--work FOLDER] \\
         [--rival SHAPE=TOK/S,MIB ...]
"""

import argparse
import json
import pathlib
import subprocess
import tempfile

SHAPES = {  # hidden, ffn, layers, heads, kv heads, head dimension, vocabulary
    "smollm2-135m": (576, 1536, 30, 9, 3, 64, 49152),
    "tinyllama-1.1b": (2048, 5632, 22, 32, 4, 64, 32000),
}
LIMITS = {"smollm2-135m": "233MiB", "tinyllama-1.1b": "683MiB"}  # a tenth of the rival's memory
TENTH = "a tenth of the rival's memory"
SETTINGS = {
    "default": [],
    "rank 16": ["--rank", "16"],
    "4 exits of a quarter, rank 8": ["--exits", "4", "--first-layer", "0", "--rank", "8",
                                     "--head-lora-rank", "0"],
    "half of the tokens learned": ["--supervised", "0.5"],
    TENTH: [],
    "activations recomputed": ["--recompute"],
    "exact backward": ["--backward", "exact"],
    "exact trunk": ["--trunk-forward", "exact"],
    "no block of the head left out": ["--head-skip", "0"],
    "whole head": ["--whole-head"],
    "no cache": ["--no-cache"],
    "full depth": ["--first-layer", "0"],
    "dense fp32 base": ["--dtype", "fp32"],
}


def ceiling(shape, run, window, fp32, int8, options, tokens=512):
    """Tokens a second of a run with windows of `window` layers and the options of its setting."""
    integer, integer_trunk = "--backward" not in options, "--trunk-forward" not in options
    d, ffn, layers, heads, kv, dim, vocab = SHAPES[shape]
    linears = 2 * d * heads * dim + 2 * d * kv * dim + 3 * d * ffn
    ends = 2 * (d + heads * dim) + 2 * (d + kv * dim) + 3 * (d + ffn)
    attention = 2 * heads * dim * tokens
    exact, small, whole = 0.85 * fp32, 0.60 * fp32, 0.70 * int8
    dense = run.get("dtype") is not None
    forward = exact if dense else whole
    back = whole if integer and not dense else exact
    computed = run.get("head_blocks_in_gradient", {}).get("of_hidden_states", 1)
    learned = run["supervised_share"]
    seconds = window * (2 * linears / forward + 2 * linears / back + 3.5 * attention / small
                        + 6 * run["rank"] * ends / small)
    seconds += learned * 2 * vocab * d * (1 / forward + computed / back)
    seconds += learned * 6 * run["head_lora_rank"] * (vocab + d) / small
    trunk = run["trunk_tokens"] / run["tokens"]
    below = forward if integer_trunk else exact
    seconds += trunk * run["window_begin"] * (2 * linears / below + attention / small)
    return 1 / seconds


def base_options(args, shape, setting, work):
    if setting != TENTH:
        return ["--shape", shape, *([] if "--dtype" in SETTINGS[setting]
                                    else ["--bits", str(args.bits)])]
    base = pathlib.Path(work) / f"{shape}-{args.bits}"
    if not base.exists():
        subprocess.run([args.edgewise, "random-base", "--shape", shape, "--bits", str(args.bits),
                        "--group", "64", "-o", base, "--quiet"], check=True, capture_output=True)
    return ["--base", base, "--memory", LIMITS[shape]]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--edgewise", required=True)
    parser.add_argument("--fp32", type=float, required=True, help="Gflop/s")
    parser.add_argument("--int8", type=float, required=True, help="Gop/s")
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS), choices=list(SETTINGS))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--documents", type=int, default=8)
    parser.add_argument("--repeat", type=int, default=1, help="runs of which the fastest is shown")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rival", nargs="*", default=[], help="SHAPE=TOKENS_PER_SECOND,MIB")
    parser.add_argument("--work", help="where bases are kept (default: made anew)")
    args = parser.parse_args()
    rivals = {}
    for name, figures in (r.split("=") for r in args.rival):
        speed, mib = figures.split(",")
        rivals[name] = float(speed), float(mib)
    temporary = tempfile.TemporaryDirectory()
    work = args.work or temporary.name
    print("| shape | setting | layers tuned | rank | tokens/s | against the rival | ceiling "
          "| share | trunk | forward | head | backward | update | peak MiB | sum of parts MiB "
          "| the rival's memory |")
    print("|" + "---|" * 16)
    for shape in args.shapes:
        for setting in args.settings:
            options = SETTINGS[setting]
            command = [args.edgewise, "bench", "tune", "--method", "edge", "--threads",
                       str(args.threads), "--documents", str(args.documents), "--epochs",
                       str(args.epochs), *base_options(args, shape, setting, work), *options,
                       "--json", "--quiet"]
            runs = [json.loads(subprocess.run(command, check=True, capture_output=True,
                                              text=True).stdout) for _ in range(args.repeat)]
            run = max(runs, key=lambda r: r["tokens_per_second"])
            layers = SHAPES[shape][2]
            window = layers / run["exits"] if run["exits"] > 1 else layers - run["window_begin"]
            top = ceiling(shape, run, window, args.fp32 * 1e9, args.int8 * 1e9,
                          options)
            speed = run["tokens_per_second"]
            parts = [1e6 * run["seconds_of"][k] / run["tokens"]
                     for k in ("trunk", "window_forward", "head", "window_backward", "optimizer")]
            parts[0] += 1e6 * run["seconds_of"]["start_states"] / run["tokens"]
            rival = memory = ""
            if shape in rivals:
                rival = f"{speed / rivals[shape][0]:.1f} x"
                memory = f"1/{rivals[shape][1] * 2**20 / run['peak_rss_bytes']:.1f}"
            traced = sum(run["memory"]["categories"].values())
            print(f"| {shape} | {setting} | {window:g} of {layers} | {run['rank']}, head "
                  f"{run['head_lora_rank']} | {speed:.0f} | {rival} | {top:.0f} "
                  f"| {100 * speed / top:.0f}% | " + " | ".join(f"{p:.0f}" for p in parts)
                  + f" | {run['peak_rss_bytes'] / 2**20:.0f} | {traced / 2**20:.0f} "
                  f"| {memory} |",
                  flush=True)


if __name__ == "__main__":
    main()
