# What people and CI call. The virtualenv in .venv is made on first use, and again when pyproject.toml changes.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help serve test check lint types docs bench clean

help:
	@echo "make serve   install, and run the server on its defaults"
	@echo "make test    install, and run all tests"
	@echo "make check   lint, types, tests: what CI asks"
	@echo "make docs    write README.md's table of settings anew"
	@echo "make bench   measure"
	@echo "make clean   remove what the other targets made; never data/"

serve: .venv/serve.stamp
	@$(BIN)/ingestd serve

test: .venv/dev.stamp
	$(BIN)/pytest

check: lint types test

lint: .venv/dev.stamp
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: .venv/dev.stamp
	$(BIN)/mypy

docs: .venv/dev.stamp
	$(BIN)/python docs/settings_table.py

bench: .venv/dev.stamp
	$(BIN)/python -m bench

clean:
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
