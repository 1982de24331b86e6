# weir's verbs. Everything a check does, it does through these, here and in CI alike.
#
#   make run     build weir and watch this machine's own connections
#   make demo    weir on a small cluster made of network namespaces, with traffic (root)
#   make test    everything that must hold: format, spelling, lints, tests, documentation
#   make test-long  the tests that take long: 10,000 random queries to both stores
#   make fmt     format the code
#   make bench   measure (BENCH=conntrack, ledger, store, api, top, attribution, directory,
#                ingest or clickhouse picks one group)
#   make fuzz    a short run of each fuzz target (FUZZ_SECONDS=30)
#   make pictures  take the pictures in docs/pictures again (root)
#   make need    install the few programs that building and testing need

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help run demo build need test test-long fmt fmt-check spelling lint unit doc bench fuzz pictures clean

ARGS ?=
BENCH ?=
FUZZ_SECONDS ?= 30

TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
STATE_HOME := $(or $(XDG_STATE_HOME),$(HOME)/.local/state)
# The same rule as weir's own default, so that `weir query` finds what `make run` writes.
DATA_DIR := $(if $(filter 0,$(shell id -u)),/var/lib/weir,$(STATE_HOME)/weir)

# CI: a warning is an error there, and a test that would skip fails (the tests read CI themselves).
ifeq ($(CI),true)
DENY := -D warnings
else
DENY :=
endif

help:
	@sed -n 's/^#   //p' Makefile

need:
	@scripts/need.sh
	@scripts/clickhouse.sh >/dev/null

build:
	@scripts/need.sh build
	cargo build --release --locked -p weir

# conntrack belongs to root. Without root, sudo lends it; without sudo, weir says what it cannot see.
run: build
	@weir="$(TARGET_DIR)/release/weir"; privilege=""; data="$(DATA_DIR)"; \
	if [ "$$(id -u)" != 0 ]; then \
	  if command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then \
	    privilege="sudo"; data=/var/lib/weir; echo "make run: sudo, because reading conntrack needs CAP_NET_ADMIN"; \
	  else \
	    echo "make run: neither root nor sudo: weir runs without conntrack and says what is missing"; \
	  fi; \
	fi; \
	echo "make run: data in $$data; ask it: $$privilege $$weir query top"; \
	exec $$privilege "$$weir" up --activate-conntrack --interval 2s --data-dir "$$data" $(ARGS)

# Network namespaces belong to root; sudo lends them. Everything is removed at the end, and what a
# crash leaves behind at the next start.
demo:
	@scripts/need.sh build
	cargo build --release --locked -p weir -p weir-agent -p weir-lab
	@if [ "$$(id -u)" = 0 ]; then privilege=""; else privilege="sudo"; fi; \
	exec $$privilege "$(TARGET_DIR)/release/weir-lab" demo $(ARGS)

test: need fmt-check spelling lint unit doc
	@echo "make test: passed"

test-long: need
	WEIR_TEST_QUERIES=10000 cargo test --release --locked -p weir-store --test it -- two_stores --nocapture

fmt:
	cargo fmt --all

fmt-check:
	cargo fmt --all --check

spelling:
	@scripts/typos.sh

lint:
	cargo clippy --workspace --all-targets --locked -- $(DENY)

# The order of crates' dependencies is one of these tests: crates/weir/tests/dependency_direction.rs.
# The lab's tests run the programs that are built with them.
unit: export WEIR_LAB_IS_BUILT = 1
unit:
	@if cargo nextest --version >/dev/null 2>&1; then \
	  cargo nextest run --workspace --locked $(if $(filter true,$(CI)),--profile ci); \
	else \
	  cargo test --workspace --locked --lib --bins --tests; \
	fi
	cargo test --workspace --locked --doc

doc:
	RUSTDOCFLAGS="$(DENY)" cargo doc --workspace --no-deps --document-private-items --locked

bench:
	@scripts/bench.sh $(BENCH)

fuzz:
	@scripts/fuzz.sh "$(FUZZ_SECONDS)"

pictures: need
	@scripts/pictures.sh

clean:
	cargo clean
