# Everything a newcomer needs is `make demo` and `make test`. Both set up what they need, once.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MODEL := smollm2-135m

# torch is installed first, in a step of its own, because it comes in builds for CPU and for GPU. Without a GPU the CPU
# build saves gigabytes where the package index offers the GPU build only:
#   make setup PIP_FLAGS="--extra-index-url https://download.pytorch.org/whl/cpu"
# For another build, name its index in the same way and, if need be, the build: TORCH="torch==2.13.0+<build>".
TORCH ?= torch==2.13.0
PIP_FLAGS ?=
RUNS ?= runs

# Test files are shared out to so many processes; each needs about 3 GB at its peak.
WORKERS ?= 2

# Stamps: a step is done again only if what it was made from has changed.
INSTALLED := $(VENV)/.installed
FETCHED := $(VENV)/.fetched-$(MODEL)

.DEFAULT_GOAL := help
.PHONY: help setup demo explore test lint types unit docs format clean

help: ## show this list
	@echo "interp-unlearn: look inside a model while it forgets."
	@echo
	@echo "Start here:"
	@echo "  make demo     forget something, and see in a report what moved inside the model"
	@echo "  make test     check that everything works (lint, types, tests)"
	@echo "Both first run 'make setup': a few minutes the first time, nothing afterwards."
	@echo
	@echo "All targets:"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(INSTALLED) $(FETCHED) ## make .venv, install the package into it, fetch the default model

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { \
		echo "There is no '$(PYTHON)' here. Install Python 3.11 or newer, or name yours: make setup PYTHON=/path/to/it"; \
		exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "interp-unlearn needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>&1)."; \
		echo "If you have a newer one, name it: make setup PYTHON=python3.11"; \
		exit 1; }
	@# Some systems ship Python without the part that puts pip into a new environment; then pip itself can do so.
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV) && $(PYTHON) -m venv --without-pip $(VENV) \
		&& $(PYTHON) -m pip --python $(BIN)/python install pip; } || { \
		rm -rf $(VENV); \
		echo "No environment could be made. On Debian and Ubuntu, 'apt install python3-venv' cures this."; \
		exit 1; }

$(INSTALLED): pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install $(PIP_FLAGS) -c constraints.txt "$(TORCH)"
	$(BIN)/python -m pip install $(PIP_FLAGS) -c constraints.txt -e ".[dev]"
	@touch $@

$(FETCHED): | $(INSTALLED)
	$(BIN)/interp-unlearn models fetch $(MODEL)
	@touch $@

demo: setup ## forget something, and see in a report what moved inside the model
	$(BIN)/interp-unlearn demo

explore: $(INSTALLED) ## look at runs in the browser; other folders: make explore RUNS=path/to/runs
	$(BIN)/interp-unlearn explore $(RUNS)

test: lint types unit ## check everything: lint, types, tests, documentation (what CI runs)

lint: $(INSTALLED) ## style and likely mistakes (ruff); 'make format' mends most of it
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(INSTALLED) ## type errors (pyright)
	$(BIN)/pyright

unit: setup ## the tests alone, with coverage (they build the documentation, too); for one file: .venv/bin/pytest tests/test_offline.py
	$(BIN)/pytest -n $(WORKERS) --dist loadfile

docs: $(INSTALLED) ## build the documentation into site/, warnings being errors; it opens from the file system
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

format: $(INSTALLED) ## rewrite the code in the project's style
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean: ## remove caches and build output (.venv, models and runs stay)
	rm -rf build dist *.egg-info .coverage htmlcov site .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
