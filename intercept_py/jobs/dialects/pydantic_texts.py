"""What servers on FastMCP say of arguments that do not fit, which is what pydantic says, and of tools they do not have.

Below: `serving`. Above: the dialects that stand for such servers.
"""

from __future__ import annotations

__all__ = ["refuse", "unknown"]

from collections.abc import Sequence
from typing import Any

from jsonschema import ValidationError
from mcp_types import CallToolResult, Tool
from pydantic import ConfigDict, create_model
from pydantic import ValidationError as Fault

from intercept_py.jobs.serving import text_result
from intercept_py.model import JsonObject

_TYPES = {"string": str, "integer": int, "number": float, "boolean": bool}


def unknown(name: str) -> CallToolResult:
    """There is no such tool."""
    return text_result(f"Unknown tool: {name}", is_error=True)


def refuse(tool: Tool, errors: Sequence[ValidationError], arguments: JsonObject) -> CallToolResult:
    """A `serving.Refuse`: the arguments do not fit the tool's schema, whose properties have simple types."""
    required = tool.input_schema.get("required", ())
    fields: dict[str, Any] = {
        name: (_TYPES[schema["type"]], ... if name in required else None)
        for name, schema in tool.input_schema["properties"].items()
    }
    # Strict, since JSON Schema is: the number that somebody wrote as a text must be found here as well.
    model = create_model(f"{tool.name}Arguments", __config__=ConfigDict(strict=True), **fields)
    try:
        model.model_validate(arguments)
        said = errors[0].message
    except Fault as exc:
        said = str(exc)
    return text_result(f"Error executing tool {tool.name}: {said}", is_error=True)
