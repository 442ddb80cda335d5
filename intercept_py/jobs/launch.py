"""Starting jobs. `LocalLauncher` puts each under a supervisor process on this machine.

Below: `supervisor`, the program; `strays`, `remains`. Above: the engine.
"""

from __future__ import annotations

__all__ = ["Launcher", "LocalLauncher", "Process", "Work", "start_fault"]

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Protocol

import msgspec

from intercept_py.jobs import strays, supervisor
from intercept_py.jobs.model import JobError
from intercept_py.jobs.remains import Exit, decode_exit, read_exit

_SPAWN_SECONDS = 30.0
_ORPHAN_SECONDS = 1.0
"""What a supervisor takes at most to end a job whose server is gone, unless it was stopped."""
_LOOK_SECONDS = 0.02
_LINE_LIMIT = 64 * 1024


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
        """After `events`: how it ended. None if its supervisor could not say; even then nothing of it is left."""


class Launcher(Protocol):
    """Starts jobs somewhere."""

    async def launch(self, work: Work) -> Process:
        """Start a job. Raises `JobError` (`spawn`) if it cannot be; then nothing of it is left."""

    async def clear(self, mark: str, directory: str) -> Exit | None:
        """End what a dead server left of a job; then, how it ended, if anything can still say so.

        Raises `TimeoutError` if something of it cannot be ended yet.
        """


class LocalLauncher:
    """Starts jobs on this machine."""

    async def launch(self, work: Work) -> Process:
        """Start a supervisor and wait until it has started the job."""
        try:
            process = await asyncio.create_subprocess_exec(
                *_command(work),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env={**os.environ, strays.MARK: work.mark},
                start_new_session=True,
                limit=_LINE_LIMIT,
            )
        except (OSError, ValueError) as exc:
            raise JobError("spawn", _why(work, "exec", exc)) from None
        job = _Supervised(process, work)
        try:
            async with asyncio.timeout(_SPAWN_SECONDS):
                await job.begin()
        except BaseException as exc:
            await asyncio.shield(job.undo())
            if isinstance(exc, TimeoutError):
                raise JobError("spawn", f"`{work.argv[0]}` did not start within {_SPAWN_SECONDS:g} s") from None
            raise
        return job

    async def clear(self, mark: str, directory: str) -> Exit | None:
        """Give the supervisor the time to end the job, then end what is left."""
        deadline = time.monotonic() + _ORPHAN_SECONDS
        while (end := read_exit(directory)) is None and strays.marked(mark) and time.monotonic() < deadline:
            await asyncio.sleep(_LOOK_SECONDS)
        if not await asyncio.to_thread(strays.kill, mark):
            raise TimeoutError
        return end or read_exit(directory)


class _Supervised:
    """A supervisor process and what it reports."""

    def __init__(self, process: asyncio.subprocess.Process, work: Work) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.pid = 0
        self._process = process
        self._lifeline = process.stdin
        self._reports = process.stdout
        self._work = work
        self._exit: Exit | None = None

    async def begin(self) -> None:
        """Wait for the first report."""
        word, _, rest = (await self._reports.readline()).decode().strip().partition(" ")
        if word == "started":
            self.pid = int(rest)
        elif word == "failed":
            raise start_fault(self._work, rest)
        else:
            raise JobError("spawn", f"cannot start `{self._work.argv[0]}`: its supervisor ended at once")

    def cancel(self) -> None:
        self._write(b"cancel\n")

    def send(self, text: str) -> None:
        data = text.encode() + b"\n"
        self._write(b"input %d\n" % len(data) + data)

    def abandon(self) -> None:
        self._lifeline.close()
        asyncio.get_running_loop().call_later(_ORPHAN_SECONDS, self._kill)

    async def events(self) -> AsyncIterator[bytes]:
        while line := await self._reports.readline():
            word, _, rest = line.partition(b" ")
            if word == b"event":
                yield rest
            elif word == b"exit":
                self._exit = decode_exit(rest)

    async def end(self) -> Exit | None:
        await self._process.wait()
        self._lifeline.close()
        if self._exit is None:
            # Killed, perhaps in between: what it could not end is ours to end before anybody says that the job ended.
            while not await asyncio.to_thread(strays.kill, self._work.mark):
                pass
            self._exit = read_exit(self._work.directory)
        return self._exit

    async def undo(self) -> None:
        """End the supervisor and what it may have started."""
        self._kill()
        await self.end()

    def _kill(self) -> None:
        with suppress(ProcessLookupError):
            self._process.kill()

    def _write(self, data: bytes) -> None:
        if not self._lifeline.is_closing():
            self._lifeline.write(data)


def start_fault(work: Work, report: str) -> JobError:
    """What a supervisor's `failed` report (`WHAT ERRNO`) means."""
    what, _, number = report.partition(" ")
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
