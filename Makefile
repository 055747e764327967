# Two commands: `make demo` and `make test`. PYTHON= chooses the interpreter (3.11 or newer).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO_OUT := out/demo

.PHONY: setup demo test lint bench clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[napari,train,dev]'
	touch $(STAMP)

demo: setup
	$(BIN)/medrecon run sample_data/mr_brain_thick/dicom --truth sample_data/mr_brain_thick/truth.nii.gz --out $(DEMO_OUT) --overwrite
	@echo "Open the report: $$(ls -d $(DEMO_OUT)/*/report.html | head -n 1)"

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# BLAS gets one thread, for the workers fill the cores. Files come in their own order: xdist's would keep those with few, long
# tests for the end, where one worker waits for the other. A worker that crashes ends the run (`--max-worker-restart 0`): where
# xdist replaces one, it may wait for tests for ever. Windows are tested by themselves: no process then holds both Qt with
# OpenGL and all that the engine loads, a mixture that no user has.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder --max-worker-restart 0

test: setup lint
	$(PYTEST) --ignore tests/gui -p no:napari -p no:pytest-qt
	$(PYTEST) tests/gui

bench: setup
	for script in benchmarks/*.py; do $(BIN)/python $$script || exit 1; done

clean:
	rm -rf $(VENV) out build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
