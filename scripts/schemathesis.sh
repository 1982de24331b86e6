#!/usr/bin/env bash
# Asks a running weir everything that its OpenAPI document allows, and much that it does not, and
# holds each answer against the document.
#
#   scripts/schemathesis.sh http://127.0.0.1:8885
#
# SEED repeats a run; SECONDS_MAX bounds it.
set -euo pipefail

url="${1:?give the URL of a running weir}"
tools="$("$(dirname "$0")/python.sh")"
# Its notes between runs would make one run depend on the last.
cd "$(mktemp -d)"
trap 'rm -rf "$PWD"' EXIT
# A URL may be too long before it is anything else.
cat >settings.toml <<'END'
[checks]
negative_data_rejection.expected-statuses = ["400", "404", "405", "414", "431"]
END

options=(
  # Left out: what needs a login or operations that hang together. And a schema cannot say what a
  # filter is, or that `since` is before `until`: not all that it allows is right.
  --checks all
  --exclude-checks positive_data_acceptance,use_after_free,ensure_resource_availability,ignored_auth,object_level_authorization
  --phases examples,coverage,fuzzing
  --max-examples "${EXAMPLES:-60}"
  --max-time "${SECONDS_MAX:-60}"
  --request-timeout 20
  --continue-on-failure
  --suppress-health-check all
  --wait-for-schema 10
  --warnings off
  --no-color
)
if [ -n "${SEED:-}" ]; then
  options+=(--seed "$SEED" --generation-deterministic)
else
  options+=(--generation-database none)
fi
"$tools/schemathesis" --config-file settings.toml run "${options[@]}" "$url/api/v1/openapi.json"
