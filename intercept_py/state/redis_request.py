"""Charges in the words of `lua/charge.lua`.

Below: the numbers of `quota`. Above: `redis`.
"""

from __future__ import annotations

__all__ = ["Request", "request_of"]

from decimal import Decimal
from typing import NamedTuple

from intercept_py.model import Strategy
from intercept_py.state.quota import FIXED, MOVING, SECOND, SLIDING, Bill, Number, Posting

_NO_LIMIT = Decimal("Infinity")
_KINDS = {FIXED: Strategy.FIXED.value, MOVING: Strategy.MOVING.value, SLIDING: Strategy.SLIDING.value}


class Request(NamedTuple):
    """What charging a bill asks: `keys` are the store's own and those of the counters.

    `amounts`: for each counter its key, its kind and what it is charged, 0 if that is nothing.
    """

    bill: Bill
    keys: list[str]
    words: str
    amounts: list[tuple[str, str, int | str]]


def request_of(store: str, bill: Bill) -> Request:
    """All keys begin with the store's own."""
    words: list[str | int] = []
    for posting in bill.postings:
        words += (_KINDS[posting.kind], posting.window.seconds * SECOND, _edge(posting), _text(posting.amount))
    for place, charge in bill.charges:
        words += (place + 1, _limit(charge.limit), int(charge.inclusive), int(charge.shadow))
    amounts = [(one.key, _KINDS[one.kind], _text(one.amount)) for one in bill.postings]
    return Request(bill, [store, *[store + one.key for one in bill.postings]], " ".join(map(str, words)), amounts)


def _edge(posting: Posting) -> str:
    """How fixed windows align, see `window_end` in `lua/windows.lua` and in `quota`; others are not asked."""
    calendar = posting.window.calendar
    return calendar if calendar in ("week", "month") else "epoch"


def _text(number: Number) -> int | str:
    return number if type(number) is int else format(number, "f")


def _limit(limit: Number) -> int | str:
    """A limit as a text: `-` if nothing fits, `+` if everything does."""
    if type(limit) is int and limit >= 0:
        return limit
    if limit < 0:
        return "-"
    return "+" if limit == _NO_LIMIT else _text(limit)
