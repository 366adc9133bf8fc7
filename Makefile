PYTHON = python3
WORKDIR = demo_run
# Of `make test-latest`: folders of tests, all without.
ROOMS ?=
BIN := .venv/bin
# Python keeps the modules that it compiles, wherever the caller's environment says not to: tests
# start some hundred processes, and JAX with its friends takes each of them ten seconds otherwise.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test slow-test fuzz parity beam-test tpu-test lint bench test-latest environment test-environment clean
.NOTPARALLEL:

# Large pages, where the C library can ask for them, save a CPU step a tenth of its time.
demo: environment
	@GLIBC_TUNABLES=glibc.malloc.hugetlb=1 $(BIN)/svit demo --workdir $(WORKDIR)

# Two processes, a file of tests in one of them: fixtures that train are made once.
test: test-environment
	@$(BIN)/python -m pytest -q -n 2 --dist loadfile -m "not slow" --ignore=tests/parity

# pytest exits with 5 where no test has the mark.
slow-test: test-environment
	@$(BIN)/python -m pytest -q -n 2 --dist loadfile -m slow --ignore=tests/parity || test $$? -eq 5

# Bounded in count. atheris is there for Linux alone.
fuzz:
	@$(PYTHON) .ci/environment.py .venv --extra test fuzz
	@$(BIN)/python tests/fuzz/serving.py body -runs=10000
	@$(BIN)/python tests/fuzz/serving.py picture -runs=10000

# Against the PyTorch code: tests/parity.
parity:
	@$(PYTHON) .ci/parity.py

# In an environment of its own: Beam holds back packages that the others want newer.
beam-test:
	@$(PYTHON) .ci/environment.py .venv-beam --extra test beam
	@.venv-beam/bin/python -m pytest -q tests/data_pipeline/records/test_beam.py

# In one of its own too: where libtpu is installed, JAX looks for TPUs whenever it starts.
tpu-test:
	@$(PYTHON) .ci/environment.py .venv-plan --extra test plan
	@JAX_PLATFORMS=cpu XLA_FLAGS= .venv-plan/bin/python -m pytest -q -m slow \
	    tests/svit_jax/training/test_step_for_tpu.py tests/svit_jax/planning/test_plan_for_tpu.py

lint: test-environment
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/shellcheck .ci/run $$(git ls-files '*.sh')

bench: environment
	@$(BIN)/python .ci/bench.py

test-latest:
	@$(PYTHON) .ci/test_latest.py $(ROOMS)

# Whether there is something to do is for the script to see (pyproject.toml, the version of Python,
# a setup that was interrupted): timestamps alone can't tell.
environment:
	@$(PYTHON) .ci/environment.py .venv

test-environment:
	@$(PYTHON) .ci/environment.py .venv --extra test

clean:
	rm -rf .venv .venv-latest .venv-beam .venv-plan demo_run build
