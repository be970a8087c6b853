# The menu. `make demo` and `make test` set themselves up; a second run is quick.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready-dev
# Where everything is installed already, so is what less than everything needs.
ready = $(if $(wildcard $(READY)),$(READY),$(VENV)/.ready-$(1))

.PHONY: demo test test-all zoo bench chaos check docs format clean

demo: $(call ready,demo)  ## Watch support tickets become predictions: make demo [MODEL=… TASK=…]
	@$(BIN)/python -m pipeline.demo $(if $(MODEL),--model=$(MODEL)) $(if $(TASK),--task=$(TASK))

test: $(READY)  ## The quick suite
	$(BIN)/python -m pytest -m "not slow" -n 3 --dist loadfile

test-all: $(READY)  ## Everything, the slow tests too
	$(BIN)/python -m pytest

zoo: $(READY)  ## Every architecture that a task maps, tiny, alone against in a batch: make zoo [NAMES="Bert GPT2"] [TASK=fill-mask] [TABLE=verdicts.tsv, to go on with]
	$(BIN)/python -m tests.zoo $(NAMES) $(if $(TASK),--task=$(TASK)) $(if $(TABLE),--table=$(TABLE))

bench: $(READY)  ## Ours beside the raw model, the stock pipeline and a subscriber: make bench [QUICK=1] [GOOGLE_EMULATOR=1] [BACKLOG=N]
	$(BIN)/python -m benchmarks $(if $(QUICK),--quick) $(if $(GOOGLE_EMULATOR),--google_emulator) $(if $(BACKLOG),--backlog=$(BACKLOG))

chaos: $(READY)  ## A hundred kills, outages of every sink, killers and fuzzed messages, with a report: make chaos [SEED=5]
	$(BIN)/python -m benchmarks.chaos $(if $(SEED),--seed $(SEED))

check: $(READY)  ## Lint, format, types, which way imports run, and that every import is declared
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy pipeline transforms
	$(BIN)/lint-imports
	$(BIN)/deptry .

docs: $(call ready,docs)  ## The pages of docs/ as a site, in site/; fails where a link leads nowhere
	$(BIN)/mkdocs build --quiet --strict

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .cache .pytest_cache .hypothesis .mypy_cache .ruff_cache *.egg-info build dist site

# With pip's own progress: the packages are large.
$(VENV)/.ready-%: pyproject.toml setup.py
	@echo "Installing what this needs into $(VENV): minutes the first time, and nothing the next."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --upgrade pip
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --editable ".[$*]"
	@touch $@
