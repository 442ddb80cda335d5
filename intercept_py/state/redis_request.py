"""Charges in the words of `lua/charge.lua`.

Below: the numbers of `quota`. Above: `redis`.
"""

from __future__ import annotations

__all__ = ["Request", "request_of"]

from decimal import Decimal
from typing import NamedTuple

from intercept_py.model import Charge, Strategy
from intercept_py.state.quota import SECOND, Number, Posting, plus

_NO_LIMIT = Decimal("Infinity")


class Request(NamedTuple):
    """What charging these postings asks: `keys` are the store's own and those of the counters.

    `amounts`: for each counter its key, its kind and what it is charged, None if that is nothing.
    """

    postings: list[Posting]
    keys: list[str]
    words: str
    amounts: list[tuple[str, str, int | str | None]]


def request_of(store: str, postings: list[Posting]) -> Request:
    """Charges to one key add up. All keys begin with the store's own."""
    added: dict[str, Number] = {}
    counters: dict[str, Charge] = {}
    for posting in postings:
        key = posting.key
        added[key] = plus(added[key], posting.amount) if key in added else posting.amount
        counters[key] = posting.charge
    places = {key: number for number, key in enumerate(added, 1)}
    words: list[str | int] = []
    for key, charge in counters.items():
        words += (charge.strategy.value, charge.window.seconds * SECOND, _edge(charge), _text(added[key]))
    for posting in postings:
        charge = posting.charge
        words += (places[posting.key], _limit(charge.limit), int(charge.inclusive), int(charge.shadow))
    amounts = [(key, counters[key].strategy.value, _text(amount) if amount else None) for key, amount in added.items()]
    return Request(postings, [store, *[store + key for key in added]], " ".join(map(str, words)), amounts)


def _edge(charge: Charge) -> str:
    """How windows align, see `window_end` in `lua/windows.lua` and in `quota`."""
    calendar = charge.window.calendar
    return calendar if charge.strategy is Strategy.FIXED and calendar in ("week", "month") else "epoch"


def _text(number: Number) -> int | str:
    return number if type(number) is int else format(number, "f")


def _limit(limit: Number) -> int | str:
    """A limit as a text: `-` if nothing fits, `+` if everything does."""
    if type(limit) is int and limit >= 0:
        return limit
    if limit < 0:
        return "-"
    return "+" if limit == _NO_LIMIT else _text(limit)
