# One target per intent; CI calls only these. `make help` lists them.
.DEFAULT_GOAL := help
.PHONY: help deps build shim kube-build fmt lint test test-real conformance gen fuzz demo demo-down lab bench ci

CARGO ?= cargo
CASE ?= all
KUBE ?= embedded
FAMILY ?= dual
LAB = target/debug/ovenbird-lab

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

deps: ## install what is missing: Debian packages (OVS, OVN, tools) and cargo-deny
	@scripts/deps.sh

build: deps ## build every binary (debug) and the static CNI shim
	$(CARGO) build --workspace --bins
	@$(MAKE) --no-print-directory shim

shim: ## build the static, size-optimised CNI shim target/shim/ovenbird-cni
	@scripts/shim.sh

kube-build: deps ## build real Kubernetes for the lab from Go modules, into a cache (minutes once, then seconds)
	$(CARGO) run --quiet -p ovenbird-kube -- build

fmt: ## format the code
	$(CARGO) fmt --all

lint: deps ## formatting, clippy without warnings, licences and duplicate dependencies
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(CARGO) fetch --locked --quiet # cargo-deny reads the crates of all platforms
	.tools/bin/cargo-deny --offline check --hide-inclusion-graph bans licenses sources

test: build ## all tests but test-real: unit, golden, property, protocol, real OVSDB and OVN, lab end to end (needs root)
	@scripts/test.sh

test-real: build kube-build ## the end-to-end tests on real Kubernetes (needs root)
	OVENBIRD_TEST_REAL=1 scripts/once-more.sh -p ovenbird-e2e --test real

conformance: build kube-build ## upstream's tests of Kubernetes on a real lab, or those that match FOCUS=regex (FAMILY=v4|v6|dual); reports in target/conformance (needs root)
	$(LAB) conformance --dir /run/ovenbird-conformance --family $(FAMILY) $(if $(FOCUS),--focus '$(FOCUS)')

gen: ## regenerate the typed rows from schema/input and schema/docs
	$(CARGO) run --quiet -p ovenbird-schema-generate -- generate

fuzz: ## run each fuzz target for a minute (SECONDS_EACH=60)
	@scripts/fuzz.sh

demo: build $(if $(filter real,$(KUBE)),kube-build) ## three nodes with pods, the reachability matrix, and what to try next; stays up (needs root); KUBE=real: on real Kubernetes
	$(LAB) demo --api $(KUBE)

demo-down: ## take the demo down
	$(LAB) down

lab: build ## build the lab and show its commands (`ovenbird-lab up`, `status`, `exec`, `down`)
	$(LAB) --help

bench: deps ## run the benchmarks, or one with CASE=name; results in target/bench/*.json (needs root)
	$(CARGO) build --release --workspace --bins
	@scripts/shim.sh
	target/release/ovenbird-scale --case $(CASE)

ci: lint test fuzz ## what CI runs
