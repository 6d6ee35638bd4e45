# Two commands do everything: `make demo`, `make test`. Both build .venv first; re-running is fast.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Which torch: TORCH_INDEX=<a wheel index from pytorch.org> chooses another build (README, "CPU or CUDA").
TORCH_INDEX ?=

.DEFAULT_GOAL := help
.PHONY: help venv demo up test check format docs docs-site web bench-loop bench-labels bench-labels-quick bench-tasks bench-select bench-system bench-serve bench-pretext bench-gpu bench-pages label-studio-test tools-test lightly-test bench-modalities clean

help: ## what there is
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-18s %s\n", $$1, $$2}'

# The stamp makes pip run again only when pyproject.toml changed.
$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Shortlist needs Python 3.11 or newer; name one with PYTHON=python3.12")'
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	$(if $(TORCH_INDEX),$(BIN)/python -m pip install --quiet --index-url $(TORCH_INDEX) torch torchvision)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

venv: $(VENV)/.installed ## build .venv

demo: venv ## the main job on the bundled pool: table, demo/report.html, demo/learning_curve.png
	$(BIN)/shortlist demo

up: venv ## service, worker and embedded database; ARGS="--items PATH --classes cat,dog"
	$(BIN)/shortlist up $(ARGS)

# In the order of the folders: journeys one after the other share their running site, and the files of one long test do
# not all come last, where a core waits for another.
# Bytecode is written whatever the shell says: hundreds of processes would compile the project anew.
test: venv ## all tests, on all cores
	env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder $(ARGS)

.venv-label-studio/.installed: Makefile
	test -x .venv-label-studio/bin/pip || $(PYTHON) -m venv .venv-label-studio
	.venv-label-studio/bin/pip install --quiet --disable-pip-version-check label-studio==1.23.2
	@touch $@

label-studio-test: venv .venv-label-studio/.installed ## hundreds of items through a real Label Studio, installed in .venv-label-studio (1 GB)
	LABEL_STUDIO_JOURNEY=full $(BIN)/python -m pytest -n 0 tests/journeys/test_label_studio.py

.venv-argilla/.installed: Makefile
	test -x .venv-argilla/bin/pip || $(PYTHON) -m venv .venv-argilla
	.venv-argilla/bin/pip install --quiet --disable-pip-version-check argilla==2.8.0 requests
	@touch $@

tools-test: venv .venv-argilla/.installed ## the example for Argilla, with its own reader (450 MB)
	$(BIN)/python -m pytest -n 0 tests/examples/test_other_tools.py

.venv-lightly/.installed: Makefile
	test -x .venv-lightly/bin/pip || $(PYTHON) -m venv .venv-lightly
	$(if $(TORCH_INDEX),.venv-lightly/bin/pip install --quiet --index-url $(TORCH_INDEX) torch torchvision)
	.venv-lightly/bin/pip install --quiet --disable-pip-version-check lightly-studio==1.2.0 httpx2 pydantic
	@touch $@

lightly-test: venv .venv-lightly/.installed ## the example for LightlyStudio, with its own database (0.5 GB beside torch)
	$(BIN)/python -m pytest -n 0 -k lightly tests/examples/test_other_tools.py

check: venv ## ruff, mypy strict, import contracts, migration drift, compose file
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/store/test_migrations.py
	@if command -v docker-compose >/dev/null; then POSTGRES_PASSWORD=check SHORTLIST_ADMIN_KEY=check docker-compose config --quiet && echo "docker-compose.yml: fine"; \
	 else echo "docker-compose.yml: not checked, docker-compose is not installed"; fi

format: venv ## make ruff happy where it can be made so by itself
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: venv ## write docs/api.md, docs/catalogue.md and docs/settings.md from the code
	$(BIN)/python docs/generate.py

docs-site: venv ## build the docs as a site into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

web: venv ## build the page from web/ into service/web/static; needs node, which using it does not
	$(BIN)/python web/build.py

bench-loop: venv ## last label of a burst posted → new ranking served
	$(BIN)/python -m benchmarks.loop

bench-labels: venv ## label efficiency of all strategies on all pools by four judges, for hours; goes on where it was stopped
	$(BIN)/python -m benchmarks.labels $(ARGS)

bench-labels-quick: venv ## the same with fewer strategies, pools and seeds, in about 10 minutes, 7 once features are kept
	$(BIN)/python -m benchmarks.labels --quick

bench-tasks: venv ## all pretext tasks on two pools, docs/pretext-tasks.md, for hours; goes on where it was stopped
	$(BIN)/python -m benchmarks.tasks $(ARGS)

bench-select: venv ## time and memory of every strategy; against scikit-activeml where '.[bench]' is installed
	$(BIN)/python -m benchmarks.select $(ARGS)

bench-serve: venv ## how long annotators wait, on SQLite and PostgreSQL, up to a million items; two hours
	$(BIN)/python -m benchmarks.serve $(ARGS)
	$(BIN)/python -m benchmarks.serve.after_labels

bench-system: venv ## the whole system against random picks and a network from scratch; goes on where it was stopped
	$(BIN)/python -m benchmarks.system $(ARGS)

bench-pretext: venv ## scoring and training speed against the plain way and the limit; ARGS=--million measures memory
	$(BIN)/python -m benchmarks.pretext $(ARGS)

bench-gpu: venv ## on a machine with a GPU: the tests of CUDA, then speed against the limit; six minutes
	$(BIN)/python -m benchmarks.gpu $(ARGS)

bench-pages: venv ## the page with a million items: first paint, scrolling, map, desk, bytes of each poll; needs Chromium
	$(BIN)/python -m benchmarks.page $(ARGS)

bench-modalities: venv ## recordings, videos, graphs, texts and pairs: probes and label efficiency; ARGS=--quick; goes on where it was stopped
	$(BIN)/python -m benchmarks.modalities $(ARGS)

clean: ## remove what was built; data folders stay
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
