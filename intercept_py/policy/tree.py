"""What is left of a policy file once it is read: values with positions, and the mistakes met on the way.

Below: `errors`, `model`, `messages`. Above: `source` builds the tree, `section` walks it.
"""

from __future__ import annotations

__all__ = [
    "MAX_PROBLEMS",
    "Array",
    "Broken",
    "Member",
    "Node",
    "Object",
    "Place",
    "Problems",
    "Scalar",
    "is_sound",
    "member",
    "plain",
    "shown",
]

import re
from typing import Final, Protocol, TypeAlias

import msgspec

from intercept_py.errors import Problem
from intercept_py.model import Json
from intercept_py.policy import messages as say

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}\Z")
_LONGEST: Final = 400
MAX_PROBLEMS: Final = 1000


class Scalar(msgspec.Struct, frozen=True, gc=False):
    """A single value. `text` is what the author wrote, without quotes."""

    line: int
    column: int
    value: str | int | float | bool | None
    text: str


class Broken(msgspec.Struct, frozen=True, gc=False):
    """A value about which a problem has been reported: later checks stay silent about it."""

    line: int
    column: int


class Array(msgspec.Struct, frozen=True):
    """A list."""

    line: int
    column: int
    items: tuple[Node, ...]


class Object(msgspec.Struct, frozen=True):
    """A mapping with text keys, in file order."""

    line: int
    column: int
    members: dict[str, Member]


class Member(msgspec.Struct, frozen=True):
    """One `key: value`."""

    key: Scalar
    node: Node


Node: TypeAlias = Scalar | Broken | Array | Object


class Place(Protocol):
    """Whatever has a position."""

    @property
    def line(self) -> int:
        """Counts from 1."""

    @property
    def column(self) -> int:
        """Counts characters from 1."""


class Problems:
    """Collects every mistake of one file, up to a number that nobody reads to its end."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._found: list[Problem] = []
        self._left_out = 0

    def add(self, place: Place, path: str, message: str, /, **values: str) -> None:
        """Reports a mistake; `message` is a template of `messages`, `values` fill it and may hold anything."""
        if self.full:
            self._left_out += 1
            return
        text = message.format(**{name: shown(value) for name, value in values.items()})
        self._found.append(Problem(self._file, place.line, place.column, path, text))

    @property
    def full(self) -> bool:
        """Whether further problems will only be counted."""
        return len(self._found) >= MAX_PROBLEMS

    def sorted(self) -> tuple[Problem, ...]:
        """By position, each once (an alias can show one mistake in several places, which differ by path)."""
        found = sorted(set(self._found))
        if self._left_out:
            last = found[-1]
            rest = say.LEFT_OUT.format(count=self._left_out)
            found.append(Problem(self._file, last.line, last.column, last.path, rest))
        return tuple(found)


def shown(text: str) -> str:
    """Text of a stranger for one line of a terminal: escaped where unprintable, cut where long."""
    short = text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
    if short.isprintable():
        return short
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in short)


def member(path: str, key: str) -> str:
    """The JSONPath of a mapping's member: `$.a.b`, or `$.a["odd key"]`."""
    if _IDENTIFIER.match(key):
        return f"{path}.{key}"
    return f"{path}[{shown(msgspec.json.encode(key).decode())}]"


def is_sound(node: Node) -> bool:
    """Whether no part of the tree is broken."""
    if isinstance(node, Array):
        return all(map(is_sound, node.items))
    if isinstance(node, Object):
        return all(is_sound(member.node) for member in node.members.values())
    return isinstance(node, Scalar)


def plain(node: Node) -> Json:
    """The JSON value of a sound tree."""
    if isinstance(node, Array):
        return [plain(item) for item in node.items]
    if isinstance(node, Object):
        return {key: plain(member.node) for key, member in node.members.items()}
    return node.value if isinstance(node, Scalar) else None
