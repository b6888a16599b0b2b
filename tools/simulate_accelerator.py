#!/usr/bin/env python3
"""Times of a tuning step of LLaMA-7B on a described accelerator (simulated).

Prints a Markdown table: tuning as it is (LoRA over the whole depth on half-precision weights, row by
row, nothing read while something computes), with compressed layers, with adaptive layer tuning, with
the searched schedule; for the device as described and with its arithmetic scaled, since that is what
papers leave out. Then the searched order against the fixed ones.

usage: simulate_accelerator.py EDGEWISE DEVICE.json [--shape llama-7b]
"""

import argparse
import json
import subprocess
import tempfile


def plan(edgewise, device, shape, *options):
    out = subprocess.run([edgewise, "plan", "--shape", shape, "--device", device, "--json", "--quiet",
                          "--micro-batches", "16", "--spill", "never", *options],
                         capture_output=True, text=True)
    if out.returncode != 0:
        return None
    return json.loads(out.stdout)


def cell(p, base=None):
    if p is None:
        return "does not fit"
    s = p["predicted_seconds"]
    return f"{s:.1f}" if base is None else f"{s:.1f} ({base / s:.2f}x)"


FIXED = ["--order", "row", "--no-overlap"]
LUC = ["--bits", "4", "--sparsity", "0.5", "--head-bits", "8"]
# Every quarter of the layers a window, rank 8 as LoRA's, gradients in floats.
EDGE = ["--method", "edge", "--exits", "4", "--first-layer", "0", "--rank", "8",
        "--head-lora-rank", "0", "--backward", "exact"]
STEPS = [
    ("vanilla", ["--method", "lora", "--bits", "16", *FIXED]),
    ("+ LUC (4 bits, 50% zero)", ["--method", "lora", *LUC, *FIXED]),
    ("+ tuning the last 8 layers, trunk computed each step",
     ["--method", "last-n", "--last-layers", "8", *LUC, *FIXED]),
    ("+ scheduling", ["--method", "last-n", "--last-layers", "8", *LUC, "--split"]),
    ("+ cached trunk (adaptive layer tuning)", [*EDGE, *LUC, *FIXED]),
    ("+ scheduling", [*EDGE, *LUC, "--split"]),
    ("vanilla with scheduling", ["--method", "lora", "--bits", "16", "--split"]),
]


def main():
    p = argparse.ArgumentParser()
    p.add_argument("edgewise")
    p.add_argument("device")
    p.add_argument("--shape", default="llama-7b")
    args = p.parse_args()
    described = json.load(open(args.device))
    scales = [1, 4, 16]
    with tempfile.TemporaryDirectory() as tmp:
        devices = []
        for scale in scales:
            d = json.loads(json.dumps(described))
            for k in d["kernels"]:
                if k["kind"] != "elementwise":
                    k["gops"] *= scale
            path = f"{tmp}/{scale}.json"
            json.dump(d, open(path, "w"))
            devices.append(path)
        print("Simulated seconds of a step of 16 x 512 tokens, and the gain over vanilla.\n")
        print("| | " + " | ".join(f"arithmetic x{s}" for s in scales) + " |")
        print("|---" * (1 + len(scales)) + "|")
        base = [None] * len(scales)
        for name, options in STEPS:
            row = []
            for i, device in enumerate(devices):
                r = plan(args.edgewise, device, args.shape, *options)
                if base[i] is None and r is not None:
                    base[i] = r["predicted_seconds"]
                    row.append(cell(r))
                else:
                    row.append(cell(r, base[i]))
            print(f"| {name} | " + " | ".join(row) + " |", flush=True)
        print("\nOrders, overlapped, simulated seconds of a step (arithmetic x16):\n")
        print("| case | memory | row by row | column by column | searched | searched: group, "
              "micro-batches x tokens, read GB |")
        print("|---|---|---|---|---|---|")
        for name, options in (("lora, 16 bits", ["--method", "lora", "--bits", "16"]),
                              ("lora, 4 bits 50%", ["--method", "lora", *LUC]),
                              ("edge, 4 bits 50%", [*EDGE, *LUC])):
            for memory in ("8GB", "4GiB", "2GiB"):
                device = devices[-1]
                row = plan(args.edgewise, device, args.shape, *options, "--memory", memory,
                           "--order", "row")
                column = plan(args.edgewise, device, args.shape, *options, "--memory", memory,
                              "--order", "column")
                found = plan(args.edgewise, device, args.shape, *options, "--memory", memory,
                             "--split")
                detail = "-"
                if found is not None:
                    c = found["choice"]
                    detail = (f"{c['group']}, {c['micro_batches']} x {c['tokens']}, "
                              f"{found['loaded_bytes'] / 1e9:.1f}")
                print(f"| {name} | {memory} | {cell(row)} | {cell(column)} | {cell(found)} | "
                      f"{detail} |", flush=True)


if __name__ == "__main__":
    main()
