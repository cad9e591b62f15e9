.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
# A worker more than there are cores, as some wait for processes; a file stays on one, as its tests share what they
# need. The longest files come first.
WORKERS = -n $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1) --maxprocesses 8 --dist loadfile --no-loadscope-reorder
READY := .venv/.ready
# Its build is broken without an argument for CMake; uv has the same one from pyproject.toml.
TSNE := MulticoreTSNE --config-settings="--build-option=build_ext --cmake-args=-DCMAKE_POLICY_VERSION_MINIMUM=3.5"

# The extras that slow down every command or that `make run` does not need, on top of .venv.
EXTRAS := .venv-extras
SITE := -c 'import sysconfig; print(sysconfig.get_path("purelib"))'

.PHONY: help run test coverage test-core test-extras check viz lock clean-environment environment

help: ## What can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-18s %s\n", $$1, $$2}'

run: environment ## Train, evaluate and draw on the embedded digits
	$(BIN)/kedro run

test: environment ## All tests
	$(BIN)/python -m pytest $(WORKERS)

coverage: environment ## All tests with their coverage, which takes half as long again
	$(BIN)/python -m pytest $(WORKERS) --cov --cov-report=term

test-core: environment ## Tests of the learning library alone
	$(BIN)/python -m pytest $(WORKERS) tests/core

test-extras: environment $(EXTRAS)/.ready ## Tests of what has an environment of its own: mlflow, s3, sweep, a vector database
	$(EXTRAS)/bin/python -m pytest $(WORKERS) tests/test_mlflow_hooks.py tests/test_qdrant.py tests/test_sweep.py \
		tests/system/test_object_store.py tests/system/test_sweep.py

check: environment ## Lint, types and import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

viz: environment ## The lineage with its previews as a static site in build/
	$(BIN)/kedro viz build --include-hooks --include-previews

environment: ## .venv with the locked versions
	@if [ $(READY) -nt requirements.lock ] && [ $(READY) -nt pyproject.toml ]; then \
		echo "Using .venv as it is: it has the versions of requirements.lock"; \
	else $(MAKE) --no-print-directory $(READY); fi

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "python must be 3.11 or newer, got %d.%d; set PYTHON=" % sys.version_info[:2])'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --progress-bar off --quiet --disable-pip-version-check -r requirements.lock $(TSNE)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

$(EXTRAS)/.ready: extras.lock $(READY)
	$(PYTHON) -m venv --clear $(EXTRAS)
	echo "import site; site.addsitedir('$$($(BIN)/python $(SITE))')" > $$($(EXTRAS)/bin/python $(SITE))/base.pth
	$(EXTRAS)/bin/pip install --progress-bar off --quiet --disable-pip-version-check -r extras.lock
	touch $@

LOCK := $(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 --upgrade --quiet --no-header --no-annotate

lock: environment ## Resolve the newest versions that pyproject.toml allows
	$(LOCK) --extra dev --extra heic --extra huggingface --extra onnx --extra viz --output-file requirements.lock
	$(LOCK) --all-extras --output-file extras.lock

clean-environment: ## Remove .venv and .venv-extras
	rm -rf .venv $(EXTRAS)
