"""The client on our stdin and stdout, for servers that are reached by other means than a child's pipes.

(Between a client and a child of ours, both over stdio, `transports.stdio` is faster.) Below: `conversation`. Above:
`cli`.
"""

from __future__ import annotations

__all__ = ["StdioFront"]

import asyncio
import errno
import os
import stat

from intercept_py.log import Log
from intercept_py.model import RequestId
from intercept_py.transports.conversation import Conversation, Event
from intercept_py.transports.lines import LineReader
from intercept_py.transports.outlet import Outlet
from intercept_py.wire.commands import ToClient

_CHUNK = 65536
_HIGH_WATER = 1024 * 1024
_PENDING_GRACE = 5.0
"""Seconds that a client which has closed its side may still wait for answers, and that it may take to read on."""


class StdioFront:
    """One client. Make its conversation with this as the front, `run` it, and close it, all within this as a context.

    Nothing waits for a client that does not read, to the end of the context; what it has not read by then is lost.
    """

    def __init__(self, limit: int, log: Log) -> None:
        self._log = log
        self._reader = LineReader(limit)
        self._client = Outlet(1)
        self._polled = _may_be_polled(0)
        self._reading = False
        self._writing = False
        self._eof = False
        self._done = asyncio.Event()
        self._stopped = False
        self._loop = asyncio.get_running_loop()
        self._conversation: Conversation | None = None
        self._blocking = [(fd, os.get_blocking(fd)) for fd in (0, 1)]

    def __enter__(self) -> StdioFront:
        for fd, _ in self._blocking:
            os.set_blocking(fd, False)
        return self

    def __exit__(self, *_: object) -> None:
        if self._client.buffer:
            self._log("warn", f"the client does not read: {len(self._client.buffer)} bytes of answers are lost")
            self._client.buffer.clear()
        self._eof = True
        self._watch()
        for fd, was in self._blocking:  # the client's terminal or file may be shared with others
            os.set_blocking(fd, was)

    async def run(self, conversation: Conversation) -> None:
        """Relay until the client is done, the server is gone or `stop` is called."""
        self._conversation = conversation
        self._watch()
        await self._done.wait()
        await self._answers()
        self._eof = True
        self._watch()

    def stop(self) -> None:
        """End `run`, without waiting for anything."""
        self._stopped = True
        self._done.set()

    async def _answers(self) -> None:
        """Wait for what was asked before the client closed its side, and for as long as it reads what there is."""
        assert self._conversation is not None
        now = self._loop.time()
        answered_by = read_by = now + _PENDING_GRACE
        unread = 0
        while not self._stopped:
            before, unread = unread, len(self._client.buffer)
            if unread < before or not before:  # it reads, or had nothing to read
                read_by = now + _PENDING_GRACE
            waits = self._conversation.waiting and now < answered_by
            reads = unread and now < read_by
            if not waits and not reads:
                return
            await asyncio.sleep(0.01)
            now = self._loop.time()

    # ---- what the conversation tells us, see `Front`

    def deliver(self, messages: list[ToClient], event: Event | None) -> None:
        """See `Front`."""
        if messages:
            self._client.send(messages)
            self._watch()

    def mark(self, request: RequestId | None, stream: int, event: Event) -> None:
        """There is nobody to resume here."""

    def opened(self, request: RequestId | None, stream: int) -> None:
        """All is one stream here."""

    def status(self, request: RequestId | None, stream: int, status: int, body: bytes) -> None:
        """A request that fails is answered; a server without unasked messages is as good as a silent one."""

    def ended(self, request: RequestId | None, stream: int) -> None:
        """It is the link that resumes streams, where the client cannot."""

    def gone(self, why: str) -> None:
        """See `Front`. The client may still read what it was sent, and asks nobody any more."""
        self._eof = True
        self._watch()
        self._done.set()

    # ---- moving bytes

    def _watch(self) -> None:
        """Read while the client reads what it is sent; write what it has not read."""
        pending = bool(self._client.buffer) and not self._client.broken
        if pending != self._writing:
            self._writing = pending
            if pending:
                self._loop.add_writer(1, self._writable)
            else:
                self._loop.remove_writer(1)
        wanted = not self._eof and len(self._client.buffer) <= _HIGH_WATER
        if wanted != self._reading:
            self._reading = wanted
            if not self._polled:
                self._loop.call_soon(self._readable)
            elif wanted:
                self._loop.add_reader(0, self._readable)
            else:
                self._loop.remove_reader(0)
        if self._client.broken:
            self.stop()

    def _writable(self) -> None:
        self._client.flush()
        self._watch()

    def _readable(self) -> None:
        if not self._reading:  # what is not polled is read when the loop comes to it
            return
        try:
            data = os.read(0, _CHUNK)
        except BlockingIOError:
            return
        except OSError as exc:
            if exc.errno != errno.EIO:  # a terminal whose other side has gone
                raise
            data = b""
        if not data:
            self._eof = True
            self._done.set()
        assert self._conversation is not None
        for line in self._reader.feed(data or b"\n"):  # the last line may lack its newline
            self._conversation.from_client(line)
        if not self._polled:
            self._reading = False
        self._watch()


def _may_be_polled(fd: int) -> bool:
    """Whether an event loop takes it: it refuses files, `/dev/null` and the like, which never keep anybody waiting."""
    mode = os.fstat(fd).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(fd)
