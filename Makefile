# `make` alone lists the commands. They need Python 3.11 or later and a package index; the site also needs npm, and its test a browser.
PYTHON ?= python3
BIN := $(CURDIR)/.venv/bin
PROJECT := setup.py settings.ini pyproject.toml constraints.txt
# On Linux without a GPU: PyTorch without gigabytes of CUDA libraries, if its own index answers
CPU_INDEX := https://download.pytorch.org/whl/cpu
CPU_ONLY = $(shell [ "$$(uname)" = Linux ] && ! command -v nvidia-smi >/dev/null && \
	curl -sfI -m 5 -o /dev/null $(CPU_INDEX)/torch/ && echo --extra-index-url $(CPU_INDEX))
INSTALL = $(BIN)/python -m pip install -q --disable-pip-version-check $(CPU_ONLY) -c constraints.txt
NOTEBOOKS = $(sort $(wildcard nbs/$(NB)*.ipynb))
# From npm, into .venv/node_modules, exactly as locked. After a change of package.json:
# npm install --prefix website --package-lock-only --ignore-scripts --omit-lockfile-registry-resolved
NPM := website/package.json website/package-lock.json
# Figures are stored as SVG, what is rasterized in them at 220 dpi; the state of progress bars is not stored
FIGURES := --ExecutePreprocessor.store_widget_state=False \
	--ExecutePreprocessor.extra_arguments=--InlineBackend.figure_formats=svg \
	--ExecutePreprocessor.extra_arguments="--InlineBackend.print_figure_kwargs={'dpi': 220, 'metadata': {'Date': None}}"
# Two tests run at a time, one thread each; no windows, no progress bars
TEST := OMP_NUM_THREADS=1 MPLBACKEND=agg TQDM_DISABLE=1
PYTEST := $(TEST) python -m pytest -q -p no:cacheprovider tests --ignore tests/website -n 2 --dist worksteal
export PATH := $(BIN):$(PATH)

.PHONY: help train test test-processes test-slow check check-workflows notebooks lab docs browsers test-site torture bench

help:
	@echo "make train      learn MNIST with the hand-written network (ARGS='--epochs 3' to pass options)"
	@echo "make test       check that everything is in step, run every notebook as a test, and the tests in tests/"
	@echo "make test-processes  run the tests that start processes of their own, or take seconds"
	@echo "make test-slow  run every notebook with its slow cells, and the tests that train for long, for an hour"
	@echo "make notebooks  run all notebooks afresh and store their outputs (NB=03 for one)"
	@echo "make lab        open JupyterLab on the notebooks"
	@echo "make docs       build the site into _docs/"
	@echo "make test-site  look at every page of the site in a real browser"
	@echo "make check-workflows  look for mistakes in what GitHub runs"
	@echo "make bench      race against other libraries, twenty minutes (ARGS=--quick: two minutes)"
	@echo "make torture    attack what is saved and read, for about ten minutes (ARGS='kills --count 50')"

train: .venv/installed
	@fcnet train $(ARGS)

test: check
	$(TEST) python tools/notebooks.py
	$(PYTEST) -m 'not processes and not slow'

# Signals, killed writers, runs of many processes, whole commands that take seconds
test-processes: .venv/installed-dev
	$(PYTEST) -m processes

# The cells marked `#| slow` as well: the experiments behind the figures; tests of what lessons claim of training
test-slow: .venv/installed-dev
	$(TEST) python tools/notebooks.py --slow
	$(PYTEST) -m slow

check: .venv/installed-dev
	python tools/check.py

check-workflows: .venv/installed-site
	zizmor -q --offline .github/workflows
	check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yaml

notebooks: .venv/installed-dev
	nbdev_clean && nbdev_export
	set -e; for nb in $(NOTEBOOKS); do \
		OMP_NUM_THREADS=1 TQDM_DISABLE=1 jupyter nbconvert --to notebook --execute --inplace --log-level WARN $(FIGURES) $$nb; done
	jupyter nbconvert --to notebook --coalesce-streams --inplace --log-level WARN $(NOTEBOOKS)
	nbdev_clean && nbdev_export && python tools/readme.py

lab: .venv/installed-dev
	jupyter lab nbs

docs: .venv/installed-site
	python website/build.py

# Chromium makes the PDF and is what test-site looks through; Firefox is a second pair of eyes
browsers:
	@[ -n "$$(which chromium chromium-browser google-chrome)" ] || [ "$$(id -u)" != 0 ] || \
		{ apt-get update -qq && apt-get install -y -qq chromium; } >/dev/null
	@[ -n "$$(which firefox-esr firefox)" ] || [ "$$(id -u)" != 0 ] || \
		{ apt-get update -qq && apt-get install -y -qq firefox-esr || true; } >/dev/null

test-site: .venv/installed-site browsers
	OMP_NUM_THREADS=1 python -m pytest -q -p no:cacheprovider tests/website -m alone
	OMP_NUM_THREADS=1 python -m pytest -q -p no:cacheprovider tests/website -m 'not alone' -n 2 --dist worksteal

bench: .venv/installed-bench
	fcnet bench $(ARGS)

torture: .venv/installed
	python tests/torture.py $(ARGS)

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/installed: $(PROJECT) | .venv/bin/python
	$(INSTALL) -e .
	@touch $@

.venv/installed-dev: $(PROJECT) | .venv/bin/python
	$(INSTALL) -e '.[dev]'
	@touch $@ .venv/installed

.venv/installed-bench: $(PROJECT) | .venv/bin/python
	$(INSTALL) -e '.[bench]'
	@touch $@ .venv/installed

.venv/installed-site: .venv/installed-dev $(NPM)
	@command -v npm >/dev/null || { echo "this needs npm (Node.js), which brings KaTeX and other tools of the site"; exit 1; }
	$(INSTALL) -e '.[dev,site]'
	cp $(NPM) .venv
	npm ci --prefix .venv --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@
