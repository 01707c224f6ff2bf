# Everything runs from the repository's root, in .venv; each target installs what it needs first.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --no-deps
export DAGSTER_HOME := $(CURDIR)
export DAGSTER_STORE ?= $(abspath $(or $(NOTIF_DATA),data))/dagster

.PHONY: install demo kafka test check bench bench-stages bench-hour bench-years bench-freshness bench-memory bench-panel bench-serving bench-late soak fuzz ui superset dax docs transcripts lock clean

# uv installs in a fifth of the time; where only pip is told of an index, pip does.
install: .venv/installed .env

# `dagster` and `dg` read .env where they are started, and let it win over the environment: hence the form of the values.
.PHONY: .env
.env:
	@grep -qs '^DAGSTER_STORE=' $@ || printf '%s\n' '# Where Dagster finds dagster.yaml, and where it keeps its runs.' \
		'DAGSTER_HOME="$${DAGSTER_HOME:-$(CURDIR)}"' 'DAGSTER_STORE="$${DAGSTER_STORE:-$(CURDIR)/data/dagster}"' >> $@

.venv/installed: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make install PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	awk '/^[^ ]/ {ours = /^uv==/} ours' requirements.lock > .venv/uv.txt
	$(PIP) --require-hashes -r .venv/uv.txt
	$(BIN)/uv pip install --python $(BIN)/python --quiet --no-deps --require-hashes -r requirements.lock || \
		$(PIP) --require-hashes -r requirements.lock
	$(PIP) --no-build-isolation -e .
	touch $@

# The whole system with live traffic; FOR=90 ends by itself and reconciles. RATE, PORT, PANEL_PORT, KAFKA_PORT as well.
demo: install
	$(BIN)/python -m notif_assets.sandbox.demo $(if $(FOR),--for $(FOR)) $(if $(RATE),--rate $(RATE)) \
		$(if $(PORT),--port $(PORT)) $(if $(PANEL_PORT),--panel-port $(PANEL_PORT)) \
		$(if $(KAFKA_PORT),--kafka-port $(KAFKA_PORT))

# One Apache Kafka broker in the foreground, until Ctrl-C; needs Java 17, and Maven the first time. PORT as well.
kafka: install
	$(BIN)/python -m notif_assets_tests.kafka.apache.broker $(if $(PORT),--port $(PORT))

# Twice as many workers as a small machine has cores: the longest tests mostly wait for a daemon.
test: install
	$(BIN)/pytest --numprocesses 4 --dist loadfile --no-loadscope-reorder

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/dagster definitions validate -w workspace.yaml
	$(BIN)/dg check defs

# Catching up with Apache Kafka, both clients; PEER=spark: beside a Spark job, fetched by pip and Maven. Needs Java 17.
bench: install
	$(BIN)/python -m bench $(if $(PEER),--peer $(PEER)) $(if $(MESSAGES),--messages $(MESSAGES))

# The stages one by one, without Dagster, checks and Apache Kafka.
bench-stages: install
	$(BIN)/python -m bench.stages

# What a batch costs as its hour fills.
bench-hour: install
	$(BIN)/python -m bench.hour $(if $(BATCHES),--batches $(BATCHES))

# What a batch, an hourly look and a nightly close cost on a past of a day, a month, a year and three years.
bench-years: install
	$(BIN)/python -m bench.years $(if $(DAYS),--days $(DAYS)) $(if $(MESSAGES),--messages $(MESSAGES))

# COPY=yes: also how long until the serving copy shows a message; needs PostgreSQL.
bench-freshness: install
	$(BIN)/python -m bench.freshness $(if $(COPY),--copy)

# How much memory commands take when messages weigh what nobody expected.
bench-memory: install
	$(BIN)/python -m bench.giants

# The serving copy: a first load beside a plain COPY, and what a batch's copy costs; needs Debian's postgresql.
bench-serving: install
	$(BIN)/python -m bench.serving $(if $(ROWS),--rows $(ROWS)) $(if $(BATCHES),--batches $(BATCHES))

bench-panel: install
	$(BIN)/python -m bench.panel

bench-late: install
	$(BIN)/python -m bench.late

soak: install
	$(BIN)/pytest notif_assets_tests/faults --soak=$(or $(ROUNDS),100) -s

fuzz: install
	$(BIN)/python -m notif_assets_tests.notifications.fuzz --inputs $(or $(INPUTS),10000000) $(if $(SEED),--seed $(SEED))

# Whoever reaches the UI may start runs, and a page of any site that a browser on this machine has open reaches it.
ui: install
	@echo 'Dagster UI at http://127.0.0.1:3000: it has no login, and starts what anybody on this machine asks it to, and'
	@echo 'any web page in a browser here; the sensors and schedules run too. For others to see it: docs/nginx.conf.'
	$(BIN)/dagster dev -w workspace.yaml --host 127.0.0.1

# The kit for BI tools in a real Superset, in a virtual environment of its own, over a copied lake; pictures in docs/.
# Takes a quarter of an hour the first time. Needs PostgreSQL and Chromium.
superset: install data/superset/installed
	$(BIN)/python -W ignore -m notif_assets_tests.bi_kit.try_superset --venv data/superset

data/superset/installed: notif_assets_tests/bi_kit/superset.txt
	$(PYTHON) -m venv data/superset
	data/superset/bin/pip install --quiet --disable-pip-version-check -r $<
	touch $@

# Looks through the Power BI model with coop-dax-review, in a virtual environment of its own; fails if it finds anything.
dax: install data/dax/installed
	$(BIN)/notif-assets bi-kit --out data/dax/kit --server 127.0.0.1:5432 --database serving
	data/dax/bin/coop-dax-review check --strict --config notif_assets_tests/bi_kit/coop-dax-review.yml \
		data/dax/kit/power_bi/notif.SemanticModel

data/dax/installed:
	$(PYTHON) -m venv data/dax
	data/dax/bin/pip install --quiet --disable-pip-version-check coop-dax-review==0.22.0
	touch $@

# Writes docs/reference/ from the settings, the catalogue, the commands and the reasons.
docs: install
	$(BIN)/python -m notif_assets_tests.docs.reference

# Puts what the commands print today into the documents that show something else.
transcripts: install
	$(BIN)/python -W ignore -m notif_assets_tests.docs.transcripts

# The lock names no index, and holds for every platform and every Python from 3.11 on.
lock:
	$(BIN)/uv pip compile --universal --generate-hashes --no-header --python-version 3.11 \
		--all-extras --group dev pyproject.toml -o requirements.lock

clean:
	rm -rf .venv data .mypy_cache .ruff_cache .pytest_cache
