"""Strict YAML: bytes in, a tree in which every value keeps its position out.

Below: the YAML parser's events, `scalars`, `tree`. Above: `loader`. The reader refuses what people
and other YAML readers understand differently (duplicate keys, tags, merge keys, `on`, `010`, invisible characters)
instead of choosing a meaning, and bounds size, depth and alias expansion.
"""

from __future__ import annotations

__all__ = ["MAX_BYTES", "MAX_DEPTH", "MAX_EXPANSION", "read"]

import re
from collections.abc import Callable
from typing import Any, Final, NoReturn

import msgspec
import yaml

from intercept_py.policy import messages as say
from intercept_py.policy.scalars import MAX_INTEGER, resolve
from intercept_py.policy.tree import Array, Broken, Member, Node, Object, Place, Problems, Scalar, member

MAX_BYTES: Final = 1024 * 1024
MAX_DEPTH: Final = 64
MAX_EXPANSION: Final = 10_000
"""How many nodes all aliases of a file may stand for together."""

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

# Control characters, line separators that only YAML sees, and what reorders or hides text in an editor.
_HARMFUL: Final = (
    "[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff0-\ufffb\ufffe\uffff"
    "\U000e0000-\U000e007f]|\r(?!\n)"
)
# Refused before parsing: the parser compares each `%TAG` with all others.
_DIRECTIVE = re.compile("^%", re.MULTILINE)
_BOMS: Final = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")


def read(text: bytes, file: str, what: str = "policy", start: str = "tools") -> tuple[Node | None, Problems]:
    """The document's tree, or None where the file cannot be read to its end; and the problems met so far.

    Messages say that it should be a `what`, and that one starts with the field `start`.
    """
    problems = Problems(file)
    builder = _Builder(problems, what, start)
    try:
        document = _decode(text, builder)
        try:
            for event in yaml.parse(document, Loader=_Loader):
                builder.take(event)
        except yaml.YAMLError as fault:
            builder.syntax(fault, document)
        return builder.result(), problems
    except _UnreadableError:
        return None, problems


class _UnreadableError(Exception):
    """The problem that was just reported makes the rest of the file meaningless."""


class _At(msgspec.Struct, frozen=True):
    line: int = 1
    column: int = 1


def _decode(text: bytes, builder: _Builder) -> str:
    if len(text) > MAX_BYTES:
        builder.stop(_At(), say.TOO_LARGE, what=builder.what, size=str(len(text)), limit=str(MAX_BYTES))
    if text.startswith(_BOMS):
        builder.stop(_At(), say.BYTE_ORDER_MARK)
    nul = text.find(b"\0")
    if nul >= 0:
        builder.stop(_position(text[:nul].decode("utf-8", "replace")), say.BINARY)
    try:
        document = text.decode("utf-8")
    except UnicodeDecodeError as fault:
        builder.stop(_position(text[: fault.start].decode("utf-8")), say.NOT_UTF8, byte=f"0x{text[fault.start]:02x}")
    directive = _DIRECTIVE.search(document)
    if directive:
        builder.stop(_position(document[: directive.start()]), say.DIRECTIVE)
    # Compiling the pattern takes longer than reading a policy, and nearly every policy is printable throughout.
    ordinary = document.replace("\r\n", "").replace("\n", "").replace("\t", "").isprintable()
    harmful = None if ordinary else re.search(_HARMFUL, document)
    if harmful:
        point = ord(harmful[0])
        escape = f"\\u{point:04x}" if point < 0x10000 else f"\\U{point:08x}"
        place = _position(document[: harmful.start()])
        builder.stop(place, say.HARMFUL_CHARACTER, name=f"U+{point:04X}", escape=escape)
    return document


def _position(before: str) -> _At:
    return _At(before.count("\n") + 1, len(before) - before.rfind("\n"))


class _Frame:
    """A mapping or list that is still open."""

    __slots__ = ("anchor", "column", "height", "items", "key", "line", "members", "size")

    def __init__(self, line: int, column: int, anchor: str | None, members: dict[str, Member] | None) -> None:
        self.line, self.column, self.anchor = line, column, anchor
        self.members = members
        self.items: list[Node] = []
        self.key: Scalar | Broken | None = None
        self.size = 1
        self.height = 1

    @property
    def awaits_key(self) -> bool:
        return self.members is not None and self.key is None


class _Anchored(msgspec.Struct, frozen=True):
    node: Node
    size: int
    height: int


