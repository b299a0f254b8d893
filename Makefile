# On a machine with Python 3.11 or newer, make and a package index:
#   make demo         make a virtual environment, install, run the demonstration (about two minutes)
#   make test         install the tools too, then lint, types, tests and documentation examples
#   make wheel-smoke  build the wheel, install it elsewhere and use it from an empty directory
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SMOKE := build/smoke
# processes that the tests are shared among, a file at a time
WORKERS ?= 2

# one thread a process is the quickest on small tensors, and leaves the other cores to others
OMP_NUM_THREADS ?= 1
export OMP_NUM_THREADS

SOURCES := hybridgen simulators experiments tests docs

.PHONY: demo docs test lint format types wheel wheel-smoke clean

demo: $(VENV)/installed
	$(BIN)/hybridgen demo --overwrite

test: lint types
	$(BIN)/pytest -n $(WORKERS) --dist loadscope

lint: $(VENV)/installed-test
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)

format: $(VENV)/installed-test
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

types: $(VENV)/installed-test
	$(BIN)/mypy hybridgen simulators experiments

wheel: $(VENV)/installed-test
	rm -rf build dist
	$(BIN)/python -m build --wheel --outdir dist .

wheel-smoke: wheel
	$(PYTHON) -m venv $(SMOKE)
	$(SMOKE)/bin/python -m pip install --quiet -c constraints.txt dist/*.whl
	$(SMOKE)/bin/python -P tests/smoke.py
	rm -rf $(SMOKE)

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "hybridgen needs Python 3.11 or newer; write make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; \
	  exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e .
	touch $@

$(VENV)/installed-test: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[test]'
	touch $@ $(VENV)/installed

# the documentation as a site in build/docs
docs: $(VENV)/installed-docs
	rm -rf docs/reference/generated
	$(BIN)/sphinx-build -W -q -b html docs build/docs

$(VENV)/installed-docs: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[docs]'
	touch $@ $(VENV)/installed

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
