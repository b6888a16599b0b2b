# Sourced by ./test and ./quickstart: packages, configuration, build. Expects to run in the
# repository root with `set -euo pipefail`.

say() { printf '%s\n' "$*" >&2; }

# Names of scripts/packages.txt that are not installed.
missing_packages() {
  local name
  while read -r name; do
    case $name in '' | '#'*) continue ;; esac
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$name" 2>/dev/null)" = installed ] || echo "$name"
  done <scripts/packages.txt
}

# Installs what is missing as root or with sudo; otherwise says what to install and stops.
require_packages() {
  if ! command -v dpkg-query >/dev/null; then
    say "note: not a Debian system; expecting the libraries of scripts/packages.txt to be installed"
    return
  fi
  local missing
  missing=$(missing_packages | tr '\n' ' ')
  [ -n "${missing// /}" ] || return 0
  local apt=(apt-get)
  if [ "$(id -u)" != 0 ]; then
    if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
      apt=(sudo apt-get)
    else
      say "missing packages: $missing"
      say "install them with: sudo apt-get install --no-install-recommends $missing"
      exit 1
    fi
  fi
  say "installing: $missing"
  "${apt[@]}" update -q >&2
  # shellcheck disable=SC2086
  DEBIAN_FRONTEND=noninteractive "${apt[@]}" install -q -y --no-install-recommends $missing >&2
}

# Compiling needs up to about 1.5 GiB a process: fewer at a time on a small machine.
build_jobs() {
  local cores memory
  cores=$(nproc)
  memory=$(awk '/^MemAvailable:/ {print int($2 / 1500000)}' /proc/meminfo)
  [ "$memory" -ge 1 ] || memory=1
  [ "$cores" -le "$memory" ] && echo "$cores" || echo "$memory"
}

# build PRESET [TARGET...]
build() {
  local preset=$1
  shift
  # Compiler cache entries stay valid when the checkout moves.
  export CCACHE_BASEDIR=$PWD CCACHE_NOHASHDIR=1
  say "== configure: $preset"
  cmake --preset "$preset" >&2
  say "== build: $preset ${*:-everything}"
  cmake --build "build/$preset" -j "$(build_jobs)" ${1:+--target "$@"} >&2
}
