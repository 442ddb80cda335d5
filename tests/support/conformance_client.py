"""A client on the official SDK that does what the client scenarios of the official conformance suite ask a client for.

It lists everything that the server offers and uses all of it: calls every tool (with the arguments that the suite gives
in `MCP_CONFORMANCE_CONTEXT`, else with some that fit the tool's schema), reads every resource, gets every prompt. That
is what each scenario wants to see, so that only one needs arguments of its own.

A client with credentials of its own (`client_id` and `client_secret` in that variable) gets a token for the server.

`python -m tests.support.conformance_client URL` is what `conformance client --command` takes.
Below: the SDK. Above: the conformance runs.
"""

from __future__ import annotations

__all__ = ["CONTEXT", "context", "main", "use"]

import json
import os
import sys
from contextlib import AsyncExitStack
from typing import Any

import anyio
import httpx2
from mcp import Client, MCPError, StdioServerParameters
from mcp.client import Transport
from mcp.client.auth.extensions.client_credentials import ClientCredentialsOAuthProvider
from mcp.client.context import ClientRequestContext
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import OAuthClientInformationFull, OAuthToken
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
CONTEXT = "MCP_CONFORMANCE_CONTEXT"

Json = Any


class _Tokens:
    """Where the SDK keeps its token."""

    _kept: OAuthToken | None = None

    async def get_tokens(self) -> OAuthToken | None:
        return self._kept

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self._kept = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return None

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        raise AssertionError("a client that has credentials registers nowhere")


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


async def use(server: str | StdioServerParameters, version: str, given: dict[str, Json]) -> None:
    """Use everything that `server` (a URL, or a command) offers, as a client of protocol `version`.

    `given` is the suite's context. Its `toolCalls` (`name`, `arguments`) are called; if there are none, every tool is.
    """
    async with AsyncExitStack() as stack:
        transport: str | StdioServerParameters | Transport = server
        if isinstance(server, str) and "client_secret" in given:
            auth = ClientCredentialsOAuthProvider(server, _Tokens(), given["client_id"], given["client_secret"])
            http = await stack.enter_async_context(httpx2.AsyncClient(auth=auth))
            transport = streamable_http_client(server, http_client=http)
        await _use(transport, version, given.get("toolCalls", []))


async def _use(server: str | StdioServerParameters | Transport, version: str, calls: list[dict[str, Json]]) -> None:
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


def context() -> dict[str, Json]:
    """What the suite tells the client besides the URL."""
    given: dict[str, Json] = json.loads(os.environ.get(CONTEXT, "{}"))
    return given


def main(server: str | StdioServerParameters) -> None:
    """Be the client that the suite's environment variables describe."""
    version = os.environ.get("MCP_CONFORMANCE_PROTOCOL_VERSION", LEGACY)
    anyio.run(use, server, version, context())


if __name__ == "__main__":
    main(sys.argv[1])
