"""`freqtrade-lstm init` adds files to a user's folder and overwrites nothing of theirs."""

import json
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner
from freqtrade.commands import Arguments
from freqtrade.configuration import setup_utils_configuration
from freqtrade.enums import RunMode
from places import ROOT

from lstm_model import __version__
from lstm_model.bot.configuration import check_startable, load_config
from lstm_model.bot.reading import read_config
from lstm_model.commands.main import main
from lstm_model.errors import ConfigError, DataError, StoreError, TrainingError
from lstm_model.practice.overlay import bot_overlay
from lstm_model.settings import Settings, parse_settings
from lstm_model.setup import scaffold as scaffold_module
from lstm_model.setup.scaffold import (
    CONFIG_FILE,
    SECTION_FILE,
    STRATEGY_FILES,
    days_to_download,
    next_commands,
    practice_commands,
    scaffold,
)
from lstm_model.written import signature, signed

MAIN, _, EXAMPLE = STRATEGY_FILES
APART = "--datadir user_data/data/practice"  # invented candles are not to join real ones


def theirs(pairs: Sequence[str] = ("BTC/USDT",), **others: object) -> str:
    """A configuration of a user's."""
    return json.dumps({"exchange": {"name": "binance", "pair_whitelist": pairs}, **others})


@pytest.fixture(autouse=True)
def source(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installation of its own: a package folder beside `strategies/`, as in a checkout."""
    root = tmp_path_factory.mktemp("installation")
    (root / "lstm_model").mkdir()
    folder = root / "strategies"
    folder.mkdir()
    for name in STRATEGY_FILES:
        (folder / name).write_text(f"class Of{name.title().removesuffix('.Py')}: ...\n")
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    monkeypatch.setattr(
        scaffold_module, "__file__", str(root / "lstm_model" / "setup" / "scaffold.py")
    )
    return folder


def content(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_files_are_written_and_a_second_call_changes_nothing(tmp_path: Path, source: Path) -> None:
    actions = scaffold(tmp_path)
    paths = [*(tmp_path / "strategies" / name for name in STRATEGY_FILES), tmp_path / CONFIG_FILE]
    assert [(action.path, action.kind) for action in actions] == [(p, "written") for p in paths]
    for path in paths[:-1]:
        assert path.read_bytes() == signed((source / path.name).read_bytes())
    before = content(tmp_path)
    assert [action.kind for action in scaffold(tmp_path)] == ["kept"] * 4
    assert content(tmp_path) == before


def test_nothing_of_theirs_is_overwritten(tmp_path: Path, source: Path) -> None:
    scaffold(tmp_path)
    theirs = tmp_path / "strategies" / MAIN
    theirs.write_text("# mine\n")
    beside = theirs.with_name(f"{MAIN}.new")
    action = scaffold(tmp_path)[0]
    assert (action.path, action.kind, action.original) == (beside, "beside", theirs)
    assert str(beside) in str(action)
    beside.write_text("# mine too\n")
    (beside.with_name(f"{MAIN}.new1")).mkdir()
    before = content(tmp_path)
    third = beside.with_name(f"{MAIN}.new2")
    for _ in range(2):
        assert scaffold(tmp_path)[0].path == third
    assert content(tmp_path) == before | {third: signed((source / MAIN).read_bytes())}


USUAL, OTHER = (bot_overlay(f"http://127.0.0.1:{port}") for port in (8787, 9000))
FUTURES = bot_overlay("http://127.0.0.1:8787", "futures")


def test_a_bot_is_led_to_a_practice_exchange_by_the_file_that_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(ROOT)
    for overlay, mode in ((USUAL, ""), (FUTURES, "-futures")):
        words = f"-c config.json -c user_data/config-loopback{mode}.json {APART}"
        assert practice_commands(overlay, overlay, 30) == [
            f"freqtrade download-data {words} --timeframes 5m --days 30",
            f"freqtrade trade {words} --strategy LSTMStrategy",
        ]


@pytest.mark.parametrize("is_shipped", [True, False])
@pytest.mark.parametrize("has", [[], ["config.json"], ["user_data/config.json"]])
def test_where_none_leads_there_it_is_written_first(
    has: list[str], is_shipped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("user_data").mkdir()
    shipped = Path("user_data/config-loopback.json")
    shipped.write_text(json.dumps(USUAL, indent=4) if is_shipped else theirs())
    for name in has:
        Path(name).write_text(theirs())
    *before, write, download, trade = practice_commands(OTHER, USUAL, 30)
    assert write.split()[0] == ("sed" if is_shipped else "echo")
    assert [line.split()[:2] for line in before] == (
        [] if has else [["freqtrade", "create-userdir"], ["freqtrade-lstm", "init"]]
    )
    subprocess.run(["sh", "-c", write], check=True)
    file = "user_data/config-loopback-9000.json"
    assert json.loads(Path(file).read_text()) == OTHER
    own = has[0] if has else "user_data/config.json"
    words = f"-c {own} -c {file} {APART}"
    assert download == f"freqtrade download-data {words} --timeframes 5m --days 30"
    assert trade == f"freqtrade trade {words} --strategy LSTMStrategy"
    assert practice_commands(OTHER, USUAL, 30) == [*before, download, trade]
    config = load_config([*has, file], {"timeframe": "5m"} | ({"stake_currency": "USDT"}))
    assert config["exchange"]["ccxt_config"]["urls"]["api"]["public"] == (
        "http://127.0.0.1:9000/api/v3"
    )
    assert config["dry_run"] is True


def scaffolded_by(version: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The strategies, as another version of this package has written them."""
    with monkeypatch.context() as patch:
        patch.setattr("lstm_model.written.__version__", version)
        scaffold(folder)
    return (folder / "strategies" / name for name in STRATEGY_FILES)


def test_a_file_of_an_older_version_is_renewed_if_it_is_as_that_wrote_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed, left, with_other_ends = scaffolded_by("0.0.9", tmp_path, monkeypatch)
    changed.write_bytes(changed.read_bytes() + b"# mine\n")
    with_other_ends.write_bytes(with_other_ends.read_bytes().replace(b"\n", b"\r\n"))
    assert signature(left.read_bytes()) == ("0.0.9", True)
    assert [action.kind for action in scaffold(tmp_path)] == [
        "beside",
        "renewed",
        "renewed",
        "kept",
    ]
    assert changed.read_bytes().endswith(b"# mine\n")
    for path in (left, with_other_ends, changed.with_name(f"{MAIN}.new")):
        assert signature(path.read_bytes()) == (__version__, True)


def test_a_file_of_a_newer_version_and_a_link_are_left_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, linked, _ = scaffolded_by("99.0", tmp_path, monkeypatch)
    linked.rename(tmp_path / "elsewhere.py")
    linked.symlink_to(tmp_path / "elsewhere.py")
    before = content(tmp_path)
    assert [action.kind for action in scaffold(tmp_path)][:2] == ["beside", "beside"]
    assert linked.is_symlink()
    assert {path: content(tmp_path)[path] for path in before} == before


def test_a_dangling_link_of_theirs_is_left(tmp_path: Path) -> None:
    link = tmp_path / CONFIG_FILE
    link.symlink_to(tmp_path / "gone")
    with pytest.raises(ConfigError, match="cannot be read"):
        scaffold(tmp_path)
    assert not (tmp_path / "gone").exists()
    link.unlink()
    link.write_text(theirs())
    (tmp_path / SECTION_FILE).symlink_to(tmp_path / "absent")
    assert scaffold(tmp_path)[-1].path == tmp_path / f"{SECTION_FILE}.new"
    assert not (tmp_path / "absent").exists()


@pytest.mark.parametrize("name", ["config.json", "lstm_model/setup/example.json"])
def test_a_configuration_of_ours_replaces_no_stop_roi_or_trailing_of_a_strategy(name: str) -> None:
    """freqtrade lets those of config.json win over every strategy's own."""
    found = read_config(ROOT / name)
    ruling = ("stoploss", "minimal_roi", "trailing_stop", "trailing_stop_positive",
              "use_custom_stoploss", "position_adjustment_enable", "use_exit_signal")  # fmt: skip
    assert not set(ruling) & found.keys()


def test_who_has_no_config_gets_a_whole_one_for_a_dry_run(tmp_path: Path) -> None:
    scaffold(tmp_path)
    config = read_config(tmp_path / CONFIG_FILE)
    assert config["dry_run"] is True
    assert config["exchange"]["key"] == config["exchange"]["secret"] == ""
    assert parse_settings(config["lstm"]) == Settings()
    ours = (ROOT / "config.json").read_text()
    theirs = [line for line in ours.splitlines() if '"strategy_path"' not in line]
    assert (tmp_path / CONFIG_FILE).read_text().splitlines() == theirs


@pytest.mark.parametrize("text", [theirs(timeframe="5m") + " // mine", theirs()])
def test_who_has_a_config_gets_an_example_of_our_section(tmp_path: Path, text: str) -> None:
    (tmp_path / CONFIG_FILE).write_text(text)
    assert scaffold(tmp_path)[-1].path == tmp_path / SECTION_FILE
    assert (tmp_path / CONFIG_FILE).read_text() == text
    example = read_config(tmp_path / SECTION_FILE)
    assert example["timeframe"] == "5m" if "timeframe" not in text else "timeframe" not in example
    assert parse_settings(example["lstm"]) == Settings()


@pytest.mark.parametrize(
    "text",
    ["{}", '{"timeframe": "5m"}', '{"exchange": []}', '{"exchange": {}}',
     '{"exchange": {"name": ""}}', '{"pairlists": [5], "stake_currency": 7}'],
)  # fmt: skip
def test_a_config_that_nothing_can_be_downloaded_by_has_to_become_whole_first(
    tmp_path: Path, text: str
) -> None:
    config = tmp_path / CONFIG_FILE
    config.write_text(text)
    assert {action.path.parent.name for action in scaffold(tmp_path)} == {"strategies"}
    assert next_commands(tmp_path) == [
        f"freqtrade new-config -c {config}", f"freqtrade-lstm init --userdir {tmp_path}"
    ]  # fmt: skip


def _text(config: Path, text: str) -> None:
    config.write_text(text)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        *(
            (partial(_text, text=text), "")
            for text in ("null", "[1, 2]", "5", '"x"', "", "[" * 5_000)
        ),
        (partial(_text, text='{\n"exchange": {},,}'), "in line 2"),
        (partial(_text, text='{"add_config_files": ["config.json"]}'), ""),
        (lambda config: config.write_bytes("{}".encode("utf-16")), ""),
        (Path.mkdir, ""),
        (lambda config: config.symlink_to("nowhere"), ""),
    ],
)
def test_a_config_that_cannot_be_read_is_refused_and_nobody_is_told_to_write_over_it(
    tmp_path: Path, make: Callable[[Path], object], said: str
) -> None:
    make(config := tmp_path / CONFIG_FILE)
    before = sorted(tmp_path.rglob("*"))
    for act in (scaffold, next_commands):
        with pytest.raises(ConfigError, match=r"^[^\n]*Mend it, or move it away[^\n]*$") as caught:
            act(tmp_path)
        assert str(caught.value).startswith(f"{config} cannot be read: ")
        assert said in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("pairs", [5, True, "BTC", {"a": 1}, [""], [".*/USDT"]])
