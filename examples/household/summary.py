#!/usr/bin/env python3
"""Prints what the quickstart found out, from the JSON files that it left in its folder."""

import json
import pathlib
import sys


def main():
    work = pathlib.Path(sys.argv[1])

    def read(name):
        return json.loads((work / name).read_text(encoding="utf-8"))

    def size(folder):
        files = ("packed.safetensors", "model.safetensors")
        return sum(p.stat().st_size for p in map(folder.joinpath, files) if p.exists()) / 2**20

    for sample in read("run/samples.json")[:3]:
        print(f"\n  {sample['prompt']}\n    before  {(sample['before'].splitlines() or [''])[0][:60]}"
              f"\n    after   {sample['after'][:60]}")

    model = pathlib.Path("models/hearth-10m")
    fp32 = 4 * read("vanilla.json")["base_parameters"] / 2**20
    rows = [("", "base", "accuracy", "memory", "time")]
    rows.append(("before", f"{size(model):.1f} MiB", f"{read('before.json')['accuracy']:.1%}", "", ""))
    for name, base, run, score in (("edgewise", size(work / "base"), "run", "after"),
                                   ("vanilla LoRA", fp32, "vanilla", "vanilla-after")):
        result = read(run + ".json")
        rows.append((name, f"{base:.1f} MiB", f"{read(score + '.json')['accuracy']:.1%}",
                     f"{result['peak_rss_bytes'] / 2**20:.0f} MiB", f"{result['seconds']:.1f} s"))
    n = read("after.json")["n"]
    print(f"\nexact answers to {n} commands whose combination of room, device and action was never "
          "trained:\n")
    for row in rows:
        print(f"  {row[0]:<14}{row[1]:>10}{row[2]:>11}{row[3]:>11}{row[4]:>10}")


if __name__ == "__main__":
    main()
