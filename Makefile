# cohort-sync on one machine. `make` alone lists what it can do.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/sh

# The first Python that is new enough; `make PYTHON=/path/to/python` chooses another.
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)

VENV := .venv/bin
INSTALLED := .venv/installed-in
KAFKA := .local/kafka/lib/verified
CODE := worker consumers stores deploy tests

# A copied or moved checkout is installed again: see deploy/local/install.sh.
ifneq ($(shell cat $(INSTALLED) 2>/dev/null),$(CURDIR))
.PHONY: $(INSTALLED)
endif

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: install
install: $(INSTALLED) $(KAFKA) ## Install into .venv; the command is then .venv/bin/cohort-sync

.PHONY: demo
demo: install ## Start servers, publish sample feeds, show and check what was stored, stop all
	@$(VENV)/python -m deploy.local.demo

.PHONY: up
up: install ## Start Kafka, PostgreSQL, Valkey, a worker, a projector and a gateway and leave them running
	@$(VENV)/python -m deploy.local.stack up

.PHONY: down
down: $(INSTALLED) ## Stop what `make up` started
	@$(VENV)/python -m deploy.local.stack down

.PHONY: test
test: install check ## Everything a change must pass
	$(VENV)/python -m pytest -n 3 --dist loadfile --ignore tests/deploy  # each process has servers of its own; mostly they wait

.PHONY: deploy-check
deploy-check: install ## Chart, alerts, dashboards and image with the real tools, built by Go: 20 minutes the first time
	@$(VENV)/python -m deploy.local.tools
	$(VENV)/python -m pytest tests/deploy

.PHONY: check
check: $(INSTALLED) ## Formatting, lint, types and import contracts
	$(VENV)/ruff format --check $(CODE)
	$(VENV)/ruff check $(CODE)
	$(VENV)/mypy
	$(VENV)/lint-imports

.PHONY: bench
bench: install ## The benchmarks, side by side, with a table at the end; BENCH=store for one of them
	@$(VENV)/python -m tests.benchmarks $(BENCH)

FUZZ = --inputs 1000000

.PHONY: faults
faults: install ## Break things for FAULT_MINUTES from FAULT_SEED while an oracle checks every membership
	@$(VENV)/python -m tests.faults --seed $(or $(FAULT_SEED),1) --minutes $(or $(FAULT_MINUTES),10)

.PHONY: soak
soak: install ## SOAK_MINUTES (20) at 70 % of capacity with rebalances: memory, files, tasks and lags must be flat
	@$(VENV)/python -m tests.faults.soak --minutes $(or $(SOAK_MINUTES),20)

.PHONY: pictures
pictures: install ## The dashboards' main graphs for deploy/docs, from a run of four minutes with a real Prometheus
	@$(VENV)/python -m deploy.local.pictures

.PHONY: fuzz
fuzz: $(INSTALLED) ## Inputs that nobody would write, to every format; FUZZ="--inputs 1000 --seed 7" for others
	@$(VENV)/python -m tests.fuzz $(FUZZ)

# Pins every package by hash. No index, folder or address of this machine gets into the files, whatever pip is set to.
PIP_COMPILE = $(VENV)/pip-compile --quiet --upgrade --generate-hashes --allow-unsafe --strip-extras --no-header \
	--no-emit-options --no-emit-index-url --no-emit-find-links --no-emit-trusted-host

.PHONY: lock
lock: $(INSTALLED) ## Make deploy/requirements*.lock anew, with the newest versions
	env -u PIP_FIND_LINKS $(PIP_COMPILE) --output-file deploy/requirements.lock pyproject.toml
	env -u PIP_FIND_LINKS $(PIP_COMPILE) --extra dev --constraint deploy/requirements.lock \
		--output-file deploy/requirements-dev.lock pyproject.toml
	echo setuptools | env -u PIP_FIND_LINKS $(PIP_COMPILE) --no-annotate --constraint deploy/requirements-dev.lock \
		--output-file deploy/requirements-build.lock -

.PHONY: prerequisites
prerequisites:
	@deploy/local/prerequisites.sh "$(PYTHON)"

$(INSTALLED): pyproject.toml deploy/requirements-dev.lock deploy/local/install.sh | prerequisites
	@deploy/local/install.sh "$(PYTHON)"

$(KAFKA): deploy/local/pom.xml deploy/local/kafka-jars.sha256 | $(INSTALLED)
	@$(VENV)/python -m deploy.local.kafka_jars
