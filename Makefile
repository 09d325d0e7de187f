# Every target sets up what it needs; Python 3.11 to 3.13 and make are all a machine must have.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do $$p -c '$(SUPPORTED)' 2>/dev/null && echo $$p && exit; done; echo python3)
SUPPORTED = import sys; (3, 11) <= sys.version_info[:2] <= (3, 13) or sys.exit("gald needs Python 3.11, 3.12 or 3.13, but %s is %d.%d; name another: make PYTHON=/path/to/python3.12" % ((sys.executable,) + sys.version_info[:2]))
HAS_VENV = import sys; from importlib.util import find_spec as has; has("venv") and has("ensurepip") or sys.exit("gald needs the modules venv and ensurepip, which %s lacks; add them (on Debian and Ubuntu: apt install python3-venv) and repeat" % sys.executable)

UV_VERSION := 0.13.9
VENV := .venv
BIN := $(VENV)/bin
UV = $(BIN)/uv pip install --python $(BIN)/python
BENCH := .venv-bench
BENCH_UV = $(BIN)/uv pip install --python $(BENCH)/bin/python
EVALUATORS := .venv-evaluators
# What make install brings: all extras but mlflow and ray, hundreds of megabytes for few.
EXTRAS := dev docs export joblib lite0 optuna serve submitit tensorboard wandb
WORKFLOWS := .github/workflows/*.yml
ISSUE_FORMS := $(filter-out %/config.yml,$(wildcard .github/ISSUE_TEMPLATE/*.yml))

# Slow disks and networks need more patience than uv has by default.
export UV_HTTP_TIMEOUT ?= 300
export UV_COMPILE_BYTECODE_TIMEOUT ?= 600

.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow lint format bench bench-modules bench-step bench-metrics bench-inference official-evaluators docs modules notebooks lock build clean ci

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-21s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(VENV)/.installed ## create .venv with everything pinned in requirements/lock.txt, and gald itself

demo: install ## train GALD on synthetic street scenes and show what it learned
	$(BIN)/gald train experiment=demo

test: lint ## check style and types, then run the tests
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal

test-slow: install ## run the tests that take minutes: several processes, kills, real launchers
	OMP_NUM_THREADS=1 $(BIN)/pytest -m slow

lint: install ## check style, types, the workflow, the citation and the forms in .github
	$(BIN)/ruff check && $(BIN)/ruff format --check
	$(BIN)/ty check --python $(VENV)
	$(BIN)/actionlint -shellcheck= -pyflakes= $(WORKFLOWS)
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows $(WORKFLOWS)
	$(BIN)/check-jsonschema --builtin-schema vendor.citation-file-format CITATION.cff
	$(BIN)/check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-issue-forms $(ISSUE_FORMS)

format: install ## rewrite the code in the house style
	$(BIN)/ruff check --fix && $(BIN)/ruff format

bench: $(BENCH)/.installed ## measure the loader next to others (ARGS="--camvid FOLDER --markdown FILE")
	$(BENCH)/bin/python benchmarks/data.py $(ARGS)

bench-modules: $(BENCH)/.installed ## measure GA modules next to textbook forms and peers (ARGS="--markdown FILE")
	$(BENCH)/bin/python benchmarks/modules.py $(ARGS)

bench-step: $(BENCH)/.installed ## measure training steps next to mmsegmentation's (ARGS="--markdown FILE")
	$(BENCH)/bin/python benchmarks/step.py $(ARGS)

bench-metrics: $(BENCH)/.installed ## measure metrics, the confusion matrix next to others' (ARGS="--markdown FILE")
	$(BENCH)/bin/python benchmarks/metrics.py $(ARGS)

bench-inference: install ## measure what turns logits into labels, next to the plain way (ARGS="--markdown FILE")
	$(BIN)/python benchmarks/inference.py $(ARGS)

official-evaluators: install $(EVALUATORS)/.installed ## compare our mIoU with the official evaluators', on full-size images
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -s -m "slow or not slow" tests/evaluation/test_official_evaluators.py

# MkDocs Material's notice of its end of life (May 2027) is not about our pages.
docs: install ## build the documentation into site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict
	@echo "open site/index.html; search needs a server: $(BIN)/python -m http.server --directory site"

modules: install ## renew docs/modules.md; rows that did not change keep their measured columns
	OMP_NUM_THREADS=1 $(BIN)/python -m gald.profiling.modules_table --to docs/modules.md

notebooks: install ## run notebooks/*.py and write what they show into the notebooks beside them
	cd notebooks && ../$(BIN)/jupytext --to ipynb --execute *.py && ../$(BIN)/nbstripout *.ipynb

lock: $(VENV)/.uv ## write requirements/lock.txt from pyproject.toml (UPGRADE=1: the newest versions)
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes $(EXTRAS:%=--extra %) $(if $(UPGRADE),--upgrade) \
	  --no-emit-index-url --no-annotate --no-header pyproject.toml -o requirements/lock.txt

build: install ## build the sdist, and from it the wheel, into dist
	$(BIN)/uv build --no-build-isolation --python $(BIN)/python

clean: ## remove the environment, caches and builds; keeps runs
	rm -rf $(VENV) $(BENCH) $(EVALUATORS) build dist site .pytest_cache .ruff_cache
	find src tests benchmarks notebooks -name __pycache__ -type d -prune -exec rm -rf {} +

ci: test ## what continuous integration runs

# .uv marks an environment that can be built upon. It is away while packages are being installed,
# so an interrupted installation starts afresh instead of looking finished.
$(VENV)/.uv:
	@p=$(PYTHON); command -v $$p >/dev/null || { echo "gald needs Python 3.11, 3.12 or 3.13, but there is no $$p; install one, or name it: make PYTHON=/path/to/python3.12"; exit 1; }; $$p -c '$(SUPPORTED)' && $$p -c '$(HAS_VENV)'
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@touch $@

$(VENV)/.installed: requirements/lock.txt pyproject.toml | $(VENV)/.uv
	@rm -f $@ $(VENV)/.uv
	$(UV) --require-hashes --compile-bytecode -r requirements/lock.txt
	$(UV) --no-deps --no-build-isolation -e .
	@touch $(VENV)/.uv $@

# The peers of the benchmark have an environment of their own. What cannot be installed is tried again
# the next time; until then the table says which peer is missing, and why.
$(BENCH)/.installed: requirements/lock.txt requirements/bench.txt pyproject.toml | $(VENV)/.uv
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(BENCH)
	$(BENCH_UV) --require-hashes -r requirements/lock.txt
	$(BENCH_UV) --no-deps --no-build-isolation -e .
	$(BENCH_UV) --no-deps -r requirements/bench.txt && touch $@ || echo "the peers cannot be installed; measuring without them"

# The official Cityscapes evaluator needs an older numpy than we do, so it lives by itself.
$(EVALUATORS)/.installed: requirements/evaluators.txt | $(VENV)/.uv
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(EVALUATORS)
	$(BIN)/uv pip install --quiet --python $(EVALUATORS)/bin/python --no-deps -r requirements/evaluators.txt
	@touch $@
