# Everything a person runs. Each target makes .venv and installs into it first, when needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO_HOME := data/demo
TYPED := mts_dagster mts_realtime mts_simulator tests benchmarks --exclude stock_backfill

.DEFAULT_GOAL := help
.PHONY: help install demo up test format bench soak clean

help: ## Show the targets
	@grep -E '^[a-z]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 10

install: $(STAMP) ## Make .venv and install

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "MTS needs Python 3.11 or newer; this is " + sys.version.split()[0])'
	@echo "installing MTS into $(VENV) (one to three minutes, once)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@

demo: $(STAMP) ## From nothing to signals, against the simulator
	@MTS_HOME=$(DEMO_HOME) $(BIN)/mts demo

up: $(STAMP) ## The Dagster UI on the demo's data, until Ctrl-C
	@MTS_HOME=$(DEMO_HOME) $(BIN)/mts up --simulated

# Types are checked beside the tests: mypy alone would leave a core idle.
test: $(STAMP) ## Format, lint, types, all tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	@$(BIN)/mypy $(TYPED) > $(VENV)/types.txt & types=$$!; $(BIN)/pytest -n 3 --dist loadgroup; tests=$$?; \
	wait $$types; typed=$$?; echo "mypy $(TYPED)"; cat $(VENV)/types.txt; exit $$((tests + typed))

format: $(STAMP) ## Put the code into the house's form
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(STAMP) ## Measure; results are explained in benchmarks/README.md
	$(BIN)/python -m benchmarks

soak: $(STAMP) ## Ten minutes of the sidecar with a random fault every few seconds
	$(BIN)/python benchmarks/realtime_soak.py --minutes 10

clean: ## Remove the environments and the demo's data
	rm -rf $(VENV) .venv-peers .venv-peer-engines $(DEMO_HOME)
