# Sourced by scripts/quickstart, scripts/test and scripts/test_oldest: makes or reuses an environment.
# usage: prepare_environment [EXTRA], or prepare_oldest_environment with another $venv

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv="$here/.venv"
# Else each process compiles PyTorch and Lightning again: 14 s to import, with bytecode 5 s.
unset PYTHONDONTWRITEBYTECODE

say() { printf '%s\n' "$*" >&2; }
stop() { say "$*"; exit 2; }

# minutes_here WITH WITHOUT: the time that is needed where a CPU computes in bf16, or where it does
# not. Which flags say so is in training/machine.py; before the installation only bash can read them.
minutes_here() {
  local flags
  flags=$(sed -n 's/^_BF16_FLAGS = {\(.*\)}.*/\1/p' "$here/training/machine.py" | tr -d '" ')
  if grep -qwE "${flags//,/|}" "${CPUINFO:-/proc/cpuinfo}" 2>/dev/null; then
    printf 'about %s minutes on 2 cores that compute in bf16, as these do' "$1"
  else
    printf 'about %s minutes on 2 cores without bf16, such as these' "$2"
  fi
}

find_python() {
  local candidate
  for candidate in python3.11 python3.12 python3.13 python3.14 python3; do
    if command -v "$candidate" >/dev/null 2>&1 &&
      "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null; then
      printf '%s' "$candidate"
      return 0
    fi
  done
  stop "Python 3.11 to 3.14 is needed and none was found: sudo apt-get install python3"
}

# apt-get as root or through a sudo that asks nothing; fails elsewhere.
debian_install() {
  local as_root=()
  [ "$(id -u)" = 0 ] || as_root=(sudo -n)
  command -v apt-get >/dev/null 2>&1 || return 1
  say "Installing Debian packages: $*"
  { "${as_root[@]}" apt-get update && "${as_root[@]}" apt-get install -y --no-install-recommends "$@"; } \
    >/dev/null 2>&1
}

make_venv() {
  local python
  python=$(find_python) || exit 2
  say "Making $venv with $python"
  if ! "$python" -m venv "$venv" >/dev/null 2>&1; then
    rm -rf "$venv"
    debian_install python3-venv && "$python" -m venv "$venv" >/dev/null 2>&1 ||
      { rm -rf "$venv"; stop "This Python cannot make environments: sudo apt-get install python3-venv, then run again"; }
  fi
}

# uv resolves and downloads in parallel: all of this installs faster than pip installs torch alone.
# It does not read pip's settings, so an index that pip was told to use is handed on.
get_uv() {
  local index
  "$venv/bin/python" -m pip install --quiet --constraint "$here/constraints.txt" uv || return 1
  index=${PIP_INDEX_URL:-$("$venv/bin/python" -m pip config get global.index-url 2>/dev/null || true)}
  if [ -n "$index" ]; then export UV_DEFAULT_INDEX="$index"; fi
}

# Without a GPU PyTorch's own index has a PyTorch for the processor alone, which is much smaller.
# PyPI has one for GPUs only: where that index does not answer in a minute, it is taken without
# triton (1 GB), which compiles for GPUs.
install_pinned() {
  local install without_triton
  get_uv || return 1
  install=("$venv/bin/uv" pip install --python "$venv/bin/python" --constraint "$here/constraints.txt")
  if command -v nvidia-smi >/dev/null 2>&1; then
    "${install[@]}" "$@"
  elif timeout 60 "${install[@]}" --torch-backend=auto --dry-run "$@" >/dev/null 2>&1; then
    "${install[@]}" --torch-backend=auto "$@"
  else
    without_triton=$(mktemp)
    echo "triton; sys_platform == 'never'" >"$without_triton"
    "${install[@]}" --override "$without_triton" "$@"
  fi
}

# install_once NAME COMMAND...: runs the command unless it has run for these versions before, and
# sets installed=1 if it runs.
install_once() {
  local stamp="$venv/.cxr-installed-$1" wanted
  shift
  wanted=$(cat "$here/setup.cfg" "$here/constraints.txt" | cksum | tr -d ' \n')
  [ -x "$venv/bin/python" ] || make_venv
  if [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
    say "Using $venv as it is"
    return 0
  fi
  say "Installing into $venv"
  "$@" || stop "The installation failed; see the lines above, then run this again"
  printf '%s' "$wanted" >"$stamp"
  installed=1
}

install_tested_versions() {
  install_pinned --editable "$1" ||
    "$venv/bin/python" -m pip install --constraint "$here/constraints.txt" --editable "$1"
}

prepare_environment() {
  local extra=${1:-}
  install_once "${extra:-core}" install_tested_versions "$here${extra:+[$extra]}"
}

# Only uv can choose the lowest versions that the requirements allow.
install_lowest_versions() {
  local extras
  extras=$("$venv/bin/python" - "$here/setup.cfg" <<'END'
import configparser, sys
config = configparser.ConfigParser()
config.read(sys.argv[1])
print(",".join(config["options.extras_require"]))
END
  )
  get_uv
  "$venv/bin/uv" pip install --python "$venv/bin/python" --resolution lowest-direct \
    --editable "$here[$extras]"
}

prepare_oldest_environment() {
  install_once lowest install_lowest_versions
}
