# Everything a developer runs; `make` alone lists it. Needs Python 3.11 or newer and make, and no root.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup run test chaos measures check build docs bench bench-quick constraints clean

VENV := .venv
IN_VENV := $(VENV)/bin
PIP := $(IN_VENV)/python -m pip --disable-pip-version-check
STAMP := $(VENV)/.installed

# The first of these names that is 3.11 or newer and can make virtual environments; `make setup PYTHON=...` overrules.
PYTHON ?= $(shell for name in python3.11 python3.12 python3.13 python3 python3.14 python; do \
	"$$name" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 \
	&& { echo "$$name"; break; }; done)

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## make .venv with everything that the other commands need

$(STAMP): pyproject.toml constraints.txt
	@test -x $(IN_VENV)/python || test -n "$(PYTHON)" || { \
		echo "Seawall needs Python 3.11 or newer with its venv module, and none was found." >&2; \
		echo "Install one (Debian: apt install python3 python3-venv), or name it: make setup PYTHON=/path/to/python" >&2; \
		exit 1; }
	@test -x $(IN_VENV)/python || { echo "Making $(VENV) with $(PYTHON)"; "$(PYTHON)" -m venv --clear $(VENV); }
	@echo "Installing into $(VENV)"
	@$(PIP) install --quiet -c constraints.txt --upgrade pip
	@$(PIP) install --quiet -c constraints.txt --group dev
	@PYTHONWARNINGS='ignore:Editable installation' \
		$(PIP) install --quiet -c constraints.txt --no-build-isolation -e '.[all]'
	@touch $(STAMP)

run: setup ## start the example application; SECONDS=30 ends it by itself, ctrl-C at any time
	$(IN_VENV)/seawall up examples.caudex.services $(if $(SECONDS),--seconds $(SECONDS)) -- $(IN_VENV)/python -m examples.caudex.run

# Tests wait for processes, timers and servers more than they compute: more of them than cores run side by side.
JOBS ?= 3

test: setup ## run the tests; ARGS="tests/unit -x" goes to pytest, JOBS=1 runs them one after the other
	$(IN_VENV)/python -m pytest -n $(JOBS) --dist loadfile $(ARGS)

chaos: setup ## play a seeded chaos run (docs/chaos.md): SECONDS=60 for another length than 600, SEED=7 for the run of an earlier seed
	$(IN_VENV)/python -m tests.chaos --seconds $(or $(SECONDS),600) $(if $(SEED),--seed $(SEED)) $(ARGS)

measures: setup ## play what broke the stock stack against this project (docs/reliability.md): IDS="B1 X3" for some of it
	$(IN_VENV)/python -m tests.measures $(IDS) $(ARGS)

check: setup ## lint, check the formatting, check the types
	$(IN_VENV)/ruff check
	$(IN_VENV)/ruff format --check
	$(IN_VENV)/mypy
	$(PIP) check

build: setup ## build the sdist and the wheel into dist/
	rm -rf build dist
	$(IN_VENV)/python -m build --no-isolation

# The peers that the benchmarks compare with have an environment of their own.
PEERS := bench/.venv
PEERS_STAMP := $(PEERS)/.installed

$(PEERS_STAMP): bench/peers.txt | $(STAMP)
	@test -x $(PEERS)/bin/python || { echo "Making $(PEERS)"; $(IN_VENV)/python -m venv --clear $(PEERS); }
	@echo "Installing into $(PEERS)"
	@$(PEERS)/bin/python -m pip --disable-pip-version-check install --quiet --requirement bench/peers.txt
	@touch $(PEERS_STAMP)

bench: setup $(PEERS_STAMP) ## measure everything beside a direct call and beside peers, and write bench/results.json (20 minutes)
	$(IN_VENV)/python -m bench $(ARGS)

bench-quick: setup $(PEERS_STAMP) ## the same with less of everything, under 3 minutes; its numbers go to bench/quick.json
	$(IN_VENV)/python -m bench --quick --results bench/quick.json $(ARGS)

docs: setup ## write the tables of docs/configuration.md and docs/commands.md
	$(IN_VENV)/python -m tests.support.configuration_page
	$(IN_VENV)/python -m tests.support.commands_page

constraints: setup ## write the versions installed now into constraints.txt
	{ sed -n '/^#/p' constraints.txt; $(PIP) freeze --all --exclude-editable; } > $(VENV)/constraints
	mv $(VENV)/constraints constraints.txt

clean: ## remove what these commands made: .venv, dist, caches
	rm -rf $(VENV) $(PEERS) build dist seawall.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
