# make demo: set up .venv and run the demo (MODEL=wantoy: on the other bundled model). make test: and run the tests.
PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready

.PHONY: demo test test-numeric test-install test-slow test-gui lint format extension benches clean

demo: $(READY)
	$(VENV)/bin/motionbooth demo --out demo_out $(if $(MODEL),--model $(MODEL))

# Two processes with one thread each: many tests wait, and a second thread gains nothing for models this small.
test: $(READY)
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n 2 --dist loadfile

# The numeric tests with the instructions of an older processor, which rounds differently.
test-numeric: $(READY)
	ATEN_CPU_CAPABILITY=default MKL_CBWR=COMPATIBLE ONEDNN_MAX_CPU_ISA=SSE41 \
	  $(VENV)/bin/python -m pytest -m numeric

# Tests of the installed wheel in an empty environment: about ten minutes, most of them for pip.
test-install: $(READY)
	$(VENV)/bin/python -m pytest -m install -rs tests/install

test-slow: $(READY)
	$(VENV)/bin/python -m pytest -m slow

# Tests in a window of a desktop Blender: BLENDER=/path/to/blender make test-gui
test-gui: $(READY)
	$(VENV)/bin/python -m pytest -m desktop -rs tests/gui

lint: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

format: $(READY)
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

# Writes to dist/: the extension's zips, an extension repository with them, and the sdist and wheel of the backend.
extension: $(READY)
	$(VENV)/bin/python blender_addon/build.py --out dist
	$(VENV)/bin/python -m build --outdir dist .

# The README's figures: about an hour on an otherwise idle machine. overlay_ms needs a window: make test-gui.
# Run the longer benches separately: motionbooth bench soak --minutes 15 --json docs/bench_soak.json, bench real-size,
# bench ablation and bench control --suppress-subjects-words.
benches: $(READY)
	$(VENV)/bin/motionbooth bench control --json docs/bench_control.json --pictures docs
	$(VENV)/bin/motionbooth bench guide --json docs/bench_guide.json --pictures docs
	$(VENV)/bin/motionbooth bench camera --json docs/bench_camera.json --pictures docs
	$(VENV)/bin/motionbooth bench masters --json docs/bench_masters.json
	$(VENV)/bin/motionbooth bench windows --json docs/bench_windows.json
	$(VENV)/bin/motionbooth bench sampling --json docs/bench_sampling.json
	$(VENV)/bin/motionbooth bench sampling --model wan --json docs/bench_sampling_wan.json
	$(VENV)/bin/motionbooth bench memory --json docs/bench_memory.json
	$(VENV)/bin/motionbooth bench training --json docs/bench_training.json
	$(VENV)/bin/motionbooth bench training --model wan --json docs/bench_training_wan.json
	$(VENV)/bin/motionbooth bench server --json docs/bench_server.json
	$(VENV)/bin/motionbooth bench scheduler --json docs/bench_scheduler.json
	$(VENV)/bin/motionbooth bench fuzz --json docs/bench_fuzz.json
	$(VENV)/bin/motionbooth bench extension --json docs/bench_extension.json

clean:
	rm -rf $(VENV) dist demo_out

$(READY): pyproject.toml blender_addon/motionbooth_addon/blender_manifest.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --editable '.[blender,dev]'
	touch $@
