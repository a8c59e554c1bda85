# make demo and make test set themselves up: with uv where it is on the path, else with venv and pip.
.PHONY: demo test test-slow test-compose check bench docs screenshots chaos fuzz tag protos format clean
.DEFAULT_GOAL := demo

VENV := .venv
# Tests wait for processes much of the time, and some take a thousand times as long as others.
WORKERS := 3 --dist worksteal
BIN := $(VENV)/bin
PROTOS := $(shell find protos -name '*.proto')
# Protocols that are packages of their own.
PACKAGES := $(patsubst %/protos,%,$(wildcard tests/packages/*/protos))
# The newest generator whose code loads on every protobuf runtime that pyproject.toml admits.
GENERATOR := grpcio-tools==1.80.0 mypy-protobuf==3.6.0 setuptools==80.9.0
GENERATOR_VENV := .venv-protos
# Another protocol's messages, which are no generated code but a descriptor set: comity/inference/messages.py says why.
INFERENCE := comity/inference
# The wire as it was tagged: what later changes must not break. docs/operations.md says what that promises.
TAG := tests/wire/wire-1.binpb

$(VENV)/.ready: pyproject.toml uv.lock
	@if command -v uv >/dev/null 2>&1; then \
	  uv sync --quiet --frozen --compile-bytecode; \
	else \
	  python3 -m venv $(VENV) && $(BIN)/python -m pip install --quiet --upgrade pip && \
	  $(BIN)/python -m pip install --quiet --editable . --group dev; \
	fi
	@touch $@

demo: $(VENV)/.ready
	$(BIN)/comity demo

test: $(VENV)/.ready
	$(BIN)/python -m pytest -n $(WORKERS)

# What takes long: a kill at every point, benchmarks, waiting for a network that is gone.
test-slow: $(VENV)/.ready
	$(BIN)/python -m pytest -n $(WORKERS) -m slow --durations 20

# Every protocol between containers. Wants Docker, Compose and tcpdump, and root; COMITY_BASE names another base image.
test-compose: $(VENV)/.ready
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m compose tests/compose

bench: $(VENV)/.ready
	$(BIN)/comity bench --all

# The documentation as a site, in build/site; whatever leads nowhere is an error.
docs: $(VENV)/.ready
	@$(BIN)/python -c 'import mkdocstrings_handlers.python, material' 2>/dev/null || \
	if command -v uv >/dev/null 2>&1; then uv sync --quiet --frozen --group docs; \
	else $(BIN)/python -m pip install --quiet --group docs; fi
	$(BIN)/python docs/lay_out.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --config-file build/mkdocs.yml

# Pictures of every demo's report and of the page to label on, in docs/images. Wants Chromium: tests/install-chromium.sh.
screenshots: $(VENV)/.ready
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.screenshots
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.e2e.protocols.peer_study.pictures

# Kills real daemons with SIGKILL, so often, and checks that nothing is lost.
KILLS := 20
PROTOCOL :=
chaos: $(VENV)/.ready
	OMP_NUM_THREADS=1 $(BIN)/python -m comity.experiments.chaos --kills $(KILLS) $(if $(PROTOCOL),--protocol $(PROTOCOL))

# Tries so many seconds to break each decoder, JOBS at a time; DECODER names those to try.
# atheris has wheels for Linux on x86-64.
SECONDS := 600
DECODER :=
JOBS := 1
fuzz: $(VENV)/.ready
	@$(BIN)/python -c 'import atheris' 2>/dev/null || \
	if command -v uv >/dev/null 2>&1; then uv sync --quiet --frozen --group fuzz; \
	else $(BIN)/python -m pip install --quiet --group fuzz; fi
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz.fuzz --seconds $(SECONDS) --jobs $(JOBS) $(if $(DECODER),--decoder '$(DECODER)')

format: $(VENV)/.ready
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Style, types, import rules, and generated code in step with the protos.
check: $(VENV)/.ready $(GENERATOR_VENV)/.ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	@for package in $(PACKAGES); do MYPYPATH=shared:$$package $(BIN)/mypy $$package/$$(basename $$package) || exit 1; done
	$(BIN)/lint-imports
	@scratch=$$(mktemp -d) && trap 'rm -rf "$$scratch"' EXIT && \
	  $(MAKE) --no-print-directory generate OUT="$$scratch" && \
	  diff -r --exclude=__pycache__ --exclude=__init__.py "$$scratch/comity/wire" shared/comity/wire && \
	  cmp "$$scratch/$(INFERENCE)/open_inference.binpb" shared/$(INFERENCE)/open_inference.binpb && \
	  for package in $(PACKAGES); do \
	    $(MAKE) --no-print-directory generate-package PACKAGE=$$package OUT="$$scratch" && \
	    name=$$(basename $$package)/v1 && \
	    diff -r --exclude=__pycache__ --exclude=__init__.py "$$scratch/$$name" $$package/$$name || exit 1; \
	  done && \
	  echo "generated code is in step with protos/"
	$(BIN)/buf lint
	@$(BIN)/buf breaking --against $(TAG) || \
	  { echo "this breaks the wire as it was tagged ($(TAG)); where that is meant, make tag, and say so in CHANGELOG.md" >&2; exit 1; }
	@echo "the wire is that of $(TAG), or more"

# Says that the wire is from now on held to what it is now.
tag: $(VENV)/.ready
	mkdir -p $(dir $(TAG)) && $(BIN)/buf build --exclude-source-info --output $(TAG)

protos: $(GENERATOR_VENV)/.ready
	@$(MAKE) --no-print-directory generate OUT=shared
	@for package in $(PACKAGES); do $(MAKE) --no-print-directory generate-package PACKAGE=$$package OUT=$$package; done

$(GENERATOR_VENV)/.ready: Makefile
	@if command -v uv >/dev/null 2>&1; then \
	  uv venv --quiet --clear $(GENERATOR_VENV) && uv pip install --quiet --python $(GENERATOR_VENV)/bin/python $(foreach p,$(GENERATOR),'$(p)'); \
	else \
	  python3 -m venv $(GENERATOR_VENV) && $(GENERATOR_VENV)/bin/python -m pip install --quiet $(foreach p,$(GENERATOR),'$(p)'); \
	fi
	@touch $@

.PHONY: generate
generate:
	@mkdir -p $(OUT) && PATH="$(CURDIR)/$(GENERATOR_VENV)/bin:$$PATH" $(GENERATOR_VENV)/bin/python -m grpc_tools.protoc \
	  -I protos --python_out=$(OUT) --grpc_python_out=$(OUT) --mypy_out=quiet:$(OUT) --mypy_grpc_out=quiet:$(OUT) $(PROTOS)
	@mkdir -p $(OUT)/$(INFERENCE) && $(GENERATOR_VENV)/bin/python -m grpc_tools.protoc -I shared/$(INFERENCE) \
	  --descriptor_set_out=$(OUT)/$(INFERENCE)/open_inference.binpb shared/$(INFERENCE)/open_inference.proto

# The messages of a package; its calls are derived, so that no service is generated.
.PHONY: generate-package
generate-package:
	@mkdir -p $(OUT) && PATH="$(CURDIR)/$(GENERATOR_VENV)/bin:$$PATH" $(GENERATOR_VENV)/bin/python -m grpc_tools.protoc \
	  -I protos -I $(PACKAGE)/protos --python_out=$(OUT) --mypy_out=quiet:$(OUT) $$(find $(PACKAGE)/protos -name '*.proto')

clean:
	rm -rf $(VENV) $(GENERATOR_VENV) .fuzz dist build .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
