# One command a job; `make help` lists them. The environment is made once, in .venv, and again when requirements change.
SHELL := /bin/bash
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
# the python the environment is made with: PYTHON=... if given, else the first of these that runs and is 3.11 or newer
PYTHON ?= $(shell for p in python3.11 python3 python3.12 python3.13; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo $$p; break; }; done)
# processes of the tests; each uses one thread
JOBS ?= 2

.PHONY: help train test lint format types bench bundle label clean

help:  ## list the jobs
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 16

$(BIN)/python:
	@if [ -z "$(PYTHON)" ]; then echo "make: python: wanted Python 3.11 or newer with venv and pip, found none;" \
		"install it (Debian: python3.11 python3.11-venv) or name it: make PYTHON=/path/to/python3.11" >&2; exit 1; fi
	$(PYTHON) -m venv $(VENV)

# the stamp is written only after pip has finished, so that a broken install is done again
$(VENV)/.installed: requirements.txt | $(BIN)/python
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off -r $<
	@touch $@

$(VENV)/.installed-dev: requirements-dev.txt requirements.txt | $(BIN)/python
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off -r $<
	@touch $@ $(VENV)/.installed

# MONAI Label's own environment; --no-deps because of what MONAI Label asks for, see requirements-label.txt
LABEL := .venv-label
LABEL_PYTHON ?= $(shell for p in python3.11 python3 "$(PYTHON)"; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info[:2] != (3, 11))' >/dev/null 2>&1 && { echo $$p; break; }; done)

$(LABEL)/.installed: requirements-label.txt tools/torchvision_stand_in/pyproject.toml
	@if [ -z "$(LABEL_PYTHON)" ]; then echo "make: python: wanted Python 3.11 with venv and pip for MONAI Label, found none;" \
		"install it (Debian: python3.11 python3.11-venv) or name it: make label LABEL_PYTHON=/path/to/python3.11" >&2; exit 1; fi
	$(LABEL_PYTHON) -m venv $(LABEL)
	$(LABEL)/bin/python -m pip install --disable-pip-version-check --progress-bar off -r $<
	$(LABEL)/bin/python -m pip install --disable-pip-version-check --progress-bar off --no-deps \
		monailabel==0.8.5 ./tools/torchvision_stand_in -e .
	@touch $@

label: $(LABEL)/.installed  ## install MONAI Label in an environment of its own (3.4 GB), for `genseg label`

# threads that spin while they wait make a busy machine ten times slower
train: $(VENV)/.installed  ## train on the phantom (at most 3 minutes on two cores), results in runs/phantom; again: go on
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m monai.bundle run training --config_file bundle/configs/train.yaml --output_dir runs/phantom --resume True

test: $(VENV)/.installed-dev  ## run the tests and the examples in the docstrings
	$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup

lint: $(VENV)/.installed-dev  ## check style, format and types, change nothing
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

format: $(VENV)/.installed-dev  ## put imports and layout in order
	$(BIN)/python -m ruff check --fix-only .
	$(BIN)/python -m ruff format .

types: $(VENV)/.installed-dev  ## check the types alone
	$(BIN)/python -m mypy

bench: $(VENV)/.installed  ## measure the cost of one iteration (benchmarks/step_cost.py)
	$(BIN)/python benchmarks/step_cost.py --sizes 128 --batches 2 --widths 32,64 --threads 1

bundle: $(VENV)/.installed  ## draw the untrained weights that the bundle ships, bundle/models/model.pt, anew
	$(BIN)/python -c 'from genseg_monai.engines.bundle_folder import write_initial_weights as write; write("bundle")'

clean:  ## remove the environment and the caches; runs/ stays
	rm -rf $(VENV) $(LABEL) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