def test_pairs_to_train_on_that_are_none_are_refused(tmp_path: Path, pairs: object) -> None:
    (tmp_path / CONFIG_FILE).write_text(theirs(lstm={"train_pairs": pairs}))
    with pytest.raises(ConfigError, match="train_pairs"):
        scaffold(tmp_path)


DYNAMIC = theirs(
    [], stake_currency="EUR", pairlists=[{"method": "VolumePairList"}], trading_mode="futures"
)


@pytest.mark.parametrize(
    ("config", "few"),
    [
        (DYNAMIC, ["BTC/EUR:EUR", "ETH/EUR:EUR", "SOL/EUR:EUR"]),  # as `new-config` writes it
        (theirs([".*/USDT"]), ["BTC/USDT", "ETH/USDT", "SOL/USDT"]),
    ],
)
def test_where_the_running_bot_makes_the_list_of_pairs_a_few_are_named_to_train_on(
    tmp_path: Path, config: str, few: list[str]
) -> None:
    download, *_ = words_of(tmp_path / "u", config)
    assert download[download.index("--pairs") + 1 :] == few
    example = read_config(tmp_path / "u" / SECTION_FILE)
    assert example["lstm"]["train_pairs"] == few


def test_pairs_have_to_be_named_to_trade_or_to_train_on(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"exchange\.pair_whitelist is empty; name some"):
        words_of(tmp_path / "t", theirs([]))
    with pytest.raises(ConfigError, match=r"VolumePairList, which only a running bot asks; name"):
        words_of(tmp_path / "u", '{"lstm": {"horizon": 3}, ' + DYNAMIC[1:])
    named = '{"lstm": {"train_pairs": ["ADA/EUR:EUR"], "leader": ""}, ' + DYNAMIC[1:]
    assert words_of(tmp_path / "v", named)[0][-2:] == ["--pairs", "ADA/EUR:EUR"]


