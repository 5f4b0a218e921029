PYTHON ?= python3
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
INSTALL := python -m pip install --quiet --no-compile --constraint constraints.txt
# On all cores, which takes pip half a minute longer on two; of a package's files that are no Python nothing is made.
COMPILE := python -m compileall -q -j 0 $(VENV)/lib >/dev/null || true
export PATH := $(BIN):$(PATH)

.PHONY: repro test lint docs clean

# The whole pipeline on the embedded demo, or on whatever params.yaml says; then the table.
repro: $(VENV)/.installed
	dvc repro
	seed report

# Side by side on all cores; those of one file, which may share what takes long, one after another.
test: $(VENV)/.installed-dev
	python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

lint: $(VENV)/.installed-dev
	ruff check .
	ruff format --check .
	mypy

# The documentation as a site, in site/; a broken link ends it.
docs: $(VENV)/.installed-dev
	NO_MKDOCS_2_WARNING=1 mkdocs build --strict --quiet

clean:
	rm -rf $(VENV)

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11, 4) and "Python 3.11.4 or newer is needed; name one with: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	python -m pip install --quiet --upgrade 'pip>=25'  # older ones take half as long again

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml constraints.txt
	$(INSTALL) --editable '.[demo,dvc,plots]'
	$(COMPILE)
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(INSTALL) --editable '.[demo,dvc,plots,docs,dev]'
	$(INSTALL) --no-deps "pyrnnoise; sys_platform == 'linux'"
	$(COMPILE)
	touch $@
