"""Many clients at once over HTTP, and what is left of them in the proxy: `benchmarks.http_soak` made short."""

from __future__ import annotations

import asyncio
import gc
import json
from pathlib import Path

import httpx2
import pytest

from benchmarks.http_soak import CLIENTS, idle_sessions, load, proxy, warm
from intercept_py.transports.conversation import Conversation
from tests.support import web
from tests.support.http_front import JSON, MODERN, Scripted, call, front, message

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("kind", CLIENTS)
async def test_200_clients_get_what_they_ask_for_and_leave_nothing_behind(kind: str, tmp_path: Path) -> None:
    async with proxy(tmp_path, kind) as one:
        before, descriptors, children = await warm(one)
        tally = await load(one.port, kind, 4)
        assert await one.settled(descriptors, children, hang_up=True), one.sample()
        assert one.sample()[0] - before < 30
        assert [name for name in tally if name.startswith("!")] == []
        assert set(tally) == {"calls", "denied", "dropped", "sessions", "streams", "vanished"}
        late = "a message did not reach the server"  # to which the server had just hung up, as it was told
        assert [line for line in one.complaints() if late not in line] == []
    assert one.process.returncode == 0
    records = [json.loads(line) for line in (tmp_path / f"{kind}.jsonl").read_text().splitlines()]
    allowed = [record["id"] for record in records if record.get("effect") == "allow"]
    assert sorted(allowed) == sorted(record["id"] for record in records if record["event"] == "outcome")


async def test_200_idle_sessions_that_listen_cost_little_memory(tmp_path: Path) -> None:
    async with proxy(tmp_path, "http") as one:
        before, descriptors, _ = await warm(one)
        async with idle_sessions(one.port, 200):
            now, listening, _ = one.sample()
            assert (
                listening - descriptors >= 380
            )  # that is, each of them on either side, but for those kept from before
            assert now - before < 30
        assert await one.settled(descriptors, 0, hang_up=True), one.sample()


async def test_nothing_is_kept_of_a_session_that_has_ended(tmp_path: Path) -> None:
    async with front(tmp_path) as one, web.client() as client:
        before = conversations()
        for _ in range(5):
            begun = await client.post(one.url, json=message("initialize"), headers=JSON)
            mine = {"Mcp-Session-Id": begun.headers["mcp-session-id"]}
            assert (await client.post(one.url, json=call("echo"), headers=JSON | mine)).status_code == 200
            assert (await client.delete(one.url, headers=mine)).status_code == 200
        assert len(one.upstream.links) == 5
        one.upstream.links.clear()
        gc.disable()  # in a long life it comes so rarely that sessions must go without it
        try:
            await fallen_to(before)
        finally:
            gc.enable()


async def test_nothing_is_kept_of_a_call_that_was_dropped_and_that_the_server_gives_up(tmp_path: Path) -> None:
    upstream = Scripted()
    async with front(tmp_path, upstream=upstream) as one, web.client() as client:
        before = conversations()
        named = {"Mcp-Method": "tools/call", "Mcp-Name": "hold"}
        with pytest.raises(httpx2.ReadTimeout):
            await client.post(one.url, json=call("hold", modern=True), headers=JSON | MODERN | named, timeout=0.3)
        await upstream.until(lambda: "notifications/cancelled" in upstream.methods())
        assert conversations() == before + 1  # the server may still answer
        upstream.links[0].answer(1)
        await upstream.until(lambda: upstream.links[0].left)
        upstream.links.clear()
        await fallen_to(before)


async def fallen_to(number: int) -> None:
    """Wait until there are so few: their last records are written some time later."""
    async with asyncio.timeout(20):
        while conversations() > number:
            if gc.isenabled():
                gc.collect()
            await asyncio.sleep(0.05)


def conversations() -> int:
    """How many there are."""
    return sum(issubclass(type(one), Conversation) for one in gc.get_objects())
