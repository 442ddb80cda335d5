"""A server on the official SDK that offers what the scenarios of the official conformance suite ask a server for.

`python -m tests.support.everything_server stdio` speaks over stdin and stdout, `... http` speaks Streamable HTTP on a
free loopback port and says on stderr where it is `listening on`; both in both protocol eras. What each tool, prompt and
resource must do is said by the suite (in the description of each scenario), and so are their names.

Below: everything_tools, everything_questions, everything_tasks. Above: the conformance runs, tests of SDK clients.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import anyio
import mcp_types as types
from mcp import MCPError
from mcp.server.lowlevel import Server
from mcp.server.mcpserver import RequestStateBoundary, RequestStateSecurity
from mcp.server.stdio import stdio_server
from mcp.server.streamable_http import EventCallback, EventMessage, EventStore
from mcp.server.subscriptions import ListenHandler
from pydantic import BaseModel

from tests.support.everything_parts import IMAGE, Context, Handler, embedded, fields, form, image, text
from tests.support.everything_questions import QUESTIONS
from tests.support.everything_tasks import EXTENSION, HANDLERS, TASK_TOOLS, TaskParams
from tests.support.everything_tools import BUS, OUTPUTS, SCHEMAS, TOOLS
from tests.support.serving import serve

NAME = "everything"
RETRY_MS = 100
TEMPLATE_HEAD, TEMPLATE_TAIL = "test://template/", "/data"


class Events(EventStore):
    """The events of all streams, for clients that come back with `Last-Event-ID`; an event's id is its index."""

    def __init__(self) -> None:
        self._events: list[tuple[str, types.JSONRPCMessage | None]] = []

    async def store_event(self, stream_id: str, message: types.JSONRPCMessage | None) -> str:
        """Keep one event (None: an event without data) and return its id."""
        self._events.append((stream_id, message))
        return str(len(self._events) - 1)

    async def replay_events_after(self, last_event_id: str, send_callback: EventCallback) -> str | None:
        """Send what came after this event on its stream; returns the stream's id, None for an unknown event."""
        if not last_event_id.isdecimal() or int(last_event_id) >= len(self._events):
            return None
        stream = self._events[int(last_event_id)][0]
        for index in range(int(last_event_id) + 1, len(self._events)):
            other, message = self._events[index]
            if other == stream and message is not None:
                await send_callback(EventMessage(message, str(index)))
        return stream


# -- tools ------------------------------------------------------------------------------------------------------------


HANDLED: dict[str, Handler] = {**TOOLS, **QUESTIONS, **TASK_TOOLS}
LISTED = {
    name: types.Tool(
        name=name,
        description=f"{name} of the everything server",
        input_schema=SCHEMAS.get(name, fields()),
        output_schema=OUTPUTS.get(name),
    )
    for name in HANDLED
}


async def list_tools(context: Context, params: types.PaginatedRequestParams | None) -> types.ListToolsResult:
    return types.ListToolsResult(tools=list(LISTED.values()))


async def call_tool(context: Context, params: types.CallToolRequestParams) -> BaseModel | dict[str, Any]:
    if params.name not in HANDLED:
        raise MCPError(types.INVALID_PARAMS, f"unknown tool: {params.name}")
    result = await HANDLED[params.name](context, params)
    return types.CallToolResult(content=[text(result)]) if isinstance(result, str) else result


# -- resources --------------------------------------------------------------------------------------------------------

STATIC: dict[str, types.TextResourceContents | types.BlobResourceContents] = {
    "test://static-text": types.TextResourceContents(
        uri="test://static-text", mime_type="text/plain", text="This is the content of the static text resource."
    ),
    "test://static-binary": types.BlobResourceContents(uri="test://static-binary", mime_type="image/png", blob=IMAGE),
    "test://watched-resource": types.TextResourceContents(
        uri="test://watched-resource", mime_type="text/plain", text="A resource to subscribe to."
    ),
}
WATCHED: set[str] = set()


async def list_resources(context: Context, params: types.PaginatedRequestParams | None) -> types.ListResourcesResult:
    listed = [
        types.Resource(
            uri=uri, name=uri.removeprefix("test://"), description=f"the resource {uri}", mime_type=it.mime_type
        )
        for uri, it in STATIC.items()
    ]
    return types.ListResourcesResult(resources=listed)


async def list_templates(
    context: Context, params: types.PaginatedRequestParams | None
) -> types.ListResourceTemplatesResult:
    pattern = f"{TEMPLATE_HEAD}{{id}}{TEMPLATE_TAIL}"
    template = types.ResourceTemplate(uri_template=pattern, name="template", description="data by id")
    return types.ListResourceTemplatesResult(resource_templates=[template])


