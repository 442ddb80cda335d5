"""Children as servers of conversations, alone and shared: real processes, no policy."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from intercept_py import processes
from intercept_py.log import Log
from intercept_py.transports.child_link import ChildLink, SharedChild
from intercept_py.transports.conversation import Event
from intercept_py.transports.lines import TooLong
from intercept_py.wire.commands import ToUpstream
from tests.support.news import News

pytestmark = pytest.mark.anyio

SUPPORT = Path(__file__).resolve().parent.parent / "support"
LIMIT = 1024 * 1024
mint = count(1).__next__
MODERN = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}


class Recorder:
    """A receiver that remembers, and can be waited for."""

    def __init__(self) -> None:
        self.messages: list[Any] = []
        self.streams: list[int] = []
        self.failures: list[tuple[int, str]] = []
        self.why_gone: str | None = None
        self._news = News()
        self.until = self._news.until

    def from_upstream(self, lines: list[bytes | TooLong], stream: int = 0, event: Event | None = None) -> None:
        self.messages += [line if isinstance(line, TooLong) else json.loads(line) for line in lines]
        self._news()

    def opened(self, stream: int) -> None:
        self.streams.append(stream)

    def status(self, stream: int, status: int, body: bytes) -> None:
        raise AssertionError

    def ended(self, stream: int) -> None:
        raise AssertionError

    def failed(self, stream: int, why: str) -> None:
        self.failures.append((stream, why))
        self._news()

    def gone(self, why: str) -> None:
        self.why_gone = why
        self._news()

    async def answers(self, number: int) -> list[Any]:
        await self.until(lambda: len(self.messages) >= number)
        return self.messages


def start(script: str, *arguments: str) -> processes.Child:
    return processes.start([sys.executable, "-S", "-E", str(SUPPORT / script), *arguments], os.environ)


def call(ticket: int, name: str = "echo", /, **arguments: Any) -> ToUpstream:
    params: dict[str, Any] = {"name": name, "arguments": arguments, "_meta": {**MODERN, "progressToken": ticket}}
    message = {"jsonrpc": "2.0", "id": ticket, "method": "tools/call", "params": params}
    return ToUpstream(json.dumps(message).encode(), False, ticket, "tools/call", params)


@asynccontextmanager
async def shared_echo() -> AsyncIterator[SharedChild]:
    shared = SharedChild(start("echo_server.py"), LIMIT, Log("error"))
    try:
        yield shared
    finally:
        await shared.close()


async def test_a_child_of_one_conversation_answers_and_ends() -> None:
    child = start("echo_server.py")
    receiver = Recorder()
    link = ChildLink(child, receiver, LIMIT)
    commands = [call(1, text="hello")]
    link.send(commands)
    assert commands == []
    (answer,) = await receiver.answers(1)
    assert answer["result"]["content"][0]["text"] == "hello"
    link.listen(-1, None)
    assert receiver.streams == [1, -1]
    await link.close()
    assert child.status == 0
    assert not child.group_alive()


async def test_the_end_of_a_child_is_told_once() -> None:
    receiver = Recorder()
    link = ChildLink(start("bad_server.py", "exit_at_once", "7"), receiver, LIMIT)
    await receiver.until(lambda: receiver.why_gone is not None)
    assert receiver.why_gone is not None
    assert receiver.why_gone.startswith("the server ended")
    link.send([call(1)])
    await link.close()


async def test_a_child_that_ignores_every_request_to_end_is_killed() -> None:
    child = start("bad_server.py", "ignores_eof_and_term")
    link = ChildLink(child, Recorder(), LIMIT)
    await link.close()
    assert child.status is not None
    assert not child.group_alive()


async def test_answers_of_a_shared_child_find_the_conversation_that_asked() -> None:
    async with shared_echo() as shared:
        receivers = [Recorder() for _ in range(5)]
        links = [shared.link(receiver, "one") for receiver in receivers]
        for number, link in enumerate(links):
            link.send([call(mint(), text=f"to {number}")])
        for number, receiver in enumerate(receivers):
            (answer,) = await receiver.answers(1)
            assert answer["result"]["content"][0]["text"] == f"to {number}"


async def test_progress_of_a_shared_child_goes_to_whom_it_concerns_and_to_nobody_else() -> None:
    async with shared_echo() as shared:
        one, other = Recorder(), Recorder()
        shared.link(other, "one").send([call(mint(), "hold", name="x")])
        shared.link(one, "one").send([call(mint(), "progress", steps=3)])
        messages = await one.answers(4)
        assert [message.get("method") for message in messages] == ["notifications/progress"] * 3 + [None]
        assert other.messages == []


async def test_what_a_conversation_left_behind_reaches_nobody() -> None:
    mint = count(1).__next__
    async with shared_echo() as shared:
        gone, stays = Recorder(), Recorder()
        link = shared.link(gone, "one")
        link.send([call(mint(), "hold", name="x")])
        await link.close()
        shared.link(stays, "one").send([call(mint(), "release")])
        (answer,) = await stays.answers(1)
        assert answer["id"] == 2
        assert gone.messages == []


async def test_a_shared_child_has_nobody_who_could_answer_its_questions() -> None:
    mint = count(1).__next__
    async with shared_echo() as shared:
        receiver = Recorder()
        params = {"name": "ask", "arguments": {"question": "who?"}}
        message = {"jsonrpc": "2.0", "id": mint(), "method": "tools/call", "params": params}
        shared.link(receiver, "one").send([ToUpstream(json.dumps(message).encode(), False, 1, "tools/call", params)])
        (answer,) = await receiver.answers(1)
        assert answer["id"] == 1
        assert "this client answers no requests" in json.dumps(answer)


async def test_all_conversations_hear_of_the_end_of_a_shared_child() -> None:
    async with shared_echo() as shared:
        receivers = [Recorder(), Recorder()]
        links = [shared.link(receiver, "one") for receiver in receivers]
        links[0].send([call(mint(), "exit", code=3)])
        for receiver in receivers:
            await receiver.until(lambda receiver=receiver: receiver.why_gone is not None)  # type: ignore[misc]
        assert shared.ended


async def test_a_child_that_does_not_read_fails_requests_rather_than_filling_the_memory() -> None:
    receiver = Recorder()
    link = ChildLink(start("bad_server.py", "deaf"), receiver, LIMIT)
    try:
        ticket = 0
        while not receiver.failures and ticket < 1000:
            ticket += 1
            link.send([call(ticket, text="x" * 1_000_000)])
        assert receiver.failures == [(ticket, "the server does not read its input: try again later")]
        assert link.crowded
    finally:
        await link.close()


async def test_what_names_no_request_is_nobodys_once_there_were_two_callers() -> None:
    async with shared_echo() as shared:
        one, other = Recorder(), Recorder()
        shared.link(one, "one").send([call(mint(), "change_tools")])
        await one.until(lambda: any("result" in message for message in one.messages))
        before = len(one.messages)
        shared.link(other, "other").send([call(mint(), "change_tools")])
        await other.until(lambda: any("result" in message for message in other.messages))
        assert [message for message in other.messages if "method" in message] == []
        assert len(one.messages) == before


async def test_nothing_is_left_of_a_child_that_ended_by_itself() -> None:
    child = start("bad_server.py", "spawns_grandchild")
    receiver = Recorder()
    ChildLink(child, receiver, LIMIT)
    os.kill(child.pid, signal.SIGKILL)
    os.killpg(child.pid, signal.SIGKILL)
    await receiver.until(lambda: receiver.why_gone is not None)
    async with asyncio.timeout(20):
        while child.status is None or child.group_alive():
            await asyncio.sleep(0.01)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(child.stdin)
