# Everything here works on a machine that has make and Python 3.10 or later, and nothing else.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check

SECONDS ?= 600
SEED ?= 1
ONLY ?=
TORCH ?= torch==2.13.0

# Tests wait as much as they compute, so a core has room for more than one process of them.
WORKERS ?= 3
# ORDER=random shuffles the tests, and prints the seed; ORDER=4711 repeats that of a seed.
ORDER ?= written
SHUFFLE = $(if $(filter-out written,$(ORDER)),-p randomly $(if $(filter-out random,$(ORDER)),--randomly-seed=$(ORDER)))
ARGS ?=

# Where this variable is set, every driver and every worker of Ray compiles this package anew.
PYTEST = env -u PYTHONDONTWRITEBYTECODE FED_TEST_PROFILE=$(1) $(BIN)/python -m pytest -n $(WORKERS) \
	$(SHUFFLE) $(ARGS)

.DEFAULT_GOAL := help
.PHONY: help demo test test-full test-deep test-torch test-matrix soak bench bench-quick check format clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.demo ## Three hospitals train a model together, on this machine
	@$(BIN)/fed run examples/fedavg_hospitals.py --simulate north,south,west

test: $(VENV)/.dev ## Run what every change runs: in three minutes, some of everything
	$(call PYTEST,quick) tests/unit tests/simulated tests/soak/unit tests/soak/simulated tests/integration/essential

test-full: $(VENV)/.dev ## Run all tests, as before a merge
	$(call PYTEST,full)

test-deep: $(VENV)/.dev ## Run for long what is random: make test-deep SEED=1
	FED_TEST_SEED=$(SEED) $(call PYTEST,deep) tests/soak

test-torch: | $(VENV)-torch/bin/python ## Run the tests of tensors, in an environment of their own with PyTorch
	@echo "installing $(TORCH) into $(VENV)-torch; the first time takes a few minutes"
	@$(VENV)-torch/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]' '$(TORCH)'
	$(VENV)-torch/bin/python -m pytest tests/unit/serde/test_tensors.py $(ARGS)

test-matrix: $(VENV)/.dev ## Try values between releases of pandas, numpy and pyarrow, in environments of their own
	$(BIN)/python -m tests.matrix $(ARGS)

soak: $(VENV)/.dev ## Play random jobs under random faults: make soak SECONDS=600 SEED=1
	$(BIN)/python -m tests.soak --seconds $(SECONDS) --seed $(SEED)

bench: $(VENV)/.dev ## Measure every workload beside its limit: make bench ONLY=W1,W3
	$(BIN)/python -m benchmarks --full --only "$(ONLY)"

bench-quick: $(VENV)/.dev ## Measure some for two minutes, and compare with the committed ratios
	$(BIN)/python -m benchmarks --quick --only "$(ONLY)"

check: $(VENV)/.dev ## Lint, format, types, layers, generated code
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python proto/generate.py --check

format: $(VENV)/.dev ## Format the code, and fix what ruff can fix
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean: ## Remove the environment and all caches
	rm -rf $(VENV) $(VENV)-torch $(VENV)-matrix build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A venv that could not be finished (no ensurepip, for one) must not be taken for one the next time. The one with PyTorch is
# beside the other, because that takes several gigabytes with its CUDA libraries.
$(BIN)/python $(VENV)-torch/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or later is needed: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(@:/bin/python=) || { rm -rf $(@:/bin/python=); exit 1; }

# The stamps say what is installed, so that nothing is installed twice. They age with pyproject.toml alone, since the
# package itself is installed as a link to this directory.
$(VENV)/.demo: pyproject.toml | $(BIN)/python
	@echo "installing into $(VENV); the first time takes a few minutes"
	@$(PIP_INSTALL) --editable '.[examples]'
	@touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	@echo "installing the tools for development into $(VENV); the first time takes a few minutes"
	@$(PIP_INSTALL) --editable '.[dev]'
	@touch $(VENV)/.demo $@
