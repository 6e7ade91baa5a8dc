# `make` alone lists the commands. They need Python 3.11 or later and a package index, nothing else.
PYTHON ?= python3
BIN := $(CURDIR)/.venv/bin
PROJECT := setup.py settings.ini pyproject.toml constraints.txt
INSTALL := $(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt
NOTEBOOKS = $(sort $(wildcard nbs/$(NB)*.ipynb))
export PATH := $(BIN):$(PATH)

.PHONY: help train test check notebooks lab

help:
	@echo "make train      learn MNIST with the hand-written network (ARGS='--epochs 3' to pass options)"
	@echo "make test       check that everything is in step, then run every notebook as a test"
	@echo "make notebooks  run all notebooks afresh and store their outputs (NB=03 for one)"
	@echo "make lab        open JupyterLab on the notebooks"

train: .venv/installed
	@fcnet_train $(ARGS)

test: check
	OMP_NUM_THREADS=1 MPLBACKEND=agg TQDM_DISABLE=1 nbdev_test --n_workers 2 --timing

check: .venv/installed-dev
	python tools/check.py

notebooks: .venv/installed-dev
	nbdev_clean && nbdev_export
	set -e; for nb in $(NOTEBOOKS); do \
		TQDM_DISABLE=1 jupyter nbconvert --to notebook --execute --inplace --log-level WARN $$nb; done
	nbdev_clean && nbdev_export && python tools/readme.py

lab: .venv/installed-dev
	jupyter lab nbs

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/installed: $(PROJECT) | .venv/bin/python
	$(INSTALL) -e .
	@touch $@

.venv/installed-dev: $(PROJECT) | .venv/bin/python
	$(INSTALL) -e '.[dev]'
	@touch $@ .venv/installed
