"""What a demo expected and what it saw. Pure.

Above: `scenario`, `scale`, and who shows them.
"""

from __future__ import annotations

__all__ = ["Check", "Findings"]

from typing import TypeVar

import msgspec

from intercept_py.cli.text import printable

F = TypeVar("F", bound="Findings")


class Check(msgspec.Struct, frozen=True):
    """One expectation, whether it held, and what was seen."""

    name: str
    held: bool
    seen: str


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """What was expected and seen so far. `doing` is what happens next."""

    doing: str = ""
    checks: tuple[Check, ...] = ()

    @property
    def held(self) -> bool:
        """Whether every expectation held."""
        return all(check.held for check in self.checks)

    def summary(self, seconds: float) -> str:
        """How it went, in one line."""
        failed = sum(not check.held for check in self.checks)
        ended = f"{failed} of {len(self.checks)} expectations did not hold"
        return f"{ended if failed else f'all {len(self.checks)} expectations held'}, {seconds:.1f} s"

    def with_check(self: F, name: str, held: bool, seen: str) -> F:
        """The same and one check more; what was seen is made safe to print."""
        return msgspec.structs.replace(self, checks=(*self.checks, Check(name, held, printable(seen))))
