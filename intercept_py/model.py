"""The vocabulary that every layer shares: frozen values without behaviour or I/O.

XACML names in brackets. A `ToolCall` is judged by the PDP, which returns a `Decision` whose `charges` (obligations)
the PEP discharges against `state` before the call may go on.
"""

from __future__ import annotations

__all__ = [
    "NO_TOOL",
    "AuditLevel",
    "Caller",
    "Charge",
    "Decision",
    "Effect",
    "Failure",
    "Finding",
    "Json",
    "JsonObject",
    "Outcome",
    "RequestId",
    "Strategy",
    "Tool",
    "ToolCall",
    "Window",
]

from collections.abc import Callable, Mapping
from decimal import Decimal
from enum import Enum
from typing import Any, Literal, TypeAlias, final

import msgspec

Json: TypeAlias = Any
"""A decoded JSON value: None, bool, int, float, str, list or dict with string keys."""
JsonObject: TypeAlias = dict[str, Any]
RequestId: TypeAlias = int | str


class Effect(Enum):
    """The two results of a decision (XACML Permit and Deny)."""

    ALLOW = "allow"
    DENY = "deny"


class Strategy(Enum):
    """How a window counts; see `rate_limit.strategy` in the policy language."""

    MOVING = "moving"
    FIXED = "fixed"
    SLIDING = "sliding"


class AuditLevel(Enum):
    """What an audit record keeps of a call, from least to most."""

    NONE = "none"
    METADATA = "metadata"
    REQUEST = "request"
    RESPONSE = "response"


Outcome: TypeAlias = Literal["ok", "tool_error", "error", "timeout", "cancelled", "upstream_gone", "withdrawn"]
"""How an allowed request ended. `withdrawn`: it never reached the server."""


Failure: TypeAlias = Callable[[Json], str | None]
"""Asked of a result that claims success: what in it means that the call failed, None if nothing does."""


class Window(msgspec.Struct, frozen=True):
    """A span of time. `calendar` (`second` to `month`): the unit the author named; fixed windows align to it in UTC."""

    seconds: int
    calendar: str | None = None


class Caller(msgspec.Struct, frozen=True):
    """Who calls, as far as the transport can prove it. A missing value is None, never an invented one."""

    session: str | None = None
    principal: str | None = None
    address: str | None = None
    scopes: tuple[str, ...] = ()
    claims: Mapping[str, Json] = {}


class Tool(msgspec.Struct, frozen=True):
    """A tool as its server lists it. `schema` is the inputSchema, None where the server sent none or no object."""

    name: str
    schema: JsonObject | None = None
    listed: bool = True


NO_TOOL = Tool(name="", listed=False)
"""Stands for a tool that the server does not list (as opposed to None: the list is not known)."""


class ToolCall(msgspec.Struct, frozen=True):
    """One `tools/call`, decoded. `tool`: None while the server's list is unknown, `NO_TOOL` when it lacks the name."""

    name: str
    arguments: JsonObject
    caller: Caller = Caller()
    tool: Tool | None = None


class Charge(msgspec.Struct, frozen=True):
    """An obligation: before the call goes on, add `amount` to the counter `key` and stay within `limit`.

    `key` parts are unescaped and start with the kind of counter; a store escapes and prefixes them. After the charge
    the counter must satisfy `value <= limit` (`inclusive`) or `value < limit`. An `amount` of 0 only checks.
    A `shadow` charge is made and reported but refuses nothing. `fail_open`: whether the call goes on uncounted where
    the store is unavailable; None leaves that to whoever runs the proxy.
    """

    key: tuple[str, ...]
    amount: Decimal | int
    limit: Decimal | int
    window: Window
    strategy: Strategy
    rule: str
    inclusive: bool = True
    reason: str | None = None
    shadow: bool = False
    fail_open: bool | None = None


@final
class Finding(msgspec.Struct, frozen=True):
    """One reason to deny. `code` is stable and machine-readable, `reason` is one line for the agent."""

    code: str
    reason: str
    rule: str | None = None


class Decision(msgspec.Struct, frozen=True):
    """What the PDP says. DENY has a `finding`; ALLOW stands only once every charge has been made.

    `shadowed` holds the findings of rules in shadow mode: recorded, not enforced. `failure` is for the record as well:
    it tells a failed call where the server does not. `uncounted`: why charges were not made of a call that goes on
    nonetheless, one finding for each.
    """

    effect: Effect
    finding: Finding | None = None
    charges: tuple[Charge, ...] = ()
    shadowed: tuple[Finding, ...] = ()
    audit: AuditLevel = AuditLevel.METADATA
    failure: Failure | None = None
    uncounted: tuple[Finding, ...] = ()