def test_no_more_days_are_asked_for_than_any_exchange_has(tmp_path: Path) -> None:
    assert days_to_download(None, "1d") < days_to_download(None, "30d") == 6_000
    section = {"train_candles": 2_000_000}
    assert days_to_download(section, "1d") == 6_000


@pytest.mark.parametrize("section", ["[1]", '"x"', "5", '{"horizn": 3}'])
def test_a_section_that_is_wrong_is_refused_before_anything_is_written(
    tmp_path: Path, section: str
) -> None:
    (tmp_path / CONFIG_FILE).write_text(f'{{"lstm": {section}}}')
    with pytest.raises(ConfigError, match=r"config\.json.*lstm"):
        scaffold(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [CONFIG_FILE]


def test_a_config_beside_the_user_data_is_theirs_and_not_taken_over(tmp_path: Path) -> None:
    Path(CONFIG_FILE).write_text(theirs(timeframe="15m", dry_run=False))
    assert scaffold(tmp_path)[-1].path == tmp_path / SECTION_FILE
    assert not (tmp_path / CONFIG_FILE).exists()
    for command in next_commands(tmp_path):
        assert f"-c {tmp_path / SECTION_FILE} -c {CONFIG_FILE}" in command


def test_what_their_configuration_adds_counts(tmp_path: Path) -> None:
    (tmp_path / "more.json").write_text(theirs(timeframe="1h", lstm={"train_candles": 2000}))
    (tmp_path / CONFIG_FILE).write_text('{"add_config_files": ["more.json"]}')
    assert {action.path.parent.name for action in scaffold(tmp_path)} == {"strategies"}
    assert next_commands(tmp_path)[0].endswith("--timeframes 1h --days 200")


def test_who_has_our_section_keeps_theirs(tmp_path: Path) -> None:
    (tmp_path / CONFIG_FILE).write_text(theirs(lstm={"horizon": 3}))
    assert {action.path.parent.name for action in scaffold(tmp_path)} == {"strategies"}
    assert not (tmp_path / SECTION_FILE).exists()


def test_a_wheel_carries_the_strategies_inside_the_package(tmp_path: Path, source: Path) -> None:
    inside = source.rename(source.parent / "lstm_model" / "init")
    assert {action.kind for action in scaffold(tmp_path)} == {"written"}
    (inside / EXAMPLE).unlink()
    with pytest.raises(ConfigError, match=r"has no .*ema_cross_lstm\.py: install"):
        scaffold(tmp_path)


def test_an_installation_that_lacks_a_file_writes_none(tmp_path: Path, source: Path) -> None:
    (source / EXAMPLE).unlink()
    with pytest.raises(ConfigError):
        scaffold(tmp_path)
    assert content(tmp_path) == {}


def test_the_build_puts_strategies_inside_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    build = project["tool"]["setuptools"]
    assert "lstm_model.init" in build["packages"]
    assert build["package-dir"] == {"lstm_model.init": "strategies"}


@pytest.mark.parametrize("name", ["absent", "a file", "it's"])
def test_a_missing_userdir_names_the_command_that_makes_one(tmp_path: Path, name: str) -> None:
    (tmp_path / "a file").write_text("")
    with pytest.raises(ConfigError) as caught:
        scaffold(tmp_path / name)
    quoted = shlex.quote(str(tmp_path / name))
    assert f'run "freqtrade create-userdir --userdir {quoted}" first' in str(caught.value)
    assert not (tmp_path / "absent").exists()


def test_an_unwritable_userdir_is_named(tmp_path: Path) -> None:
    (tmp_path / "strategies").write_text("in the way")
    with pytest.raises(StoreError, match=r"cannot write .*strategies/lstm_strategy\.py"):
        scaffold(tmp_path)


def words_of(userdir: Path, config: str | None) -> list[list[str]]:
    userdir.mkdir()
    if config is not None:
        (userdir / CONFIG_FILE).write_text(config)
    scaffold(userdir)
    return [shlex.split(command) for command in next_commands(userdir)]


def configs_of(words: list[str]) -> list[str]:
    return [Path(words[place + 1]).name for place, word in enumerate(words) if word == "-c"]


def test_the_next_commands_download_what_is_wanted_and_start_a_dry_run(tmp_path: Path) -> None:
    download, train, trade = words_of(tmp_path / "my data", None)
    assert download[:4] == ["freqtrade", "download-data", "--userdir", str(tmp_path / "my data")]
    assert download[-4:] == ["--timeframes", "5m", "--days", "850"]
    assert trade[:3] == ["freqtrade", "trade", "--dry-run"]
    assert train[:2] == ["freqtrade-lstm", "train"]
    assert configs_of(download) == configs_of(train) == configs_of(trade) == [CONFIG_FILE]


def test_in_the_next_commands_their_config_wins_and_names_the_timeframe(tmp_path: Path) -> None:
    download, _, trade = words_of(tmp_path / "theirs", theirs(timeframe="1h"))
    assert download[-4:] == ["--timeframes", "1h", "--days", "850"]
    assert configs_of(trade) == [SECTION_FILE, CONFIG_FILE]  # the later one wins
    section = theirs(timeframe="1h", lstm={"train_candles": 2000})
    download, _, trade = words_of(tmp_path / "less", section)
    assert download[-2:] == ["--days", "200"]
    assert configs_of(trade) == [CONFIG_FILE]


def test_a_timeframe_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match='timeframe "5 minutes" is not usable'):
        words_of(tmp_path / "theirs", '{"timeframe": "5 minutes"}')
    with pytest.raises(DataError, match='timeframe "None" is not usable'):
        words_of(tmp_path / "null", '{"timeframe": null}')


