"""One mapping of a policy, read field by field: what is missing, unknown or of the wrong type is reported, not raised.

Below: `tree` (positions) and `schema` (the fields). Above: `loader` and `compile`; `gateway_file`, whose fields are
others. A getter returns None both for a field that is absent and for one about which a problem has been reported, so
callers need no second error path.
"""

from __future__ import annotations

__all__ = ["Row", "Section", "amount", "closest", "describe", "is_clean"]

from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import ClassVar, Protocol, Self

from intercept_py.policy import messages as say
from intercept_py.policy.schema import FIELDS_OF, PLACES
from intercept_py.policy.tree import Array, Broken, Member, Node, Object, Problems, Scalar, member

_LONGEST_NAME = 200
_LONGEST_TEXT = 2000


class Row(Protocol):
    """What must be known of a field to read it, see `schema.Field`."""

    @property
    def values(self) -> str:
        """What it takes, for people."""

    @property
    def choices(self) -> tuple[str, ...]:
        """All that it takes, if that is a list of words."""

    @property
    def required(self) -> bool:
        """Whether a mapping without it is a mistake."""


class Section:
    """A mapping at `path` that holds the fields of `where`.

    `FIELDS_OF` and `PLACES` are the language: the fields of every such mapping, and what messages call it. A subclass
    may have another one.
    """

    __slots__ = ("_fields", "_members", "node", "path", "problems", "where")

    FIELDS_OF: ClassVar[Mapping[str, Mapping[str, Row]]] = FIELDS_OF
    PLACES: ClassVar[Mapping[str, str]] = PLACES

    def __init__(self, node: Object, path: str, where: str, problems: Problems) -> None:
        self.node, self.path, self.where, self.problems = node, path, where, problems
        self._fields = self.FIELDS_OF[where]
        self._members = node.members
        for name, found in self._members.items():
            if name not in self._fields:
                self._unknown(name, found.key)
        for name, field in self._fields.items():
            if field.required and name not in self._members:
                problems.add(node, path, say.MISSING_FIELD, name=name, values=field.values)

    @classmethod
    def open(cls, node: Node, path: str, where: str, problems: Problems) -> Self | None:
        """The section, or None (reported) if the node is no mapping."""
        if isinstance(node, Object):
            return cls(node, path, where, problems)
        if not isinstance(node, Broken):
            problems.add(node, path, say.NOT_A_MAPPING, what=cls.PLACES[where], got=describe(node))
        return None

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def at(self, name: str) -> str:
        """The JSONPath of a field."""
        return member(self.path, name)

    def value(self, name: str) -> Node | None:
        """The field's node, whatever its type; None if absent or broken."""
        found = self._members.get(name)
        return None if found is None or isinstance(found.node, Broken) else found.node

    def report(self, field: str, message: str, /, **values: str) -> None:
        """Reports a mistake at the field's value."""
        self.problems.add(self._members[field].node, self.at(field), message, **values)

    def report_key(self, field: str, message: str, /, **values: str) -> None:
        """Reports that a field should not be here."""
        self.problems.add(self._members[field].key, self.at(field), message, **values)

    def wrong_type(self, name: str) -> None:
        """Reports that the field takes another type of value."""
        field, node = self._fields[name], self._members[name].node
        self.problems.add(node, self.at(name), say.WRONG_TYPE, name=name, values=field.values, got=describe(node))

    def scalar(self, name: str) -> Scalar | None:
        """The field's single value."""
        node = self.value(name)
        if node is None or isinstance(node, Scalar):
            return node
        self.wrong_type(name)
        return None

    def text(self, name: str) -> str | None:
        """The field's text, not blank."""
        scalar = self.scalar(name)
        if scalar is None:
            return None
        if not isinstance(scalar.value, str):
            self.wrong_type(name)
        elif not scalar.value.strip():
            self.report(name, say.BLANK, name=name)
        else:
            return scalar.value
        return None

    def name(self, name: str) -> str | None:
        """The field's text, fit to name something."""
        text = self.text(name)
        if text is None or not is_clean(text, self._members[name].node, self.at(name), self.problems):
            return None
        if len(text) <= _LONGEST_NAME:
            return text
        self.report(name, say.TOO_LONG, name=name, size=str(len(text)), limit=str(_LONGEST_NAME))
        return None

    def prose(self, name: str) -> str | None:
        """The field's text as one line that an agent or a person may be shown."""
        text = self.text(name)
        if text is None:
            return None
        line = " ".join(text.split()) if "\n" in text else text.strip()
        if len(text) > _LONGEST_TEXT:
            self.report(name, say.TOO_LONG, name=name, size=str(len(text)), limit=str(_LONGEST_TEXT))
        elif not line.isprintable():
            self.report(name, say.CONTROL_CHARACTERS, text=line)
        else:
            return line
        return None

    def choice(self, name: str) -> str | None:
        """The field's text, one of the choices that the table of fields lists."""
        scalar = self.scalar(name)
        if scalar is None:
            return None
        field = self._fields[name]
        if not isinstance(scalar.value, str):
            self.wrong_type(name)
        elif scalar.value in field.choices:
            return scalar.value
        elif guess := closest(scalar.value, field.choices, self.problems):
            self.report(name, say.UNKNOWN_CHOICE_GUESS, name=name, text=scalar.value, guess=guess)
        else:
            self.report(name, say.UNKNOWN_CHOICE, name=name, values=field.values, text=scalar.value)
        return None

    def count(self, name: str) -> int | None:
        """The field's whole number of at least 1."""
        scalar = self.scalar(name)
        if scalar is None:
            return None
        if type(scalar.value) is not int:
            self.wrong_type(name)
        elif scalar.value < 1:
            self.report(name, say.NOT_POSITIVE, name=name, text=scalar.text)
        else:
            return scalar.value
        return None

    def section(self, name: str, where: str) -> Self | None:
        """The mapping that the field holds."""
        node = self.value(name)
        return None if node is None else self.open(node, self.at(name), where, self.problems)

    def items(self, name: str) -> Iterator[tuple[str, Node]]:
        """The list that the field holds, each item with its path."""
        node = self.value(name)
        if isinstance(node, Array):
            for index, item in enumerate(node.items):
                yield f"{self.at(name)}[{index}]", item
        elif node is not None:
            self.wrong_type(name)

    def members(self, name: str) -> Iterator[tuple[str, str, Member]]:
        """The mapping from free names that the field holds: path, name, key and value."""
        node = self.value(name)
        if isinstance(node, Object):
            for key, found in node.members.items():
                yield member(self.at(name), key), key, found
        elif node is not None:
            self.wrong_type(name)

    def filled(self, name: str) -> Iterator[tuple[str, Node]]:
        """Like `items`, but an empty list is reported."""
        node = self.value(name)
        if isinstance(node, Array) and not node.items:
            self.report(name, say.EMPTY_LIST, name=name)
        return self.items(name)

    def names(self, name: str, *, at_least_one: bool = False) -> tuple[str, ...]:
        """The list of distinct names that the field holds."""
        found: dict[str, None] = {}
        for path, item in self.filled(name) if at_least_one else self.items(name):
            if isinstance(item, Broken):
                continue
            text = item.value if isinstance(item, Scalar) else None
            if not isinstance(text, str):
                self.problems.add(item, path, say.WRONG_ITEM, name=name, got=describe(item))
            elif text in found:
                self.problems.add(item, path, say.REPEATED, text=text)
            elif is_clean(text, item, path, self.problems):
                found[text] = None
        return tuple(found)

    def _unknown(self, name: str, key: Scalar) -> None:
        what, path = self.PLACES[self.where], self.at(name)
        elsewhere = [where for where in self.PLACES if name in self.FIELDS_OF[where]]
        guess = closest(name, self._fields, self.problems)
        if elsewhere:
            self.problems.add(key, path, say.MISPLACED_FIELD, name=name, what=what, where=self.PLACES[elsewhere[0]])
        elif guess:
            self.problems.add(key, path, say.UNKNOWN_FIELD_GUESS, name=name, guess=guess)
        else:
            names = ", ".join(self._fields)
            self.problems.add(key, path, say.UNKNOWN_FIELD, name=name, what=what, names=names)


