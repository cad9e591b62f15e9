.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
# A worker for each core; a file stays on one, as its tests share what they need. The longest files come first.
WORKERS := -n logical --maxprocesses 8 --dist loadfile --no-loadscope-reorder
READY := .venv/.ready
# Its build is broken without an argument for CMake; uv has the same one from pyproject.toml.
TSNE := MulticoreTSNE --config-settings="--build-option=build_ext --cmake-args=-DCMAKE_POLICY_VERSION_MINIMUM=3.5"

.PHONY: help run test coverage test-core check viz lock clean-environment environment

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

lock: environment ## Resolve the newest versions that pyproject.toml allows
	$(BIN)/uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --upgrade \
		--quiet --no-header --no-annotate --output-file requirements.lock

clean-environment: ## Remove .venv
	rm -rf .venv
