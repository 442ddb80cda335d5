"""Starting jobs. `LocalLauncher` puts each under a supervisor process on this machine.

Below: `supervisor`, the program; `strays`, `remains`. Above: the engine.
"""

from __future__ import annotations

__all__ = ["Launcher", "LocalLauncher", "Process", "Work", "environment", "start_fault"]

import asyncio
import os
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, suppress
from typing import Literal, Protocol

import msgspec

from intercept_py.jobs import strays, supervisor
from intercept_py.jobs.model import JobError
from intercept_py.jobs.remains import Exit, decode_exit, read_exit

_SPAWN_SECONDS = 30.0
_ORPHAN_SECONDS = 1.0
"""What a supervisor takes at most to end a job whose server is gone, unless it was stopped."""
_LOOK_SECONDS = 0.02
_OVERDUE_SECONDS = 1.5
"""Beyond the grace: a supervisor that has not ended the job by then was stopped, or worse."""
_LINE_LIMIT = 64 * 1024
_INHERITED = ("HOME", "LANG", "LOGNAME", "PATH", "SHELL", "TERM", "TMPDIR", "TZ", "USER")


class Work(msgspec.Struct, frozen=True):
    """A job as a launcher needs it. Everything that it starts carries `mark`; its files go to `directory`.

    `grace` and `timeout` are seconds, `head` and `tail` the bytes of output to keep.
    """

    argv: tuple[str, ...]
    cwd: str
    mark: str
    directory: str
    grace: float
    timeout: float | None
    head: int
    tail: int


class Process(Protocol):
    """A job that has been started."""

    pid: int

    def cancel(self) -> None:
        """Ask all of it to end; after the grace it is made to."""

    def send(self, text: str) -> None:
        """Write text and a line end to its stdin."""

    def abandon(self) -> None:
        """Let go of it as a dying server would: it ends within about a second."""

    def events(self) -> AsyncIterator[bytes]:
        """The JSON lines it writes to fd 3, until it is gone."""

    async def end(self) -> Exit | None:
        """After `events`: how it ended. None if nobody can say; even then nothing of it is left."""


class Launcher(Protocol):
    """Starts jobs somewhere."""

    async def launch(self, work: Work) -> Process:
        """Start a job. Raises `JobError` (`spawn`) if it cannot be; then nothing of it is left."""

    async def clear(self, mark: str, directory: str) -> Exit | None:
        """End what a dead server left of a job; then, how it ended, if anything can still say so.

        Raises `TimeoutError` if something of it cannot be ended yet, or if that cannot be told.
        """


class LocalLauncher:
    """Starts jobs on this machine."""

    async def launch(self, work: Work) -> Process:
        """Start a supervisor and wait until it has started the job."""
        try:
            job = await _start(work)
        except (OSError, ValueError) as exc:
            raise JobError("spawn", _why(work, "exec", exc)) from None
        try:
            async with asyncio.timeout(_SPAWN_SECONDS):
                await job.begin()
        except BaseException as exc:
            await asyncio.shield(job.undo())
            if isinstance(exc, TimeoutError):
                raise JobError("spawn", f"`{work.argv[0]}` did not start within {_SPAWN_SECONDS:g} s") from None
            raise
        return job

    async def clear(self, mark: str, directory: str) -> Exit:
        """Give the supervisor the time to end the job, then end what is left."""
        deadline = time.monotonic() + _ORPHAN_SECONDS
        try:
            while (end := read_exit(directory)) is None and await _marked(mark) and time.monotonic() < deadline:
                await asyncio.sleep(_LOOK_SECONDS)
            left = bool(await _marked(mark))
            if not await asyncio.to_thread(strays.kill, mark):
                raise TimeoutError
            end = end or read_exit(directory)
        except OSError:  # it cannot be told
            raise TimeoutError from None
        return end or Exit(None, None, asked=False, killed=left, ended_by="server_died")


