"""What a plain YAML scalar means: JSON's literals and numbers, or text; refused where YAML readers disagree.

Below: `messages`. Above: `source`. YAML 1.1 and 1.2 readers differ about `on`, `010`, `1:30` and dates, so nobody may
write them where another reader (or the author) could see something else.
"""

from __future__ import annotations

__all__ = ["MAX_INTEGER", "resolve"]

import re
from decimal import Decimal
from math import inf, isfinite
from typing import Final

from intercept_py.model import Json
from intercept_py.policy import messages as say

MAX_INTEGER: Final = 2**53 - 1
"""Beyond it a JSON number is not exact everywhere."""

_LONGEST_NUMBER: Final = 400
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]*)\Z")
_DECIMAL = re.compile(r"-?(?:0|[1-9][0-9]*)\.[0-9]+\Z")
# What some YAML reader takes for a number and another one does not: PyYAML reads `1e3` as text, Go as 1000.
_NUMBERLIKE = re.compile(
    r"[-+]?(?:0[box][0-9a-fA-F_]+|[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?"
    r"|(?:[0-9][0-9_]*)(?:\.[0-9_]*)?(?:[eE][+-]?[0-9]+)?|\.[0-9][0-9_]*(?:[eE][+-]?[0-9]+)?)\Z"
)
_DATELIKE = re.compile(r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:(?:[Tt]|[ \t]+)[0-9]{1,2}:.*)?\Z")
_WORDS: Final[dict[str, Json]] = {"true": True, "false": False, "null": None, "": None}
_ODD_WORDS: Final[dict[str, str]] = {
    **dict.fromkeys(("yes", "no", "on", "off", "Yes", "No", "On", "Off", "YES", "NO", "ON", "OFF"), say.ODD_BOOLEAN),
    **dict.fromkeys(("True", "TRUE", "False", "FALSE"), say.ODD_BOOLEAN),
    **dict.fromkeys(("~", "Null", "NULL"), say.ODD_NULL),
    **dict.fromkeys((sign + word for sign in ("", "+", "-") for word in (".inf", ".Inf", ".INF")), say.NOT_FINITE),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), say.NOT_FINITE),
    **dict.fromkeys(("=", "<<"), say.ODD_SIGN),
}


def resolve(text: str) -> tuple[Json, str | None]:
    """The value of a plain scalar; or the message of why it has none that everybody would agree on."""
    if text in _WORDS:
        return _WORDS[text], None
    if text in _ODD_WORDS:
        return None, _ODD_WORDS[text]
    if text[0] not in "0123456789+-.":
        return text, None
    if _INTEGER.match(text):
        return (int(text), None) if len(text) <= 17 and abs(int(text)) <= MAX_INTEGER else (None, say.INTEGER_RANGE)
    if _DECIMAL.match(text):
        return _exact(text)
    if _NUMBERLIKE.match(text):
        return None, say.ODD_NUMBER
    if _DATELIKE.match(text):
        return None, say.ODD_DATE
    return text, None


def _exact(text: str) -> tuple[Json, str | None]:
    """A float that is written back as the very number the author wrote, so comparing decimals stays exact."""
    number = float(text) if len(text) <= _LONGEST_NUMBER else inf
    if isfinite(number) and Decimal(repr(number)) == Decimal(text):
        return number, None
    return None, say.INEXACT_NUMBER
