# Every target makes the virtual environment it needs. The machine needs Python 3.11 and make.
PYTHON ?= python3.11
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: venv demo test test-cluster cluster-assets check bench

venv: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null 2>&1 && $(PYTHON) -m venv .venv || python3 -m venv .venv
	@$(BIN)/python -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed, found " + sys.version.split()[0])'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,scheduler]'
	@touch $@

check: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --explicit-package-bases tests/cluster
	$(BIN)/lint-imports --no-cache

# The fast level, then the cluster level where its programs are found.
test: venv
	$(BIN)/python -m pytest --ignore=tests/cluster
	@if $(BIN)/python -m tests.cluster.harness.binaries; then $(MAKE) --no-print-directory test-cluster; fi

# A real Kubernetes; docs/testing.md.
test-cluster: venv
	$(BIN)/python -m pytest -rs tests/cluster

cluster-assets: venv
	$(BIN)/python -m tests.cluster.assets

# Prints tables, asserts nothing.
bench: venv
	$(BIN)/python -m tests.performance.bench_placement
	$(BIN)/python -m tests.performance.bench_scheduler
