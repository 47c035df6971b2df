# Sealift's development tasks. `make` alone lists them.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
MAKEFLAGS += --no-print-directory

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1

VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest
# On several cores, a file's tests on one: their servers and sites are shared.
PARALLEL := -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder
# In this order: what fails fast comes first. Folders that are there.
TESTS := $(wildcard tests/unit) $(wildcard tests/integration) $(wildcard tests/e2e)
# With the virtual environment's commands first, and the model's path.
WITH_MODEL = PATH="$(CURDIR)/$(BIN):$$PATH" \
	MODEL_GGUF="$$($(BIN)/python tools/fetch_model.py)"
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 \
	--generate-hashes --custom-compile-command "make lock" $(if $(UPGRADE),--upgrade)
# The engine is built from its own requirements files, with its own flags.
COMPILE_OURS := $(COMPILE) pyproject.toml --no-emit-package llama-cpp-python \
	--no-emit-package sealift

.PHONY: help venv clients model demo test test-unit fuzz storm check format bench lock clean clean-cache

help: ## list the targets
	@echo "usage: make TARGET"
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

venv: $(VENV)/.installed $(VENV)/.engine ## make .venv from the lock files, engine included

# Rebuilt from nothing when the lock changes, so that nothing unlocked stays behind.
$(VENV)/.locked: requirements/dev.txt | tools/find_python.sh
	@echo "venv: installing the locked dependencies"
	@"$$(tools/find_python.sh)" -m venv --clear $(VENV)
	@$(BIN)/pip install --quiet --require-hashes --no-deps -r requirements/dev.txt
	@touch $@

$(VENV)/.installed: $(VENV)/.locked pyproject.toml
	@$(BIN)/pip install --quiet --no-deps --no-build-isolation --no-index --editable .
	@touch $@

$(VENV)/.engine: $(VENV)/.locked tools/engine_wheel.py $(wildcard requirements/engine-*.txt)
	@wheel="$$($(BIN)/python tools/engine_wheel.py)"; \
	  $(BIN)/pip install --quiet --no-deps --no-index --force-reinstall "$$wheel"
	@$(BIN)/python tools/engine_wheel.py --check
	@$(BIN)/pip check --quiet
	@touch $@

# Real clients bring many packages along: an environment of their own, inside ours, for the tests.
clients: $(VENV)/clients/.installed ## make the environment of real clients for the tests

$(VENV)/clients/.installed: requirements/clients.txt tests/e2e/clients/npm/package-lock.json \
  | $(VENV)/.locked
	@tools/need.sh node=nodejs npm
	@echo "clients: installing the locked packages"
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(VENV)/clients
	@$(BIN)/uv pip install --quiet --python $(VENV)/clients --require-hashes --no-deps \
	  -r requirements/clients.txt
	@mkdir $(VENV)/clients/npm
	@cp tests/e2e/clients/npm/package*.json $(VENV)/clients/npm
	@npm ci --prefix $(VENV)/clients/npm --silent --ignore-scripts --no-audit --no-fund
	@touch $@

model: venv ## fetch the demo model (93 MB, once)
	@$(BIN)/python tools/fetch_model.py

demo: venv ## carry a real model across the gap and chat with it
	@$(WITH_MODEL) examples/airgap/demo.sh

test: venv clients ## run all tests, the fast ones first
	@tools/need.sh skopeo softhsm2-util=softhsm2 faketime docker-registry \
	  "chromium=chromium fonts-dejavu-core"
	@[ "$$(id -u)" != 0 ] || tools/need.sh mkfs.btrfs=btrfs-progs mkfs.xfs=xfsprogs  # only root mounts
	@$(WITH_MODEL) $(PYTEST) $(PARALLEL) $(TESTS)

test-unit: venv ## run the fast tests only
	@$(PYTEST) $(PARALLEL) tests/unit

fuzz: venv ## fuzz the bundle's readers (FUZZ_SECONDS=120)
	@PYTHONPATH=. $(BIN)/python tools/fuzz.py $(or $(FUZZ_SECONDS),120)

storm: venv ## send 10,000 requests whose clients leave at random (REQUESTS=500)
	@$(WITH_MODEL) $(BIN)/python tools/storm.py --requests $(or $(REQUESTS),10000)

check: venv ## look at format, lint and types
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy

format: venv ## format the code and make the safe repairs
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: venv ## measure, and write docs/benchmarks.md (PART="import delta" for some)
	@tools/need.sh openssl par2 rsync skopeo xdelta3 zstd
	@$(WITH_MODEL) $(BIN)/python tools/bench.py $(PART)

lock: ## write the lock files anew (UPGRADE=1 takes newer versions)
	@test -x $(BIN)/uv || $(MAKE) venv
	@$(COMPILE_OURS) --all-extras --group dev -o requirements/dev.txt
	@$(COMPILE_OURS) -c requirements/dev.txt -o requirements/verify.txt
	@$(COMPILE_OURS) -c requirements/dev.txt --extra serve -o requirements/serve.txt
	@$(COMPILE_OURS) -c requirements/dev.txt --extra connect -o requirements/connect.txt
	@$(COMPILE) requirements/engine-build.in -o requirements/engine-build.txt
	@$(COMPILE) requirements/clients.in -o requirements/clients.txt
	@echo "written: requirements/*.txt; make venv installs them"

clean: ## remove .venv, caches of the tools and build results
	@rm -rf $(VENV) build dist .coverage .coverage.* htmlcov .hypothesis \
	  .mypy_cache .pytest_cache .ruff_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

clean-cache: ## remove the built engine and the fetched model
	@rm -rf "$${XDG_CACHE_HOME:-$$HOME/.cache}/sealift/wheels" \
	  "$${XDG_CACHE_HOME:-$$HOME/.cache}/sealift/models"
