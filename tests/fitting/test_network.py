"""The network and its training: TensorFlow in this process and in the real training child."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import warnings
import weakref
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
from examples import further
from numpy.typing import NDArray
from places import ROOT

from lstm_model.errors import TrainingError
from lstm_model.fitting.parity import Parity
from lstm_model.model.lstm import Lstm
from lstm_model.model.weights import members, numbered, of_member
from lstm_model.settings import Settings, parse_settings
from lstm_model.training.job import TrainingJob, TrainingResult
from lstm_model.training.trainer import _START, Trainer, run_training

pytestmark = pytest.mark.slow

SMALL = Settings(
    members=1,
    layers=2,
    lookback=12,
    units=8,
    batch_size=64,
    max_epochs=3,
    dropout=0.2,
    train_timeout_s=120,
    seed=5,
)


@pytest.fixture(scope="module")
def network() -> Any:
    """What TensorFlow needs; imported here, so that the fast suite never loads it."""
    return import_network()


def import_network() -> Any:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of TensorFlow's own imports
        modules = [
            importlib.import_module(f"lstm_model.fitting.{name}")
            for name in ("network", "graph", "fit")
        ]
    return SimpleNamespace(**{k: v for module in modules for k, v in vars(module).items()})


def make_arrays(n_train: int = 3_000, n_validation: int = 600) -> dict[str, NDArray[Any]]:
    """Rows whose target is as wild as a feature of two candles before says."""
    random = np.random.default_rng(0)
    rows = random.standard_normal((n_train + n_validation + 20, 4)).astype(np.float32)
    noise = random.standard_normal(len(rows)).astype(np.float32)
    ends = np.arange(19, len(rows), dtype=np.int32)
    return {
        "rows": rows,
        "targets": np.exp(0.7 * np.roll(rows[:, 1], 2)) * noise,
        "train_ends": ends[:n_train],
        "validation_ends": ends[n_train:],
    }


def cut_windows(arrays: dict[str, NDArray[Any]], lookback: int) -> NDArray[np.float32]:
    """Validation windows (M, L, F), by another road than the graph's."""
    windows = np.lib.stride_tricks.sliding_window_view(arrays["rows"], lookback, axis=0)
    return windows[arrays["validation_ends"] - lookback + 1].transpose(0, 2, 1)


def make_job(settings: Settings = SMALL, **sizes: int) -> TrainingJob:
    return TrainingJob(settings, **make_arrays(**sizes))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> TrainingResult:
    return run_training(make_job(), tmp_path_factory.mktemp("trained"), background=False)


def changed(**changes: Any) -> Settings:
    return SMALL.model_copy(update=changes)


@pytest.mark.parametrize(
    "settings",
    [SMALL, *further([changed(layers=1), changed(layers=3, units=5), changed(dropout=0)])],
    ids=["default", "one layer", "three layers", "no dropout"],
)
@pytest.mark.parametrize("opened", [False, True])
def test_the_fused_kernel_equals_keras(network: Any, settings: Settings, opened: bool) -> None:
    """Outputs and every gradient, on windows that the parity check at start has not seen.

    With the direct way from the newest row as it begins, closed, and `opened`.
    """
    fused = importlib.import_module("lstm_model.fitting.fused")
    network.keras.utils.set_random_seed(0)
    arrays = make_arrays()
    batch = {
        "rows": arrays["rows"],
        "ends": arrays["validation_ends"][:50],
        "targets": arrays["targets"][arrays["validation_ends"][:50]],
    }
    model = network.build_network(settings, 4)
    if opened:
        gaps = model.get_layer("gaps")
        gaps.kernel.assign(np.random.default_rng(1).normal(size=gaps.kernel.shape))
    stock = fused.StockNetwork(settings, model)
    kernel = fused.FusedNetwork(settings, stock.weights())
    loss = network.pinball_loss(settings.levels)
    assert fused.largest_difference(kernel, stock, loss, batch) < 1e-5
    assert network.TrainingGraph(network.Job(settings, **arrays)).fallback is None


