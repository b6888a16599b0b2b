#!/usr/bin/env python3
"""Checks that folders under src/ are layers: includes go down only.

Every `#include "module/..."` in src/ is held against cmake/layers.txt ("rank module" a line). A
file may include its own module and modules of a lower rank. Tests (*_test.cc) may also include
modules of their own rank and testing/. Anything else is an error: an upward or sideways include, a
folder without a rank, an include whose first folder is no module.

usage: check_layers.py [ROOT]
"""

import pathlib
import re
import sys

INCLUDE = re.compile(r'^\s*#\s*include\s*"([^"]+)"')


def read_ranks(path):
    ranks = {}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        line = line.split("#", 1)[0].split()
        if not line:
            continue
        if len(line) != 2 or not line[0].isdigit():
            raise SystemExit(f"{path}:{number}: expected 'rank module'")
        ranks[line[1]] = int(line[0])
    return ranks


def check_file(path, module, ranks):
    """Yields one message per forbidden include."""
    is_test = path.name.endswith("_test.cc")
    for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
        match = INCLUDE.match(line)
        if not match:
            continue
        target = match.group(1)
        where = f"{path}:{number}"
        if "/" not in target or target.startswith("."):
            yield f'{where}: "{target}": write the path from src/, for example "base/status.h"'
            continue
        other = target.split("/", 1)[0]
        if other == "testing":
            if not is_test:
                yield f'{where}: "{target}": test support in code that is not a test'
        elif other not in ranks:
            yield f'{where}: "{target}": no module {other} in cmake/layers.txt'
        elif other != module:
            if ranks[other] > ranks[module]:
                yield f'{where}: "{target}": upward include, {module} is rank ' \
                      f"{ranks[module]}, {other} is rank {ranks[other]}"
            elif ranks[other] == ranks[module] and not is_test:
                yield f'{where}: "{target}": sideways include, {module} and {other} ' \
                      f"are both rank {ranks[module]}"


def check_tree(root):
    ranks = read_ranks(root / "cmake" / "layers.txt")
    errors = []
    files = 0
    for path in sorted((root / "src").rglob("*")):
        if path.suffix not in (".h", ".cc", ".inc") or not path.is_file():
            continue
        files += 1
        module = path.relative_to(root / "src").parts[0]
        if module not in ranks:
            errors.append(f"{path}: folder {module} has no rank in cmake/layers.txt")
            continue
        errors.extend(check_file(path, module, ranks))
    return files, errors


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve()
    files, errors = check_tree(root)
    for error in errors:
        print(error)
    print(f"{files} files, {len(errors)} forbidden includes")
    return 1 if errors or files == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
