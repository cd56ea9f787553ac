"""What an account holds by the exchange's word, what the trades explain of it, and the rest."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace

_FEE = 0.003  # chosen: share of an amount that a fee taken in the base currency may have made away


@dataclass(frozen=True)
class Placed:
    """An order that waits on the exchange.

    Attributes
    ----------
    side : 1 buy, -1 sell
    amount : that is not filled yet, in base currency
    rate : limit or trigger, quote per base
    reduces : whether it can only make a position smaller
    conditional : whether the exchange keeps it apart, as one that waits for a trigger
    """

    id: str
    pair: str
    side: int
    amount: float
    rate: float
    reduces: bool = False
    conditional: bool = False


@dataclass(frozen=True)
class Standing:
    """An account as the exchange told it.

    Attributes
    ----------
    asked_ms : when the first question was sent: all that was accepted before is in it
    held : by pair the position in base currency, shorts below zero; on spot the whole balance
    placed : all waiting orders, stops too
    rate : by pair the price, quote per base
    least : by pair the amount that is too small to be sold
    """

    asked_ms: int
    held: Mapping[str, float]
    placed: tuple[Placed, ...]
    rate: Mapping[str, float] = field(default_factory=dict)
    least: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Owned:
    """The open trades of one pair.

    Attributes
    ----------
    amount : their position, shorts below zero
    bought, sold : what their waiting orders, stops too, may have bought and sold since
    orders : ids of all orders of these trades
    entries : how many of them enter or add
    since_ms : when the newest of them was opened
    """

    amount: float
    bought: float = 0.0
    sold: float = 0.0
    orders: frozenset[str] = frozenset()
    since_ms: int = 0
    entries: int = 0


@dataclass(frozen=True)
class Unowned:
    """What no trade explains.

    Attributes
    ----------
    amount : base currency, shorts below zero
    order : the id of a waiting order; "" for a part of the position
    reduces : whether nothing more is at stake by it: the trades' position is smaller than they
        know, or the order can only make one smaller
    conditional : as of the order
    """

    pair: str
    amount: float
    rate: float
    order: str = ""
    reduces: bool = False
    conditional: bool = False

    @property
    def key(self) -> str:
        """The same as long as it is the same thing."""
        return f"{self.pair} {self.order or 'position'}"

    @property
    def exposure(self) -> float:
        """Quote currency that it puts at stake, shorts below zero."""
        return 0.0 if self.reduces else self.amount * self.rate

    @property
    def text(self) -> str:
        """In a sentence."""
        if self.order:
            kind = "an order that can only reduce" if self.reduces else "an order"
            return f"{kind}, {self.amount:+.8g} at {self.rate:.8g} (id {self.order})"
        if self.reduces:
            return f"{abs(self.amount):.8g} less than its trades hold"
        return f"a position of {self.amount:+.8g}, worth {abs(self.exposure):.6g}"

    @property
    def consequence(self) -> str:
        """What it means for the user, a sentence."""
        if self.order and self.reduces:
            return "Once filled, it has made a trade of this pair smaller, or ended it."
        if self.order:
            return "Once filled, it is a position without a stop and an exit of the bot's."
        if self.reduces:
            return "A stop or an exit of those trades may be refused."
        return "It has no stop and no exit of the bot's."


NOTHING = Owned(0.0)


def unowned(
    standing: Standing,
    owned: Mapping[str, Owned],
    kept: Mapping[str, float],
    pairs: Collection[str],
) -> Iterator[Unowned]:
    """What of `pairs` no trade explains.

    A position may differ from the trades' by what their waiting orders may have filled, and by a
    fee; what cannot be sold is nothing.

    Parameters
    ----------
    kept : by pair what is the user's own business, positive for what is held, shorts below zero

    Examples
    --------
    >>> lost = Placed("7", "BTC/USDT", 1, 0.5, 100.0)
    >>> said = Standing(0, {"BTC/USDT": 1.5}, (lost,), {"BTC/USDT": 100.0})
    >>> [one.text for one in unowned(said, {"BTC/USDT": Owned(1.0)}, {}, ["BTC/USDT"])]
    ['a position of +0.497, worth 49.7', 'an order, +0.5 at 100 (id 7)']
    """
    for pair in sorted(pairs):
        known = owned.get(pair, NOTHING)
        held = standing.held.get(pair, 0.0) - kept.get(pair, 0.0)
        extra = excess(held, known)
        rate = standing.rate.get(pair, 0.0)
        if abs(extra) > max(standing.least.get(pair, 0.0), 1e-12):
            yield Unowned(pair, extra, rate, reduces=_is_missing(extra, held, known))
        for order in standing.placed:
            if order.pair == pair and order.id not in known.orders:
                amount = order.side * order.amount
                price = order.rate or rate
                yield Unowned(pair, amount, price, order.id, order.reduces, order.conditional)


def unexplained(
    standing: Standing,
    then: Mapping[str, Owned],
    now: Mapping[str, Owned],
    kept: Mapping[str, float],
    pairs: Collection[str],
) -> dict[str, Unowned]:
    """By key what neither the trades before the answer nor those after it explain.

    An answer is from a moment between: what these or those explain is explained.
    """
    before, rest = (
        {one.key: one for one in unowned(standing, owned, kept, pairs)} for owned in (then, now)
    )
    return {key: one for key, one in rest.items() if _was_so(one, before.get(key))}


def _was_so(one: Unowned, before: Unowned | None) -> bool:
    """Whether the trades of before did not explain it either."""
    return before is not None and one.amount * before.amount > 0.0


def shown_by_both(before: Mapping[str, Unowned], now: Mapping[str, Unowned]) -> dict[str, Unowned]:
    """By key what two looks both show, and no more of it than the smaller of them.

    Examples
    --------
    >>> one, other = (Unowned("BTC/USDT", amount, 100.0) for amount in (1.0, 1.5))
    >>> shown_by_both({one.key: one}, {other.key: other})["BTC/USDT position"].amount
    1.0
    """
    return {
        key: replace(one, amount=nearer(before[key].amount, one.amount))
        for key, one in now.items()
        if _was_so(one, before.get(key))
    }


def left_alone(
    standing: Standing,
    both: Collection[Mapping[str, Owned]],
    kept: Mapping[str, float],
    pairs: Collection[str],
    first: Collection[str] = (),
) -> dict[str, float]:
    """By pair what is the user's own; it never grows.

    Parameters
    ----------
    both : the open trades before and after the answer
    first : those of `pairs` of which all that no trade explains is the user's, if nothing is known
    """
    own = dict(kept)
    for pair in pairs:
        held = standing.held.get(pair, 0.0)
        extra = nearer(*(excess(held, owned.get(pair, NOTHING)) for owned in both))
        if pair in own:
            own[pair] = nearer(own[pair], extra)
        elif pair in first:
            own[pair] = extra
    return own


def _is_missing(extra: float, held: float, known: Owned) -> bool:
    """Whether the position is smaller than the trades', and not one of the other side."""
    return extra * known.amount < 0.0 and held * extra <= 0.0


def nearer(kept: float, extra: float) -> float:
    """What is left of what was kept, where `extra` is all there is beyond the trades.

    Examples
    --------
    >>> nearer(2.0, 1.5), nearer(2.0, 3.0), nearer(-1.0, 0.5)
    (1.5, 2.0, 0.0)
    """
    if kept * extra <= 0.0:
        return 0.0
    return min(kept, extra) if kept > 0.0 else max(kept, extra)


def excess(held: float, owned: Owned) -> float:
    """What is held beyond what the trades explain, base currency, shorts below zero."""
    slack = _FEE * (abs(owned.amount) + owned.bought + owned.sold)
    most, least = owned.amount + owned.bought + slack, owned.amount - owned.sold - slack
    return max(0.0, held - most) + min(0.0, held - least)
