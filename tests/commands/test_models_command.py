"""`freqtrade-lstm models` tells which model serves and why, and lets a person overrule the gate."""

import json
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from stored import make_card, make_weights, reseal

from lstm_model.bot import configuration
from lstm_model.commands.main import main
from lstm_model.commands.models import _FORECASTERS
from lstm_model.features.closed_candle import feature_names
from lstm_model.settings import parse_settings
from lstm_model.store.card import ModelCard
from lstm_model.store.journal import DecisionRow, Journal
from lstm_model.store.lineage import Lineage
from lstm_model.store.models import ModelStore
from lstm_model.store.steps import StepStore

pytestmark = pytest.mark.usefixtures("same_logging")

HEAD = "0123456789abcdef"
STEP_MS = 1_700_006_400_000  # 2023-11-15 00:00 UTC
BASELINE, OLD, CHAMPION, TUNED, STRAY = "ba5e0000", "01d00000", "c4a30000", "7d4ed000", "57a30000"
POINT = {"r2": 0.02, "hit_rate": 0.52}
INTERVAL = {"coverage": 0.905, "width_bps": 80.0, "winkler_bps": 99.0}
SCORES = {
    **dict.fromkeys(("lstm_raw", "ridge", "reversal"), POINT),
    **{f"{name}_delayed": POINT for name in ("lstm", "lstm_raw", "ridge", "reversal")},
    "lstm": POINT | INTERVAL,
    "zero": {"r2": 0.0} | INTERVAL,
    "zero_delayed": {"r2": 0.0},
}
SKILL = {
    "winkler_vs_zero": 0.031, "p_value": 0.002, "p_value_delayed": 0.017,
    "r2_vs_zero": 0.0123, "r2_vs_zero_delayed": 0.0045,
    "r2_vs_ridge": 0.01, "r2_vs_ridge_delayed": 0.01,
    "r2_vs_reversal": 0.01, "r2_vs_reversal_delayed": 0.01,
}  # fmt: skip


@dataclass(frozen=True)
class User:
    """A user_data folder, its configuration, and what the bot in it has learnt so far."""

    folder: Path
    store: ModelStore
    lineage: Lineage

    @property
    def options(self) -> list[str]:
        return ["-c", str(self.folder / "config.json"), "--userdir", str(self.folder)]

    def run(self, *words: str, columns: int = 160) -> Result:
        words = ("models", *words, *self.options)
        return CliRunner().invoke(main, words, env={"COLUMNS": str(columns)})

    def told(self, *words: str, columns: int = 160) -> str:
        done = self.run(*words, columns=columns)
        assert done.exit_code == 0, done.output
        return done.output

    def refused(self, *words: str) -> str:
        done = self.run(*words)
        assert (done.exit_code, done.stderr.count("\n")) == (1, 1), done.output
        return done.stderr

    def publish(self, version: str, number: int, **changes: object) -> ModelCard:
        fields: dict[str, object] = {
            "version": version, "feature_names": feature_names(False), "train_end_ms": STEP_MS,
            "scores": SCORES, "skill": SKILL, "calibration": {"shrinkage": [0.5]},
        }  # fmt: skip
        card = make_card(number, **(fields | changes))
        return self.store.publish(card, make_weights(number), None)

    def step(self, lineage: Lineage, address: str, **changes: object) -> None:
        contenders = [{"version": version} for version in (CHAMPION, OLD, BASELINE, TUNED)]
        record: dict[str, Any] = {
            "boundary_ms": STEP_MS, "champion": CHAMPION, "predecessor": OLD,
            "contenders": contenders,
        }  # fmt: skip
        record |= changes
        StepStore(self.store.root).save(address, record, {})
        lineage.advance(address, record["champion"])


def write_config(folder: Path, **changes: object) -> dict[str, Any]:
    config = {
        "timeframe": "5m", "stake_currency": "USDT", "dry_run": True, "trading_mode": "spot",
        "exchange": {"name": "binance", "pair_whitelist": ["BTC/USDT"]},
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config | changes))
    return config


@pytest.fixture
def newcomer(tmp_path: Path) -> User:
    """Nothing was trained yet."""
    config = write_config(tmp_path)
    name = configuration.lineage(config, parse_settings({}))
    root = tmp_path / "lstm"
    return User(tmp_path, ModelStore(root), Lineage(root, name))


