#!/usr/bin/env bash
# usage: run.sh SCRIPT PROGRAM. Gives the script an empty folder that is removed afterwards.
set -euo pipefail
export EDGEWISE=$2 WORK
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
bash "$1"
