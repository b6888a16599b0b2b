#!/usr/bin/env python3
"""Predicted against measured step time and peak memory of tuning under memory limits.

Makes a compressed base with random weights for every shape, tunes it for a few steps under every
limit by LoRA over the whole depth and by adaptive layer tuning, and prints a Markdown table. A run
that is refused is a row too. Peak memory is what the system reports of the process that has ended
(ru_maxrss). Edge runs first in a fresh directory, then (edge again) with the states below its
window there. With --at-least a short run tells first, once per row, how many steps take so many
seconds: the speed of a machine drifts, and a step of a tenth of a second says little. Runs that are
done are kept in WORKDIR/rows.jsonl: with --seconds the tool stops between runs and the next call
goes on.

With --repeat every row is run so many times, in rounds over all rows rather than in succession, so
that a machine whose speed drifts does so for all of them. Times are then medians. Of the peaks the
run is shown whose prediction was the lowest against what it took; where the highest was another,
its error follows.

--cgroup holds every run to its limit by a cgroup of its own, without swap, and prints what was
charged to it at most, which includes the pages of files that it read, and how often pages had to be
taken back at the limit. The base's pages are let go first, so that the run is charged for them.

usage: schedule_table.py EDGEWISE WORKDIR --tokenizer MODEL [--shapes A,B] [--limits 300MiB,1GiB]
"""

import argparse
import json
import math
import os
import pathlib
import random
import resource
import shutil
import statistics
import subprocess
import tempfile
import time

import memory_cgroup

WORDS = "the of and a to in is you that it he was for on are as with his they at be this".split()
# What holds everything, and less and less of it.
LIMITS = {
    "smollm2-135m": "512MiB,300MiB,200MiB,180MiB",
    "qwen2.5-0.5b": "1GiB,700MiB,500MiB,400MiB",
    "tinyllama-1.1b": "1GiB,700MiB,512MiB,300MiB",
    "llama-7b": "4GiB,2GiB",
}
COLUMNS = ("shape", "limit", "method", "steps", "offloaded", "recomputed", "peak MiB predicted",
           "measured", "error", "step s predicted", "measured", "error", "run s predicted", "measured",
           "error", "waited s", "read GB")
GROUP_COLUMNS = ("cgroup MiB", "hits")


def make_data(path, rows, words):
    draw = random.Random(1)
    with open(path, "w") as f:
        for _ in range(rows):
            f.write(json.dumps({"text": " ".join(draw.choice(WORDS) for _ in range(words))}) + "\n")


def to_bytes(text):
    units = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "MB": 10**6, "GB": 10**9}
    for unit, size in units.items():
        if text.endswith(unit):
            return int(float(text[:-len(unit)]) * size)
    return int(text)


