#!/usr/bin/env python3
"""Spoken commands of a household and the actions they mean, as prompt/completion rows.

    "could you dim the lamp in the study please"  ->  "light study dim"

Writes train.jsonl, valid.jsonl and test.jsonl. Of the (room, device, action) combinations one in
five is held out: it occurs in test.jsonl alone, so that a model has to understand the parts. The
data are a pure function of --seed.

usage: make_data.py DIRECTORY [--rows N] [--seed S]
"""

import argparse
import json
import pathlib
import random

ROOMS = ["kitchen", "bedroom", "study", "hall", "bathroom", "garage", "attic", "nursery"]
# device -> (how people call it, action -> how they ask for it)
DEVICES = {
    "light": (["lamp", "light", "lights"],
              {"on": ["turn on", "switch on", "light up"],
               "off": ["turn off", "switch off", "put out"],
               "dim": ["dim", "turn down"]}),
    "blind": (["blind", "blinds", "shutter"],
              {"open": ["open", "raise", "pull up"],
               "close": ["close", "lower", "pull down"]}),
    "heater": (["heater", "radiator", "heating"],
               {"on": ["start", "turn on", "switch on"],
                "off": ["stop", "turn off", "switch off"]}),
    "music": (["music", "speaker", "radio"],
              {"on": ["play", "start"], "off": ["stop", "silence"], "pause": ["pause"]}),
}
SHAPES = ["{verb} the {device} in the {room}", "in the {room} {verb} the {device}",
          "please {verb} the {room} {device}", "could you {verb} the {device} in the {room} please",
          "{verb} the {room} {device} now", "i want you to {verb} the {device} in the {room}"]


def row(rng, room, device, action):
    names, actions = DEVICES[device]
    text = rng.choice(SHAPES).format(verb=rng.choice(actions[action]), device=rng.choice(names),
                                     room=room)
    return {"prompt": text + " =>", "completion": f" {device} {room} {action}"}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=pathlib.Path)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()

    rng = random.Random(args.seed)
    combinations = [(room, device, action) for room in ROOMS
                    for device, (_, actions) in DEVICES.items() for action in actions]
    rng.shuffle(combinations)
    cut = len(combinations) // 5
    held_out, known = combinations[:cut], combinations[cut:]
    sets = {"train": (known, args.rows), "valid": (known, args.rows // 20),
            "test": (held_out, args.rows // 20)}
    args.directory.mkdir(parents=True, exist_ok=True)
    for name, (choices, count) in sets.items():
        with open(args.directory / f"{name}.jsonl", "w", encoding="utf-8") as out:
            for _ in range(count):
                out.write(json.dumps(row(rng, *rng.choice(choices))) + "\n")


if __name__ == "__main__":
    main()
