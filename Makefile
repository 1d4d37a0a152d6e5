# make demo   builds a pack from the bundled model and upscales a photo with it
# make test   sets everything up and runs the tests
# make lint   style, types, import directions
# make gpu-check   checks and times the Triton kernels; needs a CUDA device
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MODEL := artifacts/demo/dit4sr-mini
OUT := out/demo
# What the environment is made from; the kernels are compiled where there is a C++17 compiler.
SETUP := pyproject.toml setup.py $(wildcard runtime/backends/cpu/native/*.cpp runtime/backends/cpu/native/*.h)

.PHONY: demo test lint gpu-check clean
.DEFAULT_GOAL := demo

# The stamp is younger than these files exactly when the environment matches them.
$(VENV)/.core: $(SETUP)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.dev: $(SETUP)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@ $(VENV)/.core

demo: $(VENV)/.core
	mkdir -p $(OUT)
	$(BIN)/qplan build $(MODEL) --target W4A4 --recipe standard --global-rank 8 --local-rank 4 \
	    -o $(OUT)/model.qpack --force --restart
	$(BIN)/qplan inspect $(OUT)/model.qpack --layer 'blocks.0.attn.to'
	$(BIN)/qrun upscale artifacts/demo/photo.png --pack $(OUT)/model.qpack \
	    -o $(OUT)/photo_x4.png --force
	$(BIN)/python -m benchmarks.before_after artifacts/demo/photo.png $(OUT)/photo_x4.png \
	    -o $(OUT)/before_after.jpg
	@echo "The photo enlarged by the W4A4 pack: $(OUT)/photo_x4.png"
	@echo "Bicubic interpolation beside it:     $(OUT)/before_after.jpg"

# One thread each: the tests' matrices are so small that a second one costs more than it does.
test: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Also without an environment of its own: torch, numpy, safetensors, pydantic, typer and pytest are
# enough. What stands behind -- goes to `qrun bench`, as in GPU_ARGS="-- --size 1024".
gpu-check:
	$(or $(wildcard $(BIN)/python),$(PYTHON)) -m benchmarks.gpu_check --out docs/results $(GPU_ARGS)

clean:
	rm -rf $(VENV) out build *.egg-info runtime/backends/cpu/native/*.so
