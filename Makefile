# Everything that one does with this repository; `make` alone lists it.
# Needs Python 3.11 or newer, make and a package index. All paths are relative: a clone may lie anywhere,
# also where the path has a space. Another running copy needs STOKER_PORT and STOKER_DATA_DIR of its own.

.DEFAULT_GOAL := help
SHELL := /bin/sh

# The interpreter that makes the environment: the first of these that is new enough.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& { echo $$p; break; }; done)
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.stoker-installed
JOBS ?= 4
N ?= 20
MINUTES ?= 10
PYTEST := $(PY) -m pytest -q
# Where it is set, each process of the tests would compile every module and every assertion anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup run test test-fast test-long test-slow flake fuzz chaos check lint fix types generate lock bench bench-logs bench-durability bench-agents docs clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-10s %s\n", $$1, $$2}' Makefile

setup: $(STAMP) ## make .venv from requirements.lock (the other targets do it by themselves)

$(STAMP): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; none was found (set PYTHON=...)"; exit 1; }
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@$(PY) -c 'import uv' 2>/dev/null || $(PY) -m pip install -q --disable-pip-version-check 'uv>=0.5'
	$(PY) -m uv pip install -q --compile-bytecode --python $(PY) --require-hashes -r requirements.lock \
		|| $(PY) -m pip install -q --disable-pip-version-check --require-hashes -r requirements.lock
	$(PY) -m uv pip install -q --python $(PY) --no-deps -e . \
		|| $(PY) -m pip install -q --disable-pip-version-check --no-deps -e .
	@touch $(STAMP)

run: $(STAMP) ## start the whole system here, deploy the example apps, run a first task; Ctrl-C ends it
	@exec $(PY) -m stoker_cli up --examples examples/apps \
		--first-task 'infsh/echo message=hello' \
		--first-task 'examples/ocr image=@examples/apps/ocr/sample.png'

# In the order of their folders: files with systems first, and the many small ones of tests/unit fill up the end.
test: $(STAMP) ## all tests but the long and the slow ones
	$(PYTEST) -n $(JOBS) --dist loadfile --no-loadscope-reorder -m "not slow and not long"

test-long: $(STAMP) ## outages, joining machines, TLS, faults at random: what takes many seconds each
	$(PYTEST) -n $(JOBS) --dist loadfile -m "long and not slow"

test-fast: $(STAMP) ## tests without servers, for while you type
	$(PYTEST) tests/unit -m "not slow"

test-slow: $(STAMP) ## the tests that take minutes
	$(PYTEST) -m slow

flake: $(STAMP) ## the tests with processes, N=20 times; stops at the first failure. LONG=1: those of test-long
	@for i in $$(seq $(N)); do echo "run $$i of $(N)"; \
		$(PYTEST) -n $(JOBS) --dist loadfile tests/system tests/clients tests/faults \
		-m "not slow and $(if $(LONG),long,not long)" || exit 1; done

fuzz: $(STAMP) ## new stories for the model of the protocol, for MINUTES=10
	$(PY) tests/protocol/fuzz.py $(MINUTES)

chaos: $(STAMP) ## faults at random under TASKS=5000 tasks, by SEED=1; SERVER_KILL_S=20, SERVERS=sentinel|cluster, ONLY=daemons
	@cd tests && TASKS=$(or $(TASKS),5000) SEED=$(or $(SEED),1) SERVER_KILL_S=$(or $(SERVER_KILL_S),0) \
		SERVERS=$(or $(SERVERS),one) ONLY=$(ONLY) "$(CURDIR)/$(PY)" -m faults.chaos

check: lint types test ## what CI runs, but for test-long and the smoke run; changes no file
	$(PY) docs/generate.py --check

lint: $(STAMP) ## ruff and the walls between the packages
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -c 'import sys; from importlinter.cli import lint_imports_command; sys.exit(lint_imports_command())'

types: $(STAMP) ## the type checker, strict
	$(PY) -m mypy

fix: $(STAMP) ## what ruff can repair
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

generate: $(STAMP) ## the pages that are made from code
	$(PY) docs/generate.py

lock: $(STAMP) ## write requirements.lock anew from pyproject.toml
	$(PY) -m uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
		--extra test pyproject.toml -o requirements.lock

bench: $(STAMP) ## measure latency and throughput, side by side with RQ
	$(PY) bench/run.py

bench-logs: $(STAMP) ## measure whether a task that prints 100 MB slows another one
	$(PY) bench/log_flood.py

bench-durability: $(STAMP) ## measure what it costs that an accepted task is on disk
	$(PY) bench/durability.py

bench-agents: $(STAMP) ## measure the turns of CHATS=200 chats at once, on WORKERS=12
	CHATS=$(or $(CHATS),200) WORKERS=$(or $(WORKERS),12) $(PY) bench/agents.py

docs: generate ## the same as generate; the pages are plain Markdown in docs/

clean: ## remove what was made here; data directories stay
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache tests/clients/js/node_modules
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
