PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: browser demo test test-slow lint format benchmark clean

demo: $(READY)  ## compare all methods on two moons and write the report
	$(BIN)/batchensemble compare --out runs/moons

test: lint browser  ## everything that CI runs
	$(BIN)/python -m pytest -q -n auto --dist loadfile -m "not slow"

test-slow: $(READY)  ## the tests that take longer than a minute
	$(BIN)/python -m pytest -q -m slow

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

browser:  ## Chromium for the tests of the report, where it can be installed
	scripts/install-browser.sh

benchmark: $(READY)  ## every number of the README
	$(BIN)/python benchmarks/two_moons.py

clean:
	rm -rf $(VENV) runs

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev]"
	touch $@
