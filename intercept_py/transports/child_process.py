"""A child process as a source and sink of lines, on asyncio, from its start to the end of its whole group.

Below: `processes`, `outlet`, `lines`. Above: `child_link`.
"""

from __future__ import annotations

__all__ = ["ChildProcess"]

import asyncio
import errno
import os
import signal
from collections.abc import Callable

from intercept_py.processes import Child
from intercept_py.transports.lines import LineReader, TooLong
from intercept_py.transports.outlet import Outlet
from intercept_py.transports.stdio import GRACE
from intercept_py.wire.commands import ToUpstream

_CHUNK = 65536
_CROWDED = 16 * 1024 * 1024
_FULL = 64 * 1024 * 1024
"""Over so many bytes that a server has not read, requests for it fail."""
_STEP = 0.01

_closing: set[asyncio.Task[None]] = set()
"""Loops keep no tasks alive."""


class ChildProcess:
    """A child as a source and sink of lines. `receive` is called with lines, `gone` once when nothing more comes."""

    def __init__(
        self, child: Child, limit: int, receive: Callable[[list[bytes | TooLong]], None], gone: Callable[[str], None]
    ) -> None:
        self.ended = False
        self._child = child
        self._reader = LineReader(limit)
        self._outlet = Outlet(child.stdin)
        self._receive = receive
        self._gone = gone
        self._writing = False
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(child.stdout, self._readable)

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._child.pid

    @property
    def crowded(self) -> bool:
        """Whether it does not read what it was sent."""
        return len(self._outlet.buffer) > _CROWDED

    @property
    def full(self) -> bool:
        """Whether so much waits for it that no more may."""
        return len(self._outlet.buffer) > _FULL

    def send(self, commands: list[ToUpstream]) -> None:
        """Write these, now or when the child reads."""
        if self.ended:
            commands.clear()
            return
        self._outlet.send(commands)
        self._watch()

    def look(self) -> None:
        """Notice a child that has ended while a process of its own keeps its output open."""
        if not self.ended and self._child.poll() is not None:
            self._end()

    async def close(self) -> None:
        """End the child and every process of its group."""
        self._stop()
        self._child.close_stdin()
        for signum in (signal.SIGTERM, signal.SIGKILL):
            if await self._ends_within(GRACE):
                break
            self._child.kill_group(signum)
        await self._ends_within(GRACE)
        if self._child.group_alive():  # the child has ended, but not all that it started
            self._child.kill_group(signal.SIGTERM)
            await asyncio.sleep(_STEP)
            self._child.kill_group(signal.SIGKILL)

    async def _ends_within(self, seconds: float) -> bool:
        until = self._loop.time() + seconds
        while self._child.poll() is None:
            if self._loop.time() >= until:
                return False
            await asyncio.sleep(_STEP)
        return True

    def _readable(self) -> None:
        try:
            data = os.read(self._child.stdout, _CHUNK)
        except BlockingIOError:
            return
        except OSError as exc:
            if exc.errno != errno.EIO:
                raise
            data = b""
        if data:
            self._receive(self._reader.feed(data))
        else:
            self._end()

    def _end(self) -> None:
        if not self.ended:
            self._stop()
            status = self._child.poll()
            # What is left of it: its group, our end of its input, and a process to reap. Nobody else may do that.
            task = self._loop.create_task(self.close())
            _closing.add(task)
            task.add_done_callback(_closing.discard)
            self._gone("the server ended" if status is None else f"the server ended with exit status {status}")

    def _stop(self) -> None:
        if not self.ended:
            self.ended = True
            self._loop.remove_reader(self._child.stdout)
            os.close(self._child.stdout)
            if self._writing:
                self._loop.remove_writer(self._child.stdin)

    def _watch(self) -> None:
        wanted = bool(self._outlet.buffer) and not self._outlet.broken
        if wanted and not self._writing:
            self._loop.add_writer(self._child.stdin, self._writable)
        elif self._writing and not wanted:
            self._loop.remove_writer(self._child.stdin)
        self._writing = wanted
        if self._outlet.broken:
            self._end()

    def _writable(self) -> None:
        self._outlet.flush()
        self._watch()
