"""Which arguments of a tool are repeated in `Mcp-Param-*` header fields: the annotations of its inputSchema.

Source: MCP 2026-07-28, streamable HTTP, custom headers from tool parameters. Pure. Below: `catalogue`. Above:
`http_fields`.
"""

from __future__ import annotations

__all__ = ["Mirror", "mirrors_in", "mirrors_of", "render", "value_at"]

import re
from collections.abc import Iterator

import msgspec

from intercept_py.model import Json, JsonObject
from intercept_py.wire.catalogue import Catalogue

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


class Mirror(msgspec.Struct, frozen=True):
    """One annotated property: the keys that lead to its value in `arguments`, and its field (`lower` for comparing)."""

    path: tuple[str, ...]
    field: bytes
    lower: bytes
    integer: bool


_BELOW_ONE = (
    "items", "contains", "unevaluatedItems", "additionalProperties", "propertyNames", "unevaluatedProperties", "not",
    "if", "then", "else", "contentSchema",
)  # fmt: skip
_BELOW_LIST = ("allOf", "anyOf", "oneOf", "prefixItems")
_BELOW_MAP = ("patternProperties", "dependentSchemas", "$defs", "definitions")
_ANNOTATION = "x-mcp-header"
_MOST_SCHEMAS = 1024

_mirrors: dict[int, tuple[JsonObject, tuple[Mirror, ...]]] = {}
"""By the identity of the schema, which is kept as long as its entry: a schema is walked once, not at every call."""


def mirrors_in(known: Catalogue, name: str) -> tuple[Mirror, ...]:
    """Those of a tool; none where its schema is not known (MCP 2026-07-28: then no argument is repeated)."""
    tool = known.lookup(name)
    return () if tool is None or tool.schema is None else mirrors_of(tool.schema)


def mirrors_of(schema: JsonObject) -> tuple[Mirror, ...]:
    """The annotated properties of an inputSchema; none where one annotation is invalid.

    Clients must not use such a tool at all (MCP 2026-07-28, custom headers).
    """
    entry = _mirrors.get(id(schema))
    if entry is None:
        if len(_mirrors) >= _MOST_SCHEMAS:
            _mirrors.clear()
        entry = _mirrors[id(schema)] = (schema, _read_schema(schema))
    return entry[1]


def _read_schema(schema: JsonObject) -> tuple[Mirror, ...]:
    mirrors: dict[bytes, Mirror] = {}
    for path, node in _positions(schema):
        if _ANNOTATION not in node:
            continue
        token, kind = node[_ANNOTATION], node.get("type")
        if not path or type(token) is not str or not _TOKEN.fullmatch(token):
            return ()
        if type(kind) is not str or kind not in ("string", "integer", "boolean"):
            return ()
        field = b"Mcp-Param-" + token.encode("ascii")
        if field.lower() in mirrors:
            return ()
        mirrors[field.lower()] = Mirror(path, field, field.lower(), kind == "integer")
    return tuple(mirrors.values())


def _positions(root: JsonObject) -> Iterator[tuple[tuple[str, ...] | None, JsonObject]]:
    """Every schema in a schema, with its path where only `properties` lead to it. References are not followed."""
    stack: list[tuple[tuple[str, ...] | None, Json]] = [((), root)]
    while stack:
        path, node = stack.pop()
        if type(node) is not dict:
            continue
        yield path, node
        properties = node.get("properties")
        if type(properties) is dict:
            stack += [(None if path is None else (*path, name), below) for name, below in properties.items()]
        stack += [(None, below) for below in _elsewhere(node)]


def _elsewhere(node: JsonObject) -> list[Json]:
    """The schemas in a schema that describe no property by its name."""
    below = [node[key] for key in _BELOW_ONE if key in node]
    for key in _BELOW_LIST:
        if type(node.get(key)) is list:
            below += node[key]
    for key in _BELOW_MAP:
        if type(node.get(key)) is dict:
            below += node[key].values()
    return below


def value_at(arguments: Json, path: tuple[str, ...]) -> Json:
    """The value in `arguments` to which these keys lead, None if there is none."""
    for key in path:
        if type(arguments) is not dict:
            return None
        arguments = arguments.get(key)
    return arguments


def render(value: Json) -> str | None:
    """A value as its field has it; None where it has none: then the field is left out."""
    if type(value) is bool:
        return "true" if value else "false"
    try:
        return str(value) if type(value) in (str, int, float) else None
    except ValueError:  # more digits than Python prints
        return None
