# Everything runs in .venv, which the first target makes. `make help` lists the targets.
# Another Python, in an environment of its own: make fast PYTHON=python3.13 VENV=.venv-3.13
PYTHON ?= python3
TAG ?= stable
VENV ?= .venv
EXTRAS ?= dev
CONSTRAINTS ?= constraints.txt
BIN := $(VENV)/bin

.PHONY: help install demo test long fast contracts newest lint bench exchange image clean

help:
	@echo "make demo      download, train, backtest, replay and paper-trade on a practice exchange (3 to 5 min)"
	@echo "make test      lint and the test suite; make long: what takes minutes, in all an hour"
	@echo "make fast      the fast tests alone"
	@echo "make contracts what the oldest freqtrade, ccxt, NumPy and pandas have to keep; newest: the newest"
	@echo "make bench     speed of training, backtests, serving, stream, learning and replay, beside peers"
	@echo "make exchange  serve the practice market on 127.0.0.1:8787"
	@echo "make image     freqtrade's image with LSTMStrategy in it; TAG=stable_freqai and the like for another"
	@echo "make clean     remove .venv, .venv-* and .demo"

install: $(VENV)/installed
	@test "$(origin PYTHON)" != "command line" || test "$$($(PYTHON) -V)" = "$$($(BIN)/python -V)" \
		|| { echo "$(VENV) is of $$($(BIN)/python -V), not of $$($(PYTHON) -V): give VENV=... as well"; exit 1; }

$(VENV)/installed: pyproject.toml $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; run make with PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	@echo "Installing freqtrade, and TensorFlow if it is asked for: up to 1 GB to download, 1 to 5 minutes."
	$(BIN)/pip install --constraint $(CONSTRAINTS) --editable ".[$(EXTRAS)]"
	@touch $@

demo: install
	$(BIN)/freqtrade-lstm demo

test: install lint
	$(BIN)/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder -m "not long"

long: install
	$(BIN)/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder -m long

fast: install
	$(BIN)/pytest --numprocesses 2 --dist loadfile -m "not lengthy and not slow and not e2e"

# What freqtrade, ccxt, NumPy and pandas decide, with the oldest releases that are allowed; no TensorFlow.
contracts:
	$(MAKE) install VENV=.venv-oldest EXTRAS=test CONSTRAINTS=constraints-oldest.txt
	.venv-oldest/bin/pytest --numprocesses 2 --dist loadfile -m "not slow and not e2e" \
		tests/bot/test_freqtrade_contract.py tests/risk/test_risk.py tests/risk/test_theirs.py \
		tests/features/test_closed_candle.py tests/stream/test_ccxt_contract.py

# The same with the newest releases there are, whatever constraints.txt says.
newest:
	$(MAKE) install VENV=.venv-newest EXTRAS=test CONSTRAINTS=/dev/null
	.venv-newest/bin/pytest --numprocesses 2 --dist loadfile -m "not slow and not e2e" \
		tests/bot tests/market tests/features tests/stream/test_ccxt_contract.py

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: install
	$(BIN)/python benchmarks/bench_serving.py
	$(BIN)/python benchmarks/bench_training.py
	$(BIN)/python benchmarks/bench_backtest.py
	$(BIN)/python benchmarks/bench_tape.py
	$(BIN)/python benchmarks/bench_stream.py
	$(BIN)/python benchmarks/bench_inside.py
	$(BIN)/python benchmarks/bench_learning.py
	$(BIN)/python benchmarks/bench_replay.py
	$(BIN)/python benchmarks/bench_risk.py

exchange: install
	$(BIN)/freqtrade-lstm exchange

image:
	docker build --build-arg TAG=$(TAG) -t lstm-model .

clean:
	rm -rf .venv .venv-* .demo .demo-*
