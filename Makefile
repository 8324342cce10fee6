# Everything is set up inside .venv: no sudo, no account, nothing outside this folder but the download cache.
# All commands go through .venv/bin/python, so that no activated environment, conda's included, gets in between.

PYTHON ?=
NOTEBOOKS ?=
PROFILE ?= quick
UPGRADE ?=
MINUTES ?= 10

# Notebooks that run at the same time at quick, each on its share of the cores; tests likewise, a process each.
AT_ONCE ?= $(shell n=$$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1); [ $$n -gt 4 ] && n=4; echo $$n)

PY := .venv/bin/python
UV := .venv/bin/uv
READY := .venv/.ready

# .venv/.ready is written last and holds the folder it was made in: a set-up that was cut short, moved with its
# folder, or lost its Python has none that counts, and is made anew.
STALE := $(shell [ "$$(cat $(READY) 2>/dev/null)" = "$$(pwd -P)" ] && $(PY) -c '' 2>/dev/null || rm -f $(READY))

# What computes: networks, distances, gradients, methods, whitening and augmentation.
FAST = $(patsubst %,tests/test_%.py,models gan_models methods objectives unroll sampler matching augmentation datasets)

export JUPYTER_PREFER_ENV_PATH := 1

.DEFAULT_GOAL := help
.PHONY: help setup reproduce report test fast slow gpu gpu-bundle lab lint lock
.DELETE_ON_ERROR:

help:  ## this text
	@echo "make TARGET [PYTHON=python3.12] [PROFILE=hour] [NOTEBOOKS=\"atom/accuracy\"] [AT_ONCE=4] [MINUTES=10] [UPGRADE=1]"; echo
	@sed -nE 's/^([a-z-]+):.*## (.*)/\1|\2/p' Makefile | while IFS='|' read -r target text; do \
	    printf '  %-10s %s\n' "$$target" "$$text"; done

setup: $(READY)  ## make .venv from requirements.lock (Python >= 3.11; PYTHON=... names one)
	@echo "ready: .venv ($$($(PY) --version))"

reproduce: $(READY)  ## run every notebook (or NOTEBOOKS) at PROFILE (quick, hour, paper) and print what came of it
	@$(PY) -m ddlib reproduce --profile $(PROFILE) $(if $(filter quick,$(PROFILE)),--at-once $(AT_ONCE)) $(NOTEBOOKS)

report: $(READY)  ## build a site from results, figures and what was run: report/index.html
	@$(PY) -m ddlib report

test: lint  ## lint, then all tests but the slow ones, then every notebook at its quick defaults under nbval
	@DDLIB_OUTPUT="$$(pwd -P)/runs/test" OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(PY) -m pytest -m "not slow" \
	    -n $(AT_ONCE) --dist loadscope --nbval-lax --nbval-current-env tests notebooks

fast: $(READY)  ## the tests of networks, methods, losses and augmentation: what computes, in a few minutes
	@OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(PY) -m pytest -m "not slow" -n $(AT_ONCE) $(FAST)

slow: $(READY)  ## the slow tests: real work killed 25 times at random moments
	@DDLIB_OUTPUT="$$(pwd -P)/runs/test" $(PY) -m pytest -m slow tests

gpu: $(READY)  ## check a GPU, time it, and compute the papers' cells that fit into MINUTES
	@$(PY) -m ddlib gpu --minutes $(MINUTES)

gpu-bundle: $(READY)  ## pack the data and the packages that a GPU without network lacks into runs/bundle
	@$(PY) -m ddlib data check cifar10 && $(PY) -m ddlib data check fashion_mnist
	@rm -rf runs/bundle && mkdir -p runs/bundle
	@$(UV) pip install --quiet --target runs/bundle/packages --python $(PY) --python-version 3.12 \
	    --python-platform $$(uname -m)-manylinux_2_28 --only-binary :all: --constraint requirements.lock $(BUNDLED)
	@tar -cz -C runs/bundle packages | split -b 60000000 - runs/bundle/packages-
	@rm -r runs/bundle/packages
	@tar -cz -C "$${DDLIB_DATA:-data}" cifar-10-batches-py FashionMNIST | split -b 60000000 - runs/bundle/data-
	@ls -l runs/bundle

# What `ddlib gpu` needs beside torch and torchvision; what these need themselves comes with them.
BUNDLED = diffusers filelock jinja2 matplotlib nbformat numpy pandas pillow psutil pytest pytest-timeout pytest-xdist \
    pyyaml safetensors scikit-learn scipy seaborn tqdm

lab: $(READY)  ## open JupyterLab on this folder
	@$(PY) -m jupyterlab

lint: $(READY)  ## ruff on code and notebooks
	@$(PY) -m ruff check

lock: $(READY)  ## write requirements.lock anew from pyproject.toml (UPGRADE=1: to the newest versions)
	@$(UV) pip compile pyproject.toml --extra test --extra batch --extra export $(LOCKING) -o requirements.lock
	@echo uv | $(UV) pip compile - $(LOCKING) -o requirements-uv.lock
	@echo "locked; 'make setup' brings .venv to it"

LOCKING = --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
    --custom-compile-command 'make lock' $(if $(UPGRADE),--upgrade)

# What stands is brought up to date; without a stamp nothing stands. The stamp goes first, so that a failure on the
# way leaves none. uv is pinned with hashes like everything else and resolves nothing: it installs the lock.
$(READY): requirements.lock requirements-uv.lock pyproject.toml
	@[ -e $@ ] || { $(FIND_PYTHON); echo "making .venv with $$python"; "$$python" -m venv --clear .venv; }
	@rm -f $@
	@$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r requirements-uv.lock
	@$(UV) pip sync --compile-bytecode --python $(PY) --require-hashes requirements.lock
	@$(UV) pip install --quiet --python $(PY) --no-deps --no-build-isolation -e .
	@printf '%s\n' "$$(pwd -P)" > $@

# Sets $$python to the first Python that is new enough and can make a virtual environment, or stops with a message.
define FIND_PYTHON
if [ -n "$(PYTHON)" ]; then set -- "$(PYTHON)"; else set -- python3 python3.14 python3.13 python3.12 python3.11; fi; \
tried=; python=; \
for candidate in "$$@"; do \
    if "$$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
        python=$$candidate; break; \
    fi; \
    tried="$$tried $$candidate ($$("$$candidate" --version 2>/dev/null || echo not there));"; \
done; \
if [ -z "$$python" ]; then \
    echo "ddlib needs Python 3.11 or newer with its venv module; tried:$$tried" >&2; \
    echo "name one with: make setup PYTHON=/path/to/python3.12" >&2; \
    exit 1; \
fi
endef
