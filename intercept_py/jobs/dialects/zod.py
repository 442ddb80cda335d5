"""What servers on the TypeScript SDK say of arguments that their zod schemas refuse, and of tools they do not have.

Below: `serving`. Above: the dialects that stand for such servers.
"""

from __future__ import annotations

__all__ = ["Issue", "invalid", "issues", "refuse", "unknown"]

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import msgspec
from jsonschema import ValidationError
from mcp_types import CallToolResult, Tool

from intercept_py.jobs.serving import text_result
from intercept_py.model import Json, JsonObject

_MISSING: Final = object()
_TYPES = {bool: "boolean", int: "number", float: "number", str: "string", list: "array", dict: "object"}
_SIZED = {"minLength": ("string", "characters"), "maxLength": ("string", "characters"), "minItems": ("array", "items")}


class Issue(msgspec.Struct, frozen=True):
    """One thing that is wrong, and where in the arguments."""

    message: str
    path: tuple[str | int, ...] = ()

    def __str__(self) -> str:
        """The message and the path, as in `Invalid input at parts[0].type`."""
        if not self.path:
            return self.message
        first, *rest = self.path
        return f"{self.message} at {first}{''.join(f'[{x}]' if isinstance(x, int) else f'.{x}' for x in rest)}"


def unknown(name: str) -> CallToolResult:
    """There is no such tool."""
    return text_result(f"MCP error -32602: Tool {name} not found", is_error=True)


def refuse(tool: Tool, errors: Sequence[ValidationError], arguments: JsonObject) -> CallToolResult:
    """A `serving.Refuse`: the arguments do not fit the tool's schema."""
    return invalid(tool.name, issues(tool, errors))


def invalid(name: str, found: Iterable[Issue]) -> CallToolResult:
    """The same, of issues that a schema cannot tell."""
    said = "\n".join(map(str, found))
    prefix = f"MCP error -32602: Input validation error: Invalid arguments for tool {name}: "
    return text_result(prefix + said, is_error=True)


def issues(tool: Tool, errors: Sequence[ValidationError]) -> list[Issue]:
    """What zod would find, in its order: the one in which the schema names the fields."""
    order = {name: number for number, name in enumerate(tool.input_schema.get("properties", {}))}
    found = dict.fromkeys(issue for error in errors for issue in _issues(error))
    return sorted(found, key=lambda issue: order.get(str(issue.path[0]), -1) if issue.path else -1)


def _issues(error: ValidationError) -> Iterator[Issue]:
    path = tuple(error.absolute_path)
    schema: JsonObject = error.schema  # type: ignore[assignment]  # True and False are not used
    match error.validator:
        case "required":
            missing = set(schema["required"]).difference(error.instance)  # type: ignore[arg-type]  # it is set
            yield from (Issue(_unfit(schema["properties"][name], _MISSING), (*path, name)) for name in missing)
        case "type" | "enum" | "const":
            yield Issue(_unfit(schema, error.instance), path)
        case "anyOf":
            yield from _union(schema["anyOf"], error, path)
        case keyword:
            yield Issue(_size(str(keyword), schema), path)


def _union(options: list[JsonObject], error: ValidationError, path: tuple[str | int, ...]) -> Iterator[Issue]:
    """Of a union of objects: what is wrong with the one that the object's `type` names."""
    if not isinstance(error.instance, dict):
        yield Issue(_unfit({"type": "object"}, error.instance), path)
        return
    kind = error.instance.get("type")
    for number, option in enumerate(options):
        if option["properties"]["type"]["const"] == kind:
            chosen = [inner for inner in error.context or () if inner.schema_path[0] == number]
            yield from (issue for inner in chosen for issue in _issues(inner))
            return
    yield Issue("Invalid input", (*path, "type"))


def _unfit(schema: JsonObject, value: Json) -> str:
    if "enum" in schema:
        return f"Invalid option: expected one of {'|'.join(map(json.dumps, schema['enum']))}"
    if "const" in schema:
        return f"Invalid input: expected {json.dumps(schema['const'])}"
    return f"Invalid input: expected {_expected(schema, value)}, received {_received(value)}"


def _expected(schema: JsonObject, value: Json) -> str:
    kind: str = schema.get("type", "nonoptional")
    if kind == "integer":
        return "int" if isinstance(value, float) else "number"
    return "record" if "propertyNames" in schema else kind


def _received(value: Json) -> str:
    if value is _MISSING:
        return "undefined"
    return "null" if value is None else _TYPES[type(value)]


def _size(keyword: str, schema: JsonObject) -> str:
    word, sign = ("Too small", ">=") if keyword.startswith("min") else ("Too big", "<=")
    if keyword in _SIZED:
        kind, unit = _SIZED[keyword]
        return f"{word}: expected {kind} to have {sign}{schema[keyword]} {unit}"
    return f"{word}: expected number to be {sign}{schema[keyword]}"
