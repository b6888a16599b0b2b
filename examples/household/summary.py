#!/usr/bin/env python3
"""Prints what the quickstart found out, from the JSON files that it left in its folder."""

import json
import pathlib
import sys


def first_line(text, width=60):
    return (text.splitlines() or ["(nothing)"])[0][:width]


def print_answers(samples):
    print("\nanswers to commands that it was never taught:")
    for sample in samples[:4]:
        right = "right" if sample["after"] == sample["wanted"] else f"wanted {sample['wanted']}"
        print(f"\n  {first_line(sample['prompt'], 76)}\n    before  {first_line(sample['before'])}"
              f"\n    after   {first_line(sample['after'], 50)}  ({right})")


def print_exits(vote):
    print("\nexits of the tuned model, on the same commands (loss: lower is better):\n")
    rules = vote["vote"]["rules"]
    rows = [(f"exit after {e['layers']} layers", f"single:{e['exit']}", e) for e in vote["exits"]]
    rows += [(f"vote: {name}", name, rules[name]) for name in rules if not name.startswith("single")]
    for shown, name, score in rows:
        chosen = "  <- what the run found best" if name == vote["vote"]["rule"] else ""
        print(f"  {shown:<22}{score['loss']:>9.5f}{score['token_accuracy']:>8.1%} of tokens{chosen}")


def main():
    work = pathlib.Path(sys.argv[1])

    def read(name):
        return json.loads((work / name).read_text(encoding="utf-8"))

    def size(folder):
        files = ("packed.safetensors", "model.safetensors")
        return sum(p.stat().st_size for p in map(folder.joinpath, files) if p.exists()) / 2**20

    print_answers(read("run/samples.json"))
    print_exits(read("vote.json"))
    model = pathlib.Path("models/hearth-10m")
    fp32 = 4 * read("vanilla.json")["base_parameters"] / 2**20
    rows = [("", "base", "right answers", "peak memory", "tuning")]
    rows.append(("before", f"{size(model):.1f} MiB", f"{read('before.json')['accuracy']:.1%}", "",
                 ""))
    for name, base, run, score in (("edgewise", size(work / "base"), "run", "after"),
                                   ("vanilla LoRA, fp32", fp32, "vanilla", "vanilla-after")):
        result = read(run + ".json")
        rows.append((name, f"{base:.1f} MiB", f"{read(score + '.json')['accuracy']:.1%}",
                     f"{result['peak_rss_bytes'] / 2**20:.0f} MiB", f"{result['seconds']:.1f} s"))
    n = read("after.json")["n"]
    print(f"\nexact answers to {n} commands whose combination of room, device and action was never\n"
          "trained:\n")
    for row in rows:
        print(f"  {row[0]:<19}{row[1]:>10}{row[2]:>15}{row[3]:>13}{row[4]:>10}")


if __name__ == "__main__":
    main()