class _Supervised:
    """A supervisor process and what it reports."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        lifeline: asyncio.StreamWriter,
        reports: asyncio.StreamReader,
        links: ExitStack,
        work: Work,
    ) -> None:
        self.pid = 0
        self._process = process
        self._lifeline = lifeline
        self._reports = reports
        self._links = links
        self._work = work
        self._exit: Exit | None = None
        self._overdue: Literal["cancel", "timeout"] | None = None
        self._timers: list[asyncio.TimerHandle] = []

    async def begin(self) -> None:
        """Wait for the first report."""
        word, _, rest = (await self._reports.readline()).decode().strip().partition(" ")
        if word == "started":
            self.pid = int(rest)
            if self._work.timeout is not None:
                self._expect_end(self._work.timeout, "timeout")
        elif word == "failed":
            raise start_fault(self._work, rest)
        else:
            raise JobError("spawn", f"cannot start `{self._work.argv[0]}`: its supervisor ended at once")

    def cancel(self) -> None:
        self._write(b"cancel\n")
        self._expect_end(0, "cancel")

    def send(self, text: str) -> None:
        data = text.encode() + b"\n"
        self._write(b"input %d\n" % len(data) + data)

    def abandon(self) -> None:
        self._lifeline.close()
        self._timers.append(asyncio.get_running_loop().call_later(_ORPHAN_SECONDS, self._kill))

    async def events(self) -> AsyncIterator[bytes]:
        while line := await self._reports.readline():
            word, _, rest = line.partition(b" ")
            if word == b"event":
                yield rest
            elif word == b"exit":
                self._exit = decode_exit(rest)

    async def end(self) -> Exit:
        status = await self._process.wait()
        for timer in self._timers:
            timer.cancel()
        self._links.close()
        if status == 0 and self._exit is not None:
            return self._exit
        # Killed, perhaps by the job, which may have said anything in its name: what it could not end is ours to end.
        killed = await self._kill_strays()
        return Exit(None, None, self._overdue == "cancel", killed, self._overdue or "supervisor_died")

    async def undo(self) -> None:
        """End the supervisor and what it may have started."""
        self._kill()
        await self.end()

    async def _kill_strays(self) -> bool:
        """End what is left of the job, however long it takes; whether there was anything."""
        found = False
        while True:
            with suppress(OSError):
                found = bool(await _marked(self._work.mark)) or found
            if await asyncio.to_thread(strays.kill, self._work.mark):
                return found

    def _expect_end(self, seconds: float, why: Literal["cancel", "timeout"]) -> None:
        """It has ended for this reason by then, or it is made to: a job can stop its supervisor."""
        seconds += self._work.grace + _OVERDUE_SECONDS
        self._timers.append(asyncio.get_running_loop().call_later(seconds, self._overrun, why))

    def _overrun(self, why: Literal["cancel", "timeout"]) -> None:
        self._overdue = self._overdue or why
        self._kill()

    def _kill(self) -> None:
        with suppress(ProcessLookupError):
            self._process.kill()

    def _write(self, data: bytes) -> None:
        if not self._lifeline.is_closing():
            self._lifeline.write(data)


async def _marked(mark: str) -> list[int]:
    """See `strays.marked`, which may take a moment."""
    return await asyncio.to_thread(strays.marked, mark)


async def _start(work: Work) -> _Supervised:
    """Start a supervisor between two sockets. Pipes would not do: through /proc a job could open them anew, to hold its
    own lifeline, or to report in the name of its supervisor.
    """
    with ExitStack() as ours, ExitStack() as theirs:
        links = []
        for _ in range(2):
            here, there = socket.socketpair()
            theirs.callback(there.close)
            reader, writer = await asyncio.open_unix_connection(sock=here, limit=_LINE_LIMIT)
            ours.callback(writer.close)
            links.append((reader, writer, there))
        (_, lifeline, stdin), (reports, _, stdout) = links
        process = await asyncio.create_subprocess_exec(
            *_command(work),
            stdin=stdin.fileno(),
            stdout=stdout.fileno(),
            env=environment(work.mark),
            start_new_session=True,
        )
        return _Supervised(process, lifeline, reports, ours.pop_all(), work)


def environment(mark: str) -> dict[str, str]:
    """What a job gets of our environment, which may hold secrets, and its mark."""
    inherited = {name: value for name, value in os.environ.items() if name in _INHERITED or name.startswith("LC_")}
    return {**inherited, strays.MARK: mark}


def start_fault(work: Work, report: str) -> JobError:
    """What a supervisor's `failed` report (`WHAT ERRNO`) means."""
    what, _, number = report.partition(" ")
    if what == "cwd":
        return JobError("cwd_outside", f"cwd `{work.cwd}` became a link to another place")
    reason = OSError(int(number), os.strerror(int(number)))
    return JobError("spawn", _why(work, what, reason))


def _command(work: Work) -> list[str]:
    timeout = "-" if work.timeout is None else str(work.timeout)
    numbers = (str(work.grace), timeout, str(work.head), str(work.tail))
    program = (sys.executable, "-I", "-S", "-E", supervisor.__file__)
    return [*program, work.directory, work.cwd, *numbers, *work.argv]


def _why(work: Work, what: str, exc: OSError | ValueError) -> str:
    reason = (exc.strerror or str(exc)).lower() if isinstance(exc, OSError) else "it contains a NUL"
    doing = {"output": f"keep output in `{work.directory}`", "chdir": f"enter `{work.cwd}`"}
    return f"cannot {doing.get(what, f'start `{work.argv[0]}`')}: {reason}"
