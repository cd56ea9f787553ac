"""Every option is checked before anything starts, and says what is allowed."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from places import ROOT
from pydantic import ValidationError

from lstm_model.bot.reading import read_config
from lstm_model.durations import LASTING
from lstm_model.errors import ConfigError
from lstm_model.market.candles import timeframe_ms
from lstm_model.settings import Settings, parse_settings
from lstm_model.setup.options import example_section, settings_table, times_table

TABLE = ROOT / "docs" / "configuration.md"

# A value other than the default for every option, and whether it changes what is trained.
OTHER: dict[str, tuple[Any, bool]] = {
    "lookback": (30, True),
    "horizon": (3, True),
    "levels": ([0.1, 0.5, 0.9], True),
    "units": (8, True),
    "layers": (2, True),
    "dropout": (0.0, True),
    "learning_rate": (0.01, True),
    "batch_size": (64, True),
    "max_epochs": (3, True),
    "patience": (1, True),
    "seed": (2, True),
    "train_candles": (5_000, True),
    "retrain_candles": (100, True),
    "step_candles": (99, False),
    "learn_from": ("20240229", False),
    "finetune_candles": (0, False),
    "finetune_recent_candles": (500, False),
    "finetune_replay": (0.5, False),
    "finetune_epochs": (2, False),
    "finetune_learning_rate": (0.001, False),
    "epoch_windows": (2_000, True),
    "pool_candles": (20_000, True),
    "promotion_error": (0.01, False),
    "drift_cooldown_candles": (0, False),
    "keep_models": (10, False),
    "training_lag_candles": (1, False),
    "validation_fraction": (0.2, True),
    "test_fraction": (0.2, True),
    "train_pairs": (["BTC/USDT"], False),
    "train_threads": (1, False),
    "train_timeout_s": (60, False),
    "train_memory_mb": (512, False),
    "train_python": ("python3.13", False),
    "require_skill": (False, False),
    "leader": ("ETH/USDT", True),
    "members": (3, True),
    "skill_p_value": (0.5, False),
    "slippage_fraction": (0.0, False),
    "half_spread_fraction": (0.0, False),
    "min_edge": (0.01, False),
    "kelly_fraction": (1.0, False),
    "max_stake_fraction": (0.5, False),
    "risk_fraction": (0.1, False),
    "max_portfolio_fraction": (1.0, False),
    "stop_multiple": (2.0, False),
    "max_leverage": (5.0, False),
    "stale_model_candles": (2_000, False),
    "order_flow": (True, True),
    "trade_stream": (False, False),
    "inside_exits": (True, False),
    "stop": ("forecast", False),
    "hold_candles": (48, False),
    "stop_trails": (True, False),
    "stake": ("steady", False),
    "min_move": (2.0, False),
    "tape_trades": (5_000, False),
    "stream_silence_s": (30, False),
    "require_fresh_stream": (True, False),
    "store_dir": ("/elsewhere", False),
    "journal_url": ("sqlite://", False),
    "journal_days": (30, False),
}


def test_no_section_means_defaults() -> None:
    assert parse_settings(None) == parse_settings({}) == Settings()


@pytest.mark.parametrize(
    ("typo", "meant"),
    [("horizn", "horizon"), ("look_back", "lookback"), ("kelly_fracton", "kelly_fraction")],
)
def test_an_unknown_option_gets_a_suggestion(typo: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=f'unknown option "{typo}". Did you mean "{meant}"?'):
        parse_settings({typo: 1})


def test_an_option_like_no_other_gets_the_list() -> None:
    with pytest.raises(ConfigError, match=r'"zzz"\. Known options: batch_size, d'):
        parse_settings({"zzz": 1})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lookback", 7), ("lookback", 501), ("horizon", 0), ("units", 3), ("layers", 5),
        ("dropout", 0.9), ("learning_rate", 0.0), ("batch_size", 4), ("max_epochs", 0),
        ("seed", -1), ("train_candles", 999), ("validation_fraction", 0.0),
        ("test_fraction", 0.5), ("skill_p_value", 0.0), ("slippage_fraction", -0.1),
        ("half_spread_fraction", -0.1), ("half_spread_fraction", 0.06), ("min_edge", -0.001),
        ("min_edge", 0.6), ("kelly_fraction", 0.0), ("kelly_fraction", 1.1),
        ("max_stake_fraction", 0.0), ("max_stake_fraction", 1.1), ("risk_fraction", 0.0),
        ("risk_fraction", 0.21), ("max_portfolio_fraction", 0.0), ("max_portfolio_fraction", 1.1),
        ("stop_multiple", 0.2), ("stop_multiple", 10.1), ("max_leverage", 0.9),
        ("max_leverage", 21.0), ("hold_candles", 0), ("min_move", -0.1),
        ("stale_model_candles", 49), ("stale_model_candles", 1_000_001),
        ("min_edge", float("nan")), ("stop_multiple", float("inf")), ("store_dir", ""),
        ("learn_from", "20240230"), ("learn_from", "2024"),
        ("finetune_candles", -1), ("promotion_error", 0.5), ("step_candles", 9),
        ("horizon", "12"), ("horizon", 1.5), ("horizon", None),
        ("dropout", float("nan")), ("slippage_fraction", float("inf")), ("lookback", True),
    ],
)  # fmt: skip
def test_a_value_out_of_bounds_is_named_with_what_was_found(name: str, value: object) -> None:
    with pytest.raises(
        ConfigError, match=rf'section "lstm": {name}: .*found {re.escape(repr(value))}'
    ):
        parse_settings({name: value})


@pytest.mark.parametrize("levels", [[0.1, 0.5, 0.9], [0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95]])
def test_symmetric_levels_are_taken(levels: list[float]) -> None:
    assert parse_settings({"levels": levels}).levels == tuple(levels)


@pytest.mark.parametrize(
    "levels",
    [
        [], [0.5], [0.1, 0.9], [0.1, 0.5, 0.8], [0.9, 0.5, 0.1], [0.0, 0.5, 1.0],
        [0.1, 0.5, 0.5, 0.9], [0.1, 0.1, 0.5, 0.9, 0.9], "0.1", [0.1, "0.5", 0.9],
    ],
)  # fmt: skip
def test_levels_that_make_no_intervals_are_refused(levels: object) -> None:
    with pytest.raises(ConfigError, match="levels"):
        parse_settings({"levels": levels})


def test_two_wrong_options_are_told_at_once() -> None:
    with pytest.raises(ConfigError, match=r"units: .*; .*unknown option"):
        parse_settings({"units": 0, "unit": 0})


def test_a_split_that_leaves_nothing_to_train_on_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"must stay below 0\.6"):
        parse_settings({"validation_fraction": 0.4, "test_fraction": 0.4})


@pytest.mark.parametrize("name", ["validation_fraction", "test_fraction"])
@pytest.mark.parametrize("share", [1e-320, 5e-324, 1e-15, 0.0, -1e-320])
def test_a_share_of_as_good_as_nothing_is_out_of_bounds(name: str, share: float) -> None:
    with pytest.raises(ConfigError, match=f"{name}: Input should be greater than or equal to 0.01"):
        parse_settings({name: share})


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        Settings().horizon = 3  # type: ignore[misc]


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_the_digest_changes_with_what_is_trained_and_only_with_that(name: str) -> None:
    value, decides = OTHER[name]
    changed = parse_settings({name: value})
    assert getattr(changed, name) != getattr(Settings(), name)
    assert (changed.digest() != Settings().digest()) == decides


def test_the_digest_of_equal_settings_is_equal() -> None:
    levels = list(Settings().levels)
    assert parse_settings({"levels": levels, "lookback": 16}).digest() == Settings().digest()


def test_an_option_that_is_gone_is_to_be_removed() -> None:
    with pytest.raises(
        ConfigError, match=r'section "lstm": option "loss" is gone: .*quantiles.* Remove it$'
    ):
        parse_settings({"loss": "quantile"})


def test_the_table_lists_every_option_with_default_bounds_and_help() -> None:
    rows = settings_table().splitlines()[2:]
    assert [row.split("`")[1] for row in rows] == list(Settings.model_fields)
    for row, field in zip(rows, Settings.model_fields.values(), strict=True):
        assert field.description
        assert row.endswith(f"{field.description} |")
    assert "| `lookback` | `16` | from 8 to 500 |" in settings_table()
    assert "| `stake` | `null` | `steady`, `null` |" in settings_table()


def test_the_documentation_holds_what_the_command_prints() -> None:
    text = TABLE.read_text()
    assert settings_table() in text
    assert times_table() in text


def test_config_json_names_a_handful_of_options_at_their_defaults() -> None:
    text = (ROOT / "config.json").read_text()
    assert example_section(4) in text
    section = read_config(ROOT / "config.json")["lstm"]
    assert 5 <= len(section) <= 10
    assert parse_settings(section) == Settings()


def test_settings_survive_json() -> None:
    made = parse_settings({"train_pairs": ["BTC/USDT"], "horizon": 3})
    assert Settings.model_validate_json(made.model_dump_json()) == made


def test_labels_must_mature_within_a_step_of_the_learner() -> None:
    with pytest.raises(ConfigError, match=r"step_candles must exceed .* = 24, found 24"):
        parse_settings({"step_candles": 24})
    assert parse_settings({"step_candles": 25}).step_candles == 25


def test_a_model_is_not_stale_before_its_next_step_is_due() -> None:
    with pytest.raises(ConfigError, match=r"stale_model_candles must exceed .* = 288, found 288"):
        parse_settings({"stale_model_candles": 288})
    assert parse_settings({"stale_model_candles": 289}).stale_model_candles == 289


@pytest.mark.parametrize(
    ("name", "edge"),
    [
        ("half_spread_fraction", 0.0), ("half_spread_fraction", 0.05), ("min_edge", 0.5),
        ("risk_fraction", 0.2), ("max_portfolio_fraction", 1.0), ("stop_multiple", 0.25),
        ("stop_multiple", 10.0), ("max_leverage", 1.0), ("max_leverage", 20.0),
    ],
)  # fmt: skip
def test_a_bound_itself_is_allowed(name: str, edge: float) -> None:
    assert getattr(parse_settings({name: edge}), name) == edge


def test_learning_may_begin_on_a_day() -> None:
    for day in ("20240229", 20240229):  # from an environment variable
        assert parse_settings({"learn_from": day}).learn_from_ms == 1_709_164_800_000
    assert parse_settings({}).learn_from_ms is None


TIMEFRAMES = ["1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "8h", "1d", "3d"]


@pytest.mark.parametrize("timeframe", TIMEFRAMES)
def test_a_default_that_is_a_time_is_so_many_candles_of_any_timeframe(timeframe: str) -> None:
    candle_ms = timeframe_ms(timeframe)
    made = parse_settings({}, candle_ms)
    for name, (time_ms, least) in LASTING.items():
        assert getattr(made, name) >= max(time_ms / candle_ms, least)
    if timeframe in TIMEFRAMES[:5]:  # then a day, or two weeks, hold too few candles
        lasting = {name: -(-time_ms // candle_ms) for name, (time_ms, _) in LASTING.items()}
        lasting["training_lag_candles"] = max(lasting["training_lag_candles"], 2)
        assert {name: getattr(made, name) for name in LASTING} == lasting


def test_hourly_candles_need_no_table_of_numbers() -> None:
    made = parse_settings({}, timeframe_ms("1h"))
    assert (made.step_candles, made.finetune_candles, made.retrain_candles) == (24, 168, 672)
    assert (made.train_candles, made.training_lag_candles) == (17_520, 2)


@given(
    st.sampled_from(TIMEFRAMES), st.integers(1, 500), st.integers(0, 1_000),
    st.floats(0.01, 0.29), st.floats(0.01, 0.29),
)  # fmt: skip
def test_defaults_fit_whatever_else_is_set(
    timeframe: str, horizon: int, lag: int, validation: float, test: float
) -> None:
    section = {
        "horizon": horizon, "training_lag_candles": lag, "validation_fraction": validation,
        "test_fraction": test,
    }  # fmt: skip
    made = parse_settings(section, timeframe_ms(timeframe))  # no bound is broken
    assert made.step_candles * timeframe_ms(timeframe) % timeframe_ms("1d") == 0  # whole days
    assert made.retrain_candles >= made.step_candles


def test_what_is_set_stays_as_it_is() -> None:
    section = {"step_candles": 99, "training_lag_candles": 0, "train_candles": 5_000}
    made = parse_settings(section, timeframe_ms("1h"))
    assert {name: getattr(made, name) for name in section} == section
    assert made.stale_model_candles == 297


def test_the_password_of_a_journal_is_in_nothing_that_is_written_of_the_settings() -> None:
    """Cards and jobs are made of a dump, and logs of what a value looks like."""
    url = "postgresql+psycopg://bot:PLANTED-password@db.example/journal"
    settings = parse_settings({"journal_url": url})
    assert settings.journal_url == url
    shown = [settings.model_dump_json(), str(settings.model_dump()), repr(settings), str(settings)]
    assert not [text for text in shown if "PLANTED" in text]
    assert settings.model_copy(update={"horizon": 3}).journal_url == url
