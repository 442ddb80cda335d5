"""An MCP server around a dialect's tools, over stdio or Streamable HTTP, with nothing left to the SDK's wording.

Schemas are listed as the dialect wrote them, arguments are checked against them here, and every refusal of a call is a
result with `isError`, in words that the dialect chooses.

Below: `gate`, `stdio`. Above: the dialects, which make a `Service`, and `cli.jobs`, which serves it.
"""

from __future__ import annotations

__all__ = [
    "PATH",
    "Context",
    "Service",
    "build_server",
    "json_result",
    "mcp_app",
    "over_http",
    "over_stdio",
    "text_result",
]

import asyncio
import json
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, TypeAlias

import anyio
import msgspec
import uvicorn
from jsonschema import Draft202012Validator, ValidationError
from mcp.server.connection import allowed_log_levels
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp_types import (
    CallToolRequestParams,
    CallToolResult,
    GetPromptRequestParams,
    GetPromptResult,
    ListPromptsResult,
    ListResourcesResult,
    ListResourceTemplatesResult,
    ListToolsResult,
    LoggingLevel,
    LoggingMessageNotification,
    LoggingMessageNotificationParams,
    PaginatedRequestParams,
    Prompt,
    ReadResourceRequestParams,
    ReadResourceResult,
    Resource,
    ResourceTemplate,
    TextContent,
    Tool,
)
from starlette.types import ASGIApp

from intercept_py.jobs.gate import BODY_LIMIT, Gate, Patient
from intercept_py.jobs.stdio import standard_streams
from intercept_py.model import Json, JsonObject
from intercept_py.transports.http_guard import is_loopback

PATH = "/mcp"
"""Where the Streamable HTTP endpoint is."""

PATIENCE = 10
"""Seconds that the head of a request may take, and its body, and that a connection may be idle."""

_CONNECTIONS = 128
"""Connections at once; requests on further ones are refused with 503."""
_GOODBYE = 1
"""Seconds that answers which are due have to reach HTTP clients when the server ends."""
_GONE = (anyio.BrokenResourceError, anyio.ClosedResourceError)
"""What it is to tell something to a client that has gone."""


class Context:
    """What a call may tell its client while it is answered, and what is known about who calls."""

    def __init__(self, request: ServerRequestContext[Any, Any]) -> None:
        self._request = request
        self._answered = False

    @property
    def client(self) -> str:
        """The client's own name for itself, not proved by anything; `""` if it gave none."""
        params = self._request.session.client_params
        return params.client_info.name if params else ""

    async def log(self, level: LoggingLevel, data: Json, logger: str | None = None) -> None:
        """Send a log message: on the call's own stream while it is answered, to the whole session afterwards.

        Nothing is sent where the protocol forbids it: in the 2026-07-28 era a request must ask for messages, and
        nothing can be sent once it was answered, or to a client that has gone.
        """
        request = self._request
        asked = None if self._answered else request.meta
        if level in allowed_log_levels(request.protocol_version, asked):
            params = LoggingMessageNotificationParams(level=level, data=data, logger=logger)
            related = None if self._answered else request.request_id
            with suppress(*_GONE):
                await request.session.send_notification(LoggingMessageNotification(params=params), related)

    async def progress(self, progress: float, total: float | None = None, message: str | None = None) -> None:
        """Report progress, if the call asked for it and is not answered yet."""
        if not self._answered:
            with suppress(*_GONE):
                await self._request.session.report_progress(progress, total, message)

    def close(self) -> None:
        """The call is answered now."""
        self._answered = True


Call: TypeAlias = Callable[[str, JsonObject, Context], Awaitable[CallToolResult]]
GetPrompt: TypeAlias = Callable[[str, Mapping[str, str]], Awaitable[GetPromptResult]]
ReadResource: TypeAlias = Callable[[str], Awaitable[ReadResourceResult]]
Refuse: TypeAlias = Callable[[Tool, Sequence[ValidationError], JsonObject], CallToolResult]
Unknown: TypeAlias = Callable[[str], CallToolResult]


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """A dialect's tools and how it words what it refuses.

    `call(name, arguments, context)` gets a name that is listed and arguments that are valid and have the schema's
    defaults filled in; what has to be an integer is an `int`. `refuse(tool, errors, arguments)` words what is wrong
    with arguments (`errors` is never empty), `unknown(name)` that there is no such tool. `get_prompt` and
    `read_resource` raise `mcp.MCPError` for what they do not know.
    """

    name: str
    version: str
    tools: tuple[Tool, ...]
    call: Call
    refuse: Refuse
    unknown: Unknown
    instructions: str | None = None
    prompts: tuple[Prompt, ...] = ()
    get_prompt: GetPrompt | None = None
    resources: tuple[Resource, ...] = ()
    resource_templates: tuple[ResourceTemplate, ...] = ()
    read_resource: ReadResource | None = None


