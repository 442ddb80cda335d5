"""Event streams through the proxy are passed on as they come: the server waits until the client has seen each event."""

from __future__ import annotations

import asyncio
import sys
import uuid
from collections.abc import Iterator
from contextlib import ExitStack

import anyio
import pytest
from mcp import Client
from mcp_types import TextContent

from benchmarks.http_soak import META, Connection, request
from tests.conformance.pairings import Proxies, Server, listening

pytestmark = pytest.mark.anyio

STEPPING = [sys.executable, "-m", "tests.support.stepping_server"]
MIB = 1024 * 1024


@pytest.fixture(scope="module", params=["http-http", "http-stdio"])
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The proxy in front of the stepping server."""
    folder = tmp_path_factory.mktemp("streams")
    (folder / "policy.yaml").write_text("default: allow\n")
    proxies = Proxies(folder / "policy.yaml", folder)
    with ExitStack() as stack:
        server: Server = [*STEPPING, "stdio"]
        if request.param == "http-http":
            server = stack.enter_context(listening([*STEPPING, "http"], proxies.log))
        yield stack.enter_context(proxies.pairing(request.param, server))


@pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
async def test_an_event_arrives_before_the_next_one_is_sent(url: str, mode: str) -> None:
    name = uuid.uuid4().hex
    told: list[float] = []
    with anyio.fail_after(20):
        async with Client(url, mode=mode) as client, anyio.create_task_group() as group:

            async def on_progress(progress: float, total: float | None, message: str | None) -> None:
                assert message == "x" * 10
                told.append(progress)
                group.start_soon(client.call_tool, "saw", {"name": name})

            arguments = {"name": name, "count": 20, "size": 10}
            result = await client.call_tool("steps", arguments, progress_callback=on_progress)
    assert isinstance(result.content[0], TextContent)
    assert result.content[0].text == "done"
    assert told == list(range(1, 21))


async def test_an_event_of_5_mib_arrives_before_the_next_one_is_sent(url: str) -> None:
    """With a client of our own: the SDK's takes events of 1 MiB."""
    port = int(url.split(":")[2].partition("/")[0])
    name = uuid.uuid4().hex
    call = {"name": "steps", "arguments": {"name": name, "count": 2, "size": 5 * MIB}}
    heard = []
    async with asyncio.timeout(20), Connection(port) as one, Connection(port) as other:
        await one.send("POST", request("tools/call", **call, _meta={**META, "progressToken": "p"}))
        async for message in one.events():
            heard.append(message)
            if "method" in message:
                assert message["params"]["message"] == "x" * 5 * MIB
                await other.call("saw", modern=True, name=name)
    assert [message.get("method") for message in heard] == ["notifications/progress"] * 2 + [None]
    assert heard[-1]["result"]["content"][0]["text"] == "done"
