.DEFAULT_GOAL := help
.PHONY: help run test faults engines sim crash rolling campaigns guarantee lowest check lint report format constraints bench image

PYTHON ?= python3
IMAGE ?= scheduler-api
BIN := .venv/bin

help: ## Print this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: .venv/run.stamp ## Install and start the server, with a receiver that prints webhooks
	@echo "Starting the server on port 8000 and a receiver on port 8001; Ctrl-C stops both."
	@$(BIN)/scheduler-api serve --listen 8001

# The tests wait half of their time, so two more processes than cores are used.
TEST_PROCESSES = $(shell expr $$(getconf _NPROCESSORS_ONLN) + 2)

test: .venv/dev.stamp ## Install and run the tests; COVER=1 also measures branch coverage
	$(if $(COVER),$(BIN)/coverage erase)
	$(BIN)/$(if $(COVER),coverage run,python) -m pytest -n $(TEST_PROCESSES) --dist loadfile

# Its own mount and network namespaces; users other than root need a user namespace for them.
NAMESPACES := unshare --mount --net $(if $(filter-out 0,$(shell id -u)),--user --map-root-user)

faults: .venv/dev.stamp ## Run the fault tests that need privileges and libfaketime: disk, clocks, network
	@MACHINE_NETWORK=$$(readlink /proc/self/ns/net) $(NAMESPACES) \
	  sh -ec 'ip link set lo up; exec "$$@"' - $(BIN)/python -m pytest -m machine tests/faults

sim: .venv/dev.stamp ## Run SEEDS=100000 simulated schedules of the store's scripts with faults; SEED=7 prints one
	$(BIN)/python -m tests.sim $(if $(SEED),--seed $(SEED),$(if $(SEEDS),--seeds $(SEEDS)))

crash: .venv/dev.stamp ## Kill KILLS=20 replicas and stores under load; RACES=10000 HERD=20000; SEED=7 repeats one
	$(BIN)/python -m tests.crash $(if $(KILLS),--kills $(KILLS)) $(if $(SEED),--seed $(SEED)) \
	  $(if $(RACES),--races $(RACES)) $(if $(HERD),--herd $(HERD))

rolling: .venv/dev.stamp ## Run two versions on one store under load, with MESSAGES=3000 in each part
	MESSAGES=$(or $(MESSAGES),3000) $(BIN)/python -m pytest -n 0 tests/system/test_rolling.py

# Tests of the store, the API and the dispatcher; `make test` runs them on the embedded store.
ENGINES := redis:1 redis:4 cluster:16 sentinel:4
engines: .venv/dev.stamp ## Run the store's tests on Redis, Redis Cluster and Sentinel, also over TLS
	@for each in $(ENGINES); do \
	  echo "ENGINE=$${each%:*} PARTITIONS=$${each#*:}"; \
	  ENGINE=$${each%:*} PARTITIONS=$${each#*:} $(BIN)/python -m pytest -q -n auto --dist loadfile \
	    tests/store tests/delivery tests/api tests/admin/test_fsck_report.py tests/admin/test_transfer.py \
	    --ignore tests/api/test_contract.py || exit 1; \
	done
	@for each in redis cluster sentinel; do \
	  echo "ENGINE=$$each+tls PARTITIONS=4"; \
	  ENGINE=$$each+tls PARTITIONS=4 $(BIN)/python -m pytest -q -n auto --dist loadfile \
	    tests/store/test_store.py tests/delivery/test_dispatcher.py || exit 1; \
	done

# The lower bounds of pyproject.toml, in a separate environment.
LOWEST := .venv/lowest
lowest: $(LOWEST)/stamp ## Run the tests that depend on libraries, with their lowest allowed versions
	$(LOWEST)/bin/python -m pytest -q -n auto --dist loadfile tests/test_private_apis.py \
	  tests/settings tests/telemetry/test_logging.py tests/domain/test_international_url.py \
	  tests/store tests/api tests/delivery --ignore tests/api/test_contract.py

campaigns: .venv/dev.stamp ## Run the long tests: many cases of one kind of fault
	$(BIN)/python -m pytest -m campaign -s -n 0 tests/campaigns

guarantee: ## Print the results of the last simulation and crash campaigns in one table
	@$(BIN)/python -m tests.guarantee

check: lint ## Run all that CI runs: lint, types, tests with coverage, lowest versions, campaigns
	@$(MAKE) --no-print-directory test COVER=1
	@$(MAKE) --no-print-directory report
	@$(MAKE) --no-print-directory lowest
	@$(MAKE) --no-print-directory faults
	@$(MAKE) --no-print-directory engines
	@$(MAKE) --no-print-directory sim
	@$(MAKE) --no-print-directory crash
	@$(MAKE) --no-print-directory campaigns
	@$(MAKE) --no-print-directory guarantee

lint: .venv/dev.stamp
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

# The minimum is fail_under of tool.coverage.report in pyproject.toml.
report:
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

format: .venv/dev.stamp ## Format the code and fix lint errors
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# uv resolves for all operating systems and Python versions at once; pip cannot.
LOCK := UV_CUSTOM_COMPILE_COMMAND='make constraints' .venv/uv/bin/uv pip compile --quiet \
  --universal --generate-hashes --python-version 3.11 $(if $(UPGRADE),--upgrade)
constraints: .venv/dev.stamp .venv/uv/bin/uv ## Write requirements/ after a change of pyproject.toml; UPGRADE=1 upgrades all
	$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], \
	  "editables", sep="\n")' | $(LOCK) - --output-file requirements/build.txt
	$(LOCK) pyproject.toml --output-file requirements/run.txt
	$(LOCK) --extra dev pyproject.toml requirements/build.txt --constraints requirements/run.txt \
	  --output-file requirements/dev.txt

bench: .venv/dev.stamp ## Run the benchmarks; WHAT="deliver --peer bullmq" chooses one
	$(BIN)/python -m bench $(WHAT)

image: ## Build the container image
	docker build --tag $(IMAGE) .

PIP := -m pip install --quiet --disable-pip-version-check

.venv/bin/python:
	@echo "Creating a virtual environment in .venv ..."
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed; choose one with PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -m venv .venv \
	  || { rm -rf .venv; echo "On Debian or Ubuntu: apt-get install python3-venv" >&2; exit 1; }

.venv/run.stamp: pyproject.toml requirements/run.txt | .venv/bin/python
	@echo "Installing the server (half a minute, once) ..."
	@$(BIN)/python $(PIP) --require-hashes -r requirements/run.txt
	@$(BIN)/python $(PIP) --no-deps -e .
	@touch $@

.venv/dev.stamp: pyproject.toml requirements/dev.txt | .venv/bin/python
	@echo "Installing the server and its test tools (a minute, once) ..."
	@$(BIN)/python $(PIP) --require-hashes -r requirements/dev.txt
	@$(BIN)/python $(PIP) --no-deps --no-build-isolation -e .
	@touch $@ .venv/run.stamp

$(LOWEST)/stamp: pyproject.toml tests/lowest.py .venv/dev.stamp
	@echo "Installing the lowest versions (a minute, once) ..."
	@rm -rf $(LOWEST)
	@$(BIN)/python -m venv $(LOWEST)
	@$(BIN)/python -m tests.lowest > $(LOWEST)/constraints.txt
	@$(LOWEST)/bin/python $(PIP) -c $(LOWEST)/constraints.txt -e '.[dev]'
	@touch $@

.venv/uv/bin/uv: | .venv/bin/python
	@$(BIN)/python -m venv .venv/uv
	@.venv/uv/bin/python $(PIP) 'uv>=0.13,<0.14'
