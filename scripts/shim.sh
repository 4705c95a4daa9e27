#!/usr/bin/env bash
# Builds target/shim/ovenbird-cni: static (it runs on any host that the runtime calls it on), optimised for size, and checks
# both. The flag goes by an explicit --target so that build scripts and procedural macros are not linked statically.
set -euo pipefail
cd "$(dirname "$0")/.."
host=$(rustc -vV | sed -n 's/^host: //p')
flags="-C target-feature=+crt-static -C relocation-model=static -C link-arg=-Wl,--icf=all"
flags="$flags --remap-path-prefix=$PWD=. --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=cargo"
RUSTFLAGS="$flags -C link-arg=-Wl,-T,$PWD/cni-server/shim/no-unwind.ld" \
    cargo build --quiet -p ovenbird-cni --profile shim --target "$host" --target-dir target/static
mkdir -p target/shim
cp "target/static/$host/shim/ovenbird-cni" target/shim/ovenbird-cni
size=$(stat -c %s target/shim/ovenbird-cni)
if LC_ALL=C readelf -l target/shim/ovenbird-cni 2>/dev/null | grep -q INTERP; then
    echo "shim: target/shim/ovenbird-cni is not static" >&2
    exit 1
fi
# The aim is 1 MiB. The C library's own part differs between its releases, hence the room.
if [ "$size" -ge 1150000 ]; then
    echo "shim: target/shim/ovenbird-cni has $size bytes; it must stay at about 1 MiB: see what was added to it" >&2
    exit 1
fi
echo "shim: target/shim/ovenbird-cni, static, $size bytes"
