# Two commands on a fresh machine: `make demo` and `make test`. Both make their own .venv.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: demo test coverage lint types check benchmarks clean
.DEFAULT_GOAL := help

help:
	@echo "make demo        install and run the main job on the embedded digits: about a minute after the install"
	@echo "make test        install the development extras and run the tests"
	@echo "make coverage    the tests, with the share of lines and branches they reach"
	@echo "make lint types  ruff and mypy"
	@echo "make benchmarks  the tables of ratios"
	@echo "make clean       remove $(VENV)"

demo: $(VENV)/installed
	$(BIN)/python -m lightning_poison fit --config digits.yaml

test: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n 2 --dist worksteal $(PYTEST_ARGS)

coverage: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n 2 --dist worksteal --cov --cov-report=term $(PYTEST_ARGS)

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/installed-dev
	$(BIN)/mypy

check: lint types test

benchmarks: $(VENV)/installed-dev
	$(BIN)/python -m benchmarks all

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "lightning_poison needs Python 3.10 or later; name one with PYTHON=..." >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: $(VENV)/bin/python setup.cfg pyproject.toml
	$(PIP) install --editable .
	@touch $@

$(VENV)/installed-dev: $(VENV)/bin/python setup.cfg pyproject.toml
	$(PIP) install --editable '.[dev]'
	@touch $@ $(VENV)/installed

clean:
	rm -rf $(VENV)
