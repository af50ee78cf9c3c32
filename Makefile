# One command file: `make help`. Works on a machine that has Python >= 3.11, make and git.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
UV     := $(shell command -v uv 2>/dev/null || echo .cache/uv/bin/uv)
# The order of the folders: the files that take longest first.
PYTEST := $(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder
PORT   ?=
MINUTES ?= 1
SEED   ?=

# Where it is set, each process compiles all that it imports anew: dbt alone takes five seconds then.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help up test test-all test-warehouse test-airflow test-long check lint bench prove-road prove-feeds prove-cluster prove-warehouse soak servers wheel-smoke setup setup-dev browser clean

help: ## Show this help
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-14s %s\n", $$1, $$2}'

.cache/uv/bin/uv:
	@$(PYTHON) -m venv .cache/uv
	@.cache/uv/bin/python -m pip install --quiet --disable-pip-version-check 'uv>=0.9'

setup: $(UV) ## Install what the product needs
	@$(UV) sync --quiet --frozen --no-dev --inexact --python $(PYTHON)

setup-dev: $(UV) ## Install what the tests need, too
	@$(UV) sync --quiet --frozen --python $(PYTHON)

browser: # Debian's Chromium for the page tests, where it can be had
	@command -v chromium >/dev/null 2>&1 || command -v google-chrome >/dev/null 2>&1 || \
	  { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1 && \
	    apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium >/dev/null; } || \
	  echo "no Chromium here: page tests will be skipped with that reason"

up: setup ## Run the whole road on the simulator and show it in a page (Ctrl-C stops)
	@$(BIN)/tickhouse up $(if $(PORT),--port $(PORT))

test: setup-dev browser ## Install what the tests need and pass them (18 minutes on two slow cores)
	$(PYTEST) -m 'not slow and not long and not warehouse and not airflow'

test-all: setup-dev browser ## The tests that take longer: random kills, a feed that breaks, a minute of faults
	$(PYTEST) -m 'slow and not long'

test-warehouse: setup-dev ## The stand-in for Snowflake: parity, contract, crashes, kills; a backfill
	$(PYTEST) -m warehouse

test-airflow: setup-dev browser ## Minutes of a real Airflow scheduler over a live lake (13 minutes)
	$(PYTEST) -n 0 -m airflow

test-long: setup-dev ## Longer still, not in CI: every failpoint in every way, a whole day, the road on MinIO
	$(PYTEST) -m long

lint: setup-dev ## Format, lint, types, import contracts, lock file
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports --no-cache
	$(UV) lock --check

check: lint test ## What a change must pass

coverage: setup-dev ## Tests with branch coverage, reported
	$(BIN)/coverage run -m pytest -q -m 'not slow and not long and not airflow' && $(BIN)/coverage combine -q && $(BIN)/coverage report

bench: setup-dev ## Measure; results and how to read them: benchmarks/README.md
	$(BIN)/python -m benchmarks.road
	$(BIN)/python -m benchmarks.history
	$(BIN)/python -m benchmarks.tutorial
	$(BIN)/python -m benchmarks.simulator
	$(BIN)/python -m benchmarks.feeds
	$(BIN)/python -m benchmarks.load

prove-road: setup ## Real trades, 20 random kills, audit, rebuild: one JSON line (<= 2 minutes)
	@$(BIN)/python -m proofs.road

prove-feeds: setup ## A seeded day through a double of Finnhub, every fault: one JSON line (<= 3 minutes)
	@$(BIN)/python -m proofs.feeds

prove-cluster: setup-dev ## Real Kafka and S3, 60 s of faults, two oracles: one JSON line (<= 5 minutes)
	@$(BIN)/python -m proofs.cluster $(if $(SEED),--seed $(SEED))

prove-warehouse: setup-dev ## DuckDB and a stand-in for Snowflake, loaders killed: one JSON line (<= 5 minutes)
	@$(BIN)/python -m proofs.warehouse $(if $(SEED),--seed $(SEED))

soak: setup-dev ## The same for MINUTES=30, and RELIABILITY.md from what was seen
	$(BIN)/python -m proofs.soak --minutes $(MINUTES) $(if $(SEED),--seed $(SEED)) --json proofs/results/soak.json
	$(BIN)/python -m tools.reliability_table

servers: setup-dev ## Start Kafka, SeaweedFS and MinIO; print their URLs (Ctrl-C stops)
	@$(BIN)/python -m tests.servers

wheel-smoke: $(UV) ## Build the wheel; run the whole road from it in an environment of its own
	@rm -rf dist && $(UV) build --quiet --wheel --out-dir dist
	@wheel=$$(ls $(CURDIR)/dist/*.whl) && uv=$$(realpath $$(command -v $(UV))) && cd $$(mktemp -d) && \
	  $$uv run --quiet --isolated --no-project --python $(PYTHON) --with $$wheel tickhouse up --once \
	  --port 0 --source 'sim://sp500?rate=max&frames=200' 2>/dev/null && \
	  $$uv run --quiet --isolated --no-project --python $(PYTHON) --with $$wheel tickhouse query \
	  "select count(*) as symbols, sum(trade_count) as trades from gold.kpi"

clean: ## Remove environments and caches (never data)
	rm -rf $(VENV) .cache dist .ruff_cache .hypothesis .coverage*