def is_clean(text: str, node: Node, path: str, problems: Problems) -> bool:
    """Whether text may name something: not blank, not padded, printable. Reports if not."""
    if not text.strip():
        problems.add(node, path, say.BLANK_NAME)
    elif text != text.strip():
        problems.add(node, path, say.PADDED, text=text)
    elif not text.isprintable():
        problems.add(node, path, say.CONTROL_CHARACTERS, text=text)
    else:
        return True
    return False


def amount(node: Node) -> Decimal | None:
    """The exact number that the author wrote."""
    if isinstance(node, Scalar) and isinstance(node.value, int | float) and not isinstance(node.value, bool):
        return Decimal(node.text)
    return None


def describe(node: Node) -> str:
    """What kind of value it is, for a message."""
    if isinstance(node, Object):
        return "a mapping"
    if isinstance(node, Array):
        return "a list"
    value = node.value if isinstance(node, Scalar) else None
    if value is None:
        return "nothing (null)"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"the number `{value}`" if isinstance(value, int | float) else f"the text `{value}`"


def closest(word: str, choices: Iterable[str], problems: Problems) -> str | None:
    """The choice that was probably meant. None also where nobody would read the guess."""
    if problems.full:
        return None
    import difflib  # 5 ms, and only a policy with a mistake needs it

    matches = difflib.get_close_matches(word, list(choices), n=1)
    return matches[0] if matches else None
