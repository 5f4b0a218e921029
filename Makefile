# Lines with two number signs are what `make help` lists.
PYTHON ?= python3
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
INSTALL := python -m pip install --quiet --no-compile --constraint constraints.txt
# On all cores, which takes pip half a minute longer on two; of a package's files that are no Python nothing is made.
COMPILE := python -m compileall -q -j 0 $(VENV)/lib >/dev/null || true
export PATH := $(BIN):$(PATH)

.PHONY: repro test endurance lint docs clean help

repro: $(VENV)/.installed  ## Run the whole pipeline, on the embedded demo unless params.yaml says otherwise.
	dvc repro
	seed report

PYTEST := python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

test: $(VENV)/.installed-dev  ## Run the tests: 5 to 8 minutes on two cores. The slowest ten are listed.
	$(PYTEST) --durations=10

endurance: $(VENV)/.installed-dev  ## Run the attacks (kills, damage, hostile files) and the exports, in full: half an hour.
	SEED_ENDURANCE=1 $(PYTEST) -m endurance

lint: $(VENV)/.installed-dev  ## Check style, formatting and types.
	ruff check .
	ruff format --check .
	mypy

docs: $(VENV)/.installed-dev  ## Build the documentation as a site, in site/; a broken link is an error.
	NO_MKDOCS_2_WARNING=1 mkdocs build --strict --quiet

clean:  ## Remove the virtual environment.
	rm -rf $(VENV)

help:  ## List these targets.
	@sed -nE 's/^([a-z]+):.*##  *(.*)/\1\t\2/p' Makefile | expand -t 12

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11, 4) and "Python 3.11.4 or newer is needed; name one with: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	python -m pip install --quiet --upgrade 'pip>=25'  # older ones take half as long again

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml constraints.txt
	$(INSTALL) --editable '.[demo,dvc,plots]'
	$(COMPILE)
	touch $@

# Also what the other one installs: to look at all the packages once is faster than twice.
$(VENV)/.installed-dev: $(VENV)/bin/python pyproject.toml constraints.txt
	$(INSTALL) --editable '.[demo,dvc,plots,docs,dev]'
	$(INSTALL) --no-deps "pyrnnoise; sys_platform == 'linux'"
	$(COMPILE)
	touch $(VENV)/.installed $@
