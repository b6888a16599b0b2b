#!/usr/bin/env python3
"""Perplexity against bytes for every policy, width, sparsity and pair of methods.

Compresses MODEL under each of {uniform, random, paper, budget} x --bits x --sparsities x {RTN +
magnitude, GPTQ + SparseGPT}, evaluates every base on every text, and writes a table into --document
(between its study markers) and a picture. `budget` is run at the packed size of `uniform` and of
`paper`, so that each of the others has a rival of its own size.

Results are kept in --work, one file each: a study that was stopped goes on where it was.

  tools/compression_study.py MODEL --calibration FILE --text NAME=FILE --text NAME=FILE --work DIR
"""

import argparse
import json
import math
import pathlib
import shutil
import subprocess
import sys
import time

METHODS = {"RTN + magnitude": ("rtn", "magnitude"), "GPTQ + SparseGPT": ("gptq", "sparsegpt")}
COLOURS = {"uniform": "#7f7f7f", "random": "#bcbd22", "paper": "#1f77b4", "budget": "#d62728"}
BEGIN, END = "<!-- study: begin -->", "<!-- study: end -->"


class Study:
    def __init__(self, args):
        self.args = args
        self.work = pathlib.Path(args.work)
        self.work.mkdir(parents=True, exist_ok=True)
        self.texts = dict(t.split("=", 1) for t in args.text)
        self.deadline = time.monotonic() + args.seconds if args.seconds else math.inf

    def run(self, *words):
        command = [self.args.edgewise, *map(str, words), "--json", "--quiet"]
        if self.args.threads:
            command += ["--threads", str(self.args.threads)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            sys.exit(f"{' '.join(command)}\nexit code {done.returncode}: {done.stderr[-2000:]}")
        return json.loads(done.stdout)

    def out_of_time(self):
        return time.monotonic() > self.deadline

    def evaluate(self, model):
        return {
            name: self.run("eval", model, "--data", path, "--protocol", "fixed",
                           "--limit-tokens", self.args.tokens)["perplexity"]
            for name, path in self.texts.items()
        }

    def cached(self, name, make):
        """The result in work/name.json, made when absent; None when there is no time left."""
        path = self.work / f"{name}.json"
        if path.exists():
            return json.loads(path.read_text())
        if self.out_of_time():
            return None
        result = make()
        path.write_text(json.dumps(result))
        return result

    def base(self, method, bits, sparsity, policy, size=0, label=None):
        """Compresses, evaluates and throws the base away."""
        quantizer, pruner = METHODS[method]
        name = f"{quantizer}-{bits}-{sparsity}-{label or policy}"

        def make():
            out = self.work / name
            shutil.rmtree(out, ignore_errors=True)
            extra = ["--size", size] if size else []
            report = self.run(
                "compress", self.args.model, "--calibration", self.args.calibration,
                "--windows", self.args.windows, "--loss-tokens", self.args.loss_tokens,
                "--bits", bits, "--sparsity", sparsity,
                "--policy", policy, "--quantizer", quantizer, "--pruner", pruner, "--table",
                self.work / f"sensitivity-{quantizer}.json", "-o", out, *extra)
            result = {"method": method, "bits": bits, "sparsity": sparsity, "policy": policy,
                      "label": label or policy, "bytes": report["linear_bytes"],
                      "average_bits": report["average_bits"],
                      "average_sparsity": report["sparsity"],
                      "perplexity": self.evaluate(out)}
            shutil.rmtree(out)
            return result

        return self.cached(name, make)

    def dense(self):
        return self.cached("dense", lambda: {"perplexity": self.evaluate(self.args.model)})

    def table_of_method(self, method):
        quantizer, pruner = METHODS[method]
        path = self.work / f"sensitivity-{quantizer}.json"
        if not path.exists() and not self.out_of_time():
            self.run("profile", self.args.model, "--calibration", self.args.calibration,
                     "--windows", self.args.windows, "--loss-tokens", self.args.loss_tokens,
                     "--quantizer", quantizer,
                     "--pruner", pruner, "-o", path)

    def cell(self, method, bits, sparsity, rows):
        """The three policies and their rivals; False when time ran out."""
        sizes = {}
        for policy in ("uniform", "paper", "random"):
            row = self.base(method, bits, sparsity, policy)
            if row is None:
                return False
            sizes[policy] = row["bytes"]
            rows.append(row)
        sizes["paper"] = min(sizes["paper"], sizes["random"])
        for rival in ("uniform", "paper"):
            # A hair less: sizes of sparse linears are known to a thousandth before masks are chosen.
            row = self.base(method, bits, sparsity, "budget", int(sizes[rival] * 0.998),
                            f"budget-at-{rival}")
            if row is None:
                return False
            rows.append(row)
        return True

    def all(self, methods):
        """(rows, whether that is all of them)"""
        rows, complete = [], True
        for method in methods:
            self.table_of_method(method)
        for bits in self.args.bits:
            for sparsity in self.args.sparsities:
                for method in methods:
                    complete &= self.cell(method, bits, sparsity, rows)
        return rows, complete


def rival_of(row, rows):
    """The budget policy of at most the same size (random has about the size of paper)."""
    label = "budget-at-uniform" if row["policy"] == "uniform" else "budget-at-paper"
    return next((r for r in rows if r["label"] == label and
                 all(r[k] == row[k] for k in ("method", "bits", "sparsity"))), None)


def markdown(study, rows, dense):
    names = list(study.texts)
    out = ["| methods | policy | bits | sparsity | linears, MB | " + " | ".join(names) +
           " | `budget` of that size |", "|" + "---|" * (6 + len(names))]
    out.append("| | original, 16 bits | 16 | 0 | | " +
               " | ".join(f"{dense['perplexity'][n]:.2f}" for n in names) + " | |")
    won = lost = 0
    for row in rows:
        if row["policy"] == "budget":
            continue
        rival = rival_of(row, rows)
        mine = (f"| {row['method']} | {row['policy']} | {row['average_bits']:.2f} | "
                f"{row['average_sparsity']:.0%} | {row['bytes'] / 1e6:.3f} | " +
                " | ".join(f"{row['perplexity'][n]:.2f}" for n in names))
        if rival is None:
            out.append(mine + " | not run |")
            continue
        cells = []
        for n in names:
            better = rival["perplexity"][n] < row["perplexity"][n]
            won, lost = won + better, lost + (not better)
            cells.append(f"{rival['perplexity'][n]:.2f}" + ("" if better else " (not lower)"))
        out.append(mine + f" | {' / '.join(cells)} at {rival['bytes'] / 1e6:.3f} MB |")
    out.append("")
    out.append(f"Of {won + lost} comparisons at equal size `budget` is lower in {won}.")
    return "\n".join(out)


def picture(study, rows, dense):
    """Bytes against perplexity, one panel per text and pair of methods."""
    names, methods = list(study.texts), [m for m in METHODS if any(r["method"] == m for r in rows)]
    width, height, left, top, gap = 420, 300, 60, 50, 70
    svg = []
    low = min(r["bytes"] for r in rows) / 1e6 * 0.97
    high = max(r["bytes"] for r in rows) / 1e6 * 1.02
    for i, name in enumerate(names):
        values = [r["perplexity"][name] for r in rows] + [dense["perplexity"][name]]
        bottom, ceiling = math.log(min(values) * 0.995), math.log(max(values) * 1.005)
        for j, method in enumerate(methods):
            x0, y0 = left + j * (width + gap), top + i * (height + gap)

            def x(mb):
                return x0 + (mb - low) / (high - low) * width

            def y(ppl):
                return y0 + height - (math.log(ppl) - bottom) / (ceiling - bottom) * height

            svg.append(f'<rect x="{x0}" y="{y0}" width="{width}" height="{height}" fill="none" '
                       'stroke="#999"/>')
            svg.append(f'<text x="{x0 + width / 2}" y="{y0 - 10}" text-anchor="middle">'
                       f'{method}, {name}</text>')
            svg.append(f'<text x="{x0 + width / 2}" y="{y0 + height + 34}" text-anchor="middle">'
                       'bytes of the linears, MB</text>')
            for k in range(5):
                mb = low + (high - low) * k / 4
                ppl = math.exp(bottom + (ceiling - bottom) * k / 4)
                svg.append(f'<text x="{x(mb):.1f}" y="{y0 + height + 16}" font-size="11" '
                           f'text-anchor="middle">{mb:.2f}</text>')
                svg.append(f'<text x="{x0 - 6}" y="{y(ppl) + 4:.1f}" font-size="11" '
                           f'text-anchor="end">{ppl:.1f}</text>')
            d = dense["perplexity"][name]
            svg.append(f'<line x1="{x0}" x2="{x0 + width}" y1="{y(d):.1f}" y2="{y(d):.1f}" '
                       'stroke="#333" stroke-dasharray="4 3"/>')
            mine = [r for r in rows if r["method"] == method]
            line = sorted((r["bytes"] / 1e6, r["perplexity"][name])
                          for r in mine if r["policy"] == "budget")
            svg.append('<polyline fill="none" stroke="' + COLOURS["budget"] + '" points="' +
                       " ".join(f"{x(b):.1f},{y(p):.1f}" for b, p in line) + '"/>')
            for r in mine:
                cx, cy = x(r["bytes"] / 1e6), y(r["perplexity"][name])
                colour = COLOURS[r["policy"]]
                if r["sparsity"] > 0:
                    svg.append(f'<rect x="{cx - 3.5:.1f}" y="{cy - 3.5:.1f}" width="7" height="7" '
                               f'fill="{colour}"/>')
                else:
                    svg.append(f'<circle cx="{cx:.1f}" cy="{cy:.1f}" r="4" fill="{colour}"/>')
    total_w = left + len(methods) * (width + gap)
    total_h = top + len(names) * (height + gap) + 20
    legend, at = [], left
    for policy, colour in COLOURS.items():
        legend.append(f'<circle cx="{at}" cy="18" r="5" fill="{colour}"/>'
                      f'<text x="{at + 10}" y="22">{policy}</text>')
        at += 100
    legend.append(f'<text x="{at}" y="22">circle: dense, square: sparse request; '
                  'dashed: 16 bits</text>')
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{total_w}" height="{total_h}" '
            'font-family="sans-serif" font-size="13"><rect width="100%" height="100%" '
            'fill="white"/>' + "\n".join(legend + svg) + "</svg>\n")


