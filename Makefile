# What people and CI call. The virtualenv in .venv is made on first use, and again when pyproject.toml changes.
PYTHON ?= python3
BIN := .venv/bin
# Apart, for contenders ask for versions of their own.
BENCH := .venv/bench/bin
# How long each of the two targets is fuzzed.
FUZZ_SECONDS ?= 60
# Of the fuzzer's random numbers; 0: another one each time. CI names one, so that it fails for a change, not by chance.
FUZZ_SEED ?= 0
# Rounds of kill -9, a second or less each, and the seed of their random numbers; 0: another one each time.
KILL_ROUNDS ?= 1000
KILL_SEED ?= 0
# Runs of the model test of storage, and the seed of the first; 0: another one each time.
MODEL_SEEDS ?= 10000
MODEL_FIRST ?= 0
# More for `python -m bench run`: bench/README.md.
BENCH_OPTIONS ?=
# Where `make install` puts the service, and what stands before each path while a package or an image is made.
PREFIX ?= /opt/ingestd
DESTDIR ?=
# More for the service: `ship` delivers to object storage.
EXTRAS ?=

.PHONY: help serve test test-systemd check nightly lint types docs bench bench-quick fuzz install uninstall clean

help:
	@echo "make serve   install, and run the server on its defaults"
	@echo "make test    install, and run all tests"
	@echo "make test-systemd  boot a Debian of the tests' own, and run the service there (root, mmdebstrap, systemd-nspawn)"
	@echo "make check   lint, types, tests: what CI asks"
	@echo "make nightly what takes too long for every change: MODEL_SEEDS=10000 runs of storage on a faulty disk,"
	@echo "             and kill -9 under load, KILL_ROUNDS=1000 times"
	@echo "make docs    write anew what README.md and docs/ have from the code"
	@echo "make bench   measure, and compare with others (two hours); bench-quick: ingestd and its floors (a minute)"
	@echo "make fuzz    look for inputs that break the reading of requests and of gzip; FUZZ_SECONDS=60 each"
	@echo "make install    as root: the service, its units and its user; docs/operations.md"
	@echo "make uninstall  take that away again, but settings and data"
	@echo "make clean   remove what the other targets made; never data/"

serve: .venv/serve.stamp
	@$(BIN)/ingestd serve

test: .venv/dev.stamp
	$(BIN)/pytest

test-systemd: .venv/dev.stamp
	INGESTD_TEST_CONTAINER=1 $(BIN)/pytest tests/e2e/test_operations.py

check: lint types test

nightly: .venv/dev.stamp
	$(BIN)/python -m tests.storage.model --seeds $(MODEL_SEEDS) $(if $(filter-out 0,$(MODEL_FIRST)),--first $(MODEL_FIRST))
	$(BIN)/python -m tests.e2e.kill --rounds $(KILL_ROUNDS) --seed $(KILL_SEED)

lint: .venv/dev.stamp
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: .venv/dev.stamp
	$(BIN)/mypy

docs: .venv/dev.stamp
	$(BIN)/python docs/settings_table.py
	$(BIN)/python docs/connection_diagram.py
	$(BIN)/python docs/openapi_document.py
	$(BIN)/python docs/metrics_table.py
	$(BIN)/python docs/grafana_dashboard.py
	$(BIN)/python -m bench report

bench: .venv/bench.stamp
	@mkdir -p bench/results
	$(BENCH)/python -m bench run bench/results/long.json $(BENCH_OPTIONS)
	@echo "'$(BENCH)/python -m bench report bench/results/long.json' makes docs/benchmarks.md of it"

bench-quick: .venv/bench.stamp
	@mkdir -p bench/results
	$(BENCH)/python -m bench run bench/results/quick.json --quick $(BENCH_OPTIONS)
	$(BENCH)/python -m bench show bench/results/quick.json

fuzz: .venv/fuzz.stamp
	@mkdir -p fuzz/corpus/protocol fuzz/corpus/inflate fuzz/findings
	$(BIN)/python -m fuzz protocol fuzz/corpus/protocol fuzz/seeds/protocol -max_total_time=$(FUZZ_SECONDS) \
		-seed=$(FUZZ_SEED) -max_len=4096 -dict=fuzz/http.dict -artifact_prefix=fuzz/findings/ -verbosity=0 -print_final_stats=1
	$(BIN)/python -m fuzz inflate fuzz/corpus/inflate fuzz/seeds/inflate -max_total_time=$(FUZZ_SECONDS) \
		-seed=$(FUZZ_SEED) -max_len=4096 -artifact_prefix=fuzz/findings/ -verbosity=0 -print_final_stats=1

install:
	@PYTHON='$(PYTHON)' PREFIX='$(PREFIX)' DESTDIR='$(DESTDIR)' EXTRAS='$(EXTRAS)' systemd/install

uninstall:
	@PREFIX='$(PREFIX)' DESTDIR='$(DESTDIR)' systemd/uninstall

clean:
	rm -rf fuzz/corpus
	rm -rf bench/results bench/apps/fastify/node_modules .locust
	rm -rf .venv *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +

.venv/serve.stamp: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable .
	@touch $@

.venv/dev.stamp: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable '.[dev]'
	@touch $@ .venv/serve.stamp

.venv/bench.stamp: pyproject.toml
	$(PYTHON) -m venv .venv/bench
	.venv/bench/bin/pip install --quiet --editable '.[bench]'
	if command -v npm >/dev/null; then cd bench/apps/fastify && npm ci --silent; fi
	@touch $@

.venv/fuzz.stamp: .venv/dev.stamp
	$(BIN)/pip install --quiet --editable '.[fuzz]'
	@touch $@
