"""The tools of the everything server that answer by themselves, and the schemas of all its tools.

Below: everything_parts. Above: everything_server.
"""

from __future__ import annotations

__all__ = ["BUS", "OUTPUTS", "SCHEMAS", "TOOLS"]

import warnings

import anyio
import mcp_types as types
from mcp.server.subscriptions import InMemorySubscriptionBus, PromptsListChanged, ToolsListChanged
from mcp.shared.exceptions import MCPDeprecationWarning

from tests.support.everything_parts import (
    NUMBER,
    TEXT,
    Call,
    Context,
    Handler,
    Result,
    Schema,
    embedded,
    fields,
    image,
    text,
)

# The suite asks for log messages, which the SDK warns about since MCP 2026-07-28 deprecates them.
warnings.filterwarnings("ignore", category=MCPDeprecationWarning)

BUS = InMemorySubscriptionBus()
PAUSE = 0.05  # seconds between two notifications: the suite's scenarios ask for it
AUDIO = "UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAEAfAAABAAgAZGF0YQAAAAA="  # no sound


# -- results ----------------------------------------------------------------------------------------------------------


async def simple_text(context: Context, call: Call) -> Result:
    return "This is a simple text response for testing."


async def image_content(context: Context, call: Call) -> Result:
    return types.CallToolResult(content=[image()])


async def audio_content(context: Context, call: Call) -> Result:
    return types.CallToolResult(content=[types.AudioContent(data=AUDIO, mime_type="audio/wav")])


async def embedded_resource(context: Context, call: Call) -> Result:
    block = embedded("test://embedded-resource", "This is an embedded resource content.")
    return types.CallToolResult(content=[block])


async def multiple_content_types(context: Context, call: Call) -> Result:
    data = embedded("test://mixed-content-resource", '{"test":"data","value":123}', "application/json")
    return types.CallToolResult(content=[text("Multiple content types test:"), image(), data])


async def error_handling(context: Context, call: Call) -> Result:
    message = "This tool intentionally returns an error for testing"
    return types.CallToolResult(content=[text(message)], is_error=True)


async def add(context: Context, call: Call) -> Result:
    """Has an output schema, which clients check results against."""
    given = call.arguments or {}
    total = {"total": given["a"] + given["b"]}
    return types.CallToolResult(content=[text(str(total["total"]))], structured_content=total)


async def echo_arguments(context: Context, call: Call) -> Result:
    return f"called {call.name} with {call.arguments or {}}"


# -- notifications ----------------------------------------------------------------------------------------------------


async def _log(context: Context, message: str) -> None:
    await context.session.send_log_message("info", message, related_request_id=context.request_id)


async def with_logging(context: Context, call: Call) -> Result:
    await _log(context, "Tool execution started")
    await anyio.sleep(PAUSE)
    await _log(context, "Tool processing data")
    await anyio.sleep(PAUSE)
    await _log(context, "Tool execution completed")
    return "logged"


async def with_progress(context: Context, call: Call) -> Result:
    for progress in (0, 50, 100):
        await context.session.report_progress(progress, 100)
        await anyio.sleep(PAUSE)
    return "done"


async def reconnection(context: Context, call: Call) -> Result:
    """End the stream of this call, so that the client fetches the result with another request."""
    await anyio.sleep(PAUSE)  # by now the stream's first event, which has the id to come back with, has been sent
    if context.close_sse_stream is not None:
        await context.close_sse_stream()
    await anyio.sleep(2 * PAUSE)
    return "reconnected"


async def trigger_tool_change(context: Context, call: Call) -> Result:
    await BUS.publish(ToolsListChanged())
    return "changed"


async def trigger_prompt_change(context: Context, call: Call) -> Result:
    await BUS.publish(PromptsListChanged())
    return "changed"


# -- the tables --------------------------------------------------------------------------------------------------------

TOOLS: dict[str, Handler] = {
    "test_simple_text": simple_text,
    "test_image_content": image_content,
    "test_audio_content": audio_content,
    "test_embedded_resource": embedded_resource,
    "test_multiple_content_types": multiple_content_types,
    "test_error_handling": error_handling,
    "test_tool_with_logging": with_logging,
    "test_logging_tool": with_logging,
    "test_tool_with_progress": with_progress,
    "test_reconnection": reconnection,
    "test_trigger_tool_change": trigger_tool_change,
    "test_trigger_prompt_change": trigger_prompt_change,
    "add": add,
    "json_schema_2020_12_tool": echo_arguments,
    "test_header_parameter": echo_arguments,
    # Nothing in the suite calls it: a policy can hide or limit it without changing a result.
    "delete_everything": echo_arguments,
}

# The schema that the scenario `json-schema-2020-12` asks for: every keyword of it must reach the client.
JSON_SCHEMA: Schema = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {"address": {"$anchor": "addressDef", "type": "object", "properties": {"street": TEXT, "city": TEXT}}},
    "properties": {
        "name": TEXT,
        "address": {"$ref": "#/$defs/address"},
        "contactMethod": {"type": "string", "enum": ["phone", "email"]},
        "phone": TEXT,
        "email": TEXT,
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}

# The tools that are not named here take no arguments.
SCHEMAS: dict[str, Schema] = {
    "add": fields(a=NUMBER, b=NUMBER),
    "delete_everything": fields(confirm={"type": "boolean"}),
    "greet": fields(name=TEXT),
    "json_schema_2020_12_tool": JSON_SCHEMA,
    "test_elicitation": fields(message=TEXT),
    "test_header_parameter": fields(region={"type": "string", "x-mcp-header": "Region"}),
    "test_sampling": fields(prompt=TEXT),
}
OUTPUTS: dict[str, Schema] = {"add": fields(total=NUMBER)}
