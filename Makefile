# shelfrank: every verb a developer needs. `make` alone prints this list; `make serve` and `make test` need nothing else
# than Python 3.11, make and a package registry.
# PYTHON=/path/to/python picks the interpreter, ARGS="..." is handed to the program a verb runs.
.DEFAULT_GOAL := help
.PHONY: help serve test sanitize fuzz check format clients bench bench-check bench-peers distil image lock clean

IMAGE ?= shelfrank:cpu
RECIPE ?= training/recipes/tiny.toml
# Without torch, half of training's lines cannot run: the coverage floor holds only where the tests are complete.
FLOOR = $$(.venv-test/bin/python -c 'import importlib.util as i; i.find_spec("torch") or print("--cov-fail-under=0")')
export PYTHON
# The native engine is compiled by $(CC); without a compiler the service computes in ONNX Runtime alone.

help: ## print this list
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## / { printf "  %-11s %s\n", $$1, $$2 }' Makefile

serve: ## run the service with the default bundle on 127.0.0.1:8000, its metrics on :9000
	@requirements/install .venv requirements/serve.lock
	@.venv/bin/python -m service.native.build "$(CC)" || true
	@exec .venv/bin/python -m service $(ARGS)

test: check ## run the checks, then every test with coverage
	.venv-test/bin/python -m pytest --cov --cov-report=term:skip-covered $(FLOOR) $(ARGS)

sanitize: .venv-test ## run the native tests with address and undefined-behaviour sanitizers; CI runs this too
	rm -rf service/native/built
	.venv-test/bin/python -m service.native.build "$(CC) -g -fsanitize=address,undefined -fno-sanitize-recover=all"
	export LD_PRELOAD="$$($(CC) -print-file-name=libasan.so) $$($(CC) -print-file-name=libubsan.so)" ASAN_OPTIONS=detect_leaks=0; \
	  .venv-test/bin/python -c 'import sys; from tests.service.native.support import NO_WORDS as reason; sys.exit(reason or 0)' && \
	  .venv-test/bin/python -m pytest --capture=sys --deselect tests/service/native/test_build.py tests/service/native $(ARGS); \
	  status=$$?; unset LD_PRELOAD; rm -rf service/native/built; .venv-test/bin/python -m service.native.build "$(CC)"; exit $$status

fuzz: .venv-test ## 20,000 requests of every API with broken bytes, other ones each time (minutes)
	FUZZ_CASES=20000 .venv-test/bin/python -m pytest tests/service/http/test_raw_bytes.py $(ARGS)

check: .venv-test ## formatting, lint, types and import rules, in seconds
	.venv-test/bin/ruff format --check
	.venv-test/bin/ruff check
	.venv-test/bin/mypy
	.venv-test/bin/lint-imports

format: .venv-test ## format the code and apply the safe lint fixes
	.venv-test/bin/ruff format
	.venv-test/bin/ruff check --fix

clients: ## rank through some forty clients of other rerankers, each installed here, and keep docs/clients.md
	@requirements/install .venv requirements/serve.lock
	@.venv/bin/python -m clients.run $(ARGS)

bench: .venv-test ## measure the latency of the default bundle (open loop, real products)
	.venv-test/bin/python benchmarks/service/latency.py $(ARGS)

bench-check: .venv-test ## fail if the engine has become slower beside plain ONNX Runtime than benchmarks/engine/history.jsonl says
	.venv-test/bin/python benchmarks/engine/check.py $(ARGS)

bench-peers: .venv-test ## compare with other rerankers, each installed under .cache/peers (12 minutes and the installing)
	.venv-test/bin/python benchmarks/peers/compare.py --docs $(ARGS)

distil: ## train a bundle from data to golden rows; RECIPE=training/recipes/tiny.toml
	@requirements/install .venv-train requirements/train.lock any
	.venv-train/bin/python -m training all --recipe $(RECIPE) $(ARGS)

image: ## build the container image (CPU)
	docker build --target cpu --tag $(IMAGE) $(ARGS) .

lock: ## resolve the lock files anew from pyproject.toml
	@requirements/resolve

clean: ## remove environments, caches and reports; trained bundles stay
	rm -rf .venv .venv-* build dist .coverage htmlcov .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: .venv-test
.venv-test:
	@requirements/install .venv-test requirements/test.lock cpu
	@.venv-test/bin/python -m service.native.build "$(CC)" || true
