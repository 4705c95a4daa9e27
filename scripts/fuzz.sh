#!/usr/bin/env bash
# Runs each fuzz target for SECONDS seconds: with cargo-fuzz where it and a nightly toolchain are, else with bolero's random
# engine on the stable toolchain.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${SECONDS_EACH:-60}
if cargo +nightly --version >/dev/null 2>&1 && command -v cargo-fuzz >/dev/null; then
    folder=test/fuzz/cargo-fuzz
    for target in $(cargo +nightly fuzz list --fuzz-dir "$folder"); do
        echo "fuzz: $target, libFuzzer, $seconds s"
        mkdir -p "$folder/corpus/$target"
        cargo +nightly fuzz run --fuzz-dir "$folder" "$target" "$folder/corpus/$target" test/fuzz/seeds -- \
            -max_total_time="$seconds" -print_final_stats=1
    done
else
    echo "fuzz: bolero on the stable toolchain, $seconds s each (cargo-fuzz and a nightly toolchain give coverage guidance)"
    BOLERO_RANDOM_TEST_TIME_MS=$((seconds * 1000)) cargo test -p ovenbird-fuzz --tests -- --nocapture
fi
