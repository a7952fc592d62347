# EdgeSeq: `make run` shows the whole loop, `make test` checks everything.
# On a machine without an NVIDIA card, avoid PyTorch's multi-gigabyte CUDA build:
#   make run TORCH_INDEX=https://download.pytorch.org/whl/cpu

PYTHON ?= python3
VENV ?= .venv
TORCH_INDEX ?=
PYTEST_ARGS ?=
ALONE := tests/integration tests/faults

BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
INDEX := $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))

.PHONY: run venv test test-arm64 lint type bench clean

run: venv
	$(BIN)/edgeseq demo

venv: $(STAMP)

$(STAMP): pyproject.toml setup.py
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(INDEX) -e '.[all]'
	touch $@

# What starts whole deployments and counts on their pace has both cores to itself.
test: lint type
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ALONE:%=--ignore=%) $(PYTEST_ARGS)
	$(BIN)/python -m pytest $(ALONE) $(PYTEST_ARGS)

# Part of `make test` too, where the tools are; here they have to be.
test-arm64: venv
	aarch64-linux-gnu-g++ --version >/dev/null
	$(BIN)/python -m pytest -rs tests/native/test_arm64.py

lint: venv
	$(BIN)/ruff check .
	$(BIN)/lint-imports

type: venv
	$(BIN)/mypy

bench: venv
	for name in consumer_rate freshness burst memory latency many_tasks demo; do $(BIN)/python benchmarks/$$name.py || exit 1; done

clean:
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
