"""The commands `freqtrade-lstm models`: which versions there are, which serves, a person's word."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click
from rich.table import Table

from lstm_model.commands.terminal import (
    OF_BOT,
    add_numbers,
    console,
    load_config,
    of_bot,
    some,
    with_options,
)
from lstm_model.errors import StoreError
from lstm_model.market.candles import utc_minute
from lstm_model.settings import Settings
from lstm_model.store.card import ModelCard
from lstm_model.store.lineage import Lineage, head_record, versions_in_use
from lstm_model.store.models import ModelStore

_last_option = click.option(
    "--last", default=20, show_default=True, type=click.IntRange(1, 1_000_000),
    help="How many of the newest.",
)  # fmt: skip

_SERVED = (
    "A running bot serves it within seconds; `freqtrade-lstm models unpin` lets the gate choose "
    "again."
)
_LEGEND = (
    "R2 against zero return; late: entered one candle after the forecast; Winkler against EWMA "
    "volatility; p of the mean's skill"
)


@dataclass(frozen=True)
class _Bot:
    """What a configuration names: its models and the lineage that chooses among them."""

    config: dict[str, Any]
    settings: Settings
    store: ModelStore
    lineage: Lineage

    @classmethod
    def of(cls, config: dict[str, Any]) -> _Bot:
        from lstm_model.bot import assembly, configuration

        settings = configuration.settings_of(config)
        store = ModelStore(configuration.store_folder(config, settings))
        return cls(config, settings, store, assembly.open_lineage(config, settings))

    def newest_step(self) -> dict[str, Any]:
        """The record of the lineage's newest step; empty before the first."""
        return head_record(self.lineage)

    def card(self, prefix: str) -> ModelCard:
        """The only stored version that starts with `prefix`."""
        cards = {card.version: card for card in self.store.cards()}
        fits = [version for version in cards if version.startswith(prefix)]
        if prefix in cards or len(fits) == 1:
            return cards[prefix if prefix in cards else fits[0]]
        problem = "several models start" if fits else "no model starts"
        raise click.ClickException(
            f'{problem} with "{prefix}" in {self.store.root}; there are, newest first: '
            f"{some(list(reversed(fits or list(cards)))) or 'none'}"
        )


def _for_bot(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that name a bot, and the function the bot."""

    @of_bot
    @functools.wraps(function)
    def command(config: dict[str, Any], **others: Any) -> None:
        function(_Bot.of(config), **others)

    return command


@click.group(invoke_without_command=True)
@with_options(*OF_BOT)
@_last_option
@click.pass_context
def models(ctx: click.Context, /, last: int, **named: Any) -> None:
    """List stored models, newest last; or show, pin and prune them."""
    if ctx.invoked_subcommand is None:
        _list(_Bot.of(load_config(**named)), last)
    else:  # options given before the subcommand hold for it
        ctx.default_map = {ctx.invoked_subcommand: ctx.params}


@models.command()
@click.argument("version")
@_for_bot
def show(bot: _Bot, version: str) -> None:
    """Print a model's card: data, settings, scores beside baselines. A unique prefix will do."""
    print_card(bot.card(version))


@models.command()
@click.argument("version")
@_for_bot
def pin(bot: _Bot, version: str) -> None:
    """Make the bot serve this version, whatever the gate says. A unique prefix will do."""
    _pin(bot, bot.card(version))


@models.command()
@_for_bot
def unpin(bot: _Bot) -> None:
    """Let the gate choose again."""
    if bot.lineage.pinned is None:
        console.print(f"No model is pinned in lineage {bot.lineage.name}.")
        return
    bot.lineage.unpin()
    champion = bot.newest_step().get("champion")
    console.print(
        f"The gate chooses again in lineage {bot.lineage.name}; champion: {champion or 'none yet'}."
    )


@models.command()
@_for_bot
def rollback(bot: _Bot) -> None:
    """Pin the champion before the present one."""
    predecessor = bot.newest_step().get("predecessor")
    if predecessor is None:
        raise click.ClickException(
            f"lineage {bot.lineage.name} has no previous champion to go back to; "
            "`freqtrade-lstm models pin VERSION` takes any stored model"
        )
    _pin(bot, bot.card(predecessor))


@models.command()
@click.option("--keep", type=click.IntRange(1, 1_000_000),
              help='How many to keep; "keep_models" of the configuration by default.')  # fmt: skip
@_for_bot
def prune(bot: _Bot, keep: int | None) -> None:
    """Remove old models; none that a bot serves, could go back to or tries out."""
    keep = bot.settings.keep_models if keep is None else keep
    removed = bot.store.prune(keep, versions_in_use(bot.store.root))
    for version in removed:
        console.print(f"Removed {version}")
    console.print(f"{len(removed)} removed, {len(bot.store.cards())} kept in {bot.store.root}")


@models.command()
@_last_option
@_for_bot
def log(bot: _Bot, last: int) -> None:
    """Print what was decided about this bot's models, newest last."""
    from lstm_model.bot.configuration import journal_of

    journal = journal_of(bot.config, bot.settings, read_only=True)
    try:
        decisions = [] if journal.is_missing else journal.decisions(bot.lineage.name, last)
    finally:
        journal.close()
    if not decisions:
        console.print(f"No decisions about lineage {bot.lineage.name} yet.")
    for decision in reversed(decisions):
        console.print(f"{utc_minute(decision.at_ms)}  {decision.text}")


def _list(bot: _Bot, last: int) -> None:
    from lstm_model.bot.named import words_of

    cards = bot.store.cards()
    if not cards:
        console.print(
            f"No models in {bot.store.root}. Run `freqtrade-lstm train{words_of(bot.config)}` or a "
            "backtest.",
        )
        return
    record, pinned = bot.newest_step(), bot.lineage.pinned
    console.print(_state(bot.lineage.name, record, pinned))
    console.print(_versions(cards[-last:], _roles(record, pinned)))
    console.print(_LEGEND)


def _versions(cards: Sequence[ModelCard], roles: Mapping[str | None, str]) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)  # fits into 80 columns
    for column in ("version", "what it is", "role", "trained until"):
        table.add_column(column, no_wrap=column == "version", overflow="fold")
    add_numbers(table, "R2 (late)", "cover", "Winkler", "p")
    for card in cards:
        table.add_row(card.version, _origin(card), roles.get(card.version, "-"), *_figures(card))
    return table


