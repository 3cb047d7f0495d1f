# Each target makes .venv if there is none. PYTHON picks the interpreter: make train PYTHON=python3.12
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
.DELETE_ON_ERROR:

.PHONY: help train quick-check test test-all test-arithmetics coverage check docs docs-check release-check bench clean
# A worker per core. worksteal gives each a contiguous part of the tests, so most files have all of theirs in one.
PYTEST := $(BIN)/python -m pytest --numprocesses auto --dist worksteal

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

train: $(VENV)/train.stamp  ## learn Kung Fu Master in about five minutes, with weight normalization
	$(BIN)/wn-dqn train --config quick

quick-check: $(VENV)/train.stamp  ## does `make train` learn here? three seeds, about twenty minutes (docs/quick.md)
	$(BIN)/python scripts/check_seeds.py --seeds 0-2 --output runs/quick-check

test: check  ## run the checks and the tests of every day
	$(PYTEST)

test-all: check  ## run the checks and everything: all games, all stops, more random examples (about 460 s on two cores)
	WN_DQN_TESTS=all $(PYTEST)

coverage: $(VENV)/test.stamp  ## the tests of every day, and what they do not reach
	$(PYTEST) --cov --cov-report=term

# Other processors and libraries round sums differently. Each of these is one such arithmetic, on any x86 machine, beside
# the machine's own, which `make test` runs. Every test has one thread: see tests/conftest.py.
ARITHMETICS := MKL_CBWR=AVX2 MKL_CBWR=COMPATIBLE ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=default WN_DQN_KERNELS=0
NUMERIC_TESTS ?= tests/nn tests/agents tests/training/test_q_learning.py tests/training/test_learns.py

test-arithmetics: $(VENV)/test.stamp  ## run the numeric tests (NUMERIC_TESTS) once more for each way that sums can round
	@set -e; for arithmetic in $(ARITHMETICS); do \
	  echo "=== $$arithmetic"; \
	  env $$arithmetic $(PYTEST) --quiet $(NUMERIC_TESTS); \
	done

check: $(VENV)/test.stamp  ## lint, types (Linux, macOS, Windows), floors
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --platform darwin --cache-dir .mypy_cache/darwin
	$(BIN)/mypy --platform win32 --cache-dir .mypy_cache/win32
	$(BIN)/lint-imports

docs: $(VENV)/test.stamp  ## build the site into site/; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "open site/index.html"

docs-check: $(VENV)/test.stamp  ## run all commands and Python of the pages at full length
	WN_DQN_TESTS=all $(PYTEST) tests/docs tests/api/test_document.py tests/api/test_parameterizations_document.py tests/api/test_notebook.py

release-check: $(VENV)/test.stamp  ## build, check the metadata, and try the wheel in clean environments
	$(BIN)/python scripts/check_release.py

bench: $(VENV)/train.stamp  ## how fast this machine is
	$(BIN)/wn-dqn doctor

clean:  ## remove the virtual environment and caches, not the runs
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .coverage site

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/train.stamp: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	@touch $@

$(VENV)/test.stamp: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[test]"
	@touch $@
