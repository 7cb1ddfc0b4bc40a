# Every target creates .venv and installs what is missing first. Needs: git, make, Python 3.11 or newer.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

BIN := .venv/bin
STAMP := .venv/installed
DEMO := .venv/installed-demo
PARTS = $(shell $(BIN)/python -c "from miniature.build import PARTS; print(*PARTS)")

export HF_HUB_OFFLINE ?= 1
export MLFLOW_DISABLE_TELEMETRY := true
export MLFLOW_SKIP_PIP_REQUIREMENTS_CHECK := true
export DVC_NO_ANALYTICS := true
export PATH := $(CURDIR)/$(BIN):$(PATH)

# Without a GPU two processes side by side: faster than one with two threads (docs/scale.md).
CORES := $(shell nproc 2>/dev/null || sysctl -n hw.ncpu)
ifeq ($(origin LOOKAHEAD_LAUNCH)$(filter 1,$(CORES))$(shell command -v nvidia-smi),undefined)
repro ablation curves: export LOOKAHEAD_LAUNCH = accelerate launch --multi_gpu --num_processes 2 --num_machines 1 \
  --mixed_precision no --dynamo_backend no --main_process_port 0 --no_python
repro ablation curves: export OMP_NUM_THREADS ?= $(shell echo $$((($(CORES) + 1) / 2)))
endif

.PHONY: help install repro test test-all campaign check sizes demo ui ablation curves search dashboard screenshots miniature clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 12

$(STAMP): pyproject.toml constraints.txt
	@scripts/install

# Not an extra: Gradio's upper bounds contradict two pins (the file says which), so it is installed without its dependencies.
$(DEMO): $(STAMP) src/lookahead/demo/requirements.txt
	scripts/install --no-deps --constraint constraints.txt --requirement src/lookahead/demo/requirements.txt
	@touch $@

install: $(STAMP)  ## create .venv and install the tested versions

repro: $(STAMP)  ## data, training, evaluation; then the headline
	dvc repro || { dvc checkout --quiet --allow-missing && echo "earlier results are back in runs/"; lookahead doctor; exit 1; }
	@lookahead headline

test: $(STAMP)  ## the fast tests, what a developer waits for
	pytest -m "not slow and not campaign"

test-all: $(DEMO)  ## the slow tests
	pytest -m slow

campaign: $(DEMO)  ## kills, bad inputs, faults of all kinds; SEED=1 tries others, SHARE=0.1 a tenth of them
	pytest tests/campaign --campaign-seed $${SEED:-0} --campaign-share $${SHARE:-1}

check: $(STAMP)  ## style, types, stripped notebooks
	ruff check .
	ruff format --check .
	mypy
	nbstripout --verify notebooks/*.ipynb

sizes: $(STAMP)  ## lines and files of the package, the factory, the tests and the benchmarks, with their limits
	@python -m tests.test_sizes

demo: $(DEMO)  ## a page to try portraits and prompts in, on http://127.0.0.1:7860
	@lookahead demo --port $${PORT:-7860}

ablation: $(STAMP)  ## what each part of the method does: about 2 hours on two cores; resumes
	dvc repro studies/ablation/dvc.yaml:table
	@cat results/*/ablation/table.md

curves: $(STAMP)  ## identity against prompt over the adapter's strength: 11 minutes on one core; resumes
	dvc repro studies/curves/dvc.yaml:table
	@echo "results/*/curves/report.html"

search: $(STAMP)  ## search the training's parameters: about 90 minutes on two cores; resumes
	dvc repro studies/search/dvc.yaml
	@echo "results/*/search/report.html; lookahead adopt applies what it recommends"

dashboard: $(STAMP)  ## optuna-dashboard on http://127.0.0.1:8080 and MLflow's pages on :5000
	@lookahead ui & lookahead dashboard & trap 'kill $$(jobs -p)' EXIT; wait $$!

ui: $(STAMP)  ## MLflow's pages on http://127.0.0.1:5000
	@lookahead ui --port $${PORT:-5000}

screenshots: $(STAMP)  ## the pictures of MLflow's pages in docs/, of the runs that are here (needs Chromium)
	python -m docs.screenshots

# DVC runs no frozen stage, even when forced: `dvc commit` notes in dvc.lock what was built from what.
miniature: $(STAMP)  ## train parts of the miniature, PARTS="vae base", or all (hours on two cores; resumes)
	for part in $(PARTS); do python stages/miniature.py $$part; dvc commit --force models/miniature/dvc.yaml:$$part; done

clean:  ## remove outputs, stores and resume state; keeps .venv and the committed miniature
	rm -rf runs state .pytest_cache .mypy_cache .ruff_cache
