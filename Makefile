SHELL   := bash
PYTHON  ?= python3
VENV    := .venv
BIN     := $(VENV)/bin
RESULTS ?= results/demo
FIGURES := $(patsubst %.py,%.pdf,$(wildcard figures/*.py))

# Some containers forbid Python to keep what it compiled. Each process of the tests would then compile
# torch, pandas, and tests again, which takes most of the time of the short ones.
unexport PYTHONDONTWRITEBYTECODE

SCALE   ?= demo
DEMO    := $(addprefix ckpts/demo/,as-published full relora)

.PHONY: demo $(DEMO) study study-quick test test-all test-fast lint typecheck figures docs notebooks reliability bench bench-train bench-evaluate clean

# Does ReLoRA use fewer dimensions than full-rank training, and is it the method or its published
# program? Trains three models, two at a time, analyses, evaluates and diagnoses them, draws the
# figures, and says in sentences what came of it. Called again, it does only what is missing.
# BLIMP=path also scores them on BLiMP's sentences.
demo: $(VENV)/installed
	@echo "Training full, relora and as-published, two at a time: a line now and then, for about three minutes."
	@$(MAKE) --no-print-directory -j2 $(DEMO)
	$(BIN)/rankscope analyze ckpts/demo --subspaces 4 --out results/demo
	$(BIN)/rankscope evaluate ckpts/demo --held-out --threads 1 $(if $(BLIMP),--blimp $(BLIMP)) --out results/demo
	$(BIN)/rankscope diagnose ckpts/demo --results results/demo || test $$? -eq 1
	@echo
	@echo "Drawing figures and writing a page: about a minute."
	@$(MAKE) --no-print-directory -j2 results/demo/figures/loss.pdf results/demo/report.html
	@echo
	@echo "Checkpoints are in ckpts/demo; tables, figures/ and report.html in results/demo."
	@echo "Next: $(BIN)/rankscope analyze YOUR/CHECKPOINTS, or notebooks/1-tour.ipynb."
	@echo
	@$(BIN)/rankscope report results/demo --answer
	@echo "One seed, and each run at a learning rate that suits it: studies/relora-small has more of both."

# The longest first. One thread each: for a model this small a second one saves a third of the time, and
# costs ten times as much on a busy machine. Lines have names, since two trainings print at once.
$(DEMO): ckpts/demo/%: $(VENV)/installed
	@set -o pipefail; $(BIN)/rankscope train configs/demo-$*.toml --resume --threads 1 2>&1 | sed 's/^/$*: /'

# The study: full rank, ReLoRA, and what the published program does differently, at several learning
# rates and seeds. SCALE=tiny is the shape of the published study's smallest model, on the text that
# STUDY_TEXT names. Called again, it does only what is missing.
study: $(VENV)/installed
	$(BIN)/python studies/relora-small/study.py $(SCALE)

# Its main arms at one learning rate.
study-quick: $(VENV)/installed
	$(BIN)/python studies/relora-small/study.py quick

# Types are checked beside the tests, which do not keep all processors at work all the time.
test: lint
	@$(MAKE) --no-print-directory -j2 typecheck test-all

test-all: $(VENV)/installed
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n logical --maxprocesses 4 --dist worksteal

# All but the tests marked slow.
test-fast: $(VENV)/installed
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n logical --maxprocesses 4 --dist worksteal -m "not slow"

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

typecheck: $(VENV)/installed
	$(BIN)/mypy

# One script per figure; RESULTS=folder draws them from other results. A script ends with 4 if these
# hold nothing that it draws.
figures: $(FIGURES)

figures/%.pdf: figures/%.py $(RESULTS)/metrics.parquet | $(VENV)/installed
	$(BIN)/python $< $(RESULTS) --out figures || test $$? -eq 4

results/demo/metrics.parquet results/demo/evaluation.parquet:
	$(MAKE) demo

results/demo/figures/loss.pdf: results/demo/metrics.parquet results/demo/evaluation.parquet
	@set -o pipefail; $(BIN)/rankscope figures results/demo 2>&1 > /dev/null | sed 's/^/figures: /'

results/demo/report.html: results/demo/metrics.parquet results/demo/evaluation.parquet
	@set -o pipefail; $(BIN)/rankscope report results/demo --runs ckpts/demo 2>&1 > /dev/null | sed 's/^/report: /'

# The documentation as a site in build/site; RESULTS=folder draws its gallery from these results.
docs: $(VENV)/installed
	$(BIN)/python docs/site/build.py build/site $(if $(filter command line,$(origin RESULTS)),--results $(RESULTS))

notebooks: $(VENV)/installed
	$(BIN)/pytest -q tests/test_notebooks.py

# Bad files, mutants, kills and losses of power at full size, as one table; WRITE=1 puts it into the
# README. Takes hours of processor time; QUICK=1 tries a little of everything.
reliability: $(VENV)/installed
	RELIABILITY=full OMP_NUM_THREADS=1 $(BIN)/python -m tests.reliability $(if $(WRITE),--write) $(if $(QUICK),--quick)

# Time and memory against the least that the work can cost; PEERS=1 against other tools too.
bench: $(VENV)/installed
	$(BIN)/python -m benchmarks.bench $(if $(PEERS),--peers) --scratch build/bench

# Time and memory of a training step: against transformers, and ReLoRA against full rank.
bench-train: $(VENV)/installed
	$(BIN)/python -m benchmarks.train --out build/bench/train.json

# Minimal pairs per second and memory, against scoring with transformers.
bench-evaluate: $(VENV)/installed
	$(BIN)/python -m benchmarks.evaluation --out build/bench/evaluation.json

# Python compiles what it imports, and keeps it; all there is would take two minutes more.
$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt -e '.[all,dev]'
	touch $@

clean:
	rm -rf ckpts/demo results/demo figures/*.pdf figures/*.png
