# Two commands for a new user: `make run` and `make test`. Everything they need is set up first.
VENV := .venv
PY := $(VENV)/bin/python
PORT ?= 8888
TEST_WORKERS ?= 2
# A token of your own: make run TOKEN=…; else a new one each time.
TOKEN := $(or $(TOKEN),$(shell python3 -c 'import secrets; print(secrets.token_hex(16))'))
# A company's private certificate authority, for the image and the sandboxes.
EXTRA_CA ?= $(wildcard /etc/ssl/certs/ca-certificates.crt)

# The JupyterLab extension: its sources, what they need, what is built from them.
LAB_SOURCES := $(shell find labextension/src labextension/style -type f) \
  labextension/package.json labextension/tsconfig.json
LAB_MODULES := labextension/node_modules/.package-lock.json
LAB_BUILT := jupyter_sandbox/labextension/package.json

.PHONY: run lab labextension test test-all test-fast crash lint fuzz demo bench image clean

$(VENV)/.ready: pyproject.toml
	python3 -m venv $(VENV)
	$(PY) -m pip install --quiet --upgrade pip
	$(PY) -m pip install --quiet -e '.[dev,demo]'
	touch $@

run: $(VENV)/.ready
	@echo 'The server starts; in another terminal:  export JUPYTER_TOKEN=$(TOKEN)'
	@JUPYTER_TOKEN=$(TOKEN) $(VENV)/bin/jupyter server --no-browser --ip=127.0.0.1 --port=$(PORT) \
	  $(if $(filter 0,$(shell id -u)),--allow-root) $(ARGS)

# JupyterLab with the panel of sandboxes.
lab: labextension
	JUPYTER_TOKEN=$(TOKEN) $(VENV)/bin/jupyter lab --ip=127.0.0.1 --port=$(PORT) \
	  $(if $(filter 0,$(shell id -u)),--allow-root --no-browser) $(ARGS)

labextension: $(LAB_BUILT)

$(LAB_MODULES): labextension/package-lock.json
	@command -v npm >/dev/null || { echo 'The JupyterLab extension needs npm (Node.js 20 or newer).'; exit 1; }
	npm ci --prefix labextension
	touch $@

$(LAB_BUILT): $(LAB_MODULES) $(LAB_SOURCES) $(VENV)/.ready
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" npm run --prefix labextension build
	mkdir -p $(VENV)/share/jupyter/labextensions
	ln -sfn $(CURDIR)/jupyter_sandbox/labextension $(VENV)/share/jupyter/labextensions/jupyter-sandbox
	touch $@

# The image for the docker engine. On a machine that reaches no image registry the base image is
# made with mmdebstrap.
image: $(VENV)/.ready
	$(VENV)/bin/jupyter sandbox build-image --if-missing --bootstrap-base \
	  $(if $(EXTRA_CA),--extra-ca-bundle=$(EXTRA_CA))

# Every claim, on the engine that matters. Needs root (or a Docker Engine that is there already).
# Two tests at a time, a file in one worker; those marked `alone` by themselves.
test: $(VENV)/.ready
	bash .ci/bootstrap.sh
	$(MAKE) image labextension
	$(PY) -m pytest -n $(TEST_WORKERS) --dist loadfile -m 'not full' $(PYTEST_ARGS)

# Those too that are marked `full`: on each engine, at each step that a server may be killed at.
test-all: $(VENV)/.ready
	bash .ci/bootstrap.sh
	$(MAKE) image labextension
	$(PY) -m pytest -n $(TEST_WORKERS) --dist loadfile $(PYTEST_ARGS)

# What needs neither Docker nor bubblewrap.
test-fast: $(VENV)/.ready
	$(PY) -m pytest -m 'not docker and not bubblewrap and not browser and not slow' $(PYTEST_ARGS)

# Kills servers at every step of the lifecycle, again and again, on both engines.
crash: $(VENV)/.ready
	JSBX_CRASH_ROUNDS=$(or $(CRASH_ROUNDS),3) $(PY) -m pytest -n 2 --dist loadfile tests/crash $(PYTEST_ARGS)

lint: $(VENV)/.ready $(LAB_MODULES)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	npm run --prefix labextension lint

# Searches everything that parses bytes from inside; with atheris (pip install atheris) by coverage.
fuzz: $(VENV)/.ready
	$(PY) -m tests.fuzzing $(or $(FUZZ_SECONDS),300) $(ARGS)

demo: $(VENV)/.ready
	$(VENV)/bin/jupyter sandbox demo $(ARGS)

bench: $(VENV)/.ready
	$(PY) -m benchmarks $(ARGS)

clean:
	rm -rf labextension/lib labextension/node_modules jupyter_sandbox/labextension
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis demo-output
