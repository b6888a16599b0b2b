#!/usr/bin/env python3
"""Prompt and generation speed of forms of one model, ours and llama.cpp's, in one run.

  bench/compare/compressed_bases.py --edgewise build/release/edgewise --prompt-file F \\
      --base 'bf16=MODEL' --base '4 bits=BASE' --base 'Q4_0=F.gguf --keep-quant' \\
      --llama-bench LLAMA_BENCH --gguf Q4_0=F.gguf

Rounds go through all forms in turn, so that a slow minute of the machine meets all of them; what is
printed is the median of the rounds, the range behind it, the bytes of the file with the weights, and
the most resident memory of the edgewise process.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess


def weights_megabytes(path):
    path = pathlib.Path(path)
    files = [path] if path.is_file() else path.glob("*.safetensors")
    return sum(f.stat().st_size for f in files) / 1e6


def edgewise(args, what):
    child = subprocess.Popen(
        [args.edgewise, "generate", *what.split(), "--prompt-file", args.prompt_file, "--max-tokens",
         str(args.tokens), "--temperature", "0", "--ignore-eos", "--threads", str(args.threads),
         "--json", "--quiet"], stdout=subprocess.PIPE)
    result = json.loads(child.stdout.read())
    usage = os.wait4(child.pid, 0)[2]
    return (result["prompt_tokens"], result["prompt_tokens_per_second"],
            result["tokens_per_second"], usage.ru_maxrss / 2**10)


def llama(args, path, prompt):
    done = subprocess.run(
        [args.llama_bench, "-m", path, "-p", str(prompt), "-n", str(args.tokens), "-t",
         str(args.threads), "-r", "1", "-o", "json"], stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, check=True)
    rows = json.loads(done.stdout)
    return (max(r["avg_ts"] for r in rows if r["n_prompt"] > 0),
            max(r["avg_ts"] for r in rows if r["n_gen"] > 0))


def spread(values):
    return f"{statistics.median(values):.4g} ({min(values):.4g} to {max(values):.4g})"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--edgewise", default="build/release/edgewise")
    parser.add_argument("--prompt-file", required=True)
    parser.add_argument("--base", action="append", default=[], help="NAME=MODEL [options]")
    parser.add_argument("--llama-bench", default="llama-bench")
    parser.add_argument("--gguf", action="append", default=[], help="NAME=FILE for llama-bench")
    parser.add_argument("--tokens", type=int, default=64, help="tokens generated")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    ours = [b.split("=", 1) for b in args.base]
    theirs = [g.split("=", 1) for g in args.gguf]
    measured = {}
    for _ in range(args.rounds):
        prompt = 0
        for name, what in ours:
            prompt, *figures = edgewise(args, what)
            measured.setdefault(name, []).append(figures)
        for name, path in theirs:
            measured.setdefault("llama.cpp, " + name, []).append(llama(args, path, prompt))
    print(f"| weights | file, MB | prompt of {prompt} tokens, tokens/s | generation, tokens/s "
          "| peak MiB |\n|---|---|---|---|---|")
    paths = {**{n: w.split()[0] for n, w in ours}, **{"llama.cpp, " + n: p for n, p in theirs}}
    for name, rounds in measured.items():
        columns = list(zip(*rounds))
        peak = f"{max(columns[2]):.0f}" if len(columns) > 2 else ""
        print(f"| {name} | {weights_megabytes(paths[name]):.1f} | {spread(columns[0])} "
              f"| {spread(columns[1])} | {peak} |")


if __name__ == "__main__":
    main()
