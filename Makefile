# Two commands do everything: `make demo` and `make test`. Each builds .venv first when it is missing or out of date.
.DEFAULT_GOAL := help
.PHONY: help demo results test test-all test-min lint format wheel clean

PYTHON ?= python3
VENV ?= .venv
JOBS ?= 2
CONSTRAINTS ?= constraints.txt
BIN := $(VENV)/bin
UV := $(shell command -v uv 2>/dev/null)
STAMP := $(VENV)/.installed

help:
	@echo 'make demo      pre-train a small CLIP on phantom images, score it zero-shot, read one image (minutes, CPU or GPU)'
	@echo 'make test      the test suite (under 5 minutes on 2 cores); make test-all adds the slow tests; JOBS=8 uses 8 cores'
	@echo 'make results   every result of the README anew, hours: docs/results.md (REAL=DOWNLOAD: the real images, too)'
	@echo 'make test-min  the suite against the oldest supported packages, in .venv-min'
	@echo 'make lint      ruff and mypy;  make format  rewrites with ruff;  make wheel  builds dist/*.whl'

$(STAMP): pyproject.toml $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is older than Python 3.11: install a newer one, or name it: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 2; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || test -n "$(UV)" || \
	  { echo "$(PYTHON) has no venv module: install it (Debian and Ubuntu: apt-get install python3-venv)"; exit 2; }
	@echo 'building $(VENV) (PyTorch with CUDA is about 5.5 GB: this takes a minute or more)'
ifneq ($(UV),)
	"$(UV)" venv -q --allow-existing --python "$$($(PYTHON) -c 'import sys; print(sys.executable)')" "$(VENV)"
	"$(UV)" pip install -q --python "$(BIN)/python" -e '.[test]' -c $(CONSTRAINTS)
else
	$(PYTHON) -m venv "$(VENV)"
	"$(BIN)/python" -m pip install -q --disable-pip-version-check -e '.[test]' -c $(CONSTRAINTS)
endif
	@touch $@

demo: $(STAMP)
	@"$(BIN)/python" -m cxrcl demo

results: $(STAMP)
	@"$(BIN)/python" -m cxrcl results $(if $(REAL),--real "$(REAL)") $(if $(ONLY),--only "$(ONLY)")

test: $(STAMP)
	"$(BIN)/python" -m pytest -m 'not slow' -n $(JOBS)

test-all: $(STAMP)
	"$(BIN)/python" -m pytest -n $(JOBS)

test-min:
	$(MAKE) test VENV=.venv-min CONSTRAINTS=constraints-min.txt

lint: $(STAMP)
	"$(BIN)/python" -m ruff check .
	"$(BIN)/python" -m ruff format --check .
	"$(BIN)/python" -m mypy

format: $(STAMP)
	"$(BIN)/python" -m ruff check --fix .
	"$(BIN)/python" -m ruff format .

wheel: $(STAMP)
ifneq ($(UV),)
	"$(UV)" build -q --wheel
else
	"$(BIN)/python" -m pip wheel -q --no-deps -w dist .
endif

clean:
	rm -rf .pytest_cache .mypy_cache .ruff_cache dist