async def read_resource(context: Context, params: types.ReadResourceRequestParams) -> types.ReadResourceResult:
    uri = params.uri
    if uri in STATIC:
        return types.ReadResourceResult(contents=[STATIC[uri]])
    if not (uri.startswith(TEMPLATE_HEAD) and uri.endswith(TEMPLATE_TAIL)):
        raise MCPError(types.INVALID_PARAMS, f"unknown resource: {uri}", {"uri": uri})
    number = uri.removeprefix(TEMPLATE_HEAD).removesuffix(TEMPLATE_TAIL)
    data = json.dumps({"id": number, "templateTest": True, "data": f"Data for ID: {number}"})
    return types.ReadResourceResult(
        contents=[types.TextResourceContents(uri=uri, mime_type="application/json", text=data)]
    )


async def subscribe(context: Context, params: types.SubscribeRequestParams) -> types.EmptyResult:
    WATCHED.add(params.uri)
    return types.EmptyResult()


async def unsubscribe(context: Context, params: types.UnsubscribeRequestParams) -> types.EmptyResult:
    WATCHED.discard(params.uri)
    return types.EmptyResult()


# -- prompts ----------------------------------------------------------------------------------------------------------


def _prompt(name: str, *arguments: str) -> types.Prompt:
    given = [types.PromptArgument(name=argument, description=argument, required=True) for argument in arguments]
    return types.Prompt(name=name, description=f"the prompt {name}", arguments=given)


PROMPTS = [
    _prompt("test_simple_prompt"),
    _prompt("test_prompt_with_arguments", "arg1", "arg2"),
    _prompt("test_prompt_with_embedded_resource", "resourceUri"),
    _prompt("test_prompt_with_image"),
    _prompt("test_input_required_result_prompt"),
]


async def list_prompts(context: Context, params: types.PaginatedRequestParams | None) -> types.ListPromptsResult:
    return types.ListPromptsResult(prompts=PROMPTS)


async def get_prompt(
    context: Context, params: types.GetPromptRequestParams
) -> types.GetPromptResult | types.InputRequiredResult:
    given = params.arguments or {}
    match params.name:
        case "test_simple_prompt":
            return _messages(text("This is a simple prompt for testing."))
        case "test_prompt_with_arguments":
            return _messages(text(f"Prompt with arguments: arg1='{given['arg1']}', arg2='{given['arg2']}'"))
        case "test_prompt_with_embedded_resource":
            resource = embedded(given["resourceUri"], "Embedded resource content for testing.")
            return _messages(resource, text("Please process the embedded resource above."))
        case "test_prompt_with_image":
            return _messages(image(), text("Please analyze the image above."))
        case "test_input_required_result_prompt":
            return _prompt_that_asks(params)
    raise MCPError(types.INVALID_PARAMS, f"unknown prompt: {params.name}")


def _messages(*contents: types.ContentBlock) -> types.GetPromptResult:
    return types.GetPromptResult(messages=[types.PromptMessage(role="user", content=content) for content in contents])


def _prompt_that_asks(params: types.GetPromptRequestParams) -> types.GetPromptResult | types.InputRequiredResult:
    answer = (params.input_responses or {}).get("user_context")
    if not isinstance(answer, types.ElicitResult):
        question = form("What context should the prompt use?", context={"type": "string"})
        return types.InputRequiredResult(input_requests={"user_context": question})
    return _messages(text(f"Context: {(answer.content or {}).get('context')}"))


# -- the rest ---------------------------------------------------------------------------------------------------------


async def complete(context: Context, params: types.CompleteRequestParams) -> types.CompleteResult:
    values = [word for word in ("paris", "park", "test") if word.startswith(params.argument.value)]
    return types.CompleteResult(completion=types.Completion(values=values, total=len(values), has_more=False))


async def set_level(context: Context, params: types.SetLevelRequestParams) -> types.EmptyResult:
    return types.EmptyResult()


def build() -> Server:
    """The server; for one process, since its subscribers and resources are the module's."""
    server: Server = Server(
        NAME,
        version="1.0.0",
        get_tool_input_schema=lambda name: LISTED[name].input_schema if name in LISTED else None,
        on_list_tools=list_tools,
        on_list_resources=list_resources,
        on_list_resource_templates=list_templates,
        on_read_resource=read_resource,
        on_subscribe_resource=subscribe,
        on_unsubscribe_resource=unsubscribe,
        on_subscriptions_listen=ListenHandler(BUS),
        on_list_prompts=list_prompts,
        on_get_prompt=get_prompt,
        on_completion=complete,
    )
    server.add_request_handler("tools/call", types.CallToolRequestParams, call_tool)
    server.add_request_handler("logging/setLevel", types.SetLevelRequestParams, set_level)
    for method, handler in HANDLERS.items():
        server.add_request_handler(method, TaskParams, handler)
    server.extensions[EXTENSION] = {}
    server.middleware.append(RequestStateBoundary(RequestStateSecurity.ephemeral(), default_audience=NAME))
    return server


async def over_stdio(server: Server) -> None:
    """Serve stdin and stdout until stdin ends."""
    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())


if __name__ == "__main__":
    if sys.argv[1] == "stdio":
        anyio.run(over_stdio, build())
    else:
        serve(build().streamable_http_app(event_store=Events(), retry_interval=RETRY_MS))