@pytest.fixture
def user(newcomer: User) -> User:
    """Five models, a step in which one of them serves, one was there before, two challenge it."""
    newcomer.publish(BASELINE, 0, kind="baseline")
    newcomer.publish(OLD, 1)
    newcomer.publish(CHAMPION, 2)
    newcomer.publish(STRAY, 3)
    newcomer.publish(TUNED, 4, kind="finetune", parent=CHAMPION, scores={}, skill={})
    newcomer.step(newcomer.lineage, HEAD)
    return newcomer


def rows(output: str) -> dict[str, str]:
    """The rows of the printed table: version -> its other cells, in their order."""
    words = [line.split() for line in output.splitlines()[2:-1]]
    return {version: " ".join(others) for version, *others in words}


def test_without_models_the_list_says_what_to_do(newcomer: User) -> None:
    command = shlex.join(["freqtrade-lstm", "train", *newcomer.options])
    assert f"Run `{command}` or a backtest." in newcomer.told()


def test_the_list_tells_what_each_model_is_and_does(user: User) -> None:
    output = user.told()
    assert output.startswith(
        f"Lineage {user.lineage.name}: newest step 2023-11-15 00:00, champion {CHAMPION}, pinned "
        "none\n"
    )
    figures = "2023-11-15 00:00 +1.23% (+0.45%) 90.5% +3.1% 0.017"
    assert list(rows(output).items()) == [
        (BASELINE, f"baseline challenger {figures}"),
        (OLD, f"trained previous {figures}"),
        (CHAMPION, f"trained serves {figures}"),
        (STRAY, f"trained - {figures}"),
        (TUNED, "fine-tuned from c4a30000 challenger 2023-11-15 00:00"),
    ]


def test_the_list_loses_nothing_in_a_narrow_terminal(user: User) -> None:
    user.publish("0123456789abcdef", 9, kind="finetune", parent="fedcba9876543210")
    user.step(user.lineage, HEAD[::-1], contenders=[{"version": "0123456789abcdef"}])
    _, *lines, _ = user.told(columns=80).splitlines()
    assert max(map(len, lines)) <= 80
    assert [" ".join(line.split()) for line in lines[-3:]] == [
        "0123456789abcdef fine-tuned challenger 2023-11-15 +1.23% 90.5% +3.1% 0.017",
        "from 00:00 (+0.45%)",
        "fedcba98",
    ]


def test_the_list_ends_with_the_newest_and_can_be_shortened(user: User) -> None:
    assert list(rows(user.told("--last", "2"))) == [STRAY, TUNED]
    assert user.run("--last", "0").exit_code == 2


def test_before_the_first_step_nothing_serves(newcomer: User) -> None:
    newcomer.publish(OLD, 1)
    output = newcomer.told()
    assert "no step yet, champion none, pinned none" in output
    assert rows(output)[OLD].startswith("trained - ")


def test_a_card_from_before_there_were_kinds_counts_as_trained(user: User) -> None:
    where = user.store.root / "models" / OLD
    fields = json.loads((where / "card.json").read_text())
    del fields["kind"], fields["parent"]
    (where / "card.json").write_text(json.dumps(fields))
    reseal(where)
    assert rows(user.told())[OLD].startswith("trained ")


def test_a_card_is_shown_by_the_beginning_of_its_version(user: User) -> None:
    output = user.told("show", CHAMPION[:2])
    assert f"Model {CHAMPION}" in output
    assert "LSTM as served" in output
    assert "proven at 5 %" in output


def test_a_card_shows_the_rivals_that_it_has(user: User) -> None:
    user.publish("0a0a0a0a0a0a0a0a", 7, skill=SKILL | {"winkler_vs_har": 0.012},
                 scores=SCORES | {"har": INTERVAL, "lightgbm": INTERVAL})  # fmt: skip
    output = user.told("show", "0a0a")
    for name in ("zero, HAR-RV tracked", "LightGBM tracked", "zero, EWMA tracked"):
        assert re.search(rf"{name}.* 90.5% .* 80.0 .* 99.0", output), name
    assert "Winkler +3.1%, HAR +1.2%." in output


