"""Servers on the official SDK, each in a process of its own for the time of a test."""

from __future__ import annotations

__all__ = ["sdk_server"]

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


@asynccontextmanager
async def sdk_server(module: str, *arguments: str) -> AsyncIterator[str]:
    """Start `tests.support.MODULE`, which says on stderr where it is listening; its URL. It ends with the block."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", f"tests.support.{module}", *arguments, stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(60):
            line = await process.stderr.readline()
        yield line.decode().removeprefix("listening on ").strip()
    finally:
        process.terminate()
        await process.stderr.read()
        await process.wait()
