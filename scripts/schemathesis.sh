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

options=(
  # No login, no links between operations and no header of its own: checks of those have no work.
  --checks "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,response_schema_conformance,negative_data_rejection,positive_data_acceptance,unsupported_method,allow_header_conformance"
  --phases examples,coverage,fuzzing
  --max-examples "${EXAMPLES:-60}"
  --max-time "${SECONDS_MAX:-60}"
  --request-timeout 20
  --continue-on-failure
  --generation-database none
  --suppress-health-check all
  --wait-for-schema 10
  --warnings off
  --no-color
)
if [ -n "${SEED:-}" ]; then
  options+=(--seed "$SEED" --generation-deterministic)
fi
"$tools/schemathesis" run "${options[@]}" "$url/api/v1/openapi.json"
