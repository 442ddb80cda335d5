"""Command lines: what every command shares. Options are never abbreviated, a usage error is one line and exits 64."""

from __future__ import annotations

__all__ = [
    "BAD_POLICY",
    "CANNOT_CREATE",
    "FAILED",
    "INTERRUPTED",
    "NOT_FOUND",
    "NO_INPUT",
    "OK",
    "SECONDS",
    "USAGE",
    "Parser",
    "checked",
    "default_audit",
    "number",
    "secret",
    "server_name",
    "state_url",
]

import argparse
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from typing import NoReturn, TypeVar

from intercept_py import state
from intercept_py.cli.text import printable
from intercept_py.errors import InterceptError
from intercept_py.policy.rules import Policy

OK = 0
FAILED = 1
USAGE = 64
NO_INPUT = 66
CANNOT_CREATE = 73
BAD_POLICY = 78
NOT_FOUND = 127
INTERRUPTED = 130

_LONGEST_SECRET = 8192

N = TypeVar("N", int, float)


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` with this project's manners."""

    def __init__(self, prog: str, description: str) -> None:
        super().__init__(prog=prog, description=description, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Say what is wrong on one line of stderr and exit 64."""
        print(f"{self.prog}: {printable(message)}; see `{self.prog} --help`", file=sys.stderr)  # noqa: T201
        raise SystemExit(USAGE)


def number(kind: type[N], what: str, least: int, most: int) -> Callable[[str], N]:
    """A type of option: a number from `least` to `most`, which is called `what` where it is none."""

    def parse(text: str) -> N:
        with suppress(ValueError):
            value = kind(text)
            if least <= value <= most:
                return value
        raise argparse.ArgumentTypeError(f"`{text}` is no {what} from {least} to {most}")

    return parse


SECONDS = number(float, "number of seconds", 0, 7 * 86_400)
"""The type of an option that is a span of time: up to a week."""


def default_audit() -> str:
    """One file a day under the XDG state directory: several proxies may share it."""
    base = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return os.path.join(base, "intercept-py", "audit", time.strftime("%Y-%m-%d.jsonl", time.gmtime()))


def state_url(given: str | None, policy: Policy) -> str:
    """Where limits are counted: as `--state` says, else where those outlive the proxy that are wider than a session."""
    return given or (state.KEPT if policy.counts_beyond_session else state.MEMORY)


def server_name(command: list[str]) -> str:
    """Names the server in records and in the keys of its limits: stable for a command, without its secrets."""
    digest = sha256("\0".join(command).encode("utf-8", "surrogateescape")).hexdigest()[:12]
    return f"{os.path.basename(command[0])}-{digest}"


def checked(check: Callable[[str], object]) -> Callable[[str], str]:
    """A type of option: a text that `check` takes, which raises one of our faults for what it does not."""

    def parse(text: str) -> str:
        try:
            check(text)
        except InterceptError as exc:
            raise argparse.ArgumentTypeError(str(exc)) from None
        return text

    return parse


def secret(text: str) -> str:
    """An option's value that others who see the command line should not see: `env:NAME` or `@FILE` say where it is."""
    if text.startswith("env:"):
        value = os.environ.get(text[4:], "").strip()
        if not value:
            raise argparse.ArgumentTypeError(f"the environment variable `{text[4:]}` is not set, or empty")
        if not value.replace("\t", " ").isprintable():
            raise argparse.ArgumentTypeError(f"the environment variable `{text[4:]}` must hold one line of text")
        return value
    return _first_line(text[1:]) if text.startswith("@") else text


def _first_line(path: str) -> str:
    """The only line of a file. What stands in it is never quoted."""
    try:
        with open(path, "rb") as file:
            value = file.read(_LONGEST_SECRET + 1).strip().decode()
    except (OSError, ValueError) as exc:
        reason = str(exc.strerror).lower() if isinstance(exc, OSError) else "it is not a text in UTF-8"
        raise argparse.ArgumentTypeError(f"cannot read `{path}`: {reason}") from None
    if not value or not value.isprintable() or len(value) > _LONGEST_SECRET:
        raise argparse.ArgumentTypeError(f"`{path}` must hold one line and nothing else")
    return value
