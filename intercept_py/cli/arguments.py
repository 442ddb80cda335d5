"""Command lines: what every command shares. Options are never abbreviated, a usage error is one line and exits 64."""

from __future__ import annotations

__all__ = ["BAD_POLICY", "CANNOT_CREATE", "FAILED", "INTERRUPTED", "NO_INPUT", "OK", "USAGE", "Parser"]

import argparse
import sys
from typing import NoReturn

from intercept_py.cli.text import printable

OK = 0
FAILED = 1
USAGE = 64
NO_INPUT = 66
CANNOT_CREATE = 73
BAD_POLICY = 78
INTERRUPTED = 130


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` with this project's manners."""

    def __init__(self, prog: str, description: str) -> None:
        super().__init__(prog=prog, description=description, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Say what is wrong on one line of stderr and exit 64."""
        print(f"{self.prog}: {printable(message)}; see `{self.prog} --help`", file=sys.stderr)  # noqa: T201
        raise SystemExit(USAGE)
