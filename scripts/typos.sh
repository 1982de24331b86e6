#!/usr/bin/env bash
# Runs the spelling check; fetches `typos` at a fixed version into the build directory if the
# machine has none.
set -euo pipefail

version=1.52.0
tools="${CARGO_TARGET_DIR:-target}/tools"
typos="$(command -v typos || true)"

if [ -z "$typos" ]; then
  typos="$tools/bin/typos"
  if ! "$typos" --version 2>/dev/null | grep -qF "$version"; then
    rm -rf "$tools"
    # The prebuilt program from its Python package takes seconds; building it takes minutes.
    if python3 -m venv "$tools" >/dev/null 2>&1; then
      echo "typos: installing typos $version with pip into $tools"
      "$tools/bin/pip" install --quiet --disable-pip-version-check "typos==$version"
    else
      rm -rf "$tools"
      echo "typos: python3 cannot make a venv; building typos $version with cargo (minutes)"
      cargo install --quiet --locked --root "$tools" --version "$version" typos-cli
    fi
  fi
fi
exec "$typos" "$@"