@pytest.mark.parametrize("columns", [80, 60])
def test_a_card_loses_no_number_in_a_narrow_terminal(user: User, columns: int) -> None:
    wide = {"r2": -0.1234, "hit_rate": 1.0, "coverage": 1.0, "coverage_worst_quintile": 0.987,
            "coverage_worst_window": 0.976, "width_bps": 1234.5, "winkler_bps": 2345.6}  # fmt: skip
    late = {"r2": -0.2345, "hit_rate": 0.519}
    scores = dict.fromkeys(_FORECASTERS, wide) | {f"{name}_delayed": late for name in _FORECASTERS}
    user.publish("0a0a0a0a0a0a0a0a", 7, scores=scores, skill=SKILL, pairs=("BTC/USDT",) * 30)
    output = user.told("show", "0a0a", columns=columns)
    assert "\u2026" not in output
    told = ["-12.34%", "-23.45%", "100.0%", "51.9%", "100.0%", "98.7%", "97.6%", "1234.5", "2345.6"]
    if columns == 80:
        lines = [ln for ln in output.splitlines() if ln.split()[-len(told) :] == told]
        assert len(lines) == len(_FORECASTERS)
        assert max(map(len, lines)) <= 80


def test_a_card_of_before_is_shown_without_them(user: User) -> None:
    output = user.told("show", CHAMPION)
    assert "HAR" not in output
    assert "LightGBM" not in output
    assert "Winkler +3.1%." in output


def test_a_card_without_scores_is_shown_without_them(user: User) -> None:
    output = user.told("show", TUNED)
    assert "fine-tuned from c4a30000" in output
    assert "No scores of its own yet" in output
    assert "LSTM as served" not in output


def test_a_whole_version_is_clear_even_if_another_one_starts_with_it(user: User) -> None:
    user.publish(f"{CHAMPION}ff", 9)
    lines = [line.strip() for line in user.told("show", CHAMPION).splitlines()]
    assert f"Model {CHAMPION}" in lines


def test_an_unclear_version_is_refused_with_what_there_is(user: User) -> None:
    user.publish("c4f00000", 9)
    ambiguous = user.refused("show", "c4")
    assert 'several models start with "c4"' in ambiguous
    assert ambiguous.strip().endswith(f"newest first: c4f00000, {CHAMPION}")
    unknown = user.refused("pin", "9")
    assert 'no model starts with "9"' in unknown
    assert unknown.strip().endswith(f"{CHAMPION}, {OLD} and 1 more")
    assert user.lineage.pinned is None


def test_with_no_models_no_version_is_clear(newcomer: User) -> None:
    assert newcomer.refused("show", "a").strip().endswith("newest first: none")


def test_a_pin_overrules_the_gate_until_it_is_taken_away(user: User) -> None:
    output = user.told("pin", STRAY[:3])
    assert f"Pinned {STRAY}" in output
    assert "A running bot serves it within seconds; `freqtrade-lstm models unpin`" in output
    assert user.lineage.pinned == STRAY
    listed = user.told()
    assert f"pinned {STRAY}" in listed
    assert "trained pinned" in rows(listed)[STRAY]
    assert "trained champion" in rows(listed)[CHAMPION]
    assert f"champion: {CHAMPION}" in user.told("unpin")
    assert user.lineage.pinned is None
    assert "trained serves" in rows(user.told())[CHAMPION]
    assert "No model is pinned" in user.told("unpin")


def test_a_bot_that_learns_can_be_told_meanwhile(user: User) -> None:
    user.lineage.acquire()
    user.told("pin", STRAY)
    user.lineage.release()
    assert user.lineage.pinned == STRAY


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"timeframe": "1h"}, "made for timeframe 1h, not 5m"),
        ({"feature_names": feature_names(True)}, "made for other features: .*and 1 more"),
        ({"feature_names": feature_names(False)[::-1]}, "other features: in another order"),
        ({"settings": parse_settings({"lookback": 32}).model_dump()}, "lookback 32, not 16"),
        ({"settings": parse_settings({"horizon": 6}).model_dump()}, "horizon 6, not 12"),
        (
            {"settings": parse_settings({"levels": [0.1, 0.5, 0.9]}).model_dump()},
            r"made for levels \[0.1, 0.5, 0.9\], not \[0.05",
        ),
        ({"settings": {}}, "lookback None, not 16"),
    ],
)
def test_a_model_made_for_something_else_is_not_pinned(
    user: User, changes: dict[str, Any], problem: str
) -> None:
    user.publish("0dd00000", 9, **changes)
    refusal = user.refused("pin", "0dd00000")
    assert re.match(f"Error: model 0dd00000 cannot serve .*{problem}", refusal)
    assert user.lineage.pinned is None


