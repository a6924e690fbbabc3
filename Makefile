# Two commands on a fresh machine: `make demo` and `make test`. Both make their own .venv.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: demo test oldest newest coverage lint types check benchmarks clean
.DEFAULT_GOAL := help

help:
	@echo "make demo        install and run the main job on the embedded digits: about a minute after the install"
	@echo "make test        install the development extras and run the tests"
	@echo "make oldest      the tests of what leans on Lightning, jsonargparse and torchmetrics, with their oldest versions"
	@echo "make newest      the same with their newest versions, pre-releases too"
	@echo "make coverage    the tests, with the share of lines and branches they reach"
	@echo "make lint types  ruff and mypy"
	@echo "make benchmarks  the tables of ratios"
	@echo "make clean       remove $(VENV) and those of the two"

demo: $(VENV)/installed
	$(BIN)/python -m lightning_poison fit --config digits.yaml

test: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n 2 --dist worksteal $(PYTEST_ARGS)

# The command line, and of the callbacks and data modules those tests that train with both Lightning packages.
LEANING = tests/test_versions.py tests/cli/test_bad_input.py tests/cli/test_bad_configs.py tests/cli/test_bases.py \
	tests/cli/test_own_classes.py tests/cli/test_run_folder.py tests/cli/test_wording.py \
	tests/callbacks/test_epoch_seed.py tests/callbacks/test_flip_labels.py tests/callbacks/test_last_epoch.py \
	tests/callbacks/test_line_progress.py tests/callbacks/test_poison_memorization.py \
	tests/callbacks/test_prediction_writer.py tests/callbacks/test_report.py tests/datamodules/test_poisoned_hooks.py \
	tests/certificates/networks/test_lightning_training.py tests/victims/test_resume.py

oldest: PIP_ARGS = --constraint oldest.txt
newest: PIP_ARGS = --upgrade --pre
oldest newest:
	$(PYTHON) -m venv .venv-$@
	.venv-$@/bin/python -m pip --disable-pip-version-check --quiet install --editable '.[dev]'
	.venv-$@/bin/python -m pip --disable-pip-version-check --quiet install $(PIP_ARGS) $(PINNED)
	LIGHTNING_POISON_VERSIONS=$@ .venv-$@/bin/python -m pytest -n 2 --dist worksteal $(LEANING) $(PYTEST_ARGS)

PINNED = 'jsonargparse[signatures,omegaconf]<5' lightning pytorch-lightning torchmetrics

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
	rm -rf $(VENV) .venv-oldest .venv-newest
