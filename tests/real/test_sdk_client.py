"""The Python SDK's client, in both protocol eras, through every pairing of the proxy to a server on the SDK."""

from __future__ import annotations

import math
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from typing import Any

import anyio
import pytest
from mcp import Client, MCPError
from mcp.client.context import ClientRequestContext
from mcp.client.subscriptions import ResourceUpdated, ToolsListChanged
from mcp_types import (
    CallToolResult,
    CreateMessageRequestParams,
    CreateMessageResult,
    ElicitRequestParams,
    ElicitResult,
    TextContent,
    Tool,
)

from tests.conformance.pairings import PAIRINGS, Proxies, Server, for_sdk, listening
from tests.support.commands import sdk_server
from tests.support.wire import DECISION_KEY, DENIED

pytestmark = pytest.mark.anyio

MODES = ("legacy", "auto", "2026-07-28")
SERVER_OVER_HTTP = [sys.executable, "-m", "tests.support.sdk_server", "http"]
VERSION = {"legacy": "2025-11-25", "auto": "2026-07-28", "2026-07-28": "2026-07-28"}
POLICY = """
hide: [break_it]
tools:
  add:
    rules: [{name: small, action: allow, conditions: [{path: args.a, op: lte, value: 100}], reason: at most 100}]
  say:
    rules: [{name: twice, action: allow, rate_limit: {max: 2, window: 60, per: args.text}}]
"""


