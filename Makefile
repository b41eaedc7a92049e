# Everything a newcomer needs: `make up`, then `make demo`. `make help` lists the rest.
# PYTHON chooses the interpreter; PORT and ERRANDS_HOME move the local run; ARGS reaches the program behind a target.

VENV   := .venv
PY     := $(VENV)/bin/python
PYTHON ?= $(shell for p in python3.14 python3.13 python3.12 python3.11 python3 python; do \
            $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' >/dev/null 2>&1 \
            && { echo $$p; break; }; done)

# A stamp for each set of pinned requirements: a changed file installs anew, an unchanged one costs nothing.
stamp   = $(VENV)/.installed-$(1)-$(shell cksum < requirements/$(1).txt | tr ' ' '-')
RUN    := $(call stamp,run)
DEV    := $(call stamp,dev)

# What waits runs side by side on one event loop, however long some of it takes; what computes, in two processes.
# A queue that nobody has named here is read by the second worker: slower, but never unread.
WORKERS := --worker io=emails,progress,webhooks,files,messaging,notifications,celery \
           --worker 'cpu=certificates,reports,*:2'

# Most of what tests do is to wait for servers and processes: so many keep the cores busy and starve nobody. In
# their own order those that wait come first; by the number of tests in a file, they would be left over at the end.
TEST_PROCESSES ?= $(shell $(PYTHON) -c 'import os; print(2 * (os.cpu_count() or 1) + 1)')

PINS := pyproject.toml --quiet --upgrade --all-extras --universal --python-version 3.11 --generate-hashes \
        --no-header --no-annotate --no-emit-index-url --no-emit-find-links

.DEFAULT_GOAL := help
.PHONY: up demo test crash check outside bench install requirements clean help

up: $(RUN) ## start the school and all it needs, on this machine; Ctrl-C ends it
	@exec $(PY) -m errands up --app school.app:app --web school.web:api --seed school.seed:seed $(WORKERS) $(ARGS)

demo: $(RUN) ## walk the main job against the running school (ARGS=--json for machines)
	@exec $(PY) -m school.demo $(ARGS)

test: $(DEV) ## run all tests (ARGS="-k name" for some)
	@exec $(PY) -m pytest -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder $(ARGS)

crash: $(DEV) ## put every fault to Errands and to stock Celery (ARGS="--long 60 --seed 1": a soak)
	@exec $(PY) -m tests.crash $(ARGS)

check: $(DEV) ## check style, types and layers
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m mypy
	$(VENV)/bin/lint-imports

outside: $(DEV) ## run Celery's and kombu's own tests on our transport, results and pool (ARGS=--all)
	@exec $(PY) tests/outside $(ARGS)

bench: $(DEV) ## measure Errands beside its peers, about 25 minutes (ARGS=--quick: about 3)
	@exec $(PY) -m benchmarks $(ARGS)

install: $(RUN) ## install what `make up` needs into .venv
	@echo "Installed in $(VENV)."

requirements: ## pin all requirements anew, with hashes and without addresses (needs uv)
	uv pip compile $(PINS) --group apps --group dev -o requirements/dev.txt
	uv pip compile $(PINS) --group apps -c requirements/dev.txt -o requirements/run.txt
	for peers in bench bench-redis5; do \
	  uv pip compile requirements/$$peers.in $(filter-out pyproject.toml --all-extras,$(PINS)) \
	    -o requirements/$$peers.txt || exit 1; done

clean: ## remove the virtual environment and all caches; the data in .errands stays
	rm -rf $(VENV) .outside .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist
	find src apps tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# With uv where there is one, else with venv and pip. The .pth file makes src and apps importable, relative to
# itself, so that neither a build nor a network is needed for our own code.
$(VENV)/.installed-%:
	@$(PY) -c '' 2>/dev/null || { rm -rf $(VENV); \
	  test -n "$(PYTHON)" || { echo "errands: no Python 3.11 to 3.14 found; install one, or name it: make PYTHON=/path/to/python3" >&2; exit 1; }; \
	  if command -v uv >/dev/null; then uv venv --quiet --python "$$(command -v $(PYTHON))" $(VENV); \
	  else $(PYTHON) -c 'import venv, ensurepip' 2>/dev/null \
	    || { echo "errands: $(PYTHON) lacks the venv module; install it (Debian, Ubuntu: apt install python3-venv)" >&2; exit 1; }; \
	    $(PYTHON) -m venv $(VENV); fi; }
	@echo "Installing into $(VENV); this happens once and takes a minute or two."
	@requirements=requirements/$(firstword $(subst -, ,$*)).txt; \
	if command -v uv >/dev/null; then \
	  uv pip install --quiet --python $(PY) --compile-bytecode --require-hashes -r $$requirements; \
	else \
	  $(PY) -m pip --version >/dev/null 2>&1 || $(PY) -m ensurepip >/dev/null; \
	  $(PY) -m pip install --quiet --disable-pip-version-check --require-hashes -r $$requirements; \
	fi
	@$(PY) -c 'import os, sysconfig; site = sysconfig.get_path("purelib"); up = os.path.relpath(os.getcwd(), site); \
	  open(site + "/errands_checkout.pth", "w").write(up + "/src\n" + up + "/apps\n")'
	@rm -f $(VENV)/.installed-$(firstword $(subst -, ,$*))-*
	@touch $@
