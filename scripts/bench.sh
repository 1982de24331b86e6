#!/usr/bin/env bash
# Runs the benchmarks, all or one group. Each prints a line a figure:
#   NAME VALUE UNIT target OP X ok|short
set -euo pipefail

declare -A crate=([conntrack]=weir-conntrack [ledger]=weir-agent [store]=weir-store [api]=weir-server
  [top]=weir)
groups=(conntrack ledger store api top)

if [ "$#" -gt 0 ]; then
  if [ -z "${crate[$1]:-}" ]; then
    echo "bench: no group named $1; there are: ${groups[*]}" >&2
    exit 2
  fi
  groups=("$1")
fi
for group in "${groups[@]}"; do
  echo "# $group"
  cargo bench --quiet --locked -p "${crate[$group]}" --bench "$group"
done
