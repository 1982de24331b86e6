#!/usr/bin/env bash
# Runs the benchmarks, all or one group. Each prints a line a figure:
#   NAME VALUE UNIT target OP X ok|short
set -euo pipefail

# The crates whose bench target has the group's name.
declare -A crates=([conntrack]=weir-conntrack [ledger]=weir-agent [store]=weir-store [api]=weir-server
  [top]=weir [attribution]=weir-flow [directory]="weir-flow weir-server"
  [ingest]=weir-server [clickhouse]=weir-store)
groups=(conntrack ledger store api top attribution directory ingest clickhouse)

if [ "$#" -gt 0 ]; then
  if [ -z "${crates[$1]:-}" ]; then
    echo "bench: no group named $1; there are: ${groups[*]}" >&2
    exit 2
  fi
  groups=("$1")
fi
for group in "${groups[@]}"; do
  echo "# $group"
  if [ "$group" = clickhouse ]; then
    WEIR_LAB_CLICKHOUSE_PYTHON="$(scripts/clickhouse.sh)"
    export WEIR_LAB_CLICKHOUSE_PYTHON
  fi
  for crate in ${crates[$group]}; do
    cargo bench --quiet --locked -p "$crate" --bench "$group"
  done
done
