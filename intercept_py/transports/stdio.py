"""The loop between a client on our stdin and stdout and a server that is our child. The only code here that moves
bytes.

One thread, `poll`, 64 KiB reads, direct writes: measured the fastest for one processor, and nothing to import. A side
that does not read stops the other one from being read (`_HIGH_WATER`), so nothing grows.
"""

from __future__ import annotations

__all__ = ["GRACE", "REST", "SPIN", "Stdio"]

import errno
import os
import select
import signal
import time
from collections.abc import Callable
from typing import Protocol

from intercept_py.log import Log
from intercept_py.processes import Child
from intercept_py.transports.lines import LineReader, TooLong
from intercept_py.transports.outlet import Outlet
from intercept_py.transports.signals import Signals
from intercept_py.wire.commands import ToClient, ToUpstream

_CHUNK = 65536
_BATCH = 32
"""Lines of the client's that are judged and recorded together; the server works on them while the next are judged."""
_HIGH_WATER = 1024 * 1024
_CROWDED = 16 * _HIGH_WATER
"""Over so many bytes for the server, it gets no more answers to its own questions."""
_TICK = 0.25
_PROCESSORS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
SPIN = 0.0001 if _PROCESSORS > 1 else 0.0
"""Seconds for which the loop stays awake after a message; the peer needs the processor if there is only one."""
REST = 0.05
"""Seconds without traffic after which outcomes are recorded, if no decision's write has taken them along."""

# MCP clients give a server about two seconds after each step of their shutdown; we must be done with ours before.
GRACE = 1.5
_PENDING_GRACE = 5.0
_DRAIN = 0.2


class Session(Protocol):
    """What the loop drives; see `proxy.Session`."""

    to_client: list[ToClient]
    to_upstream: list[ToUpstream]
    upstream_crowded: bool

    def from_client(self, lines: list[bytes | TooLong], limit: int) -> None: ...
    def from_upstream(self, lines: list[bytes | TooLong], limit: int) -> None: ...
    def sent(self) -> None: ...
    def rest(self) -> None: ...
    def tick(self) -> None: ...
    def upstream_gone(self, why: str) -> None: ...
    @property
    def judging(self) -> bool: ...
    @property
    def waiting(self) -> bool: ...


