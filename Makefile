# Every target makes the virtual environment it needs. The machine needs Python 3.11 and make.
PYTHON ?= python3.11
BIN := .venv/bin
STAMP := .venv/.installed

TOOLS := .venv/.tools
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps

.PHONY: venv lock image licences release audit demo test test-cluster test-cluster-long test-cluster-matrix test-gpu cluster-assets check mutants bench bench-cluster protos configuration backends-page pictures manifests

venv: $(STAMP)

# The locks name every package with its hashes, so pip resolves nothing.
$(STAMP): pyproject.toml requirements/runtime.txt requirements/dev.txt
	@command -v $(PYTHON) >/dev/null 2>&1 && $(PYTHON) -m venv .venv || python3 -m venv .venv
	@$(BIN)/python -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed, found " + sys.version.split()[0])'
	$(PIP) --require-hashes -r requirements/dev.txt
	$(PIP) --no-build-isolation -e .
	@touch $@

$(TOOLS): $(STAMP) requirements/tools.txt
	$(PIP) --require-hashes -r requirements/tools.txt
	@touch $@

check: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --explicit-package-bases tests/cluster
	$(BIN)/mypy --explicit-package-bases scripts
	$(BIN)/lint-imports --no-cache

# The fast level, then the cluster level where its programs are found.
test: venv
	$(BIN)/python -m pytest -n 2 --ignore=tests/cluster --ignore=tests/unit/chart
	@if $(BIN)/python -m tests.cluster.harness.binaries; then $(MAKE) --no-print-directory test-cluster; fi

# A real Kubernetes, and the chart by real Helms; docs/testing.md.
test-cluster: venv
	$(BIN)/python -m pytest -n 2 tests/unit/chart
	$(BIN)/python -m pytest -rs --durations=12 -m "not long" tests/cluster

# Minutes of load on it: quotas, rotations, thousands of pods, the whole system on a real node.
test-cluster-long: venv
	$(BIN)/python -m pytest -rs --durations=12 -m long tests/cluster

# The short level on the oldest, a middle and the newest version that are supported.
test-cluster-matrix: venv
	$(BIN)/python -m tests.cluster.matrix

cluster-assets: venv
	$(BIN)/python -m tests.cluster.assets

demo: venv
	@$(BIN)/gpu-fraction demo

# Writes docs/performance.md; what needs a cluster is left out where its programs are missing.
bench: venv
	$(BIN)/python -m tests.performance.bench_webhook
	$(BIN)/python -m tests.performance.bench_placement
	$(BIN)/python -m tests.performance.bench_reflector
	$(BIN)/python -m tests.performance.bench_node_daemon
	@if $(BIN)/python -m tests.cluster.harness.binaries; then $(MAKE) --no-print-directory bench-cluster; fi

bench-cluster: venv
	$(BIN)/python -m tests.performance.bench_admission
	$(BIN)/python -m tests.performance.bench_quota
	$(BIN)/python -m tests.performance.bench_scheduler
	$(BIN)/python -m tests.performance.bench_claims

# Small changes of the code that no test notices: make mutants MODULES="quota/plan.py" MINUTES=20
mutants: $(TOOLS)
	$(BIN)/python tests/mutants.py --minutes $(or $(MINUTES),20) $(if $(TESTS),--tests $(TESTS) --) $(MODULES)

# On a machine with an NVIDIA GPU; changes no setting of the card.
test-gpu: venv
	$(BIN)/python -m pytest -rs tests/gpu

# Writes docs/configuration.md.
configuration: venv
	$(BIN)/python scripts/generate_configuration.py > docs/configuration.md

# Writes docs/backends.md.
backends-page: venv
	$(BIN)/python scripts/generate_backends.py > docs/backends.md

# Writes docs/pictures from what the commands print on the demo's cluster; needs kubectl.
pictures: venv
	$(BIN)/python scripts/generate_pictures.py

# Writes deploy/ from deploy/chart, and what of the chart follows from the settings; needs Helm 4.
manifests: venv
	$(BIN)/python -m scripts.generate_manifests

# After a change of a .proto file; a test fails until it was run.
protos: venv
	$(BIN)/python scripts/generate_protos.py

# After a change of dependencies; UPGRADE=NAME or UPGRADE=all takes newer versions. Needs Debian 12.
lock: $(TOOLS)
	$(BIN)/python -m scripts.lock $(addprefix --upgrade ,$(UPGRADE))

# The container image as an OCI archive in dist/, without a container engine: docs/releasing.md.
image: venv
	$(BIN)/python -m scripts.image $(addprefix --architecture ,$(ARCHITECTURE))

# Writes docs/licences.md.
licences: venv
	$(BIN)/python -m scripts.licences

# Everything that is published, in dist/: docs/releasing.md.
release: venv
	$(BIN)/python -m scripts.release

# Known vulnerabilities of the locked packages; fails too where one cannot be looked up.
audit: $(TOOLS)
	$(BIN)/pip-audit --strict --disable-pip --require-hashes --progress-spinner off -r requirements/tools.txt
