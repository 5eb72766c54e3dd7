# `make serve` and `make test` need Python 3.11 or newer and nothing else.
PYTHON ?= python3
VENV ?= .venv
PORT ?= 8000
EXAMPLES ?= 100000
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEV_STAMP := $(VENV)/.installed-dev
PEERS := .venv-peers
CLIENTS := .venv-clients
PEERS_STAMP := $(PEERS)/.installed
MINUTES ?= 10
WORKERS ?= 2

.DEFAULT_GOAL := help
.PHONY: help install dev serve test clients crash fuzz lint bench peers soak train walkthrough clean

help:  ## list what there is
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Lukewarm needs Python 3.11 or newer; name one with make PYTHON=python3.12."; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	  { echo "This Python has no venv module: on Debian, apt-get install python3-venv."; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(DEV_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

install: $(STAMP)  ## the virtual environment, the package and its command, lukewarm

dev: $(DEV_STAMP)

serve: install  ## run the server on port 8000 (PORT=8001 for another)
	$(BIN)/lukewarm serve --port $(PORT)

clients: dev  ## environments with the AWS clients that tests use
	$(BIN)/python -m tests.clients.environments

test: dev  ## run the tests, in two processes (WORKERS=0 for one)
	@$(MAKE) --no-print-directory clients || echo "The tests of these clients will fail."
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

crash: dev  ## kill the server under load twenty times (make test: three times)
	LUKEWARM_CRASH_ROUNDS=20 $(BIN)/python -m pytest -o faulthandler_timeout=900 tests/e2e/test_crash.py

fuzz: dev  ## 100,000 hostile inputs (EXAMPLES=1000 for fewer; make test: 800)
	LUKEWARM_EXAMPLES=$(EXAMPLES) $(BIN)/python -m pytest tests/fuzz --timeout 0 -o faulthandler_timeout=0

lint: dev  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(PEERS_STAMP): benchmarks/peers/requirements.txt
	@$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

peers: $(PEERS_STAMP)  ## an environment with the servers that the benchmarks compare with

bench: dev  ## run the benchmarks: a table, and JSON in benchmarks/results
	@$(MAKE) --no-print-directory peers || \
	  echo "The peers cannot be installed; what compares with them is not measured."
	$(BIN)/python -m benchmarks

soak: dev  ## ten minutes of mixed load, checked for leaks (MINUTES=2 for two)
	$(BIN)/python -m benchmarks.soak --minutes $(MINUTES)

walkthrough: dev  ## run examples/walkthrough.ipynb against a server, into build/walkthrough.ipynb
	$(BIN)/python -m examples.run

train: install  ## train the Fashion-MNIST model on the real data into ./trained
	$(BIN)/python -m model.train --model-dir trained --litert trained-litert

clean:  ## remove what was built
	rm -rf $(VENV) $(PEERS) $(CLIENTS) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
