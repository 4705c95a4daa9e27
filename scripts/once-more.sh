#!/usr/bin/env bash
# Runs end-to-end tests: `cargo test` with these arguments, one test at a time. A whole cluster on a busy machine may miss a limit once:
# what fails is run once more, alone. What fails twice fails, and so do more than three; what failed once is said: it wants looking at.
set -euo pipefail
cd "$(dirname "$0")/.."
log=$(mktemp)
trap 'rm -f "$log"' EXIT
cargo test --no-fail-fast "$@" -- --test-threads=1 2>&1 | tee "$log" && exit 0

# A binary says its failures twice: with what they printed, then their names alone. Each line here: binary, test.
failed=$(awk '
    / *Running .*\(.*\/deps\// { binary = $NF; sub(/.*\//, "", binary); sub(/-[0-9a-f]+\)$/, "", binary) }
    /^failures:$/ { count = 0 }
    /^    [A-Za-z0-9_:]+$/ { names[count++] = $1 }
    /^test result: FAILED/ { for (i = 0; i < count; i++) print binary, names[i] }' "$log")
# None: it did not compile. A binary without a result: a test ended it, and nobody knows which.
count() { grep -cE "$1" "$log" || true; }
[ -n "$failed" ] && [ "$(wc -l <<<"$failed")" -le 3 ] || exit 1
[ "$(count '^ *(Running|Doc-tests) ')" = "$(count '^test result: ')" ] || exit 1
while read -r binary name; do
    echo "once more, alone: $name of $binary"
    cargo test "$@" --test "$binary" -- --exact "$name" </dev/null || { echo "FAILED TWICE: $name of $binary"; exit 1; }
done <<<"$failed"
while read -r binary name; do
    echo "FLAKY: $name of $binary failed once, and passed alone"
done <<<"$failed"
