"""A client on the official SDK that does what the client scenarios of the official conformance suite ask a client for.

It lists everything that the server offers and uses all of it: calls every tool (with the arguments that the suite gives
in `MCP_CONFORMANCE_CONTEXT`, else with some that fit the tool's schema), reads every resource, gets every prompt. That
is what each scenario wants to see, so that only one needs arguments of its own.

`python -m tests.support.conformance_client URL` is what `conformance client --command` takes.
Below: the SDK. Above: the conformance runs.
"""

from __future__ import annotations

__all__ = ["main", "use"]

import json
import os
import sys
from typing import Any

import anyio
from mcp import Client, MCPError, StdioServerParameters
from mcp.client.context import ClientRequestContext
from mcp_types import (
    CreateMessageRequestParams,
    CreateMessageResult,
    ElicitRequestFormParams,
    ElicitRequestParams,
    ElicitResult,
    ListRootsResult,
    Root,
    TextContent,
    Tool,
)
from pydantic import FileUrl, ValidationError

LEGACY = "2025-11-25"
SOME = {"string": "text", "integer": 5, "number": 5, "boolean": True, "object": {}, "array": [], "null": None}

Json = Any


async def _elicit(context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
    """Accept, with the defaults of the form (SEP-1034)."""
    assert isinstance(params, ElicitRequestFormParams)
    fields: dict[str, Json] = dict(params.requested_schema.get("properties", {}))
    content = {name: field["default"] for name, field in fields.items() if "default" in field}
    return ElicitResult(action="accept", content=content)


async def _sample(context: ClientRequestContext, params: CreateMessageRequestParams) -> CreateMessageResult:
    return CreateMessageResult(role="assistant", model="none", content=TextContent(text="an answer"))


async def _roots(context: ClientRequestContext) -> ListRootsResult:
    return ListRootsResult(roots=[Root(uri=FileUrl("file:///tmp"), name="root")])


def _arguments(tool: Tool, tools: list[Tool]) -> dict[str, Json]:
    """Arguments that fit the tool's schema, as far as the suite's tools need it."""
    if tool.name == "json_schema_echo":  # it shows the suite which schema the client got for another tool
        return {"schema": next(other.input_schema for other in tools if other.name != tool.name)}
    fields: dict[str, Json] = tool.input_schema.get("properties", {})
    return {name: SOME[field["type"]] for name, field in fields.items() if "type" in field}


async def use(server: str | StdioServerParameters, version: str, calls: list[dict[str, Json]]) -> None:
    """Use everything that `server` (a URL, or a command) offers, as a client of protocol `version`.

    `calls` are the tool calls that the suite asks for (`name`, `arguments`); if there are none, every tool is called.
    """
    client = Client(
        server,
        mode="legacy" if version <= LEGACY else "auto",
        elicitation_callback=_elicit,
        sampling_callback=_sample,
        list_roots_callback=_roots,
        cache=None,
    )
    async with client:
        offered = client.server_capabilities
        tools = (await client.list_tools()).tools
        for call in calls or [{"name": tool.name, "arguments": _arguments(tool, tools)} for tool in tools]:
            await _survive(client.call_tool(call["name"], call["arguments"]))
        if offered.resources is not None:
            for resource in (await client.list_resources()).resources:
                await _survive(client.read_resource(resource.uri))
        if offered.prompts is not None:
            for prompt in (await client.list_prompts()).prompts:
                await _survive(client.get_prompt(prompt.name))


async def _survive(request: Json) -> None:
    """Wait for an answer. An error is no reason to stop: some tools of the suite exist in lists only, and one answers
    without a `resultType`, which this SDK does not take.
    """
    try:
        await request
    except (MCPError, ValidationError) as error:
        print(f"no result: {error}", file=sys.stderr)


def main(server: str | StdioServerParameters) -> None:
    """Be the client that the suite's environment variables describe."""
    context = json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT", "{}"))
    version = os.environ.get("MCP_CONFORMANCE_PROTOCOL_VERSION", LEGACY)
    anyio.run(use, server, version, context.get("toolCalls", []))


if __name__ == "__main__":
    main(sys.argv[1])
