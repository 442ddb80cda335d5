"""Charges for tests of storages."""

from __future__ import annotations

__all__ = ["charge"]

from decimal import Decimal

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
