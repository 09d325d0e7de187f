# Every target installs what it needs; a machine only needs Python 3.11 to 3.13 and make.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do $$p -c '$(SUPPORTED)' 2>/dev/null && echo $$p && exit; done; echo python3)
SUPPORTED = import sys; (3, 11) <= sys.version_info[:2] <= (3, 13) or sys.exit("gald needs Python 3.11, 3.12 or 3.13, but %s is %d.%d; choose another: make PYTHON=/path/to/python3.12" % ((sys.executable,) + sys.version_info[:2]))
HAS_VENV = import sys; from importlib.util import find_spec as has; has("venv") and has("ensurepip") or sys.exit("gald needs the modules venv and ensurepip, but %s does not have them; install them (on Debian and Ubuntu: apt install python3-venv)" % sys.executable)

UV_VERSION := 0.13.9
VENV := .venv
BIN := $(VENV)/bin
UV = $(BIN)/uv pip install --python $(BIN)/python
BENCH := .venv-bench
BENCH_UV = $(BIN)/uv pip install --python $(BENCH)/bin/python
EVALUATORS := .venv-evaluators

# Whether a command says what to install; otherwise an environment that is complete stays as it is.
ASKED := $(if $(filter-out undefined,$(origin EXTRAS) $(origin TORCH)),asked)
# What the developers' targets need: all extras but mlflow, which is large and rarely used.
DEVELOPMENT := data dev docs export joblib lite0 optuna serve smp submitit tensorboard transformers wandb
# make install EXTRAS="serve lite0" installs these alone, or adds them to what is there.
EXTRAS ?= $(DEVELOPMENT)
COMMA := ,
# TORCH=cpu and any other backend of uv choose another build of torch than the lock, which has that of
# the usual index, for Linux with CUDA. The choice is kept until make install TORCH= takes it back.
PRESENT := $(shell cat $(VENV)/.torch 2>/dev/null)
ifeq ($(origin TORCH),undefined)
TORCH := $(PRESENT)
endif
OF_TORCH := ^(torch|torchvision|triton|cuda-[a-z]+|nvidia-[a-z0-9-]+)==
ifeq ($(TORCH),)
LOCKED := --require-hashes -c requirements/lock.txt
else
# Versions are those of the lock, but torch and what it alone needs have other hashes, so a copy of the
# lock leaves them out, and with them CUDA.
COPY := $(VENV)/lock-without-torch.txt
PINS := $(shell awk '/^(torch|torchvision)==/ { print $$1 }' requirements/lock.txt)
LOCKED := -c $(COPY) --torch-backend=$(TORCH) $(PINS)
CUT_TORCH = @awk '/^[a-z]/ { torch = /$(OF_TORCH)/ } /^torch(vision)?==/ { print $$1 } !torch' requirements/lock.txt > $(COPY)
NO_TORCH = || { echo "TORCH=$(TORCH) cannot be installed, as said above; if this machine does not reach the index of torch, take the build of the usual index: make $(or $(MAKECMDGOALS),install) TORCH="; exit 1; }
endif
REMOVE_TORCH = $(BIN)/uv pip freeze --python $(BIN)/python | awk -F== '/$(OF_TORCH)/ { print $$1 }' > $(VENV)/.other; test ! -s $(VENV)/.other || $(BIN)/uv pip uninstall --quiet --python $(BIN)/python -r $(VENV)/.other
# What gald needs with the extras $(1), and the package that installs gald itself.
GALD = -r pyproject.toml $(foreach extra,$(subst $(COMMA), ,$(1)),--extra $(extra)) $(shell awk '/^hatchling==/ { print $$1 }' requirements/lock.txt)
WORKFLOWS := .github/workflows/*.yml
ISSUE_FORMS := $(filter-out %/config.yml,$(wildcard .github/ISSUE_TEMPLATE/*.yml))

# The default timeouts of uv are too short for slow disks and networks.
export UV_HTTP_TIMEOUT ?= 300
export UV_COMPILE_BYTECODE_TIMEOUT ?= 600

.DEFAULT_GOAL := help
.PHONY: help install demo test test-integration test-slow lint format bench bench-modules bench-step bench-train bench-loss bench-metrics bench-inference bench-start bench-sweep cluster-test gpu-day official-evaluators docs modules notebooks lock build clean ci
.PHONY: asked

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-21s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(VENV)/.installed ## create .venv with gald and its packages (EXTRAS="serve lite0" TORCH=cpu)

demo: install ## train GALD on synthetic streets; print scores, path of a figure (TORCH=cpu: no CUDA)
	$(BIN)/gald train experiment=demo

test: lint ## check style and types, then run the tests
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal

test-integration: $(VENV)/.developer ## run the tests of whole trainings, sweeps and reports
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal -m "integration and not slow"

test-slow: $(VENV)/.developer ## run the slow tests: several processes, killed runs, real launchers
	OMP_NUM_THREADS=1 $(BIN)/pytest -m slow

lint: $(VENV)/.developer ## check style, types, the workflow, the citation and the forms in .github
	$(BIN)/ruff check && $(BIN)/ruff format --check
	$(BIN)/ty check --python $(VENV)
	$(BIN)/actionlint -shellcheck= -pyflakes= $(WORKFLOWS)
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows $(WORKFLOWS)
	$(BIN)/check-jsonschema --builtin-schema vendor.citation-file-format CITATION.cff
	$(BIN)/check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-issue-forms $(ISSUE_FORMS)

format: $(VENV)/.developer ## format the code and apply automatic fixes
	$(BIN)/ruff check --fix && $(BIN)/ruff format

bench: $(BENCH)/.installed ## compare the data loader with others (ARGS="--camvid FOLDER --markdown FILE")
	$(BENCH)/bin/python benchmarks/data.py $(ARGS)

bench-modules: $(BENCH)/.installed ## compare GA modules with textbook forms and other projects (ARGS="--markdown FILE")
	$(BENCH)/bin/python benchmarks/modules.py $(ARGS)

bench-step: $(BENCH)/.installed ## compare training steps with mmsegmentation (ARGS="--markdown FILE")
	$(BENCH)/bin/python benchmarks/step.py $(ARGS)

bench-train: $(BENCH)/.installed ## compare the training loop with other projects (ARGS="--camvid FOLDER --markdown FILE")
	$(BENCH)/bin/python benchmarks/train.py $(ARGS)

bench-loss: install ## compare the loss in bands with the plain way (ARGS="--markdown FILE")
	$(BIN)/python benchmarks/loss.py $(ARGS)

bench-metrics: $(BENCH)/.installed ## measure metrics, compare the confusion matrix with others (ARGS="--markdown FILE")
	$(BENCH)/bin/python benchmarks/metrics.py $(ARGS)

bench-inference: $(VENV)/.developer ## compare the step from logits to labels with the plain way (ARGS="--markdown FILE")
	$(BIN)/python benchmarks/inference.py $(ARGS)

bench-start: install ## measure how long an answer of the command line takes (ARGS="--markdown FILE")
	$(BIN)/python benchmarks/start.py $(ARGS)

bench-sweep: $(BENCH)/.installed ## measure the bookkeeping of 10,000 pretended cells (ARGS="--markdown FILE")
	$(BENCH)/bin/python benchmarks/sweep.py $(ARGS)

cluster-test: $(VENV)/.developer ## run sweeps under a real SLURM on this machine (needs root; installs it with apt)
	command -v slurmctld || apt-get install -y --no-install-recommends slurm-wlm munge
	OMP_NUM_THREADS=1 $(BIN)/pytest -m cluster tests/cluster $(ARGS)

gpu-day: $(VENV)/.developer ## nine minutes on a GPU: tests, speed, a result (ARGS="--out FOLDER --camvid FOLDER")
	$(BIN)/python benchmarks/gpu_day.py $(ARGS)

official-evaluators: $(VENV)/.developer $(EVALUATORS)/.installed ## compare our mIoU with official evaluators on full-size images
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -s -m "slow or not slow" tests/evaluation/test_official_evaluators.py

# Hides a notice about the end of life of MkDocs Material (May 2027).
docs: $(VENV)/.developer ## build the documentation into site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict
	@echo "open site/index.html; search needs a server: $(BIN)/python -m http.server --directory site"

modules: $(VENV)/.developer ## update docs/modules.md; only changed rows are measured again
	OMP_NUM_THREADS=1 $(BIN)/python -m gald.profiling.modules_table --to docs/modules.md

notebooks: $(VENV)/.developer ## run notebooks/*.py and write the paired notebooks with their outputs
	cd notebooks && ../$(BIN)/jupytext --to ipynb --execute *.py && ../$(BIN)/nbstripout *.ipynb

lock: $(VENV)/.uv ## write requirements/lock.txt from pyproject.toml (UPGRADE=1: the newest versions)
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --all-extras $(if $(UPGRADE),--upgrade) \
	  --no-emit-index-url --no-annotate --no-header pyproject.toml -o requirements/lock.txt

build: $(VENV)/.developer ## build the sdist and, from it, the wheel in dist
	$(BIN)/uv build --no-build-isolation --python $(BIN)/python

clean: ## remove environments, caches and builds, but no runs
	rm -rf $(VENV) $(BENCH) $(EVALUATORS) build dist site .pytest_cache .ruff_cache
	find src tests benchmarks notebooks -name __pycache__ -type d -prune -exec rm -rf {} +

ci: test test-integration ## run the same checks as continuous integration

# .uv marks a usable environment. It is deleted while packages are being installed, so an interrupted
# installation starts from scratch instead of being taken for complete.
$(VENV)/.uv:
	@p=$(PYTHON); command -v $$p >/dev/null || { echo "gald needs Python 3.11, 3.12 or 3.13, but there is no $$p; install one, or set its path: make PYTHON=/path/to/python3.12"; exit 1; }; $$p -c '$(SUPPORTED)' && $$p -c '$(HAS_VENV)'
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@touch $@

# .installed marks an environment with gald, .developer one with DEVELOPMENT too; .torch has TORCH.
$(VENV)/.installed: requirements/lock.txt pyproject.toml $(ASKED) | $(VENV)/.uv
	$(call install,$(EXTRAS))
	@$(if $(filter-out $(EXTRAS),$(DEVELOPMENT)),,touch $(VENV)/.developer)

$(VENV)/.developer: requirements/lock.txt pyproject.toml $(ASKED) | $(VENV)/.uv
	$(call install,$(sort $(DEVELOPMENT) $(EXTRAS)))
	@touch $@

# What cannot be installed is found before anything is removed.
define install
	$(CUT_TORCH)
	@$(UV) --quiet --dry-run $(if $(filter-out x$(PRESENT),x$(TORCH)),--reinstall-package torch --reinstall-package torchvision) $(LOCKED) $(call GALD,$(1)) $(NO_TORCH)
	@rm -f $(VENV)/.uv $(VENV)/.installed $(VENV)/.developer
	@$(if $(filter-out x$(PRESENT),x$(TORCH)),$(REMOVE_TORCH))
	$(UV) --compile-bytecode $(LOCKED) $(call GALD,$(1))
	$(UV) --no-deps --no-build-isolation -e .
	@echo "$(TORCH)" > $(VENV)/.torch
	@touch $(VENV)/.uv $(VENV)/.installed
endef

# The projects to compare with have their own environment. If they cannot be installed, the next call
# tries again; until then the table shows which one is missing, and why.
$(BENCH)/.installed: requirements/lock.txt requirements/bench.txt pyproject.toml | $(VENV)/.uv
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(BENCH)
	$(CUT_TORCH)
	$(BENCH_UV) $(LOCKED) $(call GALD,$(DEVELOPMENT))
	$(BENCH_UV) --no-deps --no-build-isolation -e .
	$(BENCH_UV) --no-deps -r requirements/bench.txt && touch $@ || echo "the projects to compare with cannot be installed; measuring without them"

# The official Cityscapes evaluator needs an older numpy than gald, so it has its own environment.
$(EVALUATORS)/.installed: requirements/evaluators.txt | $(VENV)/.uv
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(EVALUATORS)
	$(BIN)/uv pip install --quiet --python $(EVALUATORS)/bin/python --no-deps -r requirements/evaluators.txt
	@touch $@