def _state(name: str, record: Mapping[str, Any], pinned: str | None) -> str:
    step = f"newest step {utc_minute(record['boundary_ms'])}" if record else "no step yet"
    champion = record.get("champion", "none")
    return f"Lineage {name}: {step}, champion {champion}, pinned {pinned or 'none'}"


def _roles(record: Mapping[str, Any], pinned: str | None) -> dict[str | None, str]:
    """What each version does in a lineage; of several roles the last one counts."""
    roles: dict[str | None, str] = {
        contender["version"]: "challenger" for contender in record.get("contenders", ())
    }
    roles[record.get("predecessor")] = "previous"
    roles[record.get("champion")] = "champion" if pinned else "serves"
    roles[pinned] = "pinned"
    return roles


def _figures(card: ModelCard) -> Iterator[str]:
    """The cells from "trained until" on; a score that the card lacks stays empty."""
    yield utc_minute(card.train_end_ms)
    skill = card.skill
    pair = [f"{skill[key]:+.2%}" for key in ("r2_vs_zero", "r2_vs_zero_delayed") if key in skill]
    yield f"{pair[0]} ({pair[1]})" if len(pair) == 2 else ""
    coverage = card.scores.get("lstm", {}).get("coverage")
    yield "" if coverage is None else f"{coverage:.1%}"
    yield f"{skill['winkler_vs_zero']:+.1%}" if "winkler_vs_zero" in skill else ""
    yield f"{card.p_value:.3f}" if {"p_value", "p_value_delayed"} <= skill.keys() else ""


def _origin(card: ModelCard) -> str:
    if card.kind == "finetune":
        return f"fine-tuned from {(card.parent or 'unknown')[:8]}"
    return {"baseline": "baseline", "scratch": "trained"}[card.kind]


def _pin(bot: _Bot, card: ModelCard) -> None:
    if problems := list(_misfits(bot, card)):
        raise StoreError(
            f"model {card.version} cannot serve this configuration ({'; '.join(problems)}): pin "
            "one that was made for it, or change the configuration"
        )
    bot.lineage.pin(card.version)
    console.print(f"Pinned {card.version} in lineage {bot.lineage.name}. {_SERVED}")


def _misfits(bot: _Bot, card: ModelCard) -> Iterator[str]:
    """In what a model differs from what the configuration feeds it and expects of it."""
    from lstm_model.features.closed_candle import feature_names

    options = bot.settings.model_dump(mode="json")
    if card.timeframe != bot.config["timeframe"]:
        yield f"made for timeframe {card.timeframe}, not {bot.config['timeframe']}"
    for name in ("lookback", "horizon", "levels"):
        if card.settings.get(name) != options[name]:
            yield f"made for {name} {card.settings.get(name)}, not {options[name]}"
    wanted = feature_names(bot.settings.order_flow)
    if card.feature_names != wanted:
        differing = sorted(set(card.feature_names) ^ set(wanted)) or ["in another order"]
        yield f"made for other features: {some(differing)}"


def print_card(card: ModelCard) -> None:
    """A model card as tables: what it was made of, and its scores beside the baselines."""
    console.print(_facts(card))
    if card.scores:
        console.print(_scores(card))
        console.print(_gains(card))
    console.print(card_verdict(card))


def _facts(card: ModelCard) -> Table:
    table = Table(title=f"Model {card.version}", show_header=False)
    table.add_column()
    table.add_column(overflow="fold")
    options = card.settings
    for name, value in {
        "what it is": _origin(card),
        "pairs": ", ".join(card.pairs),
        "timeframe, horizon": f"{card.timeframe}, {options['horizon']} candles",
        "data": f"{utc_minute(card.train_start_ms)} to {utc_minute(card.train_end_ms)}",
        "serves from": utc_minute(card.serves_from_ms),
        "windows": ", ".join(f"{name} {count:,}" for name, count in card.windows.items()),
        "training": f"{card.epochs} epochs, {card.seconds:.0f} s, seed {options['seed']}",
        "shrinkage of the mean": f"{card.calibration['shrinkage'][0]:.2f}",
    }.items():
        table.add_row(name, value)
    return table


def _scores(card: ModelCard) -> Table:
    table = Table(
        box=None, padding=(0, 1, 0, 0), pad_edge=False,  # fits into 80 columns
        title="Scores on the test block, newer than anything trained on",
        caption="R2 against zero return; late: entered one candle after the forecast; coverage of "
        "the widest interval: in all, in the worst fifth by volatility, in the worst 250 candles; "
        "width and Winkler score in bps",
    )  # fmt: skip
    table.add_column("forecast", overflow="fold")  # which makes room for numbers
    add_numbers(table, "R2", "late", "hits", "late", "cover", "fifth", "250", "width", "Winkler")
    for name, title in _FORECASTERS.items():
        if name in card.scores:
            late = card.scores.get(f"{name}_delayed", {})
            table.add_row(title, *_score_cells(card.scores[name], late))
    return table


_FORECASTERS = {
    "lstm": "LSTM as served",
    "lstm_raw": "LSTM unshrunk",
    "lstm_uncalibrated": "LSTM uncalibrated",
    "ridge": "ridge",
    "reversal": "reversal",
    "har": "zero, HAR-RV tracked",
    "lightgbm": "LightGBM tracked",
    "zero": "zero, EWMA tracked",
    "ewma_untracked": "zero, EWMA",
    "constant": "constant width",
}


def _score_cells(scores: Mapping[str, float], late: Mapping[str, float]) -> Iterator[str]:
    """R2 and hit rate beside their delayed twins, then the interval's scores in basis points."""
    for key, form in (("r2", "{:+.2%}"), ("hit_rate", "{:.1%}")):
        yield from (form.format(twin[key]) if key in twin else "" for twin in (scores, late))
    covered = ("coverage", "coverage_worst_quintile", "coverage_worst_window")
    kinds = {**dict.fromkeys(covered, "{:.1%}"), "width_bps": "{:.1f}", "winkler_bps": "{:.1f}"}
    for key, form in kinds.items():
        yield form.format(scores[key]) if key in scores else ""


def _gains(card: ModelCard) -> str:
    """R squared of the LSTM as served with each baseline's error as the reference."""
    skill = card.skill
    gains = (
        f"{name} {skill[f'r2_vs_{name}']:+.2%} (late {skill[f'r2_vs_{name}_delayed']:+.2%})"
        for name in ("zero", "ridge", "reversal")
    )
    return "Squared error saved against " + ", ".join(gains) + "."


def card_verdict(card: ModelCard) -> str:
    """Whether the mean has skill, in a sentence."""
    skill = card.skill
    if not skill:  # nothing it has not learnt from was left to score it on
        return (
            "No scores of its own yet: `freqtrade-lstm models log` tells how it does against the "
            "champion."
        )
    return (
        f"Skill of the mean against zero: p = {skill['p_value']:.3f}, one candle late "
        f"p = {skill['p_value_delayed']:.3f}: "
        + ("proven at 5 %." if card.proven else "NOT proven; with require_skill no entries.")
        + f" Intervals against EWMA volatility: Winkler {skill['winkler_vs_zero']:+.1%}"
        + (f", HAR {skill['winkler_vs_har']:+.1%}." if "winkler_vs_har" in skill else ".")
    )