class Stdio:
    """Runs a session between fd 0/1 and a child until either side is done."""

    def __init__(self, session: Session, child: Child, signals: Signals, log: Log, limit: int) -> None:
        self._session = session
        self._child = child
        self._signals = signals
        self._log = log
        self._limit = limit
        self._from_client = LineReader(limit)
        self._from_upstream = LineReader(limit)
        self._client = Outlet(1)
        self._upstream = Outlet(child.stdin)
        self._poll = select.poll()
        self._watched: dict[int, int] = {}
        self._client_open = True
        self._upstream_open = True
        self._prepare: Callable[[], None] | None = None
        self._changed = True  # what to wait for
        self._ending = False
        self._look_at_child = True  # it may have ended before the first SIGCHLD was caught
        self._ended = 0.0  # when the first side was seen to end
        self._deadline: float | None = None
        self._signal: int | None = None
        self._killed = False

    def run(self, idle: Callable[[bool], None] | None, prepare: Callable[[], None] | None = None) -> int:
        """Relay until the session is over; the exit status for the proxy.

        `idle(False)` is called about four times a second, `idle(True)` on SIGHUP; None where there is nothing to do.
        `prepare` is called once, when the client has its first answer: for what must not delay that.
        """
        self._prepare = prepare
        blocking = [(fd, os.get_blocking(fd)) for fd in (0, 1)]
        for fd, _ in blocking:
            os.set_blocking(fd, False)
        try:
            return self._loop(idle)
        finally:
            for fd, was in blocking:  # the client's terminal or file may be shared with others
                os.set_blocking(fd, was)
            self._end_group()

    def _loop(self, idle: Callable[[bool], None] | None) -> int:
        next_tick = time.monotonic() + _TICK
        busy = True
        while not self._over():
            if self._changed or self._client.buffer or self._upstream.buffer:
                self._watch()
            timeout = REST if busy else _TICK if idle is not None or self._session.waiting or self._ending else None
            ready = (self._spin() if busy else None) or self._poll.poll(None if timeout is None else timeout * 1000)
            busy = bool(ready)
            for fd, events in ready:
                self._serve(fd, events, idle)
            self._flush()
            now = time.monotonic()
            if now >= next_tick:
                next_tick = now + _TICK
                self._tick(idle)
            if not busy:
                self._session.rest()
            if self._changed or self._ending:
                self._shut_down(now)
        return self._finish()

    def _spin(self) -> list[tuple[int, int]] | None:
        """Look out for the next message for a moment before going to sleep: waking up costs more than answering."""
        until = time.monotonic() + SPIN
        while not (ready := self._poll.poll(0)) and time.monotonic() < until:
            pass
        return ready

    def _tick(self, idle: Callable[[bool], None] | None) -> None:
        self._look_at_child = True
        self._session.tick()
        if idle is not None and not self._ending:
            idle(False)
        self._flush()

    def _serve(self, fd: int, events: int, idle: Callable[[bool], None] | None) -> None:
        if fd == self._child.stdout:
            self._read_upstream()
        elif fd == 0:
            self._read_client()
        elif fd == self._signals.fd:
            self._signalled(idle)
        elif fd == 1:
            self._client.flush()
            if events & (select.POLLERR | select.POLLHUP):
                self._client.broken = True
                self._changed = True
        else:
            self._upstream.flush()
            if events & (select.POLLERR | select.POLLHUP):
                self._upstream.broken = True
                self._changed = True

    # ---- moving bytes

    def _watch(self) -> None:
        """Wait for what can be used: reading stops while the other side's buffer is full."""
        self._changed = self._ending or bool(self._client.buffer or self._upstream.buffer)
        crowded = len(self._client.buffer) > _HIGH_WATER
        wanted = {self._signals.fd: select.POLLIN, 1: select.POLLOUT if self._client.buffer else 0}
        if self._client_open and not crowded and len(self._upstream.buffer) <= _HIGH_WATER:
            wanted[0] = select.POLLIN
        if self._upstream_open and not crowded:
            wanted[self._child.stdout] = select.POLLIN
        if not self._upstream.broken:
            wanted[self._child.stdin] = select.POLLOUT if self._upstream.buffer else 0
        if self._client.broken:
            del wanted[1]
        if wanted == self._watched:
            return
        for fd in self._watched.keys() - wanted.keys():
            self._poll.unregister(fd)
        for fd, events in wanted.items():
            if self._watched.get(fd) != events:
                self._poll.register(fd, events)
        self._watched = wanted

    def _read_client(self) -> None:
        data = _read(0)
        if data is None:
            return
        if data:
            lines = self._from_client.feed(data)
            for start in range(0, len(lines), _BATCH):
                self._session.from_client(lines[start : start + _BATCH], self._limit)
                self._flush()
            return
        self._client_open = False
        self._changed = True
        if unfinished := self._from_client.feed(b"\n"):  # the last line may lack its newline
            self._session.from_client(unfinished, self._limit)

    def _read_upstream(self) -> None:
        data = _read(self._child.stdout)
        if data is None:
            return
        if data:
            self._session.from_upstream(self._from_upstream.feed(data), self._limit)
        else:
            self._upstream_open = False
            self._changed = True

    def _flush(self) -> None:
        session = self._session
        if session.to_upstream:
            self._upstream.send(session.to_upstream)
            self._changed = self._changed or self._upstream.broken
        session.upstream_crowded = len(self._upstream.buffer) > _CROWDED
        if session.to_client:
            self._client.send(session.to_client)
            self._changed = self._changed or self._client.broken
            session.sent()
            if self._prepare is not None:
                prepare, self._prepare = self._prepare, None
                prepare()

    # ---- the end

    def _signalled(self, idle: Callable[[bool], None] | None) -> None:
        for signum in self._signals.pending():
            if signum == signal.SIGCHLD:
                self._look_at_child = True
            elif signum == signal.SIGHUP and idle is not None:
                idle(True)
            elif self._signal is None:
                self._signal = signum
                self._changed = True
                self._log("info", f"stopping on {signal.Signals(signum).name}")

    def _over(self) -> bool:
        """The child has ended and all that it said was read (a grandchild may hold its stdout open for ever)."""
        if not self._look_at_child and self._upstream_open:
            return False
        self._look_at_child = False
        if self._child.poll() is None:
            return False
        if self._upstream_open:
            self._poll_rest()
        return True

    def _poll_rest(self) -> None:
        rest = select.poll()
        rest.register(self._child.stdout, select.POLLIN)
        until = time.monotonic() + GRACE
        while self._upstream_open and time.monotonic() < until and rest.poll(_DRAIN * 1000):
            self._read_upstream()
            self._flush()

    def _shut_down(self, now: float) -> None:
        """The ladder: close the child's stdin, wait, TERM its group, wait, KILL it (MCP, stdio, shutdown)."""
        done = not self._client_open or self._client.broken or self._signal is not None
        if not self._ending:
            if not done and self._upstream_open and not self._upstream.broken:
                return
            if self._upstream.broken:
                self._log("debug", "the server does not read its input any more")
            self._ended = now
        self._ending = True
        urgent = self._signal is not None or self._client.broken
        # It may still have answers in its pipe, and an exit status is worth waiting for, a moment.
        if not done and now >= self._ended + _DRAIN:
            self._session.upstream_gone("the server ended its input or output before it answered")
        if self._deadline is None:
            patient = self._session.waiting and not urgent and self._upstream_open and not self._upstream.broken
            self._deadline = now + (_PENDING_GRACE if patient else GRACE)
        held = self._upstream.buffer or self._session.judging
        if urgent or self._upstream.broken or not held:
            self._close_upstream()
        if self._signal is not None and not self._killed:
            self._terminate(signal.SIGTERM, now)
        elif self._killed and now >= self._deadline:
            self._child.kill_group(signal.SIGKILL)
            self._deadline = now + GRACE
        elif now >= self._deadline:
            self._terminate(signal.SIGTERM, now)

    def _close_upstream(self) -> None:
        self._upstream.buffer.clear()
        self._upstream.broken = True
        self._child.close_stdin()

    def _terminate(self, signum: int, now: float) -> None:
        self._killed = True
        self._child.kill_group(signum)
        self._deadline = now + GRACE

    def _finish(self) -> int:
        status = self._child.status or 0
        self._session.upstream_gone(f"the server ended (exit status {status}) before it answered")
        self._flush()
        self._session.rest()
        last = select.poll()
        last.register(1, select.POLLOUT)
        until = time.monotonic() + GRACE
        while self._client.buffer and time.monotonic() < until and last.poll(GRACE * 1000):
            self._client.flush()
        return status if self._signal is None else 128 + self._signal

    def _end_group(self) -> None:
        """Nothing that the server started in its session outlives it (unless it made a session of its own)."""
        if not self._child.group_alive():
            return
        self._child.kill_group(signal.SIGTERM)
        until = time.monotonic() + GRACE
        while time.monotonic() < until and self._child.group_alive():
            self._child.poll()
            time.sleep(0.01)
        self._child.kill_group(signal.SIGKILL)
        while self._child.poll() is None:
            time.sleep(0.001)


def _read(fd: int) -> bytes | None:
    """What is there, b"" at the end, None when nothing is there after all."""
    try:
        return os.read(fd, _CHUNK)
    except BlockingIOError:
        return None
    except OSError as exc:
        if exc.errno == errno.EIO:  # a terminal whose other side has gone
            return b""
        raise
