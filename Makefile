# The commands of this project. The first two need Python 3.11 and make, nothing else:
#
#   make demo     callgate with three servers, two agents and a policy; watch calls being allowed and denied
#   make test     the fast tests
#   make check    everything that a change must pass: format, lint, types, imports, sizes, documents, tests
#   make bench    the benchmark (docs/performance.md)
#   make format   format the code          make docs   write the generated pages again
#   make clean    remove everything that is built here
#
# VENV names the virtual environment, PYTHON the interpreter it is made with (default: the newest found).

VENV ?= .venv
PYTHON ?=
RUN = $(VENV)/bin/python
SETUP = PYTHON="$(PYTHON)" sh tools/venv

.PHONY: help demo test check bench format docs clean

help:
	@sed -n '3,10s/^# *//p' Makefile

# Stamps: nothing is installed again while pyproject.toml stays as it is.
$(VENV)/.core: pyproject.toml tools/venv
	@echo "Setting up $(VENV) …"
	@$(SETUP) "$(VENV)"
	@touch $@

$(VENV)/.dev: pyproject.toml tools/venv
	@echo "Setting up $(VENV) with the development tools …"
	@$(SETUP) "$(VENV)" dev
	@touch $(VENV)/.core $@

$(VENV)/.bench: pyproject.toml tools/venv
	@$(SETUP) "$(VENV)" bench
	@touch $(VENV)/.core $@

# Without a terminal (in a script, in CI) the demo ends by itself.
demo: $(VENV)/.core
	@if [ -t 1 ]; then $(VENV)/bin/callgate up --demo; \
	else CALLGATE_DEMO_STAY="$${CALLGATE_DEMO_STAY-20}" $(VENV)/bin/callgate up --demo; fi

test: $(VENV)/.dev
	@$(RUN) -m pytest -q -n auto

check: $(VENV)/.dev
	@$(RUN) -m checks

bench: $(VENV)/.bench
	@$(RUN) -m bench

format: $(VENV)/.dev
	@$(RUN) -m ruff format .
	@$(RUN) -m ruff check --fix .

docs: $(VENV)/.dev
	@$(RUN) -m checks.docs_match --write

clean:
	rm -rf "$(VENV)" .cache build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage .coverage.*
	find src tests bench checks -type d -name __pycache__ -prune -exec rm -rf {} +
