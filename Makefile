# The commands of this repository. `make help` lists them; each of them is short and can be typed by hand.

.DEFAULT_GOAL := help
.PHONY: help build check check-all bench sim histories fuzz coverage clean

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

build: ## Build the release binaries cortexd, cortex and cortex-top
	cargo build --release --workspace --bins --locked

check: ## Run every check that this machine allows, and name those that it does not
	.ci/check

check-all: ## Run every check; one that cannot run is a failure. What CI runs
	STRICT=1 .ci/check

bench: ## Measure against Redis (needs redis-server), and a remote request against bare TLS
	cargo bench --bench redis_ratio
	cargo bench --bench remote_cost

sim: ## Simulate replication: SIM_SEEDS (default 4000) runs of each of its kinds, optimised
	SIM_SEEDS=$${SIM_SEEDS:-4000} cargo test --profile sim --test sim --locked -- --nocapture copies_ no_row_

histories: ## Run daemons under faults for HISTORY_SECONDS (default 600), from HISTORY_SEED (default the time)
	HISTORY_SECONDS=$${HISTORY_SECONDS:-600} cargo test --profile sim --test histories --locked -- --nocapture what_was

fuzz: ## Fuzz each target for FUZZ_SECONDS (default 20) seconds (needs cargo-fuzz)
	.ci/fuzz

# Needs: cargo install cargo-llvm-cov --locked; rustup component add llvm-tools
coverage: ## Show which lines the tests of the libraries and of the daemon reach (needs cargo-llvm-cov)
	cargo llvm-cov --workspace --locked --lib --test it --html

clean: ## Remove what was built, the fuzzers' included
	cargo clean
	rm -rf fuzz/target fuzz/artifacts fuzz/corpus

# install, uninstall, deb, system, notices
include dist/install.mk
