"""What the tools of the everything server are made of: blocks of content, questions, and the types of a tool.

Below: the SDK. Above: everything_questions, everything_tools, everything_tasks, everything_server.
"""

from __future__ import annotations

__all__ = [
    "IMAGE",
    "NUMBER",
    "TEXT",
    "Call",
    "Context",
    "Handler",
    "Result",
    "Schema",
    "embedded",
    "fields",
    "form",
    "image",
    "prompt",
    "text",
]

from collections.abc import Awaitable, Callable
from typing import Any

import mcp_types as types
from mcp.server.context import ServerRequestContext

Context = ServerRequestContext
Call = types.CallToolRequestParams
Schema = dict[str, Any]
Result = str | types.CallToolResult | types.InputRequiredResult | dict[str, Any]
Handler = Callable[[Context, Call], Awaitable[Result]]

TEXT: Schema = {"type": "string"}
NUMBER: Schema = {"type": "integer"}
IMAGE = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGP4z8DwHwAFAAH/iZk9HQAAAABJRU5ErkJggg=="  # one pixel


def fields(**properties: Schema) -> Schema:
    """The schema of an object with these properties, all required."""
    return {"type": "object", "properties": properties, "required": list(properties)}


def text(value: str) -> types.TextContent:
    """A block of text."""
    return types.TextContent(text=value)


def image() -> types.ImageContent:
    """A block with a picture."""
    return types.ImageContent(data=IMAGE, mime_type="image/png")


def embedded(uri: str, content: str, mime_type: str = "text/plain") -> types.EmbeddedResource:
    """A block with a resource."""
    return types.EmbeddedResource(resource=types.TextResourceContents(uri=uri, mime_type=mime_type, text=content))


def form(message: str, **properties: Schema) -> types.ElicitRequest:
    """A question to the user with these fields, all required."""
    asked = types.ElicitRequestFormParams(message=message, requested_schema=fields(**properties))
    return types.ElicitRequest(params=asked)


def prompt(content: str) -> types.CreateMessageRequest:
    """A question to the client's model."""
    message = types.SamplingMessage(role="user", content=text(content))
    return types.CreateMessageRequest(params=types.CreateMessageRequestParams(messages=[message], max_tokens=100))