def text_result(text: str, is_error: bool = False, structured: JsonObject | None = None) -> CallToolResult:
    """A result of one text, and the same as data if there is a schema for it."""
    content = [TextContent(type="text", text=text)]
    return CallToolResult(content=[*content], structured_content=structured, is_error=is_error)


def json_result(value: Json, structured: JsonObject) -> CallToolResult:
    """A result of one text, `value` as JSON indented by two, and the structured content that the schema promises."""
    return text_result(json.dumps(value, indent=2, ensure_ascii=False), structured=structured)


def build_server(service: Service) -> Server[Any]:
    """The SDK's low-level server with the service behind it."""
    tools = {tool.name: (tool, Draft202012Validator(tool.input_schema)) for tool in service.tools}

    async def list_tools(_: object, __: PaginatedRequestParams | None) -> ListToolsResult:
        return ListToolsResult(tools=list(service.tools))

    async def call_tool(request: ServerRequestContext[Any, Any], params: CallToolRequestParams) -> CallToolResult:
        if params.name not in tools:
            return service.unknown(params.name)
        tool, checker = tools[params.name]
        arguments = params.arguments or {}
        if errors := list(checker.iter_errors(arguments)):
            return service.refuse(tool, errors, arguments)
        context = Context(request)
        try:
            return await service.call(tool.name, _complete(tool.input_schema, arguments), context)
        finally:
            context.close()

    server: Server[Any] = Server(
        service.name,
        version=service.version,
        instructions=service.instructions,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
        **_prompt_handlers(service),
        **_resource_handlers(service),
    )
    return server


def _complete(schema: JsonObject, arguments: JsonObject) -> JsonObject:
    """Valid arguments with the schema's defaults, and integers as such: to JSON Schema `5.0` is one."""
    properties = schema.get("properties", {})
    whole = {
        name: int(value)
        for name, value in arguments.items()
        if isinstance(value, float) and properties.get(name, {}).get("type") == "integer"
    }
    return {**{name: rule["default"] for name, rule in properties.items() if "default" in rule}, **arguments, **whole}


def _prompt_handlers(service: Service) -> dict[str, Any]:
    get_prompt = service.get_prompt
    if get_prompt is None:
        return {}

    async def list_prompts(_: object, __: PaginatedRequestParams | None) -> ListPromptsResult:
        return ListPromptsResult(prompts=list(service.prompts))

    async def on_get_prompt(_: object, params: GetPromptRequestParams) -> GetPromptResult:
        return await get_prompt(params.name, params.arguments or {})

    return {"on_list_prompts": list_prompts, "on_get_prompt": on_get_prompt}


def _resource_handlers(service: Service) -> dict[str, Any]:
    read_resource = service.read_resource
    if read_resource is None:
        return {}

    async def list_resources(_: object, __: PaginatedRequestParams | None) -> ListResourcesResult:
        return ListResourcesResult(resources=list(service.resources))

    async def list_templates(_: object, __: PaginatedRequestParams | None) -> ListResourceTemplatesResult:
        return ListResourceTemplatesResult(resource_templates=list(service.resource_templates))

    async def on_read_resource(_: object, params: ReadResourceRequestParams) -> ReadResourceResult:
        return await read_resource(str(params.uri))

    return {
        "on_list_resources": list_resources,
        "on_list_resource_templates": list_templates,
        "on_read_resource": on_read_resource,
    }


@asynccontextmanager
async def over_stdio(service: Service, hung_up: asyncio.Event) -> AsyncIterator[None]:
    """Serve the client on stdin and stdout until the context is left; `hung_up` is set when the client has gone."""
    server = build_server(service)

    async def serve() -> None:
        await server.run(incoming, outgoing, server.create_initialization_options())
        hung_up.set()

    async with standard_streams() as (incoming, outgoing), anyio.create_task_group() as group:
        group.start_soon(serve)
        yield
        group.cancel_scope.cancel()


def mcp_app(service: Service, host: str) -> ASGIApp:
    """The service as a Streamable HTTP endpoint at `PATH`, for both eras of the protocol."""
    return build_server(service).streamable_http_app(
        streamable_http_path=PATH, host=host, max_request_body_size=BODY_LIMIT
    )


@asynccontextmanager
async def over_http(app: ASGIApp, listener: socket.socket, patience: int = PATIENCE) -> AsyncIterator[None]:
    """Serve an ASGI application behind a `Gate` on a socket that listens, until the context is left."""
    config = uvicorn.Config(
        Gate(app, is_loopback(listener.getsockname()[0]), patience),
        http=Patient,
        timeout_keep_alive=patience,
        limit_concurrency=_CONNECTIONS,
        log_config=None,
        log_level=logging.WARNING,
        access_log=False,
        ws="none",
        timeout_graceful_shutdown=_GOODBYE,
    )
    server = _Uvicorn(config)
    async with anyio.create_task_group() as group:
        group.start_soon(server.serve, [listener])
        yield
        # Streams that clients keep open are cut off, which it would report as errors of ours.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        server.should_exit = True


class _Uvicorn(uvicorn.Server):
    """Leaves the signals to whoever runs it."""

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield
