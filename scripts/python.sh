#!/usr/bin/env bash
# Prints the directory with the Python programs that checks and pictures use. Installs them there at
# fixed versions if they are not there yet.
set -euo pipefail
cd "$(dirname "$0")/.."

wanted=scripts/requirements.txt
tools="${CARGO_TARGET_DIR:-target}/tools-python"
installed="$tools/installed.txt"

if ! cmp -s "$wanted" "$installed"; then
  echo "python: installing what $wanted lists with pip into $tools" >&2
  rm -rf "$tools"
  if ! python3 -m venv "$tools" >&2; then
    rm -rf "$tools"
    echo "python: python3 cannot make a venv (Debian: apt-get install python3-venv)" >&2
    exit 1
  fi
  "$tools/bin/pip" install --quiet --disable-pip-version-check --root-user-action=ignore \
    --requirement "$wanted" >&2
  cp "$wanted" "$installed"
fi
cd "$tools/bin"
pwd
