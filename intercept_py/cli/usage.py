"""How much of every limit of a policy is used, by whom: what a store holds, put together with what a policy says.

Below: `state.inventory`, `policy.budgets`. Above: `limits`, and `render_limits`, which shows it.
"""

from __future__ import annotations

__all__ = ["Line", "Report", "Use", "describe", "fullness", "lines", "remarks", "share", "survey", "used", "when"]

import math
from decimal import Decimal

import msgspec

from intercept_py.cli.text import printable
from intercept_py.model import Charge, Strategy, Window
from intercept_py.policy.budgets import Budget
from intercept_py.state.inventory import Inventory, Named, Standing

_UNITS = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))


class Use(msgspec.Struct, frozen=True):
    """What one counter has used of a limit. `scope`: whose share it is; empty for a counter that all calls share."""

    key: str
    server: str
    scope: tuple[str, ...]
    standing: Standing


class Line(msgspec.Struct, frozen=True):
    """One limit and who uses it: by server, the fullest first. Nobody, where it has no counter."""

    budget: Budget
    uses: tuple[Use, ...] = ()


class Report(msgspec.Struct, frozen=True):
    """All limits. `digests`: counters whose names were too long to be kept, so that it is not known what they are of.

    `others`: how many more counters there are, which no limit of the policy counts in.
    """

    lines: tuple[Line, ...]
    digests: tuple[Named, ...]
    others: int


def survey(budgets: tuple[Budget, ...], inventory: Inventory, tool: str | None = None) -> Report:
    """Look at everything that counts against a policy's limits, or those of one entry. Raises `StateError`."""
    names = inventory.names()
    known = [named for named in names if not named.digest]
    of_entry: dict[tuple[str, ...], list[Named]] = {}
    for named in known:
        of_entry.setdefault(named.parts[:2], []).append(named)
    lines: list[Line] = []
    owned: set[str] = set()
    for budget in budgets:
        of_budget = [named for named in of_entry.get(budget.charge.key[:2], ()) if _is_of(named, budget)]
        owned.update(named.key for named in of_budget)
        if tool in (None, budget.tool):
            lines.append(Line(budget, _uses(budget, of_budget, inventory)))
    digests = tuple(named for named in names if named.digest)
    return Report(tuple(lines), digests, others=len(known) - len(owned))


def _is_of(named: Named, budget: Budget) -> bool:
    return named.counts_like(budget.charge) and budget.scopes(named.parts) is not None


def _uses(budget: Budget, counters: list[Named], inventory: Inventory) -> tuple[Use, ...]:
    charge = budget.charge
    standings = inventory.look((named.key, charge) for named in counters)
    uses = [
        Use(named.key, named.server, budget.scopes(named.parts) or (), standing)
        for named, standing in zip(counters, standings, strict=True)
    ]
    return tuple(sorted(uses, key=lambda use: (use.server, -fullness(charge, use.standing), use.scope)))


# -- in words ----------------------------------------------------------------------------------------------------------


def lines(report: Report) -> list[str]:
    """The report as lines of plain text: one for each counter, one for a limit that has none."""
    found = []
    for line in report.lines:
        budget = line.budget
        name = f"{printable(budget.tool)}  `{printable(budget.charge.rule)}`  {describe(budget)}"
        for use in line.uses:
            who = f"{printable(use.server)}  {share(use)}"
            found.append(f"{name}:  {who}  {used(budget.charge, use)}  {when(budget.charge, use.standing)}")
        if not line.uses:
            found.append(f"{name}:  not used yet")
    return found + remarks(report)


def remarks(report: Report) -> list[str]:
    """What there is besides the policy's limits."""
    found = [f"sha256:{named.digest}: a counter whose name was too long to be kept" for named in report.digests]
    if report.others:
        what = "1 other counter is" if report.others == 1 else f"{report.others} other counters are"
        found.append(f"{what} of no limit of this policy")
    return found


def describe(budget: Budget) -> str:
    """A limit in words: how much in which window, and how it is split."""
    charge = budget.charge
    what = f"counter {printable(budget.counter)}, " if budget.counter is not None else ""
    split = [scope for scope in budget.per if scope != "global"]
    each = f", per {' and '.join(map(printable, split))}" if split else ""
    shadow = " (shadow: refuses nothing)" if charge.shadow else ""
    most = "at most" if charge.inclusive else "below"
    return f"{what}{most} {_bound(charge)} {_window(charge.window)}, {charge.strategy.value}{each}{shadow}"


def share(use: Use) -> str:
    """Whose share of a limit a counter is."""
    return "  ".join(map(printable, use.scope)) or "global"


def _bound(charge: Charge) -> str:
    """The limit as digits."""
    return format(Decimal(charge.limit), "f")


def used(charge: Charge, use: Use) -> str:
    """What is used, and of how much."""
    return f"{use.standing.used:f}/{_bound(charge)}"


def when(charge: Charge, standing: Standing) -> str:
    """When there is room again."""
    if standing.next_in is None:
        return "never fits"
    if standing.next_in > 0:
        return f"full, {'resets' if charge.strategy is Strategy.FIXED else 'next'} in {_about(standing.next_in)}"
    if not standing.used:
        return "empty"
    return f"{'resets' if charge.strategy is Strategy.FIXED else 'empty'} in {_about(standing.empty_in)}"


def fullness(charge: Charge, standing: Standing) -> float:
    """How much of the limit is used, 0 to 1. 1 if the next call does not fit."""
    if standing.next_in != 0 or charge.limit <= 0:
        return 1.0
    return min(1.0, float(standing.used / Decimal(charge.limit)))


def _about(seconds: float) -> str:
    """A span in the largest unit of which it is two or more, never too short."""
    unit, size = next((pair for pair in _UNITS if seconds >= 2 * pair[1]), _UNITS[-1])
    return f"{math.ceil(seconds / size)} {unit}"


def _window(window: Window) -> str:
    if window.calendar is not None:
        return f"per {window.calendar}"
    unit, size = next((unit, size) for unit, size in _UNITS if window.seconds % size == 0)
    return f"in {window.seconds // size} {unit}"
