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
# Extras installed by make install: all but mlflow, which is large and rarely used.
EXTRAS := dev docs export joblib lite0 optuna serve submitit tensorboard wandb
WORKFLOWS := .github/workflows/*.yml
ISSUE_FORMS := $(filter-out %/config.yml,$(wildcard .github/ISSUE_TEMPLATE/*.yml))

# The default timeouts of uv are too short for slow disks and networks.
export UV_HTTP_TIMEOUT ?= 300
export UV_COMPILE_BYTECODE_TIMEOUT ?= 600

.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow lint format bench bench-modules bench-step bench-loss bench-metrics bench-inference bench-sweep cluster-test gpu-day official-evaluators docs modules notebooks lock build clean ci

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-21s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(VENV)/.installed ## create .venv with the packages of requirements/lock.txt and gald

demo: install ## train GALD on synthetic street scenes; print scores and the path of a figure
	$(BIN)/gald train experiment=demo

test: lint ## check style and types, then run the tests
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal

test-slow: install ## run the slow tests: several processes, killed runs, real launchers
	OMP_NUM_THREADS=1 $(BIN)/pytest -m slow

lint: install ## check style, types, the workflow, the citation and the forms in .github
	$(BIN)/ruff check && $(BIN)/ruff format --check
	$(BIN)/ty check --python $(VENV)
	$(BIN)/actionlint -shellcheck= -pyflakes= $(WORKFLOWS)
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows $(WORKFLOWS)
	$(BIN)/check-jsonschema --builtin-schema vendor.citation-file-format CITATION.cff
	$(BIN)/check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-issue-forms $(ISSUE_FORMS)

format: install ## format the code and apply automatic fixes
	$(BIN)/ruff check --fix && $(BIN)/ruff format

bench: $(BENCH)/.installed ## compare the data loader with others (ARGS="--camvid FOLDER --markdown FILE")
	$(BENCH)/bin/python benchmarks/data.py $(ARGS)

bench-modules: $(BENCH)/.installed ## compare GA modules with textbook forms and other projects (ARGS="--markdown FILE")
	$(BENCH)/bin/python benchmarks/modules.py $(ARGS)

bench-step: $(BENCH)/.installed ## compare training steps with mmsegmentation (ARGS="--markdown FILE")
	$(BENCH)/bin/python benchmarks/step.py $(ARGS)

bench-loss: install ## compare the loss in bands with the plain way (ARGS="--markdown FILE")
	$(BIN)/python benchmarks/loss.py $(ARGS)

bench-metrics: $(BENCH)/.installed ## measure metrics, compare the confusion matrix with others (ARGS="--markdown FILE")
	$(BENCH)/bin/python benchmarks/metrics.py $(ARGS)

bench-inference: install ## compare the step from logits to labels with the plain way (ARGS="--markdown FILE")
	$(BIN)/python benchmarks/inference.py $(ARGS)

bench-sweep: $(BENCH)/.installed ## measure the bookkeeping of 10,000 pretended cells (ARGS="--markdown FILE")
	$(BENCH)/bin/python benchmarks/sweep.py $(ARGS)

cluster-test: install ## run sweeps under a real SLURM on this machine (needs root; installs it with apt)
	command -v slurmctld || apt-get install -y --no-install-recommends slurm-wlm munge
	OMP_NUM_THREADS=1 $(BIN)/pytest -m cluster tests/cluster $(ARGS)

gpu-day: install ## nine minutes on a GPU: tests, speed, a result (ARGS="--out FOLDER --camvid FOLDER")
	$(BIN)/python benchmarks/gpu_day.py $(ARGS)

official-evaluators: install $(EVALUATORS)/.installed ## compare our mIoU with official evaluators on full-size images
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -s -m "slow or not slow" tests/evaluation/test_official_evaluators.py

# Hides a notice about the end of life of MkDocs Material (May 2027).
docs: install ## build the documentation into site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict
	@echo "open site/index.html; search needs a server: $(BIN)/python -m http.server --directory site"

modules: install ## update docs/modules.md; only changed rows are measured again
	OMP_NUM_THREADS=1 $(BIN)/python -m gald.profiling.modules_table --to docs/modules.md

notebooks: install ## run notebooks/*.py and write the paired notebooks with their outputs
	cd notebooks && ../$(BIN)/jupytext --to ipynb --execute *.py && ../$(BIN)/nbstripout *.ipynb

lock: $(VENV)/.uv ## write requirements/lock.txt from pyproject.toml (UPGRADE=1: the newest versions)
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes $(EXTRAS:%=--extra %) $(if $(UPGRADE),--upgrade) \
	  --no-emit-index-url --no-annotate --no-header pyproject.toml -o requirements/lock.txt

build: install ## build the sdist and, from it, the wheel in dist
	$(BIN)/uv build --no-build-isolation --python $(BIN)/python

clean: ## remove environments, caches and builds, but no runs
	rm -rf $(VENV) $(BENCH) $(EVALUATORS) build dist site .pytest_cache .ruff_cache
	find src tests benchmarks notebooks -name __pycache__ -type d -prune -exec rm -rf {} +

ci: test ## run the same checks as continuous integration

# .uv marks a usable environment. It is deleted while packages are being installed, so an interrupted
# installation starts from scratch instead of being taken for complete.
$(VENV)/.uv:
	@p=$(PYTHON); command -v $$p >/dev/null || { echo "gald needs Python 3.11, 3.12 or 3.13, but there is no $$p; install one, or set its path: make PYTHON=/path/to/python3.12"; exit 1; }; $$p -c '$(SUPPORTED)' && $$p -c '$(HAS_VENV)'
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@touch $@

$(VENV)/.installed: requirements/lock.txt pyproject.toml | $(VENV)/.uv
	@rm -f $@ $(VENV)/.uv
	$(UV) --require-hashes --compile-bytecode -r requirements/lock.txt
	$(UV) --no-deps --no-build-isolation -e .
	@touch $(VENV)/.uv $@

# The projects to compare with have their own environment. If they cannot be installed, the next call
# tries again; until then the table shows which one is missing, and why.
$(BENCH)/.installed: requirements/lock.txt requirements/bench.txt pyproject.toml | $(VENV)/.uv
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(BENCH)
	$(BENCH_UV) --require-hashes -r requirements/lock.txt
	$(BENCH_UV) --no-deps --no-build-isolation -e .
	$(BENCH_UV) --no-deps -r requirements/bench.txt && touch $@ || echo "the projects to compare with cannot be installed; measuring without them"

# The official Cityscapes evaluator needs an older numpy than gald, so it has its own environment.
$(EVALUATORS)/.installed: requirements/evaluators.txt | $(VENV)/.uv
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(EVALUATORS)
	$(BIN)/uv pip install --quiet --python $(EVALUATORS)/bin/python --no-deps -r requirements/evaluators.txt
	@touch $@
