"""The small notations inside limits: `5/hour`, `90s`, `minute`, `args.project`.

Below: the model. Above: `compile`. A ValueError carries the message template that says what is wrong.
"""

from __future__ import annotations

__all__ = ["CALENDAR", "MAX_WINDOW", "RATE_PATTERN", "WINDOW_PATTERN", "rate", "window"]

import re
from typing import Final

from intercept_py.model import Strategy, Window
from intercept_py.policy import messages as say

_DAY: Final = 24 * 60 * 60
MAX_WINDOW: Final = 366 * _DAY
CALENDAR: Final = {
    "second": 1,
    "minute": 60,
    "hour": 60 * 60,
    "day": _DAY,
    "week": 7 * _DAY,
    # The longest month, so that no window of a moving limit is shorter than the month its author thinks of.
    "month": 31 * _DAY,
}
_UNITS: Final = {"s": 1, "m": 60, "h": 60 * 60, "d": _DAY}
RATE_PATTERN: Final = f"^[1-9][0-9]{{0,14}}/({'|'.join(CALENDAR)})$"
WINDOW_PATTERN: Final = f"^([1-9][0-9]{{0,7}}[smhd]|{'|'.join(CALENDAR)})$"
_RATE = re.compile(r"([1-9][0-9]{0,14})/([a-z]+)\Z")
_SPAN = re.compile(r"([1-9][0-9]{0,7})([smhd])\Z")


def rate(text: str) -> tuple[int, Window]:
    """`5/hour` of dialect B: the maximum and a calendar window."""
    match = _RATE.match(text)
    if not match or match[2] not in CALENDAR:
        raise ValueError(say.BAD_RATE)
    return int(match[1]), Window(CALENDAR[match[2]], match[2])


def window(value: int | str, strategy: Strategy) -> Window:
    """Seconds, a span such as `90s`, or a unit. Only fixed windows align to the calendar, so only they keep it."""
    if isinstance(value, str) and value in CALENDAR:
        return Window(CALENDAR[value], value if strategy is Strategy.FIXED else None)
    if isinstance(value, str):
        match = _SPAN.match(value)
        if not match:
            raise ValueError(say.BAD_WINDOW)
        value = int(match[1]) * _UNITS[match[2]]
    if not 1 <= value <= MAX_WINDOW:
        raise ValueError(say.WINDOW_RANGE)
    return Window(value)
