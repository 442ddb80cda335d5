"""Real servers of the job engine's dialects, and clients to talk to them.

async with dialect("codex", tmp_path) as client:             # over stdio
    started = await client.call_tool("codex_start", {...})

with listening("codex", tmp_path) as server:                 # over HTTP: its process can be killed
    async with Client(server.url) as client: ...
"""

from __future__ import annotations

__all__ = [
    "GRACE",
    "Listening",
    "alive",
    "command",
    "dialect",
    "facts",
    "gone",
    "listening",
    "processes_of",
    "root_of",
    "row_of",
    "rows",
    "text",
]

import os
import select
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
from mcp import Client, StdioServerParameters
from mcp_types import CallToolResult, TextContent

from intercept_py.jobs import strays
from intercept_py.jobs.witness import alive

GRACE = 0.2
"""Seconds from TERM to KILL in tests."""


def root_of(path: Path) -> Path:
    """The directory in which the jobs of a server under `path` may work."""
    root = path / "root"
    root.mkdir(exist_ok=True)
    return root


def command(name: str, path: Path, *options: str) -> list[str]:
    """How a dialect is started that keeps its state under `path`."""
    usual = ["--dialect", name, "--state-dir", str(path / "state"), "--root", str(root_of(path)), "--grace", str(GRACE)]
    return [sys.executable, "-m", "intercept_py", "jobs", "serve", *usual, *options]


@asynccontextmanager
async def dialect(name: str, path: Path, *options: str, mode: str = "legacy", **client: Any) -> AsyncIterator[Client]:
    """A client of a server that was started for it, over stdio; all of it must be over within half a minute.

    `client` is passed on to `Client`, e.g. `logging_callback`.
    """
    program, *arguments = command(name, path, *options)
    server = StdioServerParameters(command=program, args=arguments, env=dict(os.environ))
    with anyio.fail_after(30):
        async with Client(server, mode=mode, cache=None, **client) as connected:
            yield connected


@dataclass(frozen=True)
class Listening:
    """A server that listens for HTTP, and where it keeps what it has."""

    process: subprocess.Popen[str]
    url: str
    path: Path

    def kill(self) -> None:
        """End it as `kill -9` does."""
        self.process.kill()
        self.process.wait()


@contextmanager
def listening(name: str, path: Path, *options: str) -> Iterator[Listening]:
    """A server on a free port of the loopback, which is told to end (SIGTERM) at the end."""
    argv = command(name, path, "--listen", "127.0.0.1:0", *options)
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            line = process.stderr.readline()
            words, _, url = line.strip().rpartition(" ")
            assert words == "intercept-py jobs: listening on", line + process.stderr.read()
            yield Listening(process, url, path)
        finally:
            process.terminate()
            process.stderr.read()


def text(result: CallToolResult) -> str:
    """The one text of a result."""
    (content,) = result.content
    assert isinstance(content, TextContent)
    return content.text


def facts(result: CallToolResult) -> dict[str, Any]:
    """The structured content of a result that is no error."""
    assert not result.is_error, text(result)
    assert isinstance(result.structured_content, dict)
    return result.structured_content


def row_of(path: Path, job: str) -> dict[str, Any]:
    """What the store of the server under `path` has of a job, with the store's `uuid`."""
    with closing(sqlite3.connect(path / "state" / "jobs.db")) as db:
        db.row_factory = sqlite3.Row
        return dict(db.execute("SELECT job.*, uuid FROM job, store WHERE id = ?", (job,)).fetchone())


def rows(path: Path) -> int:
    """How many jobs that store has."""
    with closing(sqlite3.connect(path / "state" / "jobs.db")) as db:
        return int(db.execute("SELECT count(*) FROM job").fetchone()[0])


def processes_of(path: Path, job: str) -> list[int]:
    """Every process that belongs to a job, by the mark that it inherits."""
    found = row_of(path, job)
    return strays.marked(f"{found['uuid']}/{found['row']}")


def gone(pid: int) -> None:
    """Return when the process is gone; the test's time limit bounds it."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    poll.poll()
    os.close(descriptor)
