# netopt: `make help` lists the targets.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RUN := $(VENV)/.installed
DEV := $(VENV)/.installed-dev
# Modules are compiled when they are first imported: of most packages, few are. Where that is
# forbidden, each process compiles TensorFlow anew: 6 s more for each of some hundred.
unexport PYTHONDONTWRITEBYTECODE
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: help run test test-full check bench docs lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(RUN) ## the main job on the embedded data: train, prune, quantize, measure
	$(BIN)/netopt train 'opt=[prune,quantize]'

test: check ## lint, types, import contract and the tests (10 to 20 minutes on two cores)
	$(BIN)/python -m pytest -n 2 --dist loadgroup --max-worker-restart=0

test-full: check ## the tests, the slow ones included
	$(BIN)/python -m pytest -n 2 --dist loadgroup --max-worker-restart=0 -m ''

check: $(DEV) ## ruff, mypy and the import contract
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(DEV) ## images/s of training against Keras fit, interleaved in one run
	$(BIN)/python -m benchmarks.training_speed

docs: $(RUN) ## write docs/reference.md anew from the configs
	$(BIN)/python docs/generate_reference.py

lock: ## pin the dependencies anew into constraints.txt (needs uv)
	uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 \
	  --no-header --no-annotate --no-emit-index-url --upgrade -o constraints.txt

clean: ## remove the environment and the caches; runs/ stays
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "netopt needs Python 3.11 or newer: make PYTHON=python3.12 ..."; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(RUN): $(BIN)/python pyproject.toml constraints.txt
	$(PIP) -e .
	@touch $@

$(DEV): $(BIN)/python pyproject.toml constraints.txt
	$(PIP) -e '.[dev]'
	@touch $(RUN) $@
