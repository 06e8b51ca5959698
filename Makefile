# People and CI use the same targets. Everything happens in .venv, which is made on first use and re-used after.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
# Several test processes share the machine: one thread each.
export OMP_NUM_THREADS := 1

.PHONY: demo test test-all test-interop check bench bench-peers bench-append lock build clean

demo: $(READY)  ## The whole loop on this machine: collect, pretrain, finetune, evaluate, improve, report
	$(BIN)/flywheel demo

test: $(READY)  ## The tests that run in minutes
	$(BIN)/pytest -n auto -m "not slow and not interop"

test-all: $(READY)  ## Every test
	$(BIN)/pytest -n auto -m "not interop"

test-interop: $(READY) .venv-interop/.ready  ## What we export is read by LeRobot, robomimic, Minari and TFDS, and the other way round
	$(BIN)/pytest -n 2 -m interop tests/interop

check: $(READY)  ## Lint, format, types and walls
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python tests/walls.py

bench: $(READY)  ## Rates on this machine
	$(BIN)/flywheel bench

bench-peers: $(READY) .venv-peers/.ready .venv-peers/corl .venv-peers/robomimic/.ready .venv-peers/ogbench/.ready  ## Update rates beside the peers', in one run
	$(BIN)/python -m flywheel.bench.peers

bench-append: $(READY) .venv-interop/.ready  ## Durable appends of episodes with cameras, beside the disk's rate and the peers'
	$(BIN)/python -m flywheel.bench.append

lock: $(READY)  ## Resolve requirements.lock again from pyproject.toml
	$(BIN)/uv pip compile --quiet --universal --upgrade --no-emit-index-url --extra dev pyproject.toml -o requirements.lock

build: $(READY)  ## Wheel and sdist in dist/
	rm -rf build dist
	$(BIN)/python -m build --installer uv --outdir dist .

clean:  ## Remove what make made (never runs/)
	rm -rf .venv .venv-peers .venv-interop build dist

$(READY): requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip sync --quiet --python $(BIN)/python requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	touch $@

# What the index carries of the peers, in an environment of their own, with the torch that we are measured with.
.venv-peers/.ready: $(READY)
	test -x .venv-peers/bin/python || $(PYTHON) -m venv .venv-peers
	$(BIN)/uv pip install --quiet --python .venv-peers/bin/python d3rlpy==2.8.1 torchrl==0.14.1 $$(grep -o '^torch==[0-9.]*' requirements.lock)
	touch $@

# CORL is no package either: its scripts, at one commit, run in the environment above.
.venv-peers/corl: .venv-peers/.ready
	git clone --quiet https://github.com/tinkoff-ai/CORL .venv-peers/corl && git -C .venv-peers/corl checkout --quiet 6afec90484bbf47dee05fdf525e26a3ebe028e9b

# robomimic's pins exclude those of the others (six it forgot to name).
.venv-peers/robomimic/.ready: .venv-peers/.ready
	test -x .venv-peers/robomimic/bin/python || $(PYTHON) -m venv .venv-peers/robomimic
	$(BIN)/uv pip install --quiet --python .venv-peers/robomimic/bin/python robomimic==0.3.0 six $$(grep -o '^torch==[0-9.]*' requirements.lock)
	touch $@

# OGBench's own agents are no package: their folder lies in its repository, from which it is taken at one commit.
.venv-peers/ogbench/.ready: $(READY)
	test -x .venv-peers/ogbench/bin/python || $(PYTHON) -m venv .venv-peers/ogbench
	$(BIN)/uv pip install --quiet --python .venv-peers/ogbench/bin/python ogbench==1.2.2 mujoco==3.8.1 'numpy<2' jax==0.6.2 flax==0.11.2 distrax ml_collections
	test -d .venv-peers/ogbench/impls || (git clone --quiet --filter=blob:none --no-checkout https://github.com/seohongpark/ogbench .venv-peers/ogbench/source && \
		git -C .venv-peers/ogbench/source checkout --quiet 1d4140997f60c52c6fb0702ec100dc988b18c548 -- impls && mv .venv-peers/ogbench/source/impls .venv-peers/ogbench/impls)
	touch $@

# Their pins exclude each other's and ours, so each library has an environment of its own (six and pillow they forgot to name).
.venv-interop/.ready: Makefile $(READY)
	for name in lerobot robomimic minari beam; do test -x .venv-interop/$$name/bin/python || $(PYTHON) -m venv .venv-interop/$$name; done
	$(BIN)/uv pip install --quiet --python .venv-interop/lerobot/bin/python lerobot==0.4.4
	$(BIN)/uv pip install --quiet --python .venv-interop/robomimic/bin/python robomimic==0.3.0 six
	$(BIN)/uv pip install --quiet --python .venv-interop/minari/bin/python 'minari[hdf5,arrow]==0.5.4' pillow
	$(BIN)/uv pip install --quiet --python .venv-interop/beam/bin/python --editable '.[beam]' hypothesis pytest
	touch $@
