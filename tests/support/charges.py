"""Charges for tests of storages, and what they come to by a list of all that were made."""

from __future__ import annotations

__all__ = ["Made", "charge", "drawn_charges", "fits", "near_an_edge"]

from collections.abc import Iterable
from decimal import Decimal
from typing import TypeAlias

from hypothesis import strategies as st

from intercept_py.model import Charge, Strategy, Window


def charge(
    key: str = "k",
    limit: int | str = 10,
    amount: int | str = 1,
    seconds: int = 60,
    strategy: Strategy = Strategy.MOVING,
    *,
    calendar: str | None = None,
    inclusive: bool = True,
    shadow: bool = False,
) -> Charge:
    """One charge of a rate limit, 1 of 10 in a minute unless told."""
    window = Window(seconds, calendar)
    return Charge(
        ("limit", key), Decimal(amount), Decimal(limit), window, strategy, "r", inclusive=inclusive, shadow=shadow
    )


Made: TypeAlias = list[tuple[float, Charge]]
"""Charges, and when they were made."""


def drawn_charges(limit: int, seconds: int) -> st.SearchStrategy[tuple[Charge, ...]]:
    """One to three charges, of four counters of which moving or fixed windows of so many seconds hold so much."""
    one = st.builds(
        charge,
        st.sampled_from("ab"),
        st.just(limit),
        st.sampled_from(["0", "0.5", "1", "1", "1", "2", "3.25"]),
        st.just(seconds),
        st.sampled_from([Strategy.MOVING, Strategy.FIXED]),
    )
    return st.lists(one, min_size=1, max_size=3).map(tuple)


def fits(made: Made, charges: tuple[Charge, ...], now: float) -> bool:
    """Whether each limit allows what it has seen in the span, or the calendar window, that ends now, and these."""
    return all(_spent(made, one, now) + _sum(charges, one) <= one.limit for one in charges)


def _spent(made: Made, of: Charge, now: float) -> Decimal:
    seconds = of.window.seconds
    since = now - seconds if of.strategy is Strategy.MOVING else now // seconds * seconds
    return _sum((one for at, one in made if at >= since), of)


def _sum(charges: Iterable[Charge], of: Charge) -> Decimal:
    return sum((Decimal(one.amount) for one in charges if (one.key, one.strategy) == (of.key, of.strategy)), Decimal(0))


def near_an_edge(made: Made, seconds: int, now: float) -> bool:
    """Whether a moving window might still count what is over: it may, for up to 1/8192 of its length."""
    return any(0 <= now - at - seconds < seconds / 8_000 for at, _ in made)
