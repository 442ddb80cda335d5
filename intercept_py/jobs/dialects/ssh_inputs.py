"""What the ssh tools accept: one function an argument, each returns the value to use or raises `InputError`. Pure.

Above: `ssh` answers the error as `Error: <text>`. The texts and bounds are mcp-ssh-orchestrator's.
"""

from __future__ import annotations

__all__ = ["InputError", "alias", "command", "lines", "tag", "task_id"]

import re
from typing import Final

MAX_TASK_ID: Final = 200
MAX_ALIAS: Final = 100
MAX_TAG: Final = 50
MAX_COMMAND: Final = 10_000
MAX_LINES: Final = 1000

_TASK_ID = re.compile("[a-zA-Z0-9:_-]+")
_NAME = re.compile("[a-zA-Z0-9._-]+")
_CONTROL = re.compile("[\x01-\x08\x0b\x0c\x0e-\x1f]")


class InputError(ValueError):
    """An argument that cannot be used; the text is for the agent."""


def task_id(value: str) -> str:
    """A task id without the blanks around it."""
    name = _bounded("task_id", value, MAX_TASK_ID)
    if not _TASK_ID.fullmatch(name):
        raise InputError("task_id contains invalid characters (only alphanumeric, colon, dash, underscore allowed)")
    return name


def alias(value: str) -> str:
    """A host's alias without the blanks around it."""
    return _name("alias", value, MAX_ALIAS)


def tag(value: str) -> str:
    """A tag without the blanks around it."""
    return _name("tag", value, MAX_TAG)


def command(value: str) -> str:
    """A command without the blanks around it; tabs and line ends are its only control characters."""
    text = _bounded("command", value, MAX_COMMAND)
    if "\0" in text:
        raise InputError("command contains invalid characters (null bytes not allowed)")
    if _CONTROL.search(text):
        raise InputError("command contains invalid control characters")
    return text


def lines(value: int) -> int:
    """How many lines of output to return."""
    if not 1 <= value <= MAX_LINES:
        raise InputError(f"max_lines must be between 1 and {MAX_LINES}")
    return value


def _name(what: str, value: str, limit: int) -> str:
    name = _bounded(what, value, limit)
    if not _NAME.fullmatch(name):
        raise InputError(f"{what} contains invalid characters (only alphanumeric, dash, underscore, dot allowed)")
    return name


def _bounded(what: str, value: str, limit: int) -> str:
    text = value.strip()
    if not text:
        raise InputError(f"{what} is required")
    if len(text) > limit:
        raise InputError(f"{what} too long (max {limit} characters)")
    return text
