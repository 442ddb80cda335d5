"""The faults that somebody catches.

    InterceptError
    ├── PolicyError      a policy file that may not be used; carries every problem found
    ├── ProtocolError    a message that may not be relayed; says whose fault it is
    ├── StateError       counters that cannot be read or charged
    │   └── UnavailableError   whatever they are asked: the store is away or unusable
    ├── AuditError       a record that cannot be written, or a log that was changed
    └── UpstreamError    a server that cannot be started

Every message is one line that names place, cause and remedy. Outcomes (a denial) are values, never exceptions.
"""

from __future__ import annotations

__all__ = [
    "AuditError",
    "InterceptError",
    "PolicyError",
    "Problem",
    "ProtocolError",
    "StateError",
    "UnavailableError",
    "UpstreamError",
]

from typing import final

import msgspec


class InterceptError(Exception):
    """Base of all faults of this package; `str()` is one line meant for a person."""


class Problem(msgspec.Struct, frozen=True, order=True):
    """One mistake in a policy file. Lines and columns count from 1; `path` is a JSONPath (`$.tools.x.rules[0].op`)."""

    file: str
    line: int
    column: int
    path: str
    message: str

    def __str__(self) -> str:
        """`file:line:column: path: message`, the form editors and CI systems link."""
        return f"{self.file}:{self.line}:{self.column}: {self.path}: {self.message}"


class PolicyError(InterceptError):
    """A policy that may not be used. `problems` is never empty and is sorted by position."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


@final
class ProtocolError(InterceptError):
    """A message that may not be relayed. `code` is the JSON-RPC error code to answer with.

    `request_id` is the id of the request that it is, where that is certain.
    """

    def __init__(self, code: int, message: str, request_id: int | str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.request_id = request_id


class StateError(InterceptError):
    """Counters that could not be read or charged; the PEP alone turns this into a denial."""


class UnavailableError(StateError):
    """A store that cannot be used, whatever it is asked: only this may open a limit that says `fail: open`.

    Never raised for what a caller could bring about by choosing arguments (an amount that cannot be counted, a store
    that is full of counters): that would be a way around limits.
    """


class AuditError(InterceptError):
    """A record that could not be written, or an audit file that does not verify."""


class UpstreamError(InterceptError):
    """A server process that could not be started."""
