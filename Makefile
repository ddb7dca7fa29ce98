# Two commands: `make speak` hears the voice, `make test` checks everything. Both set up .venv first, with uv where it works, else with pip.

VENV ?= .venv
TEXT ?= The birch canoe slid on the smooth planks, and the sun came out.
BIN := $(VENV)/bin
UV := $(shell uv --version >/dev/null 2>&1 && echo uv)

ifdef UV
install = uv pip install --quiet --python $(BIN)/python -c constraints.txt
else
install = $(BIN)/python -m pip install --quiet -c constraints.txt
endif

.PHONY: help speak demo test lint clean
help:
	@echo 'make speak [TEXT="Hello."]   say a sentence into speak.wav'
	@echo 'make demo                    open the web page'
	@echo 'make test                    run the tests'
	@echo 'make lint                    check the style'
	@echo 'make clean                   remove $(VENV) and what tools left behind'

speak: $(VENV)/.slm
	$(BIN)/slm speak "$(TEXT)" -o speak.wav

demo: $(VENV)/.slm
	$(BIN)/slm demo

test: $(VENV)/.test
	$(BIN)/python -m pytest

lint: $(VENV)/.test
	$(BIN)/ruff check .

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache
	find slm tokenizers vocoders recipes tests -name __pycache__ -prune -exec rm -rf {} +

# the stamps: a second call installs nothing
$(VENV)/.slm: pyproject.toml constraints.txt | $(BIN)/python
	$(install) -e .
	touch $@

# The judges of `slm evaluate` need a C compiler (webrtcvad has no wheels). Without one their tests are skipped, and pytest says so.
$(VENV)/.test: $(VENV)/.slm
	$(install) -e ".[test]"
	$(install) -e ".[evaluate,test]" || echo "make: the judges of slm evaluate could not be installed; their tests will be skipped"
	touch $@

$(BIN)/python:
ifdef UV
	uv venv --quiet --python ">=3.11" $(VENV)
else
	@for python in python3 python3.11 python3.12 python3.13 python3.14; do \
	  if $$python -c "import sys; sys.exit(sys.version_info < (3, 11))" 2>/dev/null; then exec $$python -m venv $(VENV); fi; \
	done; echo "make: Python 3.11 or newer is needed, and none was found" >&2; exit 1
endif
