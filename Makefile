# The entry point. `make help` explains the targets; CI uses the same ones.

VENV    := .venv
BIN     := $(VENV)/bin
PYTHON  := 3.11
ENOUGH  := import sys; sys.exit(sys.version_info < (3, 11))
ARGS    ?=
PYTEST  ?=
SOURCES := $(shell find rust/src src/threadis -name '*.rs') rust/Cargo.toml rust/Cargo.lock pyproject.toml
export CARGO_TARGET_DIR ?= $(CURDIR)/rust/target
export PYO3_PYTHON := $(CURDIR)/$(BIN)/python

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help serve test announced build optimised lint types rust python format debian torture bench cost compat applications docs fuzz deny clean

##@ To use it

help: ## print this text
	@awk -F ':.*## |^##@ ' '/^##@ / {print "=" $$2 ":"} /^[a-z-]+:.*## / {print "@" $$1; print $$2}' $(MAKEFILE_LIST) | fold -s -w 60 | \
	  awk '/^=/ {print substr($$0, 2); next} /^@/ {name = "make " substr($$0, 2); next} {printf "  %-18s%s\n", name, $$0; name = ""}'

serve: $(VENV)/.optimised ## build what is missing and serve on 127.0.0.1:6379 (ARGS="--port 7000 --instances 4")
	@exec $(BIN)/threadis serve $(ARGS)

##@ To work on it

test: announced optimised debian lint types rust python ## build what is missing and run all checks and tests: about 20 minutes on two cores (PYTEST="-k name" selects Python tests)

announced:
	@echo 'all tests take about 20 minutes on two cores; apt installs redis-server, nutcracker and wamerican if they are missing'

build: $(VENV)/.built ## build .venv with threadis in it (editable), for development: seconds after a changed line, but slow to run

optimised: $(VENV)/.optimised ## the same, as users run it: takes minutes

# There is one Rust module, built with one of two profiles of cargo. A target that needs .built accepts both.
$(VENV)/.built: PROFILE := edit
$(VENV)/.optimised: PROFILE := release

$(VENV)/.built $(VENV)/.optimised: $(SOURCES)
	@command -v cc >/dev/null || { echo 'make: there is no C compiler (cc); on Debian: apt install gcc'; exit 1; }
	@command -v python3 >/dev/null || { echo 'make: there is no python3; on Debian: apt install python3-venv'; exit 1; }
	@command -v cargo >/dev/null || { echo 'make: there is no Rust (cargo); see https://rustup.rs'; exit 1; }
	@$(BIN)/python -c 'import pip; $(ENOUGH)' 2>/dev/null || { rm -rf $(VENV) && \
	  { python3 -c '$(ENOUGH)' || \
	    { echo 'make: python3 is older than $(PYTHON); put a newer one first in PATH'; exit 1; }; } && \
	  { python3 -m venv $(VENV) || \
	    { rm -rf $(VENV); echo 'make: python3 has no venv; on Debian: apt install python3-venv'; exit 1; }; }; }
	@rm -f $(VENV)/.built $(VENV)/.optimised
	@if [ $(VENV)/.complete -nt pyproject.toml ] && [ $(VENV)/.complete -nt rust/Cargo.toml ]; then \
	  echo 'building threadis ($(PROFILE)) ...' && \
	  VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/maturin develop --quiet --skip-install --profile $(PROFILE); \
	else \
	  echo 'building threadis ($(PROFILE); it takes some minutes the first time) ...' && \
	  $(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1' && \
	  MATURIN_PEP517_ARGS='--profile $(PROFILE)' $(BIN)/python -m pip install --quiet --editable . --group dev && \
	  touch $(VENV)/.complete; \
	fi
	@touch $(VENV)/.built $@

lint: $(VENV)/.built ## run ruff, rustfmt and clippy (with and without the Python module)
	@$(BIN)/ruff check src tests tools
	@$(BIN)/ruff format --check --quiet src tests tools
	@cd rust && cargo fmt --check
	@cd rust && cargo clippy --quiet --all-targets --features python -- -D warnings
	@cd rust && cargo clippy --quiet --all-targets -- -D warnings

types: $(VENV)/.built ## run mypy, and compare the stub of the Rust module with the module
	@$(BIN)/mypy
	@$(BIN)/python -m mypy.stubtest threadis._core --allowlist stubtest.allow

rust: ## run the Rust tests
	@cd rust && cargo test --quiet

python: $(VENV)/.built debian ## run the Python tests, on real servers
	@scratch=$$(mktemp -d) && trap 'rm -rf "$$scratch"' EXIT && \
	  $(BIN)/pytest --numprocesses 2 --dist loadfile --basetemp "$$scratch/t" $(PYTEST)

torture: $(VENV)/.optimised debian ## run the long tests in full, with every case; writes benchmarks/results
	@THREADIS_TORTURE=full $(BIN)/pytest -m "torture or sample" --timeout 1800 $(PYTEST)

bench: $(VENV)/.optimised debian ## compare thREaDIS with the bare server: our goals, and whether we reach them (ARGS="scale", "run --pipeline 16", ...; see benchmarks/README.md)
	@$(BIN)/threadis bench $(or $(ARGS),figures)

cost: $(VENV)/.optimised ## count the instructions of the proxy for a command, and compare them with those recorded (needs valgrind; ARGS="--keep" records them)
	@$(BIN)/python -m tools.cost $(ARGS)

compat: $(VENV)/.optimised debian ## run the test suite of Redis or Valkey (SUITE=DIR, a checkout) on the stock server and on threadis; writes docs/compatibility.md (ARGS="--untag")
	@$(BIN)/python -m tools.compat $(SUITE) $(ARGS)

applications: $(VENV)/.optimised ## run tests/applications, ioredis, BullMQ, Bull, bee-queue and rsmq on the stock server and on threadis (needs node and npm)
	@THREADIS_TORTURE=full $(BIN)/pytest tests/applications
	@$(BIN)/python -m tools.node_applications

docs: $(VENV)/.built ## make the generated pages: docs/architecture.md, docs/commands.md, docs/compatibility.md, benchmarks/*.md
	@$(BIN)/python -m tools.commands_page
	@$(BIN)/python -m tools.architecture_page
	@$(BIN)/python -m tools.compat.page
	@$(BIN)/python -m tools.benchmarks

fuzz: ## fuzz each parser for a minute (needs a nightly toolchain and cargo-fuzz)
	@cd rust && for target in $(notdir $(basename $(wildcard rust/fuzz/fuzz_targets/*.rs))); do \
	  mkdir -p fuzz/target/corpus/$$target && cargo +nightly fuzz run $$target \
	    fuzz/target/corpus/$$target fuzz/corpus/$$target -- -max_total_time=60 || exit 1; done

deny: ## check licences, sources and duplicates of the crates (needs cargo-deny; ARGS=advisories fetches and checks advisories)
	@cd rust && cargo deny check $(or $(ARGS),bans licenses sources)

debian: ## install what the tests need from Debian: redis-server, nutcracker, wamerican
	@sh tests/install-debian.sh

format: $(VENV)/.built ## format all sources
	@$(BIN)/ruff check --fix --quiet src tests tools
	@$(BIN)/ruff format --quiet src tests tools
	@cd rust && cargo fmt

clean: ## remove everything that was built
	rm -rf $(VENV) rust/target .mypy_cache .ruff_cache .pytest_cache src/threadis/*.so
