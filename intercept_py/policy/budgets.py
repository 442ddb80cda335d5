"""The budgets of a policy, for people: every limit, how it is split, and which counters count against it.

Below: `rules`, `charges`. Above: the command `limits`.
"""

from __future__ import annotations

__all__ = ["Budget", "budgets"]

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Final

import msgspec

from intercept_py.model import Charge, Strategy
from intercept_py.policy.charges import limit_key, spellings, tool_part
from intercept_py.policy.rules import Counter, Policy, Rule

# A scope that the transport cannot prove falls back to the next wider one, see `charges`.
_WIDER: Final = ("principal=", "address=")
_STARTS: Final[Mapping[str, tuple[str, ...]]] = {
    "session": ("session=", *_WIDER),
    "principal": _WIDER,
    "tool": ("tool=",),
    "global": (),
}


class Budget(msgspec.Struct, frozen=True):
    """One limit of one rule. `tool` is the entry whose calls it counts, `per` how it is split, sorted.

    `charge`: what the next call adds, and where it must stay within; its key is the part of a counter's key that all
    scopes share. 0 is added where that depends on the call, and by a rule that only looks at another's counter.
    """

    tool: str
    charge: Charge
    per: tuple[str, ...] = ()

    @property
    def counter(self) -> str | None:
        """The name of a `state` counter; None for a `rate_limit`."""
        return self.charge.key[2] if self.charge.key[0] == "state" else None

    def shared(self, tool: str) -> Charge | None:
        """What looks at the one counter for all calls of a tool, and adds nothing.

        None where callers or arguments have counters of their own.
        """
        parts = {(): (), ("global",): ("global",), ("tool",): (tool_part(tool),)}.get(self.per)
        return None if parts is None else msgspec.structs.replace(self.charge, key=self.charge.key + parts, amount=0)

    def scopes(self, key: tuple[str, ...]) -> tuple[str, ...] | None:
        """Whose share a counter with this key is; None if it does not count against this limit."""
        shared = self.charge.key
        parts = key[len(shared) :]
        if key[: len(shared)] != shared or len(parts) != len(self.per):
            return None
        return parts if all(map(_is_of, parts, self.per)) else None


def budgets(policy: Policy) -> tuple[Budget, ...]:
    """Every limit that calls are held to, in the order of the policy."""
    return tuple(
        budget
        for entry in policy.entries
        for rule in entry.rules
        for budget in _of_rule(entry.pattern, rule, policy.shadow or rule.shadow)
    )


def _of_rule(pattern: str, rule: Rule, shadow: bool) -> Iterator[Budget]:
    limit, counter = rule.rate_limit, rule.counter
    if limit is not None:
        key = limit_key(pattern, limit)
        charge = Charge(key, 1, limit.max, limit.window, limit.strategy, rule.name, shadow=shadow)
        yield Budget(pattern, charge, tuple(spellings(limit)))
    for check in rule.checks:
        key = ("state", check.entry, check.counter)
        added = _added(counter) if counter is not None and key[1:] == (pattern, counter.counter) else 0
        window, strategy = check.window, Strategy.FIXED
        charge = Charge(key, added, check.limit, window, strategy, rule.name, check.inclusive, shadow=shadow)
        yield Budget(check.entry, charge)


def _added(counter: Counter) -> Decimal | int:
    if counter.increment_from is not None:
        return 0
    return 1 if counter.increment is None else counter.increment


def _is_of(part: str, scope: str) -> bool:
    """Whether a part of a key is what this scope becomes."""
    if scope in _STARTS:
        return part.startswith(_STARTS[scope]) or (part == "global" and scope != "tool")
    return part == scope or part.startswith(f"{scope}=")  # a path into the arguments
