# Everything from a fresh clone: `make demo`, `make test`. Only Python >= 3.11 with venv, make and a C++ compiler needed.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Test files at a time: much of what they do is waiting.
JOBS ?= 2
INSTALLED := $(VENV)/.installed

.PHONY: demo check test test-s3 test-cluster image test-image lint docs bench bench-gpu install clean
.DELETE_ON_ERROR:

demo: install
	$(BIN)/python -m pipelines.demo

# While one works: at most a minute on two cores. Which tests are left out: LONG in tests/conftest.py, and the marks.
check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile --quick

test: install
	$(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile -m 'not cluster'

# Kills, stops and lost nodes: minutes of restarts. Hosts of their own (namespaces) need root, and skip without.
test-cluster: install
	$(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile -m cluster

# On a SeaweedFS server of its own, on loopback.
test-s3: install
	$(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile tests/s3

# mana-dist and mana-mlflow, by docker or buildah: about 8 GB, 10 minutes. IMAGE_OPTIONS are its build's.
image:
	cluster/image/build.sh $(IMAGE_OPTIONS)

# What the images hold, and pods of them run by crun, in a network of their own. Needs root, buildah and crun.
test-image: export IMAGE_BUILDER = buildah
test-image: install image
	unshare --net sh -c 'ip link set lo up && ip addr add 10.79.0.1/32 dev lo && exec $(BIN)/python -m pytest tests/image'

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/mypy

# The documentation as a site in site/; a broken link or an unknown name is an error.
docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# At most 15 minutes on two cores, nothing else running; the table is in bench.md too.
bench: install
	$(BIN)/python -m benchmarks

# On a machine with a GPU, torch, Triton and NumPy: no install. Real clips: python -m benchmarks.gpu.pack beforehand.
bench-gpu:
	$(PYTHON) -m benchmarks.gpu

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt setup.py $(wildcard mana_dist/ops/*.c)
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: Python 3.11 or newer is needed; try make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV): about 7 GB, most of it torch; a few minutes at the first time"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[all,dev,docs,demo,bench,server]'
	@touch $@

clean:
	rm -rf $(VENV) build site *.egg-info mana_dist/ops/*.so .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
