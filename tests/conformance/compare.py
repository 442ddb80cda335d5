"""Compares what the suite says of a server or a client alone with what it says through the proxy. Pure.

Below: nothing. Above: the run, which prints this.
"""

from __future__ import annotations

__all__ = ["Check", "Expected", "Verdict", "compare", "counts"]

import re
from collections import Counter
from collections.abc import Sequence
from typing import Literal, NamedTuple

_PORT = re.compile(r"(127\.0\.0\.1|localhost):\d+")
# What the suite writes down of the traffic it sees: a log in the order of arrival, and not a check.
_TRAFFIC = ("incoming-", "outgoing-", "stream-closed")
# A check of each message: the proxy may ask a server for its tools once more than the client does.
_OF_EACH_MESSAGE = ("valid-bearer-token",)


class Check(NamedTuple):
    """One check of a scenario: what it is, its status (SUCCESS, FAILURE, WARNING, SKIPPED or INFO), and why."""

    id: str
    status: str
    message: str = ""


class Expected(NamedTuple):
    """A difference that the protocol forces: the ids of the checks that differ, and the reason."""

    checks: frozenset[str]
    why: str


class Verdict(NamedTuple):
    """`same`; `expected`, which is no failure; or `differs`. `lines` say what differs and why."""

    kind: Literal["same", "expected", "differs"]
    lines: tuple[str, ...] = ()


def counts(checks: Sequence[Check]) -> str:
    """How many checks passed and how many failed, e.g. `3/0`."""
    statuses = Counter(check.status for check in _comparable(checks).elements())
    return f"{statuses['SUCCESS']}/{statuses['FAILURE']}"


def compare(alone: Sequence[Check], through: Sequence[Check], expected: Expected | None = None) -> Verdict:
    """Whether the same checks have the same status and message. Their order does not count, nor do ports in messages.

    An expected difference must be there, and exactly this one: else the verdict is `differs`.
    """
    before, after = _comparable(alone), _comparable(through)
    lost, gained = before - after, after - before
    differing = frozenset(check.id for check in (*lost, *gained))
    lines = tuple(f"{sign} {_line(check)}" for sign, some in (("-", lost), ("+", gained)) for check in some.elements())
    if expected is None:
        return Verdict("differs", lines) if differing else Verdict("same")
    if differing == expected.checks:
        return Verdict("expected", (expected.why,))
    return Verdict(
        "differs", (f"another difference than the expected one: {', '.join(sorted(expected.checks))}", *lines)
    )


def _comparable(checks: Sequence[Check]) -> Counter[Check]:
    kept = Counter(
        check._replace(message=_PORT.sub("HOST", check.message))
        for check in checks
        if not check.id.startswith(_TRAFFIC)
    )
    return Counter({check: 1 if check.id.startswith(_OF_EACH_MESSAGE) else times for check, times in kept.items()})


def _line(check: Check) -> str:
    return f"{check.id} {check.status}" + (f": {check.message[:200]}" if check.message else "")