def run(command, data_limit=None, group=None):
    def enforce():
        if data_limit:
            resource.setrlimit(resource.RLIMIT_DATA, (data_limit, data_limit))
        if group:
            group.enter()

    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(command, stdout=out, stderr=err,
                                   preexec_fn=enforce if data_limit or group else None)
        _, status, usage = os.wait4(process.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        out.seek(0), err.seek(0)
        try:
            result = json.loads(out.read().decode().strip().splitlines()[-1])
        except (ValueError, IndexError):
            return code, {"error": {"message": err.read().decode()[-300:]}}
    if "peak_rss_bytes" in result:
        result["peak_rss_bytes"] = usage.ru_maxrss * 1024
    return code, result


def run_in_group(command, data_limit, limit, base):
    file = os.open(base / "packed.safetensors", os.O_RDONLY)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(file)
    with memory_cgroup.MemoryCgroup(limit) as group:
        code, result = run(command, data_limit, group)
        result["cgroup"] = {"peak_bytes": group.peak_bytes(), "hits": group.limit_hits()}
        if group.kills():
            result["error"] = {"message": "killed at the limit of the cgroup"}
    return code, result


def tune(args, base, data, directory, method, limit, steps):
    name = method.split()[0]
    command = [args.edgewise, "tune", base, "--data", data, "-o", directory, "--overwrite",
               "--method", name, "--memory", limit, "--max-steps", str(steps), "--grad-accum",
               "1", "--batch-size", "1", "--max-seq-len", str(args.tokens), "--val-fraction", "0",
               "--no-eval-at-start", "--weights-io", args.weights_io, "--json", "--quiet",
               *args.options.split(), *(["--rank", args.rank] if name == "lora" else [])]
    data_limit = to_bytes(limit) if args.enforce else None
    if args.cgroup:
        return run_in_group(command, data_limit, to_bytes(limit), base)
    return run(command, data_limit)


def measure(args, data, key, before):
    """One run of a row, of as many steps as those `before`: its exit code and result."""
    shape, limit, method = key
    base = args.workdir / f"{shape}-{args.bits}"
    directory = args.workdir / f"run-{method.split()[0]}"
    if method == "edge":
        shutil.rmtree(directory, ignore_errors=True)
    steps = args.steps
    known = [r["steps"] for _, r in before if "steps" in r]
    if known:
        steps = known[0]
    elif args.at_least:
        pilot = args.workdir / f"pilot-{method.split()[0]}"
        code, result = tune(args, base, data, pilot, method, limit, steps)
        if code == 0:
            steps = max(steps, math.ceil(args.at_least / result["step_seconds"]))
        shutil.rmtree(pilot, ignore_errors=True)
    return tune(args, base, data, directory, method, limit, steps)


def error(predicted, measured):
    return f"{100 * (predicted / measured - 1):+.1f}%" if measured > 0 else "-"


def merged(results):
    """Of the rounds of one row, all of which fitted: what to print, and the errors of all peaks."""
    out = dict(results[0])
    for name in ("step_seconds", "seconds", "predicted_step_seconds", "predicted_seconds",
                 "weights_wait_seconds", "weights_read_bytes"):
        out[name] = statistics.median(r.get(name, 0) for r in results)
    lowest = min(results, key=lambda r: r["predicted_peak_bytes"] / r["peak_rss_bytes"])
    for name in ("predicted_peak_bytes", "peak_rss_bytes"):
        out[name] = lowest[name]
    # Plans follow the measured speed and may differ.
    out["offloaded"] = "/".join(sorted({"yes" if r["offloaded"] else "no" for r in results},
                                       reverse=True))
    out["recompute"] = "/".join(sorted({r["recomputed"] if r["recompute"] else "no"
                                        for r in results}))
    out["peak_errors"] = sorted(r["predicted_peak_bytes"] / r["peak_rss_bytes"] - 1
                                for r in results)
    groups = [r["cgroup"] for r in results if "cgroup" in r]
    if groups:
        out["cgroup"] = {name: max(g[name] for g in groups) for name in ("peak_bytes", "hits")}
    return out


def row_text(key, rounds):
    shape, limit, method = key
    refused = [(code, r) for code, r in rounds if "peak_rss_bytes" not in r]
    if refused:
        code, message = refused[0][0], refused[0][1].get("error", {}).get("message", "")
        often = f" ({len(refused)} of {len(rounds)} runs)" if len(refused) < len(rounds) else ""
        return f"| {shape} | {limit} | {method} | exit {code}{often}: {message} |" + " |" * 13
    r = merged([r for _, r in rounds])
    peak, want = r["peak_rss_bytes"], r["predicted_peak_bytes"]
    step, want_step = r["step_seconds"], r["predicted_step_seconds"]
    total, want_total = r["seconds"], r["predicted_seconds"]
    errors = list(dict.fromkeys(f"{100 * e:+.1f}%" for e in r["peak_errors"]))
    cells = [shape, limit, method, str(r["steps"]), r["offloaded"], r["recompute"],
             f"{want / 2**20:.0f}", f"{peak / 2**20:.0f}",
             " to ".join(errors if len(errors) == 1 else (errors[0], errors[-1])),
             f"{want_step:.3f}", f"{step:.3f}", error(want_step, step),
             f"{want_total:.1f}", f"{total:.1f}", error(want_total, total),
             f"{r['weights_wait_seconds']:.2f}", f"{r['weights_read_bytes'] / 1e9:.2f}"]
    if "cgroup" in r:
        cells += [f"{r['cgroup']['peak_bytes'] / 2**20:.0f}", str(r["cgroup"]["hits"])]
    return "| " + " | ".join(cells) + " |"


def summary(rows):
    """rows: [(code, result) of every round]. Step times are medians, peaks those of all runs."""
    fitted = [merged([r for _, r in rounds]) for rounds in rows
              if all("peak_rss_bytes" in r for _, r in rounds)]
    if not fitted:
        return "no run fitted"
    steps = [abs(r["predicted_step_seconds"] / r["step_seconds"] - 1) for r in fitted]
    peaks = [e for r in fitted for e in r["peak_errors"]]
    runs = f"{len(peaks)} runs" + (f" of {len(fitted)} rows" if len(peaks) > len(fitted) else "")
    return (f"{runs}: {sum(e <= 0.15 for e in steps)} step times within 15% (worst "
            f"{100 * max(steps):.0f}%), {sum(e <= 0.05 for e in peaks)} peaks within 5% (worst "
            f"{100 * max(peaks):+.1f}%), {sum(e < 0 for e in peaks)} peaks below the measured one")


def main():
    p = argparse.ArgumentParser()
    p.add_argument("edgewise")
    p.add_argument("workdir", type=pathlib.Path)
    p.add_argument("--tokenizer", required=True)
    p.add_argument("--shapes", default="smollm2-135m,qwen2.5-0.5b,tinyllama-1.1b")
    p.add_argument("--limits", help="of every shape instead of its own four")
    p.add_argument("--methods", default="lora,edge,edge again")
    p.add_argument("--bits", default="4")
    p.add_argument("--rank", default="8")
    p.add_argument("--steps", type=int, default=6)
    p.add_argument("--at-least", type=float, default=0, metavar="S",
                   help="as many steps more as take S seconds")
    p.add_argument("--repeat", type=int, default=1, metavar="N",
                   help="run every row so many times, in rounds over all rows, and print medians")
    p.add_argument("--tokens", type=int, default=256)
    p.add_argument("--options", default="", help="further options of tune")
    p.add_argument("--weights-io", default="cached")
    p.add_argument("--enforce", action="store_true",
                   help="run under RLIMIT_DATA of the limit, so that asking for more memory fails")
    p.add_argument("--cgroup", action="store_true",
                   help="run in a cgroup with the limit, which takes the right to make one")
    p.add_argument("--seconds", type=float, default=0, help="begin no run after so many; 0: no end")
    args = p.parse_args()
    start = time.monotonic()
    if args.cgroup:
        try:
            with memory_cgroup.MemoryCgroup(2**30):
                pass
        except memory_cgroup.CgroupError as e:
            raise SystemExit(f"--cgroup: {e}") from e
    args.workdir.mkdir(parents=True, exist_ok=True)
    data = args.workdir / "data.jsonl"
    # Two passes, so that adaptive tuning keeps the states below its windows.
    # Rows a little shorter than the longest, which are not cut.
    make_data(data, max(1, args.steps // 2), args.tokens - 8)
    kept = args.workdir / "rows.jsonl"
    done = {}  # of every row the (code, result) of its rounds
    for line in kept.read_text().splitlines() if kept.exists() else []:
        saved = json.loads(line)
        done.setdefault(tuple(saved["key"]), []).append((saved["code"], saved["result"]))
    left = 0
    rows = [(shape, limit, method) for shape in args.shapes.split(",")
            for limit in (args.limits or LIMITS[shape]).split(",")
            for method in args.methods.split(",")]
    for shape in dict.fromkeys(shape for shape, _, _ in rows):
        base = args.workdir / f"{shape}-{args.bits}"
        if not (base / "packed.safetensors").exists():
            subprocess.run([args.edgewise, "random-base", "--shape", shape, "--bits", args.bits,
                            "--tokenizer", args.tokenizer, "-o", base, "--quiet"], check=True)
    for turn in range(args.repeat):
        for key in rows:
            if len(done.get(key, [])) > turn:
                continue
            if args.seconds and time.monotonic() - start > args.seconds:
                left += 1
                continue
            done.setdefault(key, []).append(measure(args, data, key, done[key]))
            with open(kept, "a") as f:
                code, result = done[key][-1]
                f.write(json.dumps({"key": key, "code": code, "result": result}) + "\n")
    columns = COLUMNS + (GROUP_COLUMNS if args.cgroup else ())
    print("| " + " | ".join(columns) + " |")
    print("|---" * len(columns) + "|")
    for key, rounds in done.items():
        print(row_text(key, rounds))
    print(f"\n{summary(done.values())}")
    if left:
        print(f"{left} runs left: call again")


if __name__ == "__main__":
    main()
