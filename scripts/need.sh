#!/usr/bin/env bash
# Checks for the programs that building and testing weir need beyond Rust, and installs what is
# missing with apt (through sudo when not root). Says what it does; changes nothing when all is there.
#
#   scripts/need.sh build    what `cargo build` needs
#   scripts/need.sh          that, and what the tests need
set -euo pipefail

# program:package as Debian and Ubuntu name them.
build_needs=(cc:gcc)
test_needs=(nft:nftables conntrack:conntrack ip:iproute2 tmux:tmux python3:python3)

needs=("${build_needs[@]}")
if [ "${1:-test}" != build ]; then
  needs+=("${test_needs[@]}")
fi
# Root's programs are not on every user's path, yet sudo finds them.
PATH="$PATH:/usr/sbin:/sbin"

if ! command -v cargo >/dev/null; then
  echo "need: cargo is missing. Install Rust with rustup (https://rustup.rs), then try again." >&2
  exit 1
fi

if [ "${1:-test}" != build ] && command -v rustup >/dev/null; then
  # rustup's minimal profile has neither.
  for component in clippy rustfmt; do
    if ! cargo "${component/rustfmt/fmt}" --version >/dev/null 2>&1; then
      echo "need: installing $component with rustup"
      rustup component add "$component"
    fi
  done
fi

missing=()
for need in "${needs[@]}"; do
  command -v "${need%%:*}" >/dev/null || missing+=("$need")
done
# Debian's python3 cannot make a venv without this package.
if [ "${1:-test}" != build ] && ! python3 -c 'import ensurepip' 2>/dev/null; then
  missing+=(python3:python3-venv)
fi
[ "${#missing[@]}" -gt 0 ] || exit 0

packages=("${missing[@]#*:}")
programs=("${missing[@]%%:*}")
as_root=()
if [ "$(id -u)" != 0 ]; then
  as_root=(sudo)
fi

if command -v apt-get >/dev/null && { [ "${#as_root[@]}" = 0 ] || command -v sudo >/dev/null; }; then
  echo "need: installing ${packages[*]} with apt"
  "${as_root[@]}" apt-get update -qq
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends "${packages[@]}"
  exit 0
fi

echo "need: missing: ${programs[*]}" >&2
echo "need: install them with your package manager (Debian names: ${packages[*]}), then try again." >&2
for program in "${programs[@]}"; do
  # Without a C compiler nothing builds. Without the others, only the tests that use them skip.
  if [ "$program" = cc ] || [ "${CI:-}" = true ]; then
    exit 1
  fi
done