@pytest.mark.parametrize(
    ("config", "leader"),
    [
        (theirs(["ETH/USDT", "ADA/USDT"]), "BTC/USDT"),
        (theirs(["ETH/USDT", "BTC/USDT"]), ""),
        (theirs(["ETH/USDT"], lstm={"leader": ""}), ""),
        (theirs(["A/EUR"], lstm={"leader": "X/EUR"}), "X/EUR"),
    ],
)
def test_a_leader_that_is_none_of_their_pairs_is_downloaded_too(
    tmp_path: Path, config: str, leader: str
) -> None:
    downloads = [words for words in words_of(tmp_path / "u", config) if "download-data" in words]
    assert len(downloads) == (2 if leader else 1)
    assert downloads[-1][-2:] == (["--pairs", leader] if leader else downloads[0][-2:])
    assert all(words[:2] == ["freqtrade", "download-data"] for words in downloads)


# As `freqtrade new-config` writes it, without a timeframe.
NEW = {
    "dry_run": True, "stake_currency": "USDT", "stake_amount": "unlimited", "max_open_trades": 3,
    "entry_pricing": {"price_side": "same"}, "exit_pricing": {"price_side": "same"},
    "pairlists": [{"method": "VolumePairList", "number_assets": 20, "sort_key": "quoteVolume"}],
}  # fmt: skip


