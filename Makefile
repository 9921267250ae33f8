# make demo   train HarmoFL and FedAvg on synthetic hospitals, say which is ahead where, and write runs/demo/report.html
# make test   run the tests
# make test-engines  run all tests of deployments, also those that take minutes with Flower
# make test-oldest  the same with the oldest releases of NVFlare and Flower that pyproject.toml promises; TESTS="..." for some of them
# make bench  measure how fast the parts are, and write bench.json; BENCH="--threads 1 --only step" for a part of it
# make bench-waiting BASELINE=COMMIT  measure commands against the same of another commit
# make bench-compare BEFORE=old.json AFTER=bench.json  compare two of these
# make docs   build the documentation as a site into site/
# make check  format, lint, types, import direction and tests
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# What some tests need beside Python packages: a browser, and the proxy of docs/deploy.md. Without them those tests are skipped.
DEBIAN := chromium nginx-light

.PHONY: packages demo test test-engines test-oldest docs bench bench-waiting bench-compare check format clean

demo: $(VENV)/core
	$(BIN)/harmofl demo --out runs/demo

test: $(VENV)/installed packages
	$(BIN)/pytest

TESTS := tests/deployment tests/backends tests/test_examples.py

test-engines: $(VENV)/installed packages
	HARMOFL_LONG_TESTS=1 $(BIN)/pytest $(TESTS)

test-oldest: $(VENV)/installed packages
	$(BIN)/pip install --quiet --target build/oldest --no-deps flwr==1.41.0 nvflare==2.9.0
	PYTHONPATH=$(CURDIR)/build/oldest HARMOFL_LONG_TESTS=1 $(BIN)/pytest $(TESTS)

docs: $(VENV)/installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

BENCH :=
AFTER := bench.json

bench: $(VENV)/installed
	$(BIN)/python benchmarks/bench.py --out bench.json $(BENCH)

bench-waiting: $(VENV)/installed
	git worktree add -f --detach runs/baseline $(BASELINE)
	$(BIN)/python benchmarks/waiting.py runs/baseline $(BENCH)

bench-compare: $(VENV)/installed
	$(BIN)/python benchmarks/bench.py compare $(BEFORE) $(AFTER)

check: $(VENV)/installed packages
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest

# Only where this may be done without a question: as root, with apt-get.
packages:
	@if [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null && ! (command -v chromium && command -v nginx) > /dev/null; then \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(DEBIAN) > /dev/null \
	  || echo "packages: $(DEBIAN) could not be installed; tests that need them are skipped"; fi

format: $(VENV)/installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# What running needs. torch first and by its number: left open, it would be replaced by a build with gigabytes of GPU libraries.
$(VENV)/core: pyproject.toml
	@echo "install 1/3: a virtual environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@echo "install 2/3: torch, about 900 MB on the disk"
	@$(BIN)/pip install --quiet torch==2.13.0
	@echo "install 3/3: harmofl and what it runs with, about 500 MB"
	@$(BIN)/pip install --quiet --editable .
	@touch $@

# What tests, checks, benchmarks and the documentation need beyond that.
$(VENV)/installed: $(VENV)/core
	@echo "install: what tests and checks need beyond that, about 1 GB"
	@$(BIN)/pip install --quiet --editable '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) build dist site src/*.egg-info
