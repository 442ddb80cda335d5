"""What is written is with the kernel at once; what it does not take follows, in order, and nothing goes elsewhere."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
import uvloop

from intercept_py.transports.prompt_writing import PromptWriter


class Watching(asyncio.Protocol):
    """Notes whether its connection was lost, and whether all that was written has gone."""

    def __init__(self) -> None:
        self.gone = asyncio.Event()
        self.lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(exc)

    def resume_writing(self) -> None:
        self.gone.set()


Scene = Callable[[asyncio.Transport, Watching, socket.socket], Awaitable[None]]


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def play(request: pytest.FixtureRequest) -> Callable[[Scene], None]:
    """Run a scene with a transport and the other end of its connection."""
    make: Callable[[], asyncio.AbstractEventLoop] = request.param

    async def scene_with_ends(scene: Scene) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            transport, protocol = await asyncio.get_running_loop().create_connection(Watching, sock=ours)
            try:
                await scene(transport, protocol, theirs)
            finally:
                transport.abort()

    def run(scene: Scene) -> None:
        with asyncio.Runner(loop_factory=make) as runner:
            runner.run(asyncio.wait_for(scene_with_ends(scene), 20))

    return run


def test_it_is_there_before_the_loop_turns(play: Callable[[Scene], None]) -> None:
    async def scene(transport: asyncio.Transport, _: Watching, other: socket.socket) -> None:
        other.setblocking(False)
        writer = PromptWriter(transport)
        writer.write(b"first ")
        writer.write(b"second")
        assert other.recv(100) == b"first second"

    play(scene)


def test_what_the_kernel_does_not_take_follows_in_order(play: Callable[[Scene], None]) -> None:
    sent = [os.urandom(size) for size in (10, 4_000_000, 7, 300_000, 5)]

    async def scene(transport: asyncio.Transport, protocol: Watching, other: socket.socket) -> None:
        other.setblocking(False)
        transport.set_write_buffer_limits(0)
        writer = PromptWriter(transport)
        expected, got = b"".join(sent), bytearray()
        for data in sent:
            writer.write(data)
            if transport.get_write_buffer_size() and not got:
                got += other.recv(1 << 20)  # now the kernel has room again, but not for what comes next
        assert transport.get_write_buffer_size()
        while len(got) < len(expected):
            got += await asyncio.get_running_loop().sock_recv(other, 1 << 20)
        assert got == expected
        await protocol.gone.wait()
        writer.write(b"end")
        assert other.recv(100) == b"end"

    play(scene)


def test_a_peer_that_is_gone_is_noticed_as_ever(play: Callable[[Scene], None]) -> None:
    async def scene(transport: asyncio.Transport, protocol: Watching, other: socket.socket) -> None:
        transport.pause_reading()  # else its end would be read first
        other.close()
        PromptWriter(transport).write(b"nobody reads this")
        assert isinstance(await protocol.lost, OSError)

    play(scene)


def test_nothing_is_written_to_a_descriptor_that_was_given_back(play: Callable[[Scene], None]) -> None:
    async def scene(transport: asyncio.Transport, protocol: Watching, other: socket.socket) -> None:
        writer = PromptWriter(transport)
        number = transport.get_extra_info("socket").fileno()
        reader, strange = os.pipe()
        os.set_blocking(reader, False)
        transport.abort()
        await protocol.lost
        other.setblocking(False)
        assert await asyncio.get_running_loop().sock_recv(other, 1) == b""  # the descriptor is closed
        try:
            os.dup2(strange, number)  # somebody else has the number now
            with suppress(RuntimeError):  # of uvloop's transport
                writer.write(b"not for them")
            with pytest.raises(BlockingIOError):
                os.read(reader, 100)
        finally:
            for fd in (reader, strange, number):
                os.close(fd)

    play(scene)
