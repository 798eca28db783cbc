# make quickstart   trains a small network and writes runs/quickstart
# make test         lint and the tests; under 15 minutes on 2 cores
# make test-long    what guards something and takes longer; continuous integration runs it behind make test
#
# PYTHON=... chooses the interpreter, VENV=... the place of the environment, WORKERS=... the number of test processes.
# make mutants takes ROOM=..., a folder of lib/nurture/, and SAMPLE=..., SEED=..., BUDGET=... (seconds of tests for one change).

PYTHON ?= $(shell for p in python3.12 python3.11 python3; do \
    $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$p && break; done)
VENV ?= .venv
WORKERS ?= 2
SAMPLE ?= 60
SEED ?= 0
BUDGET ?= 0
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help quickstart test test-fast test-long slow-list lint docs mutants clean

help:
	@echo "make quickstart   train a small network into runs/quickstart, from the start"
	@echo "make test         lint, then all tests"
	@echo "make test-fast    all but the tests in tests/slow.txt; under 3 minutes on 2 cores"
	@echo "make slow-list    all tests, and the list of the slow ones written anew from what they take"
	@echo "make test-long    the tests that take too long for make test"
	@echo "make lint         ruff, and mypy over the package"
	@echo "make docs         the pages and the reference as a site, in site/"
	@echo "make mutants      ROOM=training: changes single places of lib/nurture/training and counts what its tests notice"
	@echo "make clean        remove the environment and all caches; runs/ stays"

quickstart: $(VENV)/installed
	rm -rf runs/quickstart
	$(BIN)/python -m experiments.train --config=configs/quickstart.py --workdir=runs/quickstart

test: lint
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

test-fast: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow and not long"

slow-list: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal --write-slow

test-long: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m long

lint: $(VENV)/installed-dev
	$(BIN)/ruff check lib experiments configs tests docs
	$(BIN)/mypy

docs: $(VENV)/installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

mutants: $(VENV)/installed-mutants
	@test -n "$(ROOM)" || { echo "error: give the room, such as make mutants ROOM=training." >&2; exit 1; }
	nice -n 10 $(BIN)/python tests/mutants --room=$(ROOM) --sample=$(SAMPLE) --seed=$(SEED) --budget=$(BUDGET)

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps make the installation happen once, and again when pyproject.toml changes.
$(VENV)/installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@

$(VENV)/installed-docs: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --editable ".[docs]"
	touch $@

$(VENV)/installed-mutants: $(VENV)/installed-dev
	$(BIN)/python -m pip install --quiet --editable ".[mutants]"
	touch $@

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 or newer is on the PATH; install one, or run make PYTHON=/path/to/python3.12." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "error: $(PYTHON) is not Python 3.11 or newer; run make PYTHON=/path/to/python3.12." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
