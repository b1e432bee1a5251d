# Everything a newcomer needs. `make help` lists it.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV ?= .venv
BIN := $(VENV)/bin
PAIRS ?=
PRESET ?= quick
OUTPUT ?= demo-output
# Where torch comes from: empty for the index that pip is configured with, a URL for another one, `auto` to take
# PyTorch's CPU index only where the configured one would bring CUDA to a machine without an NVIDIA GPU.
TORCH_INDEX ?= auto

# Every process would compile all modules anew where their bytecode may not be kept.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo
demo: $(VENV)/.service  ## the main job over HTTP, start to end; PAIRS=<folder> for your own pairs, PRESET=draft|quick|standard|paper
	@$(BIN)/drtl demo --preset $(PRESET) --output "$(OUTPUT)" $(if $(PAIRS),--pairs "$(PAIRS)")

.PHONY: up
up: $(VENV)/.service  ## start the service and leave it running until Ctrl-C
	@$(BIN)/drtl up

.PHONY: test
test: $(VENV)/.developer  ## the test suite, on all cores; ARGS="-k name" picks tests, ARGS="-n 0" runs them in one process
	@$(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist loadfile $(ARGS)

.PHONY: check check-code check-docs
check: check-code check-docs  ## format, lint, types, import rules, and that the docs tell the truth

check-code: $(VENV)/.developer
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

check-docs: $(VENV)/.developer
	@$(BIN)/python -m pytest -q tests/test_docs.py

.PHONY: format
format: $(VENV)/.developer  ## let ruff format the code and mend what it can
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .

.PHONY: bench
bench: $(VENV)/.developer  ## the main job on real pairs, recorded under benchmarks/results/; ARGS="--targets DIR" where they lie elsewhere
	@$(BIN)/drtl bench $(ARGS)

.PHONY: chaos
chaos: $(VENV)/.developer  ## kill, flush, fill and confuse the service while it works, and judge; ARGS="--mode cluster"
	@$(BIN)/python -m benchmarks.chaos $(ARGS)

.PHONY: docs
docs: $(VENV)/.developer  ## the documentation as a site, in site/
	@$(BIN)/python docs/build_site.py site

.PHONY: lock
lock: $(VENV)/.made  ## every dependency to its newest version, with hashes, into requirements/; ARGS="--upgrade-package NAME" for one
	@$(BIN)/python -m pip install -qq uv
	@$(BIN)/python .ci/lock $(ARGS)

.PHONY: audit
audit: $(VENV)/.made  ## known vulnerabilities of the locked dependencies, and what the image is made of as sbom.json
	@$(BIN)/python -m pip install -qq pip-audit cyclonedx-bom
	@$(BIN)/python .ci/audit $(ARGS)

.PHONY: setup
setup: $(VENV)/.service  ## the virtual environment alone

.PHONY: clean
clean:  ## remove the virtual environment, caches and the demo's output; jobs and models in ~/.drtl stay
	rm -rf $(VENV) $(OUTPUT) site sbom.json .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: help
help:  ## this list
	@awk -F ':.*  ## ' '/^[a-z]+:.*  ## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# The stamps below make a second run quick; a changed pyproject.toml installs again. pip would compile every module of
# every package, which takes as long as all else that it does; imported once, those are compiled that the service uses.

$(VENV)/.made:
	@for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	  if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    echo "making $(VENV) with $$("$$python" --version)"; \
	    "$$python" -m venv --clear $(VENV) || { echo "the venv module is missing; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }; \
	    touch $@; exit 0; \
	  fi; \
	done; \
	echo "Python 3.11 or newer is needed, and no python3 found here is" >&2; exit 1

$(VENV)/.service: $(VENV)/.made pyproject.toml .ci/install-torch
	@echo "installing into $(VENV), a few minutes the first time"
	@$(BIN)/python .ci/install-torch "$(TORCH_INDEX)"
	@$(BIN)/python -m pip install -qq --no-compile --editable .
	@$(BIN)/python -c "import app.embedded, app.main, app.cli, worker.inference, worker.training, torch._dynamo"
	@touch $@

$(VENV)/.developer: $(VENV)/.service
	@$(BIN)/python -m pip install -qq --no-compile --editable ".[dev]"
	@touch $@
