# `make` alone shows what there is.
.DEFAULT_GOAL := help
IOT := .venv/bin/iot
PYTEST := .venv/bin/python -m pytest

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: bootstrap
bootstrap: ## Make .venv with everything Python needs (the other targets do it themselves)
	@sh scripts/bootstrap.sh

.PHONY: up
up: bootstrap console-if-possible ## Start the whole platform on this machine and wait until it is ready (SIMULATOR=0: without the device simulator; MONITORING=1: with Prometheus, Alertmanager and exporters)
	@$(IOT) up

.PHONY: console
console: ## Build the console's pages into iot_platform/api/static (needs Node.js >= 20.19 and npm)
	@sh scripts/console.sh

.PHONY: console-if-possible
console-if-possible:
	@sh scripts/console.sh --if-possible

.PHONY: down
down: bootstrap ## Stop everything that `make up` started; data stays
	@$(IOT) down

.PHONY: status
status: bootstrap ## One screen: health, rates, lag, freshness
	@$(IOT) status

.PHONY: logs
logs: bootstrap ## Follow all logs (Ctrl-C ends it; `iot logs --help` filters)
	@$(IOT) logs --follow

.PHONY: clean-data
clean-data: bootstrap ## Stop everything, ask, then remove the local data and logs
	@$(IOT) clean-data

.PHONY: test
test: bootstrap ## Unit, contract and integration tests on real servers of their own, three files at a time (ARGS="-k name" passes options to pytest)
	@$(PYTEST) --numprocesses 3 --dist loadfile --no-loadscope-reorder --max-worker-restart 0 $(ARGS)

.PHONY: test-unit
test-unit: bootstrap ## Unit and contract tests only: no servers, seconds
	@$(PYTEST) iot_platform_tests/unit iot_platform_tests/contract $(ARGS)

.PHONY: test-timescaledb
test-timescaledb: bootstrap ## What asks the database, on Debian's newest PostgreSQL and TimescaleDB (needs root; three files at a time)
	@IOT_TEST_NEWEST_TIMESCALEDB=1 $(PYTEST) iot_platform_tests/integration -m "sql or both_editions" --numprocesses 3 --dist loadfile --no-loadscope-reorder --max-worker-restart 0 $(ARGS)

.PHONY: test-fault
test-fault: bootstrap ## All failure drills; takes most of an hour (IOT_DRILL_OUTAGE_SECONDS: long outages, 60 unless set; IOT_DRILL_ROUNDS: power cuts, 10; IOT_DRILL_SEED)
	@$(PYTEST) iot_platform_tests/fault -m "fault or not fault" $(ARGS)

.PHONY: test-brokers
test-brokers: bootstrap ## The ingest daemon on every MQTT broker of docs/brokers.md, from packages; most of an hour (ARGS="-k hivemq"; IOT_TEST_BROKERS_REPORT=file)
	@$(PYTEST) iot_platform_tests/brokers -m brokers $(ARGS)

.PHONY: test-kubernetes
test-kubernetes: bootstrap ## The objects of deploy/kubernetes on a real control plane with nodes that are played; minutes (needs Go; built once, a quarter of an hour of processor time)
	@$(PYTEST) iot_platform_tests/kubernetes -m kubernetes $(ARGS)

.PHONY: test-deploy
test-deploy: bootstrap ## Ansible on nodes' root file systems, images between registries, secrets, ArgoCD's schemas; about ten minutes (needs root, Go the first time)
	@$(PYTEST) iot_platform_tests/deploy -m deploy $(ARGS)

.PHONY: test-cluster
test-cluster: bootstrap ## The drills on three Kafka brokers: killed, two killed, one that stays away, rolling restart; about ten minutes
	@$(IOT) drill run cluster

.PHONY: test-backup
test-backup: bootstrap ## Backups made, damaged and restored, the database killed in between; minutes (needs root)
	@$(PYTEST) iot_platform_tests/backup -m backup $(ARGS)

.PHONY: test-influx
test-influx: bootstrap ## InfluxDB killed, full, dropped, cut off, and its run killed; both stores have the same set afterwards; minutes
	@$(PYTEST) iot_platform_tests/influx -m influx $(ARGS)

