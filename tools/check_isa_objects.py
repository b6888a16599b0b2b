#!/usr/bin/env python3
"""Fails when an object file compiled for one instruction set shares code with others.

A weak symbol (an inline function or a template instance with external linkage) in such a file may be
the copy that the linker keeps for the whole program, which then dies on processors without that
instruction set. See src/kernels/cpu/inline.h.

usage: check_isa_objects.py NM ARCHIVE
"""
import re
import subprocess
import sys

ISA_OBJECT = re.compile(r"_(avx\w*|neondot|neoni8mm)\.cc\.o:?$")
# Code that is only ever called through unwinding or the sanitizer runtime.
HARMLESS = re.compile(r"(DW\.ref\.|__asan|__ubsan|__odr_asan|asan\.module)")


def main() -> int:
    nm, archive = sys.argv[1:]
    listing = subprocess.run([nm, "-C", archive], check=True, capture_output=True, text=True).stdout
    isa_object = None
    checked, bad = 0, []
    for line in listing.splitlines():
        if line.endswith(".o:"):
            isa_object = line[:-1] if ISA_OBJECT.search(line) else None
            checked += isa_object is not None
            continue
        match = re.match(r"[0-9a-f]+ ([WVu]) (.*)", line)
        if isa_object and match and not HARMLESS.search(match.group(2)):
            bad.append(f"{isa_object}: {match.group(2)}")
    for entry in bad:
        print(f"shared symbol in a file for one instruction set: {entry}")
    if checked == 0:
        print(f"no object for one instruction set in {archive}")
    return 1 if bad or checked == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
