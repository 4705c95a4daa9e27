#!/usr/bin/env bash
# Runs every test. Those that need root (network namespaces, OVS, OVN) print SKIP without it, and fail under CI=true.
set -euo pipefail
cd "$(dirname "$0")/.."
[ "$(id -u)" -eq 0 ] || echo "test: not root: the tests that make network namespaces will be skipped" >&2
# The end-to-end tests share two cores with OVS and OVN: they run by themselves, one at a time, after the rest.
cargo test --workspace --exclude ovenbird-e2e
scripts/once-more.sh -p ovenbird-e2e
