"""Amounts and prices: decimals of at most eight places, as Binance keeps and writes them."""

from __future__ import annotations

from decimal import ROUND_DOWN, ROUND_UP, Decimal

UNIT = Decimal("0.00000001")
ZERO = Decimal(0)


def units(value: Decimal) -> Decimal:
    """The value without what is smaller than a unit.

    Examples
    --------
    >>> units(Decimal("0.123456789")), units(Decimal("-0.123456789"))
    (Decimal('0.12345678'), Decimal('-0.12345678'))
    """
    return value.quantize(UNIT, ROUND_DOWN)


def units_up(value: Decimal) -> Decimal:
    """The value, a unit more if it is no whole number of them."""
    return value.quantize(UNIT, ROUND_UP)


def stepped(value: Decimal, step: Decimal) -> Decimal:
    """The value without what is smaller than a step.

    Examples
    --------
    >>> stepped(Decimal("0.0127"), Decimal("0.005"))
    Decimal('0.010')
    """
    return (value // step) * step


def text(value: Decimal) -> str:
    """As Binance writes it, with eight places.

    Examples
    --------
    >>> text(Decimal("64000.5"))
    '64000.50000000'
    """
    return f"{value:.8f}"
