"""Paths into a call: `args.items[0].id`, `args["odd.key"]`, `caller.principal`, `tool.category`, `state.refund.spent`.

And into what a tool returned: `text`, `json.error`, `structured.result`.

Below: `model`, `rules`. Above: `loader` parses, `pdp` looks up. Object keys are exact: no case folding, no wild cards.
"""

from __future__ import annotations

__all__ = ["MISSING", "lookup", "parse", "parse_result", "parse_state", "render", "walk"]

import re
from enum import Enum
from typing import Final

import msgspec

from intercept_py.model import Caller, Json, ToolCall
from intercept_py.policy.rules import Path


class _Missing(Enum):
    """A type of its own, so that no JSON value, null included, can be taken for an absent one."""

    MISSING = "missing"


MISSING: Final = _Missing.MISSING

GLOBAL_ENTRY: Final = "_global"
"""How dialect B writes the entry `*` in a state path."""

_ROOT = re.compile(r"[A-Za-z_]+")
# A step is `.name`, `[0]` or `["any key"]`; a name stops at white space and at what has a meaning in a path.
_STEP = re.compile(r'\.(?P<name>[^\s.\[\]"\'\\`=]+)|\[(?P<index>0|[1-9][0-9]{0,8})\]|\[(?P<key>"(?:[^"\\]|\\.)*")\]')
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")

_CALLER_FIELDS: Final = ("principal", "session", "address", "scopes", "claims")
_TOOL_FIELDS: Final = ("name", "category")


def parse(text: str) -> Path:
    """Raises ValueError, one line, for what is no path into the arguments, the caller or the tool."""
    root = _ROOT.match(text)
    if root is None or root[0] not in ("args", "caller", "tool", "state"):
        raise ValueError(f"`{_shown(text)}` is no path: start with `args.`, `caller.`, `tool.` or `state.`")
    if root[0] == "state":
        raise ValueError(f"`{_shown(text)}` is a counter: it can only be compared with `lt` or `lte`")
    steps = _steps(text, root.end())
    if not steps:
        raise ValueError(f"`{_shown(text)}` needs a name after `{root[0]}.`")
    if root[0] == "caller":
        _check_caller(text, steps)
    elif root[0] == "tool" and (len(steps) != 1 or steps[0] not in _TOOL_FIELDS):
        raise ValueError(f"`{_shown(text)}` does not exist: the tool has `tool.name` and `tool.category`")
    return Path(root[0], steps, text)


def parse_result(text: str) -> Path:
    """Raises ValueError, one line, for what is no path into a tool's result."""
    root = _ROOT.match(text)
    if root is None or root[0] not in ("text", "json", "structured"):
        raise ValueError(f"`{_shown(text)}` is no path into a result: start with `text`, `json.` or `structured.`")
    steps = _steps(text, root.end())
    if steps and root[0] == "text":
        raise ValueError(f"`{_shown(text)}` does not exist: `text` is one string, `json` is what it says as JSON")
    return Path(root[0], steps, text)


def parse_state(text: str) -> tuple[str, str]:
    """`state.<entry>.<counter>` as (entry, counter). Tool names may hold dots, counters may not. Raises ValueError."""
    root, _, rest = text.partition(".")
    entry, _, counter = rest.rpartition(".")
    if root != "state" or not entry or not _PLAIN.fullmatch(counter):
        raise ValueError(f"`{_shown(text)}` is no counter: write `state.<tool>.<counter>` or `state._global.<counter>`")
    return ("*" if entry == GLOBAL_ENTRY else entry), counter


def render(path: Path) -> str:
    """One spelling for every path that means the same, however its author wrote it."""
    return path.root + "".join(
        f"[{step}]"
        if isinstance(step, int)
        else f".{step}"
        if _PLAIN.fullmatch(step)
        else f"[{msgspec.json.encode(step).decode()}]"
        for step in path.steps
    )


def lookup(path: Path, call: ToolCall, category: str | None) -> Json:
    """The value, or MISSING. `category` is what the policy says about the tool. Never raises."""
    if path.root == "args":
        return walk(call.arguments, path.steps)
    if path.root == "caller":
        return _caller(call.caller, path.steps)
    value = call.name if path.steps[0] == "name" else category
    return MISSING if value is None else value


def walk(value: Json, steps: tuple[str | int, ...]) -> Json:
    """Follow keys into objects and indexes into arrays; anything else on the way is MISSING."""
    for step in steps:
        if type(value) is dict:
            value = value.get(step, MISSING)
        elif type(value) is list and type(step) is int and step < len(value):
            value = value[step]
        else:
            return MISSING
    return value


def _caller(caller: Caller, steps: tuple[str | int, ...]) -> Json:
    field, rest = steps[0], steps[1:]
    if field == "claims":
        return walk(dict(caller.claims), rest)
    if field == "scopes":
        return walk(list(caller.scopes), rest)
    value = getattr(caller, str(field))
    return MISSING if value is None else value


def _steps(text: str, position: int) -> tuple[str | int, ...]:
    steps: list[str | int] = []
    while position < len(text):
        match = _STEP.match(text, position)
        if match is None:
            raise ValueError(f"`{_shown(text)}` is no path from `{_shown(text[position:])}` on: {_HINT}")
        steps.append(_step(text, match))
        position = match.end()
    return tuple(steps)


_HINT = 'write `.name`, `[0]` or `["any key"]`'


def _step(text: str, match: re.Match[str]) -> str | int:
    if match["index"] is not None:
        return int(match["index"])
    if match["name"] is not None:
        return match["name"]
    try:
        return str(msgspec.json.decode(match["key"], type=str))
    except (msgspec.MsgspecError, UnicodeError):
        raise ValueError(f"`{_shown(text)}` has a quoted key that is no JSON string: {_HINT}") from None


def _check_caller(text: str, steps: tuple[str | int, ...]) -> None:
    if steps[0] not in _CALLER_FIELDS:
        fields = ", ".join(f"`caller.{field}`" for field in _CALLER_FIELDS)
        raise ValueError(f"`{_shown(text)}` does not exist: the caller has {fields}")
    if steps[0] == "claims" and len(steps) == 1:
        raise ValueError(f"`{_shown(text)}` needs the name of a claim after `caller.claims.`")
    if steps[0] not in ("claims", "scopes") and len(steps) > 1:
        raise ValueError(f"`{_shown(text)}` does not exist: `caller.{steps[0]}` is one string")


def _shown(text: str) -> str:
    """Policy text for a one-line message."""
    return "".join(char if char.isprintable() else "?" for char in text[:80])
