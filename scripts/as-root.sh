#!/usr/bin/env bash
# Runs a test program as root, with the environment it was given: the tests that read the kernel
# build network namespaces.
set -euo pipefail
exec sudo -E env "PATH=$PATH" "$@"