.PHONY: test-boards
test-boards: bootstrap ## The dashboards of metrics while Dagster runs, and beside PostgreSQL's and the host's exporters where they are installed; minutes
	@$(PYTEST) iot_platform_tests/boards -m boards $(ARGS)

.PHONY: test-upgrade
test-upgrade: bootstrap ## The release before and this one side by side, forth and back, while devices publish; Kafka's and PostgreSQL's next release; half an hour (pg_upgrade needs root; the first time it builds TimescaleDB)
	@$(PYTEST) iot_platform_tests/upgrade -m upgrade $(ARGS)

.PHONY: test-api
test-api: bootstrap ## The read API against its own description, by requests that schemathesis makes up; minutes
	@$(PYTEST) iot_platform_tests/api -m api -o faulthandler_timeout=3660 $(ARGS)

.PHONY: test-console-unit
test-console-unit: console ## The console's types, unit tests and size; a minute (needs Node.js >= 20.19 and npm)
	@cd console && npm run --silent types && npm run --silent test

.PHONY: test-console
test-console: bootstrap test-console-unit ## The console's pages in Chromium on a platform of their own, with kills; minutes (needs Chromium, too)
	@$(PYTEST) iot_platform_tests/console -m console -o faulthandler_timeout=1860 $(ARGS)

.PHONY: test-images
test-images: bootstrap console ## Build the container images and run the whole path in them (needs root; five to ten minutes)
	@$(PYTEST) iot_platform_tests/images -m images $(ARGS)

.PHONY: test-scale
test-scale: bootstrap ## Plans of queries on millions of rows; a few minutes
	@$(PYTEST) iot_platform_tests/scale -m scale $(ARGS)

.PHONY: bench
bench: bootstrap ## Drain and ingest beside bare loops, on servers of its own; 12 minutes, report in bench-report/ (IOT_BENCH_BASELINE=checkout: beside another build; ARGS="--messages 3000 --rounds 1": whether it works)
	@.venv/bin/python -c 'import matplotlib' 2>/dev/null || .venv/bin/python -m pip install --quiet --disable-pip-version-check 'matplotlib>=3.10'
	@.venv/bin/python -m bench.report $(ARGS)

.PHONY: lint
lint: bootstrap ## Lint, format check, types, imports; of sql/, keywords and width
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy
	@.venv/bin/lint-imports --no-logo
	@.venv/bin/sqlfluff lint --processes 0 --disable-progress-bar sql

.PHONY: format
format: bootstrap ## Apply the formatter and the linter's safe fixes
	@.venv/bin/ruff check --fix-only --quiet .
	@.venv/bin/ruff format .

# What an earlier build left in build/ would go into the wheel, too.
.PHONY: wheel
wheel: bootstrap console-if-possible ## Make dist/iot_platform-….whl, which works without this checkout
	@rm -rf build dist
	@.venv/bin/python -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir dist .
	@ls dist/*.whl

.PHONY: images
images: bootstrap console ## Build the container images and their bills of materials into dist/images (needs root; ARGS="--base IMAGE --push")
	@.venv/bin/python deploy/docker/build.py $(ARGS)

.PHONY: env-example
env-example: bootstrap ## Write .env.example from the settings classes
	@.venv/bin/python scripts/env_example.py >.env.example.new && mv .env.example.new .env.example

.PHONY: openapi
openapi: bootstrap ## Write console/openapi.json, the read API's description
	@.venv/bin/python -m scripts.openapi

.PHONY: schema
schema: bootstrap ## Write sql/schema.sql and docs/schema.md from a fresh migration (on a PostgreSQL of its own)
	@.venv/bin/python scripts/schema.py

.PHONY: dashboards
dashboards: bootstrap ## Write grafana/dashboards/*.json from grafana/source
	@.venv/bin/python -m grafana.source

.PHONY: metrics-page
metrics-page: bootstrap ## Write docs/metrics.md and docs/metrics.zh-CN.md from the metrics' definitions
	@.venv/bin/python -m scripts.metrics_page