@pytest.mark.parametrize(
    ("config", "pair"),
    [
        (None, "BTC/USDT"),
        (theirs([], **NEW), "BTC/USDT"),
        (theirs([], **NEW, lstm={"train_pairs": ["XRP/USDT"]}), "XRP/USDT"),
        (theirs(["ADA/USDT"], **{**NEW, "pairlists": [{"method": "StaticPairList"}]}), "ADA/USDT"),
        (theirs(["ADA/USDT"], **{**NEW, "timeframe": "1d"}), "ADA/USDT"),
    ],
)
def test_the_next_commands_work_as_far_as_they_do_without_an_exchange(
    tmp_path: Path, config: str | None, pair: str
) -> None:
    *downloads, train, trade = words_of(tmp_path / "u", config)
    shutil.copytree(ROOT / "strategies", tmp_path / "u" / "strategies", dirs_exist_ok=True)
    timeframe = "1d" if config and '"1d"' in config else "5m"
    for words in downloads:
        asked = Arguments(words[1:]).get_parsed_arg()
        found = setup_utils_configuration(asked, RunMode.UTIL_EXCHANGE)
        assert found["pairs"], "freqtrade knows what to download"
        assert (found["timeframes"], found["days"] <= 6_000) == ([timeframe], True)
    trained = CliRunner().invoke(main, train[1:])
    assert f"Error: no {timeframe} candles of {pair}" in trained.stderr
    assert (trained.exit_code, isinstance(trained.exception, SystemExit)) == (1, True)
    asked = Arguments(trade[1:]).get_parsed_arg()
    given = {name: asked[name] for name in ("user_data_dir", "strategy")}
    found = load_config(asked["config"], given)
    check_startable(found)
    assert found["timeframe"] == timeframe


def test_who_has_no_python_that_trains_is_told_to_install_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = next_commands(tmp_path)

    def find(named: object, store: Path) -> object:
        raise TrainingError("there is none")

    monkeypatch.setattr("lstm_model.training.interpreter.find", find)
    (more,) = [command for command in next_commands(tmp_path) if command not in before]
    assert more.startswith(f"freqtrade-lstm trainer --install --userdir {tmp_path} -c ")
    assert next_commands(tmp_path).index(more) == 1
