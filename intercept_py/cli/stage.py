"""Where demos play: a real job server behind the real proxy, and the calls of a client.

Nothing is assumed: answers come from the client's side of the wire, the state of processes from the operating system.

Below: `demo_dialects`, `jobs.witness`. Above: `evidence`, `scenario`, `scale`.
"""

from __future__ import annotations

__all__ = [
    "DENIED",
    "PROGRAM",
    "DemoError",
    "Stage",
    "cause",
    "directly",
    "text_of",
    "through_the_proxy",
    "until_gone",
]

import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final, TextIO

import anyio
import msgspec
from mcp import Client, StdioServerParameters, stdio_client
from mcp_types import CallToolResult, TextContent

from intercept_py.cli.demo_dialects import DIALECTS, Dialect
from intercept_py.jobs.witness import Witness

DENIED: Final = "[INTERCEPT POLICY DENIED] "
_ANSWER: Final = 60.0
"""Seconds within which every call must be answered."""
_GRACE: Final = "0.3"
"""Seconds that a job has to obey SIGTERM."""
_GONE: Final = 5.0
_LOOK: Final = 0.01
PROGRAM: Final = (sys.executable, "-P", "-m", "intercept_py")
"""This program. Without `-P`, a file `json.py` in the directory where somebody tries the demo would be run."""


class DemoError(Exception):
    """The demo cannot go on."""


class Stage(msgspec.Struct, frozen=True):
    """Where a demo plays: a directory of its own, the policy, the audit log, the stderr of everything that is started.

    `pause` is a time for people to watch, in seconds.
    """

    dialect: str
    directory: str
    policy: str
    audit: str
    stderr: TextIO
    pause: float = 0.0

    @property
    def tools(self) -> Dialect:
        """The tools of the dialect."""
        return DIALECTS[self.dialect]

    @property
    def witness(self) -> Witness:
        """Looks at the jobs of the server behind the proxy."""
        return Witness(self._state)

    @property
    def _state(self) -> str:
        return os.path.join(self.directory, "state")

    def server(self, max_running: int, state: str = "") -> list[str]:
        """The command of the job server; `state` is another directory for its state."""
        usual = ["--dialect", self.dialect, "--state-dir", state or self._state, "--root", self.directory]
        return [*PROGRAM, "jobs", "serve", *usual, "--grace", _GRACE, "--max-running", str(max_running)]


@asynccontextmanager
async def through_the_proxy(stage: Stage, max_running: int) -> AsyncIterator[Client]:
    """A client of the proxy, and the job server behind it, which runs so many jobs at once; both end with it."""
    proxy = [*PROGRAM, "run", "-c", stage.policy, "--state", "memory://", "--audit", stage.audit, "--"]
    async with _client(stage, [*proxy, *stage.server(max_running)]) as client:
        yield client


@asynccontextmanager
async def directly(stage: Stage) -> AsyncIterator[Client]:
    """A client of another job server of the same kind, with no proxy in between."""
    async with _client(stage, stage.server(1, os.path.join(stage.directory, "unguarded"))) as client:
        yield client


@asynccontextmanager
async def _client(stage: Stage, command: list[str]) -> AsyncIterator[Client]:
    server = StdioServerParameters(command=command[0], args=command[1:], env=dict(os.environ))
    transport = stdio_client(server, errlog=stage.stderr)
    async with Client(transport, read_timeout_seconds=_ANSWER) as client:
        yield client


def text_of(result: CallToolResult) -> str:
    """The first text of an answer."""
    return next((block.text for block in result.content if isinstance(block, TextContent)), "")


async def until_gone(look: Callable[[], set[int]]) -> set[int]:
    """Wait until `look` finds no process any more; what is left after some seconds."""
    with anyio.move_on_after(_GONE):
        while look():
            await anyio.sleep(_LOOK)
    return look()


def cause(group: BaseExceptionGroup[Exception]) -> str:
    """Why something failed: the innermost reason."""
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return str(found) or type(found).__name__