def main():
    p = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("model")
    p.add_argument("--edgewise", default="build/release/edgewise")
    p.add_argument("--calibration", required=True)
    p.add_argument("--text", action="append", required=True, metavar="NAME=FILE")
    p.add_argument("--work", required=True, help="folder of results, to go on from")
    p.add_argument("--bits", type=int, nargs="+", default=[3, 4, 5])
    p.add_argument("--sparsities", type=float, nargs="+", default=[0.0, 0.5])
    p.add_argument("--tokens", type=int, default=20480, help="of each text")
    p.add_argument("--windows", type=int, default=8, help="of calibration text, 512 tokens each")
    p.add_argument("--loss-tokens", type=int, default=4096)
    p.add_argument("--methods", nargs="+", choices=["rtn", "gptq"], default=["rtn", "gptq"])
    p.add_argument("--threads", type=int, default=0)
    p.add_argument("--seconds", type=float, default=0, help="stop in order after so long")
    p.add_argument("--partial", action="store_true", help="write what there is when time runs out")
    p.add_argument("--document", help="Markdown file whose study section is replaced")
    p.add_argument("--figure", help="SVG file to write")
    args = p.parse_args()
    study = Study(args)
    dense = study.dense()
    rows, complete = study.all([m for m, (q, _) in METHODS.items() if q in args.methods])
    if not complete:
        print("stopped; run again to go on", file=sys.stderr)
        if not args.partial or not rows:
            return 4
    rows.sort(key=lambda r: (list(METHODS).index(r["method"]), r["sparsity"], r["bits"]))
    table = markdown(study, rows, dense)
    print(table)
    if args.figure:
        pathlib.Path(args.figure).write_text(picture(study, rows, dense))
    if args.document:
        path = pathlib.Path(args.document)
        text = path.read_text()
        if BEGIN not in text or END not in text:
            sys.exit(f"{path} has no lines '{BEGIN}' and '{END}'")
        head, rest = text.split(BEGIN, 1)
        path.write_text(head + BEGIN + "\n" + table + "\n" + END + rest.split(END, 1)[1])
    return 0


if __name__ == "__main__":
    sys.exit(main())