class _Builder:
    """Turns parser events into a tree. Iterative: nesting never costs stack."""

    def __init__(self, problems: Problems, what: str, start: str) -> None:
        self.what = what
        self._start = start
        self._problems = problems
        self._frames: list[_Frame] = []
        self._anchors: dict[str, _Anchored | None] = {}
        self._expanded = 0
        self._documents = 0
        self._root: Node | None = None
        self._takes: dict[type, Callable[[Any], None]] = {
            yaml.ScalarEvent: self._scalar,
            yaml.MappingStartEvent: self._open_mapping,
            yaml.SequenceStartEvent: self._open_list,
            yaml.MappingEndEvent: self._close,
            yaml.SequenceEndEvent: self._close,
            yaml.AliasEvent: self._alias,
            yaml.DocumentStartEvent: self._document,
        }

    def take(self, event: Any) -> None:
        handler = self._takes.get(type(event))
        if handler:
            handler(event)

    def result(self) -> Node | None:
        root = self._root
        if root is None or (isinstance(root, Scalar) and root.value is None):
            self.stop(_At(), say.EMPTY_FILE, what=self.what, start=self._start)
        return root

    def stop(self, place: Place, message: str, /, **values: str) -> NoReturn:
        self._problems.add(place, self._path(), message, **values)
        raise _UnreadableError

    def syntax(self, fault: yaml.YAMLError, document: str) -> NoReturn:
        """Reports what the parser refused, in the author's terms where the cause is known."""
        mark = getattr(fault, "problem_mark", None)
        place = _mark(mark) if mark else _At()
        detail = " ".join(str(getattr(fault, "problem", None) or fault).split())
        context = getattr(fault, "context", None) or ""
        rest = document[mark.index :] if mark else ""
        if "scanning an alias" in context:
            self.stop(_mark(fault.context_mark), say.BARE_STAR)  # type: ignore[attr-defined]
        if "cannot start any token" in detail and rest:
            self.stop(place, say.TAB if rest[0] == "\t" else say.RESERVED_START, character=rest[0])
        if "mapping values are not allowed" in detail:
            self.stop(place, say.NESTED_COLON)
        start = getattr(fault, "context_mark", None)
        if start:
            self.stop(place, say.UNFINISHED, detail=detail, context=context, line=str(start.line + 1))
        self.stop(place, say.SYNTAX, detail=detail)

    def _path(self) -> str:
        path = "$"
        for frame in self._frames:
            if frame.members is None:
                path = f"{path}[{len(frame.items)}]"
            elif isinstance(frame.key, Scalar):
                path = member(path, frame.key.text)
        return path

    def _report(self, event: Any, message: str, /, **values: str) -> Broken:
        place = _mark(event.start_mark)
        self._problems.add(place, self._path(), message, **values)
        return Broken(place.line, place.column)

    def _document(self, event: Any) -> None:
        self._documents += 1
        if self._documents > 1:
            self.stop(_mark(event.start_mark), say.SEVERAL_DOCUMENTS, what=self.what)

    def _scalar(self, event: Any) -> None:
        mark, text = event.start_mark, event.value
        fault = None
        value = text
        if event.implicit[0]:
            value, fault = resolve(text)
        node: Node
        if event.tag is not None:
            node = self._report(event, say.TAG, tag=event.tag)
        elif self._frames and self._frames[-1].awaits_key and not isinstance(value, str):
            node = self._report(event, say.MERGE_KEY if text == "<<" else say.KEY_NOT_TEXT, text=text)
        elif fault is not None:
            node = self._report(event, fault, text=text, limit=str(MAX_INTEGER))
        else:
            node = Scalar(mark.line + 1, mark.column + 1, value, text)
        self._anchor(event, event.anchor)
        self._place(node, 1, 0, event.anchor)

    def _alias(self, event: Any) -> None:
        name = event.anchor
        target = self._anchors.get(name)
        if self._frames and self._frames[-1].awaits_key:
            self._place(self._report(event, say.ALIAS_KEY, name=name), 1, 0, None)
        elif target is None:
            message = say.RECURSIVE_ALIAS if name in self._anchors else say.UNDEFINED_ALIAS
            self._place(self._report(event, message, name=name), 1, 0, None)
        else:
            self._expanded += target.size
            if self._expanded > MAX_EXPANSION:
                self.stop(_mark(event.start_mark), say.ALIAS_BOMB, limit=str(MAX_EXPANSION))
            self._check_depth(event, target.height)
            self._place(target.node, target.size, target.height, None)

    def _open_mapping(self, event: Any) -> None:
        self._open(event, {})

    def _open_list(self, event: Any) -> None:
        self._open(event, None)

    def _open(self, event: Any, members: dict[str, Member] | None) -> None:
        if event.tag is not None:
            self._report(event, say.TAG, tag=event.tag)
        if self._frames and self._frames[-1].awaits_key:
            self._report(event, say.KEY_NOT_TEXT, text="[...]" if members is None else "{...}")
        self._check_depth(event, 1)
        self._anchor(event, event.anchor)
        self._frames.append(_Frame(event.start_mark.line + 1, event.start_mark.column + 1, event.anchor, members))

    def _check_depth(self, event: Any, height: int) -> None:
        if len(self._frames) + height > MAX_DEPTH:
            self.stop(_mark(event.start_mark), say.TOO_DEEP, limit=str(MAX_DEPTH))

    def _anchor(self, event: Any, name: str | None) -> None:
        """Declares an anchor; its node follows when it is complete, so an alias inside it is seen to be recursive."""
        if name is None:
            return
        if name in self._anchors:
            self._report(event, say.DUPLICATE_ANCHOR, name=name)
        self._anchors[name] = None

    def _close(self, _event: Any) -> None:
        frame = self._frames.pop()
        node: Node
        if frame.members is None:
            node = Array(frame.line, frame.column, tuple(frame.items))
        else:
            node = Object(frame.line, frame.column, frame.members)
        self._place(node, frame.size, frame.height, frame.anchor)

    def _place(self, node: Node, size: int, height: int, anchor: str | None) -> None:
        if anchor is not None:
            self._anchors[anchor] = _Anchored(node, size, height)
        if not self._frames:
            self._root = node
            return
        frame = self._frames[-1]
        frame.size += size
        frame.height = max(frame.height, height + 1)
        if frame.members is None:
            frame.items.append(node)
        elif frame.key is None:
            frame.key = self._key(frame.members, node)
        else:
            if isinstance(frame.key, Scalar):
                frame.members.setdefault(frame.key.text, Member(frame.key, node))
            frame.key = None

    def _key(self, members: dict[str, Member], node: Node) -> Scalar | Broken:
        if not isinstance(node, Scalar):
            return Broken(node.line, node.column)
        first = members.get(node.text)
        if first:
            self._problems.add(
                node, member(self._path(), node.text), say.DUPLICATE_KEY, key=node.text, line=str(first.key.line)
            )
        return node


def _mark(mark: Any) -> _At:
    return _At(mark.line + 1, mark.column + 1)
