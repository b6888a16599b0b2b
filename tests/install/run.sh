#!/usr/bin/env bash
# Installs the build tree into a temporary prefix, then builds and runs a project that knows nothing
# but find_package(edgewise).   usage: run.sh BUILD_DIR
set -euo pipefail
build=$1
here=$(dirname "$(readlink -f "$0")")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cmake --install "$build" --prefix "$work/prefix" >"$work/install.log"
cmake -G Ninja -S "$here/consumer" -B "$work/build" -DCMAKE_PREFIX_PATH="$work/prefix" \
  -DCMAKE_BUILD_TYPE=Release
cmake --build "$work/build"
"$work/build/consumer" "$work"
if [ -x "$work/prefix/bin/edgewise" ]; then
  "$work/prefix/bin/edgewise" --version
fi