async def _elicit(context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
    assert params.message == "who are you?"
    return ElicitResult(action="accept", content={"name": "Ada"})


async def _sample(context: ClientRequestContext, params: CreateMessageRequestParams) -> CreateMessageResult:
    return CreateMessageResult(role="assistant", model="m", content=TextContent(type="text", text="42"))


@asynccontextmanager
async def connected(server: Server, mode: str) -> AsyncIterator[Client]:
    """A client that can be asked and sampled."""
    async with Client(
        for_sdk(server), mode=mode, elicitation_callback=_elicit, sampling_callback=_sample, cache=None
    ) as client:
        yield client


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """For fixtures that last: to start an SDK server takes longer than any of these tests."""
    return "asyncio"


@pytest.fixture(scope="module", params=PAIRINGS)
def guarded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """What a client connects to: a pairing of the proxy in front of the server."""
    folder = tmp_path_factory.mktemp("sdk")
    (folder / "policy.yaml").write_text(POLICY)
    proxies = Proxies(folder / "policy.yaml", folder)
    with ExitStack() as stack:
        server: Server = sdk_server()
        if request.param.endswith("http"):
            server = stack.enter_context(listening(SERVER_OVER_HTTP, proxies.log))
        yield stack.enter_context(proxies.pairing(request.param, server))


@pytest.fixture(scope="module", params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
async def client(guarded: Server, mode: str) -> AsyncIterator[Client]:
    """A client through a pairing."""
    async with connected(guarded, mode) as connection:
        yield connection


async def offered(client: Client) -> list[Any]:
    """Everything that a client is told of what the server has, but for its tools."""
    return [
        (await client.list_resources()).resources,
        (await client.list_prompts()).prompts,
        (await client.read_resource("note://one")).contents,
        await client.get_prompt("review", {"code": "x"}),
        await client.call_tool("add", {"a": 1, "b": 2}),
    ]


_alone: dict[str, tuple[list[Tool], list[Any]]] = {}


async def alone(mode: str) -> tuple[list[Tool], list[Any]]:
    """The server's tools, and what else it offers, to a client of this mode without a proxy."""
    if mode not in _alone:
        async with connected(sdk_server(), mode) as client:
            _alone[mode] = (await client.list_tools()).tools, await offered(client)
    return _alone[mode]


def text(result: CallToolResult) -> str:
    assert isinstance(result.content[0], TextContent)
    return result.content[0].text


async def test_both_ends_agree_on_the_version_as_without_the_proxy(client: Client, mode: str) -> None:
    assert client.protocol_version == VERSION[mode]
    said = uuid.uuid4().hex
    assert text(await client.call_tool("say", {"text": said})) == said


async def test_the_client_is_offered_what_the_server_offers_but_hidden_tools(client: Client, mode: str) -> None:
    tools, rest = await alone(mode)
    assert (await client.list_tools()).tools == [tool for tool in tools if tool.name != "break_it"]
    assert await offered(client) == rest
    assert rest[-1].structured_content == {"total": 3}


async def test_a_denial_of_a_tool_with_an_output_schema_is_an_error_result(client: Client) -> None:
    await client.list_tools()
    result = await client.call_tool("add", {"a": 101, "b": 2})
    assert result.is_error
    assert text(result) == f"{DENIED}at most 100; rule `small`"
    assert result.structured_content is None
    assert result.meta is not None
    assert result.meta[DECISION_KEY]["rule"] == "small"


async def test_a_denial_by_a_limit_says_when_to_retry(client: Client) -> None:
    said = {"text": uuid.uuid4().hex}
    for _ in range(2):
        assert not (await client.call_tool("say", said)).is_error
    result = await client.call_tool("say", said)
    assert result.is_error
    assert text(result).startswith(DENIED)
    assert result.meta is not None
    decision: dict[str, Any] = result.meta[DECISION_KEY]
    assert 0 < decision["retry_after"] <= 60.01  # a moving window looks at 1/16384 more
    assert text(result).endswith(f"retry in {math.ceil(decision['retry_after'])} s")


async def test_a_hidden_tool_is_denied_like_an_unknown_one(client: Client) -> None:
    async def refused(client: Client, tool: str) -> tuple[Any, ...]:
        try:
            result = await client.call_tool(tool, {})
        except MCPError as error:
            return error.code, error.message.replace(tool, "X"), error.error.data
        return result.is_error, text(result).replace(tool, "X")

    assert await refused(client, "break_it") == await refused(client, "no_such_tool")


async def test_progress_arrives_in_order(client: Client) -> None:
    """The client runs its callback beside the call, so that the last report may come just after the result."""
    seen: list[tuple[float, float | None, str | None]] = []
    complete = anyio.Event()

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        seen.append((progress, total, message))
        if progress == total:
            complete.set()

    assert text(await client.call_tool("count", {"steps": 3}, progress_callback=on_progress)) == "counted"
    await complete.wait()
    assert seen == [(1, 3, "step 1"), (2, 3, "step 2"), (3, 3, "step 3")]


async def test_cancelling_a_call_cancels_it_in_the_server(client: Client) -> None:
    call = {"name": uuid.uuid4().hex}
    async with anyio.create_task_group() as calls:
        calls.start_soon(client.call_tool, "hang", call)
        assert text(await client.call_tool("await_hanging", call)) == "hanging"
        calls.cancel_scope.cancel()
    assert text(await client.call_tool("await_cancelled", call)) == "cancelled"


async def test_the_server_can_ask_the_user(client: Client) -> None:
    """A request of the server in the legacy era, an `input_required` result and a second call in the modern one."""
    assert text(await client.call_tool("greet", {})) == "hello Ada"


async def test_the_server_can_sample_the_clients_model(client: Client) -> None:
    assert text(await client.call_tool("consult", {})) == "the model says 42"


@pytest.mark.parametrize("mode", MODES[1:], indirect=True, scope="module")
async def test_subscribers_hear_of_changes(client: Client) -> None:
    wanted = client.listen(tools_list_changed=True, resource_subscriptions=["note://one"])
    async with wanted as subscription:
        await client.call_tool("change", {})
        changes = [await anext(subscription), await anext(subscription)]
        assert changes == [ToolsListChanged(), ResourceUpdated(uri="note://one")]
    assert text(await client.call_tool("change", {})) == "changed"


async def test_many_calls_at_once_each_get_their_own_answer(client: Client) -> None:
    answers: dict[int, Any] = {}

    async def add(number: int) -> None:
        answers[number] = (await client.call_tool("add", {"a": number, "b": number})).structured_content

    async with anyio.create_task_group() as calls:
        for number in range(50):
            calls.start_soon(add, number)
    assert answers == {number: {"total": 2 * number} for number in range(50)}
