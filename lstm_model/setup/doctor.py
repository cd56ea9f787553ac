"""Examines an installation and a configuration: every check in its order, none ends the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from lstm_model.errors import LstmModelError
from lstm_model.setup import installation
from lstm_model.setup.finding import Finding, note, to_do, warning
from lstm_model.setup.subject import Subject

Check = Callable[[Subject], Iterator[Finding]]

# What a check may stumble over beside what it looks for: files and libraries can be anything.
_STUMBLES = (
    OSError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RuntimeError,
    MemoryError,
)  # fmt: skip
_INSTALLED: tuple[Check, ...] = (
    installation.check_ourselves, installation.check_python, installation.check_libraries,
    installation.check_trainer, installation.check_processor, installation.check_cores,
    installation.check_memory, installation.check_disk,
)  # fmt: skip


def examine(subject: Subject) -> Iterator[Finding]:
    """Everything that is found, without secrets, each as soon as it is known."""
    checks = (
        *_INSTALLED, _reading, _strategy, _money, _backtests, _telegram, _store, _journal, _candles,
        _exchange,
    )  # fmt: skip
    for check in checks:
        for finding in _guarded(check, subject):
            yield finding.without(subject.discretion)


def _guarded(check: Check, subject: Subject) -> Iterator[Finding]:
    name = check.__name__.removeprefix("check").strip("_")
    try:
        yield from check(subject)
    except ImportError as error:
        yield to_do(name, f"cannot be looked at: {error}", "Install what is missing")
    except LstmModelError as error:
        yield to_do(name, str(error))
    except _STUMBLES as error:
        yield warning(name, f"could not be looked at: {type(error).__name__}: {error}")


def _reading(subject: Subject) -> Iterator[Finding]:
    yield from subject.findings
    if subject.config is None:
        others = "strategy, Telegram, store, journal, candles and exchange"
        yield note("others", f"{others} are looked at once the configuration can be read")


# Each of these imports freqtrade or libraries that an installation may lack.


def _strategy(subject: Subject) -> Iterator[Finding]:
    if subject.config is not None:
        from lstm_model.setup.configured import check_strategy

        yield from check_strategy(subject.config, subject.settings)


def _money(subject: Subject) -> Iterator[Finding]:
    if subject.config is not None:
        from lstm_model.setup.configured import check_money

        yield from check_money(subject.config, subject.settings)


def _backtests(subject: Subject) -> Iterator[Finding]:
    if subject.config is not None:
        from lstm_model.setup.configured import check_backtests

        yield from check_backtests(subject.config, subject.settings)


def _telegram(subject: Subject) -> Iterator[Finding]:
    if subject.config is not None:
        from lstm_model.setup.configured import check_telegram

        yield from check_telegram(subject.config)


def _store(subject: Subject) -> Iterator[Finding]:
    if subject.config is not None and subject.settings is not None:
        from lstm_model.setup.stored import check_store

        yield from check_store(subject.config, subject.settings)


def _journal(subject: Subject) -> Iterator[Finding]:
    if subject.config is not None and subject.settings is not None:
        from lstm_model.setup.stored import check_journal

        yield from check_journal(subject.config, subject.settings)


def _candles(subject: Subject) -> Iterator[Finding]:
    config, settings = subject.config, subject.settings
    if config is not None and settings is not None:
        from lstm_model.setup.history import check_candles

        yield from check_candles(config, settings, subject.options, subject.now_ms)


def _exchange(subject: Subject) -> Iterator[Finding]:
    if subject.config is not None:
        from lstm_model.setup.exchange import check_exchange

        yield from check_exchange(subject.config, subject.settings, offline=subject.offline)
