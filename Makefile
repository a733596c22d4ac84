# make demo    the whole machine's Verilog is emitted and compiled, and a model tells a story on it
# make test    lint and all tests but the slow ones; a file to a worker, in the order of tests/conftest.py
# make test-slow    tests that take minutes each
# make lock    write requirements.lock anew from pyproject.toml

VENV := .venv
PYTHON := $(VENV)/bin/python
READY := $(VENV)/ready

.PHONY: demo test test-slow lint lock clean

demo: $(READY)
	$(PYTHON) -m edgeaccel.run --preset tiny --prompt "There once was a curious girl named Lily." --tokens 230

test: lint
	$(PYTHON) -m pytest -n auto --dist loadfile --no-loadscope-reorder -m "not slow"

test-slow: $(READY)
	$(PYTHON) -m pytest -m slow

lint: $(READY)
	$(PYTHON) -m ruff check --quiet
	$(PYTHON) -m ruff format --check --quiet

# Exact versions from the lock file, inside the project; nothing is installed elsewhere.
$(READY): requirements.lock pyproject.toml
	@command -v python3 >/dev/null || { echo "python3 is missing: install Python 3.11 or later (Debian, Ubuntu: apt-get install python3 python3-venv)"; exit 1; }
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "python3 is older than 3.11: install a later one"; exit 1; }
	@python3 -c 'import ensurepip' 2>/dev/null || { echo "the Python module venv is missing: install it (Debian, Ubuntu: apt-get install python3-venv)"; exit 1; }
	@command -v $(firstword $(CXX)) >/dev/null || { echo "no C++ compiler ($(CXX)): install one (Debian, Ubuntu: apt-get install g++)"; exit 1; }
	python3 -m venv --clear $(VENV)
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

lock:
	python3 -m venv --clear build/lock
	build/lock/bin/python -m pip install --quiet --disable-pip-version-check "setuptools>=77" ".[test]"
	{ echo "# Written by make lock."; build/lock/bin/python -m pip freeze --all --exclude edgeaccel --exclude pip; } > requirements.lock

clean:
	rm -rf build $(VENV)
