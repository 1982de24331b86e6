#!/usr/bin/env bash
# Prints the Python that has ClickHouse's engine, for the tests that need it. Installs it at fixed
# versions if it is not there yet: a download of 180 MB, 590 MB on disk.
set -euo pipefail
cd "$(dirname "$0")/.."

# Somebody else's installation, or a server in its place.
if [ -n "${WEIR_LAB_CLICKHOUSE_PYTHON:-}" ]; then
  echo "$WEIR_LAB_CLICKHOUSE_PYTHON"
  exit 0
fi
if [ -n "${WEIR_TEST_CLICKHOUSE_URL:-}" ]; then
  exit 0
fi

wanted=scripts/requirements-clickhouse.txt
tools="${CARGO_TARGET_DIR:-target}/tools-clickhouse"
installed="$tools/installed.txt"

if ! cmp -s "$wanted" "$installed"; then
  echo "clickhouse: installing ClickHouse's engine with pip into $tools (180 MB to download, 590 MB on disk)" >&2
  rm -rf "$tools"
  if ! python3 -m venv "$tools" >&2; then
    rm -rf "$tools"
    echo "clickhouse: python3 cannot make a venv (Debian: apt-get install python3-venv)" >&2
    exit 1
  fi
  # Without what only its data frames need, which is half as much again.
  "$tools/bin/pip" install --quiet --disable-pip-version-check --root-user-action=ignore \
    --no-deps --requirement "$wanted" >&2
  cp "$wanted" "$installed"
fi
cd "$tools/bin"
echo "$(pwd)/python"