def test_a_gradient_that_cancels_to_nothing_is_no_reason_to_fall_back(network: Any) -> None:
    """All of it is rounding: relative to itself alone it differed one time in sixty."""
    fused = importlib.import_module("lstm_model.fitting.fused")
    right = fused._outputs_and_gradients

    def cancelling(*arguments: Any) -> Any:
        forecast, gradients = right(*arguments)
        rounding = np.random.default_rng().normal(scale=2e-9, size=gradients[-1].shape)
        return forecast, [*gradients[:-1], rounding.astype(np.float32)]

    stock = fused.StockNetwork(SMALL, network.build_network(SMALL, 4))
    kernel, arrays = fused.FusedNetwork(SMALL, stock.weights()), make_arrays()
    ends = arrays["train_ends"][:8]
    batch = {"rows": arrays["rows"], "ends": ends, "targets": arrays["targets"][ends]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fused, "_outputs_and_gradients", cancelling)
        loss = network.pinball_loss(SMALL.levels)
        assert fused.largest_difference(kernel, stock, loss, batch) < 1e-5


def test_a_wrong_kernel_is_found_and_replaced(
    network: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fused = importlib.import_module("lstm_model.fitting.fused")
    right = fused.block_lstm
    monkeypatch.setattr(fused, "block_lstm", lambda x, w, b: right(x, w, b[::-1]))
    fit = network.fit_network(network.Job(SMALL, **make_arrays()), lambda message: None)
    assert "differs from Keras" in fit.graph.fallback
    assert fit.history[-1]["validation_loss"] < fit.history[0]["validation_loss"]


def test_the_gradient_tensorflow_registers_would_be_found(
    network: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fused = importlib.import_module("lstm_model.fitting.fused")
    monkeypatch.setattr(fused, "block_lstm", lambda x, w, b: fused._block_lstm(x, w, b)[0])
    graph = network.TrainingGraph(network.Job(SMALL, **make_arrays()))
    assert graph.fallback is not None


def test_quantiles_never_cross(network: Any) -> None:
    model = network.build_network(SMALL, 4)
    random = np.random.default_rng(1)
    for scale in (0.1, 1.0, 10.0):
        network.import_weights(
            model,
            {
                name: (scale * random.standard_normal(array.shape)).astype(np.float32)
                for name, array in network.export_weights(model).items()
            },
        )
        windows = scale * random.standard_normal((200, SMALL.lookback, 4)).astype(np.float32)
        assert (np.diff(np.asarray(model(windows)), axis=1) >= 0).all()


def forecast_by_document(z: NDArray[Any], weights: dict[str, NDArray[Any]]) -> NDArray[Any]:
    """The quantile head exactly as the module's docstring states it: (B, U + F) to (B, K)."""
    gaps = np.log1p(np.exp(z @ weights["gaps/kernel"] + weights["gaps/bias"]))
    middle = gaps.shape[1] // 2
    columns = [
        -gaps[:, level:middle].sum(axis=1) + gaps[:, middle:level].sum(axis=1)
        for level in range(gaps.shape[1] + 1)
    ]
    return np.stack(columns, axis=1)


def test_the_documented_head_is_the_exported_one(network: Any) -> None:
    keras = importlib.import_module("keras")
    model = network.build_network(SMALL, 4)
    weights = network.export_weights(model)
    body = keras.Model(model.inputs[0], model.get_layer("dropout_2").output)
    windows = np.random.default_rng(2).standard_normal((50, SMALL.lookback, 4)).astype(np.float32)
    assert not weights["gaps/kernel"][SMALL.units :].any()  # the direct way begins closed
    weights["gaps/kernel"][SMALL.units :] = 0.1
    network.import_weights(model, weights)
    z = np.concatenate([np.asarray(body(windows)), windows[:, -1]], axis=1)
    found = np.asarray(model(windows))
    np.testing.assert_allclose(found, forecast_by_document(z, weights), atol=1e-5)
    assert not found[:, 3].any()


@pytest.mark.parametrize(
    "options",
    [{}, {"layers": 1, "units": 7}, {"layers": 3, "units": 20, "lookback": 17}],
    ids=str,
)
def test_serving_in_numpy_equals_keras(network: Any, options: dict[str, Any]) -> None:
    settings = parse_settings(options)
    model = network.build_network(settings, 16)
    random = np.random.default_rng(0)
    biased = [random.normal(0.0, 0.3, weight.shape) for weight in model.trainable_weights]
    for weight, values in zip(model.trainable_weights, biased, strict=True):
        weight.assign(values.astype(np.float32))
    scaler = {
        "scaler/mean": random.normal(size=16).astype(np.float32),
        "scaler/scale": random.uniform(0.5, 2.0, 16).astype(np.float32),
    }
    rows = random.normal(size=(settings.lookback + 40, 16))
    scaled = ((rows - scaler["scaler/mean"]) / scaler["scaler/scale"]).astype(np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(scaled, settings.lookback, axis=0)
    windows = windows.swapaxes(1, 2)
    newest = windows[:, -1].astype(np.float64)
    mean = {"mean/kernel": random.normal(size=(newest.shape[1], 1)), "mean/bias": np.ones(1)}
    mean = {name: 0.1 * array.astype(np.float32) for name, array in mean.items()}
    wanted = np.asarray(model(windows)) + newest @ mean["mean/kernel"] + mean["mean/bias"]
    lstm = Lstm({**network.export_weights(model), **scaler, **mean}, settings.lookback)
    found = lstm.predict(rows, np.arange(settings.lookback - 1, len(rows)))
    np.testing.assert_allclose(found, wanted, atol=1e-5, rtol=1e-5)


def keras_model(network: Any, fit: Any) -> Any:
    """What one fit alone leaves."""
    return network.Workshop().keras_model([fit])


def test_pinball_loss_is_least_at_the_quantiles(network: Any) -> None:
    loss = network.pinball_loss((0.1, 0.5, 0.9))
    targets = np.random.default_rng(3).standard_normal(4_000).astype(np.float32)
    quantiles = np.quantile(targets, (0.1, 0.5, 0.9)).astype(np.float32)
    best = np.mean(loss(targets, np.tile(quantiles, (4_000, 1))))
    for moved in (-0.3, 0.3):
        assert np.mean(loss(targets, np.tile(quantiles + np.float32(moved), (4_000, 1)))) > best


def test_the_validation_loss_is_the_mean_over_all_windows(network: Any) -> None:
    """Whatever is left over for the last block, and with fewer windows than parts."""
    arrays = make_arrays()
    job = network.Job(changed(batch_size=512), **arrays)
    graph = network.TrainingGraph(job)
    windows = cut_windows(arrays, SMALL.lookback)
    targets = arrays["targets"][arrays["validation_ends"]]
    loss = network.pinball_loss(SMALL.levels)
    losses = np.asarray(loss(targets, np.asarray(job.model()(windows))))
    for count in (1, 2, 3, 65, 600):
        found = graph.evaluate(arrays["validation_ends"][:count], 64)
        assert found == pytest.approx(losses[:count].mean(), rel=1e-4)


@pytest.mark.long
def test_a_batch_smaller_than_its_parts_is_learnt_the_same_every_time(network: Any) -> None:
    """One part of it is empty; the kernel's gradient of nothing was whatever lay in memory."""
    job = network.Job(changed(max_epochs=1), **make_arrays(n_train=1, n_validation=1))
    losses = {
        network.fit_network(job, lambda _: None).history[0]["validation_loss"] for _ in range(8)
    }
    assert len(losses) == 1
    assert np.isfinite(losses.pop())


@pytest.mark.parametrize("n_train", [1, *further([3, 9])])
def test_a_handful_of_windows_is_enough_to_train(network: Any, n_train: int) -> None:
    job = network.Job(changed(max_epochs=1), **make_arrays(n_train=n_train, n_validation=1))
    fit = network.fit_network(job, lambda message: None)
    assert all(np.isfinite(array).all() for array in fit.best.values())


def test_a_dropout_mask_keeps_the_mean(network: Any) -> None:
    fused = importlib.import_module("lstm_model.fitting.fused")
    mask = np.asarray(fused.dropout_mask([101, 99], 0.2, np.array([1, 2], np.int32)))
    assert len(np.unique(mask)) == 2
    assert (mask == 0).mean() == pytest.approx(0.2, abs=0.02)
    assert mask.mean() == pytest.approx(1.0, abs=0.02)


def test_early_stopping_restores_the_best_epoch(
    network: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = iter([3.0, 1.0, 2.0, 1.5, 0.5])
    weights: list[dict[str, NDArray[Any]]] = []

    def scripted(graph: Any, ends: NDArray[Any], block: int) -> float:
        weights.append(graph.network.weights())
        return next(losses)

    monkeypatch.setattr(network.TrainingGraph, "evaluate", scripted)
    job = network.Job(changed(max_epochs=9, patience=2), **make_arrays(n_train=300))
    fit = network.fit_network(job, lambda message: None)
    assert (len(fit.history), fit.best_epoch) == (4, 2)
    restored = fit.best
    for name, array in weights[1].items():
        np.testing.assert_array_equal(restored[name], array)
    assert not np.array_equal(weights[3]["lstm_1/kernel"], restored["lstm_1/kernel"])


def test_a_planted_signal_is_learnt(network: Any) -> None:
    """Widths that follow a feature of two candles before; the middle stands still meanwhile."""
    arrays = make_arrays()
    fit = network.fit_network(
        network.Job(changed(max_epochs=12, learning_rate=0.01), **arrays), lambda message: None
    )
    found = np.asarray(keras_model(network, fit)(cut_windows(arrays, SMALL.lookback)))
    told = arrays["rows"][arrays["validation_ends"] - 2, 1]
    assert np.corrcoef(np.log(found[:, -1] - found[:, 0]), told)[0, 1] > 0.6
    assert not found[:, 3].any()


def test_the_same_job_gives_the_same_weights(trained: TrainingResult, tmp_path: Path) -> None:
    one_thread = make_job(changed(train_threads=1))
    again = run_training(one_thread, tmp_path / "again")
    assert trained.fallback is again.fallback is None
    assert trained.history[0].loss == again.history[0].loss
    assert trained.weights.keys() == again.weights.keys()
    for name, array in trained.weights.items():
        np.testing.assert_array_equal(array, again.weights[name])


def fine_tuning(trained: TrainingResult, settings: Settings = SMALL, **changes: Any) -> TrainingJob:
    """The job of `trained` again, from its weights as a model stores them: with a scaler."""
    scaler = {"scaler/mean": np.zeros(4, np.float32), "scaler/scale": np.ones(4, np.float32)}
    arrays = {**make_arrays(), **changes}
    return TrainingJob(settings, **arrays, initial={**trained.weights, **scaler})


@pytest.mark.long
def test_the_same_fine_tuning_gives_the_same_weights(
    trained: TrainingResult, tmp_path: Path
) -> None:
    settings = changed(learning_rate=0.003, max_epochs=2)
    one_thread = settings.model_copy(update={"train_threads": 1})
    tuned = run_training(fine_tuning(trained, settings), tmp_path / "once", background=False)
    again = run_training(fine_tuning(trained, one_thread), tmp_path / "again", background=False)
    assert tuned.history[-1].validation_loss == again.history[-1].validation_loss
    for name, array in tuned.weights.items():
        np.testing.assert_array_equal(array, again.weights[name])
        assert not np.array_equal(array, trained.weights[name])
    # Measured before the first step, as the epoch that left these weights was measured.
    assert tuned.initial_loss == trained.history[trained.best_epoch - 1].validation_loss
    assert trained.initial_loss is None


@pytest.mark.parametrize("patience", [1, *further([2, 5])])
def test_initial_weights_survive_when_no_epoch_beats_them(
    trained: TrainingResult, network: Any, monkeypatch: pytest.MonkeyPatch, patience: int
) -> None:
    losses = iter([1.0, 1.0, 2.0, 1.5, 1.0, 3.0, 0.5])
    monkeypatch.setattr(network.TrainingGraph, "evaluate", lambda *_: next(losses))
    settings = changed(max_epochs=9, patience=patience)
    job = network.Job(settings, **make_arrays(n_train=300), initial=trained.weights)
    fit = network.fit_network(job, lambda message: None)
    assert (len(fit.history), fit.best_epoch, fit.initial_loss) == (patience, 0, 1.0)
    assert fit.history[0]["epoch"] == 1
    saved = network.export_weights(keras_model(network, fit))
    for name, array in fit.best.items():
        np.testing.assert_array_equal(array, trained.weights[name])
        np.testing.assert_array_equal(array, saved[name])


def test_an_epoch_that_beats_the_initial_weights_replaces_them(
    trained: TrainingResult, network: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = iter([1.0, 2.0, 0.9, 2.0, 2.0, 0.5])
    monkeypatch.setattr(network.TrainingGraph, "evaluate", lambda *_: next(losses))
    settings = changed(max_epochs=9, patience=2)
    job = network.Job(settings, **make_arrays(n_train=300), initial=trained.weights)
    fit = network.fit_network(job, lambda message: None)
    assert (len(fit.history), fit.best_epoch) == (4, 2)
    assert not np.array_equal(fit.best["gaps/kernel"], trained.weights["gaps/kernel"])


@pytest.mark.long
def test_fine_tuning_adapts_to_a_market_that_has_shifted(network: Any) -> None:
    arrays = make_arrays()
    settings = changed(max_epochs=6, learning_rate=0.01)
    champion = network.fit_network(network.Job(settings, **arrays), lambda message: None)
    learnt = champion.history[champion.best_epoch - 1]["validation_loss"]
    arrays["targets"] = 0.3 * arrays["targets"]
    job = network.Job(changed(max_epochs=3, learning_rate=0.003), **arrays, initial=champion.best)
    tuned = network.fit_network(job, lambda message: None)
    assert tuned.initial_loss > 0.4 * learnt  # 0.3 where the widths fit
    assert tuned.best_epoch > 0
    assert tuned.graph.evaluate(arrays["validation_ends"], 64) == pytest.approx(
        tuned.history[tuned.best_epoch - 1]["validation_loss"], rel=1e-6
    )
    assert tuned.history[tuned.best_epoch - 1]["validation_loss"] < 0.8 * tuned.initial_loss


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"gaps/bias": None}, r"fit.*: gaps/bias: found none, the network has \(6,\)$"),
        ({"lstm_2/kernel": np.zeros((4, 32))}, r"lstm_2/kernel: found \(4, 32\).*has \(8, 32\)$"),
        ({"lstm_3/bias": np.zeros(32)}, r"lstm_3/bias: found \(32,\), the network has none$"),
        ({"gaps/bias": np.full(6, np.nan)}, r"validation loss of the initial weights is nan"),
    ],
    ids=["missing", "misshapen", "foreign", "not finite"],
)
def test_initial_weights_that_do_not_fit_are_refused(
    trained: TrainingResult, network: Any, changes: dict[str, Any], problem: str
) -> None:
    weights = {**trained.weights, **changes}
    initial = {name: array for name, array in weights.items() if array is not None}
    job = network.Job(SMALL, **make_arrays(n_train=300), initial=initial)
    with pytest.raises(TrainingError, match=problem):
        network.fit_network(job, lambda message: None)


def test_the_parent_hears_which_initial_weights_do_not_fit(
    trained: TrainingResult, tmp_path: Path
) -> None:
    wider = fine_tuning(trained, changed(units=16))
    with pytest.raises(TrainingError, match=r"lstm_1/kernel: found \(4, 32\)"):
        run_training(wider, tmp_path, background=False)


@pytest.mark.parametrize(
    ("most", "batch", "steps"),
    [(1_000, 64, 15), *further([(50, 50, 1), (3_000, 64, 46), (10**6, 64, 46)])],
)
def test_an_epoch_draws_at_most_so_many_windows_and_every_epoch_others(
    network: Any, monkeypatch: pytest.MonkeyPatch, most: int, batch: int, steps: int
) -> None:
    learnt: dict[int, list[int]] = {}

    def note(graph: Any, batches: NDArray[Any], first_step: int) -> float:
        learnt.setdefault(first_step // steps, []).extend(batches.ravel().tolist())
        return 1.0

    monkeypatch.setattr(network.TrainingGraph, "train", note)
    job = network.Job(changed(epoch_windows=most, max_epochs=2), **make_arrays())
    network.fit_network(job, lambda message: None)
    assert (job.batch, job.steps) == (batch, steps)
    first, second = (learnt[epoch] for epoch in (0, 1))
    assert len(first) == len(set(first)) == len(set(second)) == batch * steps <= most
    assert set(first) | set(second) <= set(job.train_ends.tolist())
    share = len(set(first) & set(second)) / len(first)
    assert share == pytest.approx(len(first) / 3_000, abs=0.1)  # as chance would have it
    assert first != second


def test_another_seed_gives_other_weights(trained: TrainingResult, network: Any) -> None:
    job = network.Job(changed(seed=6, max_epochs=1), **make_arrays(n_train=300))
    fit = network.fit_network(job, lambda message: None)
    assert not np.array_equal(fit.best["lstm_1/kernel"], trained.weights["lstm_1/kernel"])


def test_plain_keras_loads_the_file(trained: TrainingResult, network: Any, tmp_path: Path) -> None:
    """In a process that has never heard of this package."""
    windows = cut_windows(make_arrays(), SMALL.lookback)[:40]
    np.savez(tmp_path / "windows.npz", windows=windows)
    source = (
        "import sys, numpy as np, keras\n"
        "model = keras.models.load_model(sys.argv[1])\n"
        "windows = np.load('windows.npz')['windows']\n"
        "np.savez('outputs.npz', outputs=np.asarray(model(windows)))\n"
        "assert 'lstm_model' not in sys.modules\n"
    )
    subprocess.run(
        [sys.executable, "-c", source, str(trained.network)], cwd=tmp_path, check=True, timeout=60,
        capture_output=True,
    )  # fmt: skip
    model = network.build_network(SMALL, 4)
    network.import_weights(model, trained.weights)
    outputs = np.load(tmp_path / "outputs.npz")["outputs"]
    np.testing.assert_allclose(outputs, np.asarray(model(windows)), atol=1e-6)


def test_a_diverging_training_is_an_error(tmp_path: Path) -> None:
    arrays = make_arrays(n_train=300)
    arrays["targets"] = np.full_like(arrays["targets"], 3e38)
    job = TrainingJob(SMALL, **arrays)
    with pytest.raises(TrainingError, match=r"loss is not finite.*lower learning_rate"):
        run_training(job, tmp_path)


def test_a_broken_job_is_an_error_with_the_log(tmp_path: Path) -> None:
    job = make_job()
    broken = replace(job, settings=changed(units=-1))
    with pytest.raises(TrainingError, match=r"(?s)ended with code 1.*units"):
        run_training(broken, tmp_path)


def test_a_stop_ends_the_real_child(tmp_path: Path) -> None:
    stages: list[str] = []
    stop = threading.Event()

    def stop_in_training(progress: Any) -> None:
        stages.append(progress.stage)
        if progress.stage == "training":
            stop.set()

    endless = make_job(changed(max_epochs=200, patience=50))
    with pytest.raises(TrainingError, match="stopped"):
        run_training(endless, tmp_path, stop_in_training, stop)
    assert stages[0] == "starting"
    assert not trainings()


def test_the_child_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    job = make_job(changed(max_epochs=200, patience=50))
    np.savez(tmp_path / "arrays.npz", **make_arrays())
    (tmp_path / "settings.json").write_text(job.settings.model_dump_json())
    source = (
        "import sys, pathlib, numpy as np\n"
        "from lstm_model.settings import Settings\n"
        "from lstm_model.training.job import TrainingJob\n"
        "from lstm_model.training.trainer import _START, run_training\n"
        "settings = Settings.model_validate_json(pathlib.Path('settings.json').read_text())\n"
        "job = TrainingJob(settings, **np.load('arrays.npz'))\n"
        "run_training(job, pathlib.Path('job'), lambda p: print(p.stage, flush=True))\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", source], cwd=tmp_path, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    with parent:
        assert parent.stdout is not None
        assert any(line.strip() == "training" for line in parent.stdout)
        children = psutil.Process(parent.pid).children()
        assert children
        parent.send_signal(signal.SIGKILL)
    assert not psutil.wait_procs(children, timeout=10.0)[1], "the child outlives its parent"


def trainings() -> list[psutil.Process]:
    """Training processes of this one."""
    return [
        child for child in psutil.Process().children()
        if str(_START) in child.cmdline()
    ]  # fmt: skip


# ---------------------------------------------------------------- one process for many jobs


def jobs_of_many_shapes(trained: TrainingResult) -> dict[str, TrainingJob]:
    """Other networks, other data, a fine-tuning, another batch."""
    return {
        "first": make_job(),
        "other data": make_job(n_train=2_900),
        "other seed and rate": make_job(changed(seed=9, learning_rate=0.01, max_epochs=1)),
        "other network": make_job(changed(units=5, layers=1)),
        "other levels": make_job(changed(levels=(0.1, 0.5, 0.9))),
        "few windows": make_job(n_train=40),
        "fine-tuning": fine_tuning(trained, changed(max_epochs=1)),
    }


@pytest.mark.long
def test_the_same_job_gives_the_same_weights_whatever_the_process_did_before(
    trained: TrainingResult, tmp_path: Path
) -> None:
    """Alone in a process, and in one process in two orders: weights, history, names in Keras."""
    jobs = jobs_of_many_shapes(trained)
    found: dict[str, list[tuple[Any, ...]]] = {name: [] for name in jobs}

    def run(trainer: Trainer, name: str, order: str) -> None:
        folder = tmp_path / order / name
        result = trainer.run(jobs[name], folder, background=False)
        with zipfile.ZipFile(result.network) as file:
            model = json.loads(file.read("config.json"))["config"]
        names = [model["name"], *(layer["name"] for layer in model["layers"])]
        losses = [(epoch.loss, epoch.validation_loss) for epoch in result.history]
        weights = {key: array.tobytes() for key, array in result.weights.items()}
        found[name].append((weights, losses, names, result.fallback))

    trainer = Trainer()
    for order, names in {"forth": [*jobs], "back": [*reversed(jobs)]}.items():
        for name in names:
            run(trainer, name, order)
    trainer.end_idle()
    for name in ("other data", "other levels", "fine-tuning"):
        alone = Trainer()
        run(alone, name, "alone")
        alone.end_idle()
    for name, results in found.items():
        assert all(result == results[0] for result in results), name
    assert len({repr(results[0][0]) for results in found.values()}) == len(jobs)


def test_what_was_compared_with_keras_is_remembered(
    network: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fused = importlib.import_module("lstm_model.fitting.fused")
    compared: list[int] = []
    right = fused.largest_difference
    monkeypatch.setattr(
        fused, "largest_difference", lambda *args: compared.append(1) or right(*args)
    )
    parity = Parity(tmp_path / "parity")
    job = network.Job(SMALL, **make_arrays(), parity=parity)
    for _ in range(2):
        assert network.TrainingGraph(job).fallback is None
    assert len(compared) == 1
    network.TrainingGraph(replace(job, settings=changed(units=5)))
    assert len(compared) == 2
    monkeypatch.setattr("lstm_model.fitting.parity.machine", lambda: "another")
    network.TrainingGraph(job)
    assert len(compared) == 3


@pytest.mark.long
def test_a_kernel_that_differs_is_never_remembered(
    network: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that fell back once compares again, and each of its jobs has a model of its own."""
    fused = importlib.import_module("lstm_model.fitting.fused")
    right = fused.block_lstm
    monkeypatch.setattr(fused, "block_lstm", lambda x, w, b: right(x, w, b[::-1]))
    parity, workshop = Parity(tmp_path / "parity"), network.Workshop()
    job = network.Job(changed(max_epochs=1), **make_arrays(), parity=parity)
    fits = [workshop.fit(job, lambda message: None) for _ in range(2)]
    assert all("differs from Keras" in fit.graph.fallback for fit in fits)
    assert fits[0].history[0]["loss"] == fits[1].history[0]["loss"]
    assert not (tmp_path / "parity").exists()


@pytest.mark.long
@pytest.mark.parametrize("falls_back", [True, False])
def test_a_graph_that_is_given_up_leaves_memory(
    network: Any, monkeypatch: pytest.MonkeyPatch, falls_back: bool
) -> None:
    """With the rows it learnt from, which would be 30 MB and more a training."""
    fused = importlib.import_module("lstm_model.fitting.fused")
    if falls_back:
        right = fused.block_lstm
        monkeypatch.setattr(fused, "block_lstm", lambda x, w, b: right(x, w, b[::-1]))
    workshop, graphs = network.Workshop(), []
    for more in range(6):  # of another shape each; four are kept
        settings = changed(layers=1, max_epochs=1, batch_size=64 + more)
        job = network.Job(settings, **make_arrays(300, 100))
        graphs.append(weakref.ref(workshop.fit(job, lambda message: None).graph))
    left = [graph() is not None for graph in graphs]
    assert left == ([False] * 5 + [True] if falls_back else [False] * 2 + [True] * 4)


def test_a_process_ends_with_its_parent_even_amid_a_line() -> None:
    command = [sys.executable, "-P", str(_START), "--threads=1"]
    ended = subprocess.run(command, input=b'"/tmp/a', capture_output=True, timeout=60)
    assert ended.returncode == 1


def test_the_process_of_a_bot_takes_only_what_others_leave(tmp_path: Path) -> None:
    policies: list[int] = []

    def look(_: Any) -> None:
        policies.extend(os.sched_getscheduler(child.pid) for child in trainings())

    run_training(make_job(changed(max_epochs=1)), tmp_path, look, background=True)
    assert policies[-1] == os.SCHED_IDLE


@pytest.mark.long
def test_members_are_networks_of_other_seeds_and_one_keras_model(
    network: Any, tmp_path: Path
) -> None:
    settings = changed(max_epochs=1, members=3)
    arrays, told = make_arrays(), []
    job = network.Job(settings, **arrays)
    workshop = network.Workshop()
    fits = network.fit_members(workshop, job, told.append)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Keras, about NumPy
        network.write_result(tmp_path, workshop, fits)
    with np.load(tmp_path / "result.npz") as stored:
        weights = {name: stored[name] for name in stored.files}
    assert members(weights) == 3
    for number in (1, 2, 3):
        alone = network.fit_network(job.member(number), lambda message: None)
        own = of_member(weights, number)
        assert all(np.array_equal(own[name], array) for name, array in alone.best.items())
    assert not np.array_equal(weights["gaps/kernel"], weights["2/gaps/kernel"])
    rows, ends = arrays["rows"], arrays["validation_ends"][:5]
    windows = np.stack([rows[end + 1 - settings.lookback : end + 1] for end in ends])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Keras, about NumPy
        saved = network.keras.models.load_model(tmp_path / "network.keras")
    each = [keras_model(network, fit)(windows).numpy() for fit in fits]
    np.testing.assert_allclose(saved(windows).numpy(), np.mean(each, axis=0), atol=1e-6)
    fractions = [message["fraction"] for message in told if "fraction" in message]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0


def test_members_are_fine_tuned_each_from_its_own(network: Any) -> None:
    settings, arrays = changed(max_epochs=1, members=2), make_arrays()
    fits = network.fit_members(
        network.Workshop(), network.Job(settings, **arrays), lambda message: None
    )
    before = {
        name: array
        for number, fit in enumerate(fits, 1)
        for name, array in numbered(fit.best, number).items()
    }
    job = network.Job(changed(max_epochs=1, members=1), **arrays, initial=before)
    tuned = network.fit_members(network.Workshop(), job, lambda message: None)
    assert len(tuned) == 2
    assert [fit.initial_loss for fit in tuned] == [
        pytest.approx(min(e["validation_loss"] for e in fit.history)) for fit in fits
    ]
