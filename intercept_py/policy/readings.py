"""What a server may make of an argument: the value itself, and what lenient servers turn a string into.

Servers built on the official SDK read JSON text in a string as the object or array that it spells, and pydantic reads
`"1e6"`, `" 1000 "` or `"1_000"` as numbers (security rule 4). A guard that one of these readings would satisfy applies,
and a negative requirement must hold for all of them; otherwise re-spelling a value would dodge the rule. Pure.
"""

from __future__ import annotations

__all__ = ["readings"]

from collections.abc import Iterator
from decimal import Decimal, InvalidOperation

import msgspec

from intercept_py.model import Json
from intercept_py.policy.operators import numeric
from intercept_py.policy.paths import MISSING

_TEXT = frozenset(
    {"regex", "not_regex", "starts_with", "ends_with", "contains", "not_contains", "path_under", "cidr_in"}
)
"""Operators that look into text: of an array or object that a string spells they are asked about the texts inside."""
_LONGEST_NUMBER = 400
_EDGE = Decimal(10) ** 60
"""Numbers further out compare like this one: nobody writes an operand that large."""

_decode = msgspec.json.Decoder().decode


def readings(value: Json, steps: tuple[str | int, ...], op: str) -> list[Json]:
    """Everything that may stand at `steps` below `value`, the literal value first; [MISSING] if there is nothing."""
    found = [value]
    for step in steps:
        found = [below for one in found for whole in _wholes(one) if (below := _step(whole, step)) is not MISSING]
    alternatives = [other for one in found if type(one) is str and _may_be_more(one) for other in _others(one, op)]
    return (found + alternatives) or [MISSING]


def _may_be_more(text: str) -> bool:
    """Plain words are only themselves; `inf` and `nan` are why two letters are not plain."""
    return not (text[:1].isalpha() and text[0] not in "iInN")


def _step(value: Json, step: str | int) -> Json:
    if type(value) is dict and type(step) is str:
        return value.get(step, MISSING)
    if type(value) is list and type(step) is int and step < len(value):
        return value[step]
    return MISSING


def _wholes(value: Json) -> list[Json]:
    """The value, and what it spells if it is JSON text of an object or array."""
    if type(value) is str:
        spelled = _spelled(value)
        return [] if spelled is None else [spelled]
    return [value]


def _spelled(text: str) -> Json:
    """The object or array that the text is, else None."""
    if text.lstrip()[:1] not in ("{", "["):
        return None
    try:
        return _decode(text.strip())
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None


def _others(text: str, op: str) -> Iterator[Json]:
    spelled = _spelled(text)
    if spelled is None:
        number = None if numeric(text) is not None else _lenient_number(text)
        if number is not None:
            yield number
        return
    if op not in _TEXT or (type(spelled) is list and op in ("contains", "not_contains")):
        yield spelled
    if op in _TEXT:
        yield from _texts(spelled)


def _texts(value: Json) -> Iterator[str]:
    """Every string inside, keys included; iterative, so no nesting is too deep for it."""
    nodes = [value]
    while nodes:
        node = nodes.pop()
        if type(node) is str:
            yield node
        elif type(node) is list:
            nodes += node
        elif type(node) is dict:
            nodes += node
            nodes += node.values()


def _lenient_number(text: str) -> Decimal | None:
    """The number that Python's own `int`, `float` or `Decimal` would read, brought within `_EDGE`."""
    if len(text) > _LONGEST_NUMBER:
        return None
    try:
        number = Decimal(text.strip().replace("_", ""))
    except InvalidOperation:
        return None
    if number.is_nan():
        return None
    return min(max(number, -_EDGE), _EDGE)
