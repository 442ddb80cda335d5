"""Command lines of the servers in this package, and what an echo server has recorded."""

from __future__ import annotations

__all__ = ["PYTHON", "bad_server", "echo_server", "received", "sdk_server"]

import json
import os
import sys
from typing import Any

PYTHON = [sys.executable, "-S", "-E"]
_HERE = os.path.dirname(os.path.abspath(__file__))


def echo_server(*arguments: str) -> list[str]:
    """The well-behaved server; set `ECHO_RECORD` in its environment to read what it got with `received`."""
    return [*PYTHON, os.path.join(_HERE, "echo_server.py"), *arguments]


def bad_server(mode: str, argument: str = "") -> list[str]:
    """A server that misbehaves as `mode` says, see `bad_server.MODES`."""
    return [*PYTHON, os.path.join(_HERE, "bad_server.py"), mode, *([argument] if argument else [])]


def sdk_server() -> list[str]:
    """The server that is written on the official SDK."""
    return [sys.executable, os.path.join(_HERE, "sdk_server.py")]


def received(record: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The messages that an echo server got so far, in order. A line that is no JSON fails the test that asks."""
    try:
        with open(record, "rb") as file:
            return [json.loads(line) for line in file.read().split(b"\n") if line]
    except FileNotFoundError:
        return []
