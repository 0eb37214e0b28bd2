# Needs Python >= 3.11 and make; the rest is installed into .venv, the models into ~/.manyminds.

VENV := .venv
BIN := $(VENV)/bin
COG := $(BIN)/cog -P --verbosity=1

# The question as it was typed: neither make nor a shell reads what is in it.
Q ?= What is the capital of Australia?
override Q := $(value Q)
export Q

# Of the models that are pulled for tests.
TIER ?= starter

# What was installed went with its interpreter, for example when the system's Python was replaced.
$(shell [ -x $(BIN)/python ] || rm -f $(VENV)/.plain $(VENV)/.dev $(VENV)/.specialists)

.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help ask serve pull bench demo-network specialists test check lint docs clean

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1|\2/p' Makefile | awk -F'|' '{ printf "  %-17s %s\n", $$1, $$2 }'

ask: $(VENV)/.plain ## ask the network of this machine: make ask Q="..."
	@exec $(BIN)/manyminds ask -- "$$Q"

serve: $(VENV)/.plain ## serve it as an OpenAI-compatible endpoint
	@exec $(BIN)/manyminds serve

pull: $(VENV)/.plain ## download models: make pull TIER=full
	@exec $(BIN)/manyminds pull --tier $(TIER)

bench: $(VENV)/.plain pull ## measure size, start and memory on this machine
	@exec $(BIN)/manyminds bench footprint

demo-network: $(VENV)/.dev pull ## show five nodes that ask each other, lose one, and settle
	@exec $(BIN)/python examples/network.py

specialists: $(VENV)/.specialists ## train small specialists against one large model: an hour, or QUICK=1
	@$(BIN)/manyminds pull all-minilm-l6-v2
	@exec $(BIN)/python -m experiments.specialists $(if $(QUICK),--quick)

test: $(VENV)/.dev pull ## run the tests
	$(BIN)/pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

check: lint test ## run everything that CI runs

lint: $(VENV)/.dev ## check format, style, types, layers and generated docs
	$(BIN)/ruff format --quiet --check .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy --no-error-summary
	$(BIN)/lint-imports --no-logo
	$(COG) --check --diff --check-fail-msg "Run 'make docs' and commit what it changes." docs/*.md

docs: $(VENV)/.dev ## write the generated parts of docs/ anew, and build build/site
	$(COG) -r docs/*.md
	rm -rf build/site
	$(BIN)/zensical build --clean --strict
	@echo "Open build/site/index.html in a browser."

clean: ## remove what was installed and built here; models stay
	rm -rf $(VENV) build dist .coverage .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.plain: pyproject.toml $(BIN)/python
	@echo "Installing manyminds into $(VENV), once: about 330 MB, a minute or two." >&2
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.dev: pyproject.toml $(BIN)/python
	@echo "Installing manyminds and its tools into $(VENV), once: a minute or two." >&2
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $(VENV)/.plain $@

$(VENV)/.specialists: $(VENV)/.plain
	@echo "Installing PyTorch into $(VENV), once: some 900 MB, with CUDA several GB." >&2
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[specialists]'
	@touch $@

$(BIN)/python:
	@found=; for python in python3.14 python3.13 python3.12 python3.11 python3 python; do \
	    $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
	    found=$$($$python -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
	    $$python -c 'import ensurepip, venv' 2>/dev/null || continue; \
	    echo "Making $(VENV) with Python $$found." >&2; \
	    exec $$python -m venv --clear $(VENV); \
	done; \
	if [ "$$found" ]; then \
	    echo "Python $$found has no venv module: on Debian and Ubuntu, apt install python$$found-venv." >&2; \
	else \
	    echo "There is no Python >= 3.11 on the PATH: install one, such as python3.11 with python3.11-venv." >&2; \
	fi; exit 1
