#!/usr/bin/env bash
# The full-size study: detector, CheXNet and probe on all of RSNA, from scripts/full_size.toml.
# usage: scripts/full_size.sh [--rehearsal] [--data FOLDER] [--challenge FOLDER] [--out FOLDER]
#        scripts/full_size.sh --commands      print the cxr commands of the study, and run nothing
#        scripts/full_size.sh --predict       print the predicted hours and disk, and run nothing
# An interrupted study goes on where it was if you run it again. docs/full-size.md explains it.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

python="$venv/bin/python"
if [ -n "${CXR_SKIP_INSTALL:-}" ]; then
  python=$(command -v python3)
else
  prepare_environment train,lite
fi
protocol=(--protocol "$here/scripts/full_size.toml")
for word in "$@"; do
  case "$word" in --protocol | --protocol=*) protocol=() ;; esac
done
export PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}"
exec "$python" -m tools.full_size "${protocol[@]}" "$@"
