# Every target sets up what it needs. Nothing is installed that is not in the hashed requirements files.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

BIN := .venv/bin
PIP := $(BIN)/pip --disable-pip-version-check --quiet
# Wheels only: a source package would fetch its build tools, and those are not hashed.
INSTALL := $(PIP) install --require-hashes --only-binary :all:
CODE := $(wildcard schemas models sinks streams infra tests benchmarks)
SUITE ?=
SEEDS ?= 0

.PHONY: help setup demo test faults soak lint bench up down lock clean

help: ## Show what there is
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/.dev ## Make .venv with everything that development needs

demo: .venv/.runtime ## Two months of a grocery as history, a minute live with mail, and a report
	$(BIN)/opportune demo

# By name, the slow folders come before the many quick files, which fill the gaps at the end.
test: .venv/.dev ## Run the tests, all but the long fault runs
	$(BIN)/pytest -m "not soak" --numprocesses 2 --dist loadfile --no-loadscope-reorder

# Three at a time on two cores: a third of their time they wait for a session to run out, or for a broker.
faults: .venv/.dev ## Run the fault tests, the long ones too; make faults SEEDS=2 takes others
	OPPORTUNE_FAULT_SEEDS=$(SEEDS) $(BIN)/pytest tests/faults -m "faults and alone"
	OPPORTUNE_FAULT_SEEDS=$(SEEDS) $(BIN)/pytest tests/faults -m "faults and not alone" --numprocesses 3 --dist loadfile

soak: .venv/.dev ## Run the other long tests: the demo's stretch, the whole grocery, a hostile year
	$(BIN)/pytest -m "soak and not faults" --numprocesses 2

lint: .venv/.dev ## Check style, types, who imports whom, and schemas
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy $(CODE)
	$(BIN)/lint-imports
	$(BIN)/opportune schemas check

bench: .venv/.dev ## Measure the speed, beside others: make bench SUITE=state|decide|deliver|latency|recall|recovery|stages|questions|sendtime
	$(BIN)/python -m benchmarks $(SUITE)

up: .venv/.runtime ## Start Kafka, ClickHouse and the mail sandbox on this machine
	$(BIN)/opportune up

down: .venv/.runtime ## Stop what `make up` started
	$(BIN)/opportune down

LOCK := $(BIN)/uv pip compile pyproject.toml --group build --universal --generate-hashes --quiet \
	--custom-compile-command "make lock" $(UPGRADE)
lock: .venv/.dev ## Write the requirements files anew (UPGRADE=--upgrade for newer releases)
	$(LOCK) --output-file requirements.txt
	$(LOCK) --extra dev --constraint requirements.txt --output-file requirements-dev.txt

clean: ## Remove .venv, caches and build output (not the state of `make up`)
	rm -rf .venv build dist *.egg-info .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find $(CODE) -type d -name __pycache__ -prune -exec rm -rf {} +

.venv/bin/python:
	@for python in python3.11 python3; do \
	  if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    echo "Making .venv with $$($$python --version)"; \
	    rm -rf .venv; \
	    exec $$python -m venv .venv; \
	  fi; \
	done; \
	echo "opportune needs Python 3.11 or newer: neither python3.11 nor python3 is one." >&2; \
	exit 1

# A new top-level package must be told to the editable install.
.venv/.runtime: requirements.txt pyproject.toml $(wildcard */__init__.py) | .venv/bin/python
	$(INSTALL) -r requirements.txt
	$(PIP) install --no-deps --no-build-isolation --no-index --editable .
	@touch $@

# dkimpy has no wheel: it is built by the setuptools of requirements.txt, and fetches nothing.
.venv/.dev: requirements-dev.txt .venv/.runtime
	$(INSTALL) --no-binary dkimpy --no-build-isolation -r requirements-dev.txt
	@touch $@
