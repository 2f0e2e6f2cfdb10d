# DreamBooth on Kubernetes. `make demo` and `make test` need nothing but python3 (3.11+), make and, for a real cluster,
# Linux, root and Go; they make the rest themselves.
SHELL := /bin/bash
DREAMBOOTH_CACHE ?= $(HOME)/.cache/dreambooth
PYTHON ?= python3
UV ?= $(or $(shell command -v uv),$(DREAMBOOTH_CACHE)/uv/bin/uv)
export DREAMBOOTH_CACHE
# Programs that local/ compiles (helm, and kubectl where the machine has none) come first.
export PATH := $(DREAMBOOTH_CACHE)/bin:$(PATH)
# torch and its kin take three times as long to import where Python keeps nothing of what it compiled, as images often
# ask it to; here it keeps that, and out of the checkout.
unexport PYTHONDONTWRITEBYTECODE
export PYTHONPYCACHEPREFIX := $(DREAMBOOTH_CACHE)/pycache
# Two torch processes on few cores crawl when OpenMP's threads spin while they wait.
export OMP_WAIT_POLICY := PASSIVE
# Tests run in so many processes at once: the real cluster's in one, mostly waiting; fast ones in the other.
WORKERS ?= 2
PYTEST := HF_HUB_OFFLINE=1 PYTHONFAULTHANDLER=1 .venv/bin/python -m pytest --numprocesses $(WORKERS)
LOCAL := PYTHONPATH=local $(PYTHON) -m dreambooth_local

.PHONY: demo test test-fast lint up down bench generate clean

demo: .venv/installed ## From a bare machine to the first picture of a new subject, on a real cluster
	.venv/bin/python -m dreambooth_demo --out demo

test: .venv/installed ## All tests; a cluster that they brought up is taken down again
	$(PYTEST)

test-fast: .venv/installed ## The tests that need no cluster
	$(PYTEST) -m "not cluster and not local_lifecycle"

lint: .venv/installed ## Style, types and the import rules
	.venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/mypy && .venv/bin/lint-imports

up: ## The local cluster, its programs and images
	$(LOCAL) up

down: ## Take the local cluster away
	$(LOCAL) down

bench: .venv/installed ## Every benchmark; each prints one JSON object
	@for program in benchmarks/*.py; do .venv/bin/python $$program || exit 1; done

generate: .venv/installed ## CRDs and API reference from the models
	.venv/bin/python -m dreambooth_api.generate

.venv/installed: pyproject.toml requirements.lock | $(UV)
	$(UV) venv --quiet --allow-existing --python $(PYTHON) .venv
	$(UV) pip install --quiet --python .venv/bin/python --constraint requirements.lock --editable '.[dev]'
	@touch $@

$(DREAMBOOTH_CACHE)/uv/bin/uv:
	$(PYTHON) -m venv $(DREAMBOOTH_CACHE)/uv && $(DREAMBOOTH_CACHE)/uv/bin/pip install --quiet uv

clean: ## Remove what the commands wrote into the checkout
	rm -rf .venv demo out .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
