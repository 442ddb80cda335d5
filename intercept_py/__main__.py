"""The command line's front door: finds the command's module and imports nothing else."""

from __future__ import annotations

__all__ = ["COMMANDS", "main"]

import os
import sys
import typing
from importlib import import_module

from intercept_py.cli.garbage import importing

COMMANDS = {
    "run": ("intercept_py.cli.run", "put the proxy in front of a server (also without the word `run`)"),
    "serve": ("intercept_py.cli.serve", "put one port in front of several servers, each behind its own policy"),
    "validate": ("intercept_py.cli.validate", "check policy files, all problems at once"),
    "schema": ("intercept_py.cli.schema", "print the JSON Schema of the policy language"),
    "audit": ("intercept_py.cli.audit", "prove that an audit file was not changed"),
    "limits": ("intercept_py.cli.limits", "see how much of every limit is used, or have it begin anew"),
    "tokens": ("intercept_py.cli.tokens", "make, list and revoke the tokens by which HTTP clients are known"),
    "jobs": ("intercept_py.cli.jobs", "serve real jobs, to try policies on"),
    "demo": ("intercept_py.cli.demo", "see ten jobs cancelled and the eleventh refused"),
}

_USAGE = """usage: intercept-py COMMAND ...
       intercept-py -c POLICY -- SERVER-COMMAND ...

A proxy that asks a policy before an MCP server is asked to do anything.

commands:
"""


def main(argv: list[str] | None = None) -> int:
    """Run one command; its exit status. Documented in the README, `Exit status`."""
    arguments = sys.argv[1:] if argv is None else argv
    first = arguments[0] if arguments else "--help"
    if first in ("-h", "--help"):
        rows = "".join(f"  {name:<9} {summary}\n" for name, (_, summary) in COMMANDS.items())
        sys.stdout.write(f"{_USAGE}{rows}\n`intercept-py COMMAND --help` explains a command.\n")
        return 0
    if first == "--version":
        sys.stdout.write(f"intercept-py {import_module('intercept_py').__version__}\n")
        return 0
    if first in COMMANDS:
        return _call(first, arguments[1:])
    if first.startswith("-"):
        return _call("run", arguments)
    known = ", ".join(COMMANDS)
    sys.stderr.write(f"intercept-py: no command {first!r}; the commands are {known}; see `intercept-py --help`\n")
    return 64


def _import_msgspec() -> None:
    """Import msgspec without `typing_extensions`, which it prefers to `typing`.

    On the Pythons that we support both have what it looks for, and importing the former takes a quarter of the time in
    which a proxy should have answered its first message.
    """
    if "typing_extensions" not in sys.modules:
        sys.modules["typing_extensions"] = typing
        import_module("msgspec")
        del sys.modules["typing_extensions"]


def _call(name: str, arguments: list[str]) -> int:
    try:
        with importing():
            _import_msgspec()
            command = import_module(COMMANDS[name][0]).main
        status: int = command(arguments)
        if sys.stdout is not None:  # None where the descriptor was closed
            sys.stdout.flush()
        return status
    except BrokenPipeError:
        # Who reads our output has seen enough; Python would complain once more when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    raise SystemExit(main())