def test_rolling_back_pins_the_previous_champion(user: User) -> None:
    assert f"Pinned {OLD}" in user.told("rollback")
    assert user.lineage.pinned == OLD


@pytest.mark.parametrize("steps", [0, 1])
def test_without_a_previous_champion_there_is_nothing_to_roll_back_to(
    newcomer: User, steps: int
) -> None:
    newcomer.publish(CHAMPION, 0)
    if steps:
        newcomer.step(newcomer.lineage, HEAD, predecessor=None)
    assert "no previous champion" in newcomer.refused("rollback")
    assert newcomer.lineage.pinned is None


def stored(user: User) -> set[str]:
    return {card.version for card in user.store.cards()}


def test_pruning_keeps_what_any_bot_serves_tries_out_or_has_pinned(user: User) -> None:
    others = {"0a", "0b", "0c", "0d", "0e", "0f"}
    for version in sorted(others):
        user.publish(version, 0, created_ms=0)
    other = Lineage(user.store.root, "kraken-spot-1h")
    challengers = [{"version": "0c"}]
    user.step(other, HEAD[::-1], champion="0a", predecessor="0b", contenders=challengers)
    other.pin("0d")
    lost = Lineage(user.store.root, "its-record-was-lost")
    lost.advance("f" * 16, "0e")
    output = user.told("prune", "--keep", "1")
    assert "Removed 0f\nRemoved 57a30000\n2 removed, 9 kept" in output
    assert stored(user) == others - {"0f"} | {BASELINE, OLD, CHAMPION, TUNED}


def test_pruning_keeps_as_many_as_the_configuration_says(user: User) -> None:
    assert "0 removed, 5 kept" in user.told("prune")
    write_config(user.folder, lstm={"keep_models": 4})
    assert "Removed 57a30000\n1 removed, 4 kept" in user.told("prune")


def test_the_log_tells_the_decisions_of_this_bot_newest_last(user: User) -> None:
    def decided(lineage: str, step: int, text: str) -> DecisionRow:
        return DecisionRow(
            lineage, STEP_MS + step * 60_000, "promoted", OLD, OLD, 9, None, None, text, 1
        )

    journal = Journal(f"sqlite:///{user.store.root}/journal.sqlite")
    texts = ["the first", "a [second] one", "the last"]
    journal.record_decisions(
        decided(user.lineage.name, step, text) for step, text in enumerate(texts)
    )
    journal.record_decisions([decided("kraken-spot-1h", 9, "another bot's")])
    journal.close()
    assert user.told("log").splitlines() == [
        "2023-11-15 00:00  the first",
        "2023-11-15 00:01  a [second] one",
        "2023-11-15 00:02  the last",
    ]
    assert user.told("log", "--last", "1").splitlines() == ["2023-11-15 00:02  the last"]


def test_a_log_of_nothing_says_so(newcomer: User) -> None:
    assert "No decisions" in newcomer.told("log")
    assert not list(newcomer.folder.rglob("journal*"))


def test_options_may_stand_before_the_subcommand_too(user: User) -> None:
    done = CliRunner().invoke(main, ["models", *user.options, "show", OLD])
    assert done.exit_code == 0, done.output
    assert f"Model {OLD}" in done.output


def damage_lineage(user: User) -> None:
    (user.store.root / "lineages" / f"{user.lineage.name}.json").write_text("{}")


def drop_timeframe(user: User) -> None:
    config = write_config(user.folder)
    del config["timeframe"]
    (user.folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("damage", "message"),
    [(damage_lineage, "is damaged or foreign"), (drop_timeframe, 'no "timeframe"')],
)
def test_what_is_wrong_is_said_in_a_line(
    user: User, damage: Callable[[User], None], message: str
) -> None:
    damage(user)
    before = stored(user)
    for words in ([], ["pin", STRAY], ["rollback"], ["prune", "--keep", "1"]):
        assert message in user.refused(*words)
    assert stored(user) == before
