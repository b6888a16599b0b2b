#!/usr/bin/env python3
"""Spoken commands of a household and the actions they mean, as chats.

    "could you dim the lamp in the crow's nest please"  ->  light.dim(attic)

Writes train.jsonl, valid.jsonl and test.jsonl. Of the (room, device, action) combinations one in
ten is held out: it occurs in test.jsonl alone, so that a model has to understand the parts. Three
of the ways to phrase a command occur in test.jsonl alone, too. The data are a pure function of the
arguments.

usage: make_data.py DIRECTORY [--rows N] [--test N] [--seed S]
"""

import argparse
import json
import pathlib
import random

# What this family calls its rooms. Some names are its own and mean nothing to anybody else.
ROOMS = {"kitchen": ["kitchen"], "bedroom": ["bedroom"], "study": ["study", "office"],
         "hall": ["hall", "hallway"], "bathroom": ["bathroom", "bath"],
         "garage": ["garage", "workshop"], "attic": ["attic", "crow's nest"],
         "nursery": ["nursery", "baby's room"], "garden": ["garden", "jungle"],
         "cellar": ["cellar", "dungeon"], "library": ["library", "book room"],
         "porch": ["porch"], "stairs": ["stairs"], "pantry": ["pantry", "larder"],
         "lounge": ["lounge", "living room"], "laundry": ["laundry"]}
# device -> (how people call it, action -> how they ask for it)
DEVICES = {
    "light": (["lamp", "light", "lights"],
              {"on": ["turn on", "switch on", "light up"],
               "off": ["turn off", "switch off", "put out"],
               "dim": ["dim", "turn down", "soften"]}),
    "blind": (["blind", "blinds", "shutter"],
              {"open": ["open", "raise", "pull up"],
               "close": ["close", "lower", "pull down"]}),
    "heater": (["heater", "radiator", "heating"],
               {"on": ["start", "turn on", "switch on"],
                "off": ["stop", "turn off", "switch off"]}),
    "music": (["music", "speaker", "radio"],
              {"on": ["play", "start", "turn on"], "off": ["stop", "silence", "turn off"],
               "pause": ["pause", "hold"]}),
    "door": (["door", "big door"],
             {"lock": ["lock", "bolt"], "unlock": ["unlock", "unbolt"]}),
    "fan": (["fan", "ventilator"],
            {"on": ["turn on", "start"], "off": ["turn off", "stop"], "faster": ["speed up"]}),
    "camera": (["camera", "webcam"],
               {"record": ["record with", "film with"], "off": ["turn off", "cover"]}),
}
SHAPES = ["{verb} the {device} in the {room}", "in the {room} {verb} the {device}",
          "please {verb} the {room} {device}", "could you {verb} the {device} in the {room} please",
          "{verb} the {room} {device} now", "i want you to {verb} the {device} in the {room}",
          "hey, {verb} the {device} in the {room}", "{verb} the {device} of the {room}",
          "can you {verb} the {room} {device} for me"]
NEW_SHAPES = ["would you {verb} the {room} {device}", "please {verb} the {device} in the {room} now",
              "in the {room}, could you {verb} the {device}"]


def row(rng, shapes, room, device, action):
    names, actions = DEVICES[device]
    text = rng.choice(shapes).format(verb=rng.choice(actions[action]), device=rng.choice(names),
                                     room=rng.choice(ROOMS[room]))
    return {"messages": [{"role": "user", "content": text},
                         {"role": "assistant", "content": f"{device}.{action}({room})"}]}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=pathlib.Path)
    parser.add_argument("--rows", type=int, default=2400)
    parser.add_argument("--test", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()

    rng = random.Random(args.seed)
    combinations = [(room, device, action) for room in ROOMS
                    for device, (_, actions) in DEVICES.items() for action in actions]
    rng.shuffle(combinations)
    cut = len(combinations) // 10
    held_out, known = combinations[:cut], combinations[cut:]
    sets = {"train": (known, SHAPES, args.rows), "valid": (known, SHAPES, args.rows // 20),
            "test": (held_out, SHAPES + NEW_SHAPES, args.test)}
    args.directory.mkdir(parents=True, exist_ok=True)
    for name, (choices, shapes, count) in sets.items():
        with open(args.directory / f"{name}.jsonl", "w", encoding="utf-8") as out:
            for _ in range(count):
                out.write(json.dumps(row(rng, shapes, *rng.choice(choices))) + "\n")


if __name__ == "__main__":
    main()
