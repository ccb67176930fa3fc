# `make help` lists the verbs. PYTHON and TORCH can be overridden: make setup PYTHON=python3.12 TORCH=torch
PYTHON ?= python3
TORCH ?= torch==2.13.0
BIN := .venv/bin

.PHONY: help setup format check test test-slow resolve build benchmark clean

help:  ## List the verbs
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: .venv/ready  ## Make .venv and install everything into it

.venv/ready: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("tutelage needs Python 3.11 or newer; say make PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet $(TORCH)
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@

format: setup  ## Format the code and mend what the linter can
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

check: setup  ## Linter, formatter, imports, type checker, doctests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo --no-cache
	$(BIN)/mypy
	$(BIN)/pytest --doctest-modules --doctest-ignore-import-errors envs teachers students experiments

test: setup  ## Run the tests that fit a laptop (minutes)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadgroup -m 'not slow and not gpu'

test-slow: setup  ## Run the long tests
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadgroup -m slow

resolve: setup  ## Ask pip for wheels of all requirements on every Python we name (network)
	$(BIN)/python tests/check_resolution.py

build: setup  ## Build wheel and sdist; install each in isolation and smoke-test it
	rm -rf build dist
	$(BIN)/python -m build
	for file in dist/*.whl dist/*.tar.gz; do \
	  rm -rf build/isolated && $(PYTHON) -m venv build/isolated && \
	  build/isolated/bin/pip install --quiet $(TORCH) && build/isolated/bin/pip install --quiet $$file && \
	  (cd build && isolated/bin/tutelage compare --env point-mass-gate --teachers random alp-gmm --seeds 1 \
	    --steps 2000 --no-clips --out isolated/run && isolated/bin/python -c \
	    'import gymnasium; gymnasium.make("tutelage.envs:tutelage/StumpTracks-v0").reset(seed=0)') || exit 1; \
	  echo "$$file works"; \
	done

benchmark: setup  ## Install, then compare task teachers on PointMassGate (minutes)
	$(BIN)/tutelage compare --preset quick

clean:  ## Remove what the other verbs made, but no results
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache
