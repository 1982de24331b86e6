#!/usr/bin/env bash
# Takes the pictures in docs/pictures: the real `weir top`, in a terminal of tmux's, on a node of the
# lab where the scenario `shop` is running, and on the cluster of `weir-lab demo`. Every number in
# them was measured. Needs root; sends nothing beyond its own namespaces.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ "$(id -u)" != 0 ]; then
  exec sudo -E env "PATH=$PATH" "$0" "$@"
fi
tools="$(scripts/python.sh)"
cargo build --locked -p weir -p weir-agent -p weir-lab
bin="$(cd "${CARGO_TARGET_DIR:-target}/debug" && pwd)"
work="$(mktemp -d)"
terminal="$work/tmux"
lab=

finish() {
  tmux -S "$terminal" kill-server 2>/dev/null || true
  if [ -n "$lab" ]; then
    kill -INT "$lab" 2>/dev/null || true
    wait "$lab" 2>/dev/null || true
  fi
  rm -rf "$work"
}
trap finish EXIT

show() { tmux -u -S "$terminal" capture-pane -p; }

# Waits until a pattern is (or, after `not`, is not) on the screen.
until_shown() {
  local wanted=true
  if [ "$1" = not ]; then
    wanted=false
    shift
  fi
  for _ in $(seq 600); do
    if show | grep -qE -- "$1"; then
      if $wanted; then return; fi
    elif ! $wanted; then
      return
    fi
    sleep 0.1
  done
  echo "pictures: waited in vain for '$1' ($wanted); the screen:" >&2
  show >&2
  exit 1
}

key() { tmux -S "$terminal" send-keys "$@"; }
type_text() { tmux -S "$terminal" send-keys -l "$1"; }

take() {
  tmux -u -S "$terminal" capture-pane -p -e >"$work/captured"
  "$tools/python" scripts/pictures.py "$work/captured" "$2" "docs/pictures/$1.svg"
  echo "pictures: docs/pictures/$1.svg, $(wc -c <"docs/pictures/$1.svg") bytes"
}

"$bin/weir-lab" verify crates/weir-lab/scenarios/shop.toml --without-weir \
  >"$work/lab.txt" 2>&1 &
lab=$!
node=
# The node is ready once it tracks the first connections.
for _ in $(seq 300); do
  node="$(ip netns list | grep -oE "^weirlab-$lab-[^ ]*-one" | head -n 1 || true)"
  [ -z "$node" ] || [ "$(ip netns exec "$node" conntrack -C)" = 0 ] || break
  if ! kill -0 "$lab" 2>/dev/null; then
    cat "$work/lab.txt" >&2
    exit 1
  fi
  sleep 0.1
done

printf 'set -g status off\n' >"$work/tmux.conf"
# A shell, so that what weir says when it ends can be read.
env -u NO_COLOR -u LC_ALL -u TMUX LANG=C.UTF-8 PS1='$ ' ENV= PATH="$bin:$PATH" \
  ip netns exec "$node" \
  tmux -u -S "$terminal" -f "$work/tmux.conf" new-session -d -x 120 -y 36 sh
in_node() { ip netns exec "$node" "$@"; }

# A weir with an API, and a screen attached to it.
# Not by `in_node`: its process would be a shell's, and this one is to be killed.
ip netns exec "$node" "$bin/weir" up --plain --interval 2s --cpu-budget 20% \
  --data-dir "$work/data" >"$work/weir.txt" 2>&1 &
weir=$!
type_text 'weir top'
for _ in $(seq 200); do
  in_node "$bin/weir" query http://127.0.0.1:8885 status >/dev/null 2>&1 && break
  sleep 0.1
done
key Enter

# Everything at once, after half a minute of traffic. The screen's own questions are left out.
until_shown 'Connections \('
key /
type_text 'not port = 8885'
key Enter
until_shown '443 |:443'
until_shown 'MiB.*MiB'
sleep 30
take top 'weir top'

# A filter with a mistake in it: the picture goes on under the filter of before.
key /
key C-u
type_text 'class = internet and protocoll = udp'
until_shown 'did you mean'
take filter 'weir top: a filter while it is typed'
key Escape
until_shown not 'filter: '

# By port; the connections of the second group, and all that is known of the first of them.
key g
until_shown 'destination.port,'
key Left
key Home
key Down
key Enter
until_shown ', only '
key Enter
until_shown 'Details'
sleep 8
take details 'weir top: a group, its connections, one of them in detail'

# A small terminal, and a weir that was killed.
key Enter
key c
tmux -S "$terminal" resize-window -x 80 -y 24
until_shown not 'Details'
kill -KILL "$weir"
wait "$weir" 2>/dev/null || true
until_shown 'does not answer'
take unreachable 'weir top, 80x24: weir does not answer'
key q
tmux -S "$terminal" kill-server

# The cluster of the demo, after a minute of traffic.
env -u NO_COLOR -u LC_ALL -u TMUX LANG=C.UTF-8 \
  tmux -u -S "$terminal" -f "$work/tmux.conf" new-session -d -x 150 -y 36 \
  "'$bin/weir-lab' demo 2>'$work/demo.txt'"
until_shown 'Connections \('
sleep 50
take cluster 'weir top: a cluster'
key q
# It takes its namespaces down before it ends.
for _ in $(seq 100); do
  tmux -S "$terminal" has-session 2>/dev/null || break
  sleep 0.1
done
