PYTHON  ?= python3
VENV    := .venv
BIN     := $(VENV)/bin
RESULTS ?= results/demo
FIGURES := $(patsubst %.py,%.pdf,$(wildcard figures/*.py))

.PHONY: demo test test-fast lint typecheck figures docs notebooks reliability bench \
	bench-train bench-evaluate clean

# Train a full-rank and a ReLoRA model, analyse and evaluate both, draw the figures; called again, it
# does only what is missing. BLIMP=path also scores both on BLiMP's sentences.
# One thread: for a model this small a second one saves a third of the time, and costs ten times as
# much on a busy machine.
demo: $(VENV)/installed
	$(BIN)/rankscope train configs/demo-full.toml --resume --threads 1
	$(BIN)/rankscope train configs/demo-relora.toml --resume --threads 1
	$(BIN)/rankscope analyze ckpts/demo --out results/demo
	$(BIN)/rankscope evaluate ckpts/demo --held-out $(if $(BLIMP),--blimp $(BLIMP)) --out results/demo
	$(MAKE) --no-print-directory results/demo/figures/loss.pdf
	@echo
	@echo "Checkpoints are in ckpts/demo, the tables in results/demo, figures in results/demo/figures."
	@echo "Next: $(BIN)/rankscope analyze YOUR/CHECKPOINTS, or notebooks/1-tour.ipynb."

test: lint typecheck
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n auto --maxprocesses 4 --dist worksteal

# All but the tests marked slow.
test-fast: $(VENV)/installed
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n auto --maxprocesses 4 --dist worksteal -m "not slow"

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
	$(BIN)/rankscope figures results/demo

# The documentation as a site in build/site; RESULTS=folder draws its gallery from these results.
docs: $(VENV)/installed
	$(BIN)/python docs/site/build.py build/site $(if $(filter command line,$(origin RESULTS)),--results $(RESULTS))

notebooks: $(VENV)/installed
	$(BIN)/pytest -q tests/test_notebooks.py

# Bad files, mutants, kills and losses of power at full size, as one table; WRITE=1 puts it into the
# README. Takes hours of processor time; QUICK=1 tries a little of everything.
reliability: $(VENV)/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.reliability $(if $(WRITE),--write) $(if $(QUICK),--quick)

# Time and memory against the least that the work can cost; PEERS=1 against other tools too.
bench: $(VENV)/installed
	$(BIN)/python -m benchmarks.bench $(if $(PEERS),--peers) --scratch build/bench

# Time and memory of a training step: against transformers, and ReLoRA against full rank.
bench-train: $(VENV)/installed
	$(BIN)/python -m benchmarks.train --out build/bench/train.json

# Minimal pairs per second and memory, against scoring with transformers.
bench-evaluate: $(VENV)/installed
	$(BIN)/python -m benchmarks.evaluation --out build/bench/evaluation.json

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all,dev]'
	touch $@

clean:
	rm -rf ckpts/demo results/demo figures/*.pdf figures/*.png
