#!/usr/bin/env bash
# A short run of each fuzz target, starting from the committed corpus.
#
#   scripts/fuzz.sh SECONDS
set -euo pipefail

version=0.13.2
seconds="${1:-30}"
case "$seconds" in
  '' | *[!0-9]*) echo "fuzz: FUZZ_SECONDS must be a whole number, not '$seconds'" >&2; exit 2 ;;
esac
if ! cargo +nightly --version >/dev/null 2>&1; then
  echo "fuzz: not run: no nightly toolchain (rustup toolchain install nightly)" >&2
  exit 3
fi
tools="${CARGO_TARGET_DIR:-target}/tools-fuzz"
if ! cargo fuzz --version >/dev/null 2>&1; then
  if [ ! -x "$tools/bin/cargo-fuzz" ]; then
    echo "fuzz: installing cargo-fuzz $version with cargo into $tools"
    cargo install --quiet --locked --root "$tools" --version "$version" cargo-fuzz
  fi
  PATH="$(cd "$tools/bin" && pwd):$PATH"
fi

# The fuzzer adds what it finds to the first directory; the committed corpus stays as it is.
found="$(mktemp -d)"
trap 'rm -rf "$found"' EXIT
targets="$(cargo +nightly fuzz list)"
for target in $targets; do
  mkdir -p "$found/$target"
  seeds=()
  if [ -d "fuzz/corpus/$target" ]; then
    seeds=("fuzz/corpus/$target")
  fi
  echo "fuzz: $target for $seconds s"
  cargo +nightly fuzz run "$target" "$found/$target" "${seeds[@]}" -- \
    -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -verbosity=0 -print_final_stats=1
done
