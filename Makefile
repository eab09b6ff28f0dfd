PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: browser demo test test-slow check quick lint format benchmark clean

# What answers within a minute together with lint: the ground, the arithmetic, the house.
QUICK := tests/core tests/losses tests/layers/rank_one/test_arithmetic.py tests/test_architecture.py tests/test_public_names.py tests/test_shapes.py

demo: $(READY)  ## compare all methods on two moons and write the report
	$(BIN)/batchensemble compare --out runs/moons

test: lint browser  ## everything that CI runs
	$(BIN)/python -m pytest -q -n auto --dist loadfile -m "not slow"

test-slow: $(READY)  ## the tests that take longer than a minute
	$(BIN)/python -m pytest -q -m slow

check: $(READY)  ## lint and the quick tests, side by side
	$(MAKE) -j2 lint quick

quick: $(READY)
	$(BIN)/python -m pytest -q $(QUICK)

lint: $(READY)  ## what ruff, the import contracts and mypy find
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

browser:  ## Chromium and onnxruntime-web for the tests of pages, where they can be installed
	scripts/install-browser.sh

benchmark: $(READY)  ## every number of the README
	$(BIN)/python benchmarks/two_moons.py

clean:
	rm -rf $(VENV) runs

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev]"
	touch $@
