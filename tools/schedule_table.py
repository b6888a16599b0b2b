#!/usr/bin/env python3
"""Predicted against measured time and peak memory of tuning under memory limits.

Makes a compressed base with random weights for every shape, tunes it for a few steps under every
limit by LoRA over the whole depth and by adaptive layer tuning, and prints a Markdown table. A run
that is refused is a row too. Peak memory is what the system reports (VmHWM).

usage: schedule_table.py EDGEWISE WORKDIR --tokenizer MODEL [--shapes A,B] [--limits 300MiB,1GiB]
"""

import argparse
import json
import pathlib
import random
import subprocess

WORDS = "the of and a to in is you that it he was for on are as with his they at be this".split()


def make_data(path, rows, words):
    draw = random.Random(1)
    with open(path, "w") as f:
        for _ in range(rows):
            f.write(json.dumps({"text": " ".join(draw.choice(WORDS) for _ in range(words))}) + "\n")


def run(command):
    result = subprocess.run(command, capture_output=True, text=True)
    try:
        return result.returncode, json.loads(result.stdout.strip().splitlines()[-1])
    except (ValueError, IndexError):
        return result.returncode, {"error": {"message": result.stderr[-300:]}}


def mib(n):
    return f"{n / 2**20:.0f}"


def main():
    p = argparse.ArgumentParser()
    p.add_argument("edgewise")
    p.add_argument("workdir", type=pathlib.Path)
    p.add_argument("--tokenizer", required=True)
    p.add_argument("--shapes", default="smollm2-135m,qwen2.5-0.5b,tinyllama-1.1b")
    p.add_argument("--limits", default="2GiB,1GiB,512MiB,300MiB")
    p.add_argument("--methods", default="lora,edge")
    p.add_argument("--bits", default="4")
    p.add_argument("--rank", default="8")
    p.add_argument("--steps", default="6")
    p.add_argument("--tokens", type=int, default=512)
    p.add_argument("--weights-io", default="cached")
    args = p.parse_args()
    args.workdir.mkdir(parents=True, exist_ok=True)
    data = args.workdir / "data.jsonl"
    make_data(data, 8, args.tokens)
    print("| shape | limit | method | offloaded | recomputed | peak MiB predicted | measured | error"
          " | seconds predicted | measured | error | wait for weights s | read GB |")
    print("|---|---|---|---|---|---|---|---|---|---|---|---|---|")
    for shape in args.shapes.split(","):
        base = args.workdir / f"{shape}-{args.bits}"
        if not (base / "packed.safetensors").exists():
            subprocess.run([args.edgewise, "random-base", "--shape", shape, "--bits", args.bits,
                            "--tokenizer", args.tokenizer, "-o", base, "--quiet"], check=True)
        for limit in args.limits.split(","):
            for method in args.methods.split(","):
                code, r = run([args.edgewise, "tune", base, "--data", data, "-o",
                               args.workdir / "run", "--overwrite", "--method", method, "--memory",
                               limit, "--rank", args.rank, "--max-steps", args.steps,
                               "--grad-accum", "1", "--batch-size", "1", "--max-seq-len",
                               str(args.tokens), "--val-fraction", "0", "--no-eval-at-start",
                               "--weights-io", args.weights_io, "--json", "--quiet"])
                if "peak_rss_bytes" not in r:
                    message = r.get("error", {}).get("message", "")
                    print(f"| {shape} | {limit} | {method} | exit {code}: {message} |" + " |" * 9)
                    continue
                peak, want = r["peak_rss_bytes"], r["predicted_peak_bytes"]
                s, ws = r["seconds"], r["predicted_seconds"]
                print(f"| {shape} | {limit} | {method} | {'yes' if r['offloaded'] else 'no'} | "
                      f"{'yes' if r['recompute'] else 'no'} | {mib(want)} | {mib(peak)} | "
                      f"{100 * (want / peak - 1):+.1f}% | {ws:.1f} | {s:.1f} | "
                      f"{100 * (ws / s - 1):+.1f}% | {r.get('weights_wait_seconds', 0):.2f} | "
                      f"{r.get('weights_read_bytes', 0) / 1e9:.2f} |", flush=True)


if __name__ == "__main__":
    main()
