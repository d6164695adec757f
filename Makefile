# On a fresh clone `make audit` sets up .venv and audits Method1_v3.

PYTHON ?= python3
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

BIN = .venv/bin
PIP = $(BIN)/python -m pip install -qq --disable-pip-version-check
READY = .venv/.leakcheck-ready
MODEL = method1_v3

.PHONY: audit test setup reports clean

audit: setup
	$(BIN)/leakcheck run --model $(MODEL)

test: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy leakcheck
	$(BIN)/lint-imports
	$(BIN)/pytest -n 2 tests properties

setup: $(READY)

# The stamp comes last, so an interrupted set-up starts again.
#
# torch goes in first and alone, because on Linux the plain wheel needs gigabytes of CUDA packages. Only CPU builds
# carry the label +cpu: the indexes pip is configured with may have one (a mirror, a wheel folder), PyPI has none and
# says so at once; then PyTorch's own index is asked. macOS has CPU builds only, without a label.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "leakcheck needs Python 3.11 or newer; name one: make PYTHON=/path/to/python3.11 ..." >&2; exit 1; }
	@echo "Setting up .venv (the first time: some 300 MB to download, a few minutes)"
	$(PYTHON) -m venv .venv
	@torch=`grep '^torch==' constraints.txt`; \
	test "`uname`" != Linux || torch="$$torch+cpu"; \
	echo "pip install $$torch"; \
	$(PIP) --no-deps "$$torch" 2>/dev/null || $(PIP) --no-deps --index-url $(TORCH_INDEX) "$$torch"
	$(PIP) --constraint constraints.txt --editable '.[dev]'
	@touch $@

# The as-published model leaks: anything but exit code 1 means that the audit no longer sees it.
reports: setup
	$(BIN)/leakcheck run --model method1_v3 --report reports/method1_v3.json --report reports/method1_v3.md
	$(BIN)/leakcheck run --model llama --report reports/llama.json --report reports/llama.md
	code=0; $(BIN)/leakcheck run --model method1_v3_as_published --report reports/method1_v3_as_published.json \
	  --report reports/method1_v3_as_published.md || code=$$?; test $$code -eq 1

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
