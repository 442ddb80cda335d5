"""What the audit log of a demo proves: judged by `intercept-py audit verify`, and counted.

Below: `stage`. Above: `scenario`, `scale`.
"""

from __future__ import annotations

__all__ = ["Judgement", "Record", "judgement", "recorded"]

from collections import Counter

import anyio
import msgspec

from intercept_py.cli.stage import PROGRAM


class Judgement(msgspec.Struct, frozen=True):
    """What `audit verify` found, in a few words. `records` is how many it counted."""

    held: bool
    seen: str
    records: int = 0


async def judgement(audit: str) -> Judgement:
    """Let the real command verify the audit log."""
    process = await anyio.run_process([*PROGRAM, "audit", "verify", audit, "--json"], check=False)
    try:
        (file,) = msgspec.json.decode(process.stdout)["files"]
        if not file["ok"]:
            return Judgement(False, str(file["problem"] or file["faults"][0]))
        return Judgement(process.returncode == 0, f"{file['records']} records, all intact", file["records"])
    except (msgspec.DecodeError, KeyError, TypeError, ValueError):
        lines = process.stderr.decode("utf-8", "replace").strip().splitlines()
        return Judgement(False, lines[-1] if lines else "no verdict")


class Record(msgspec.Struct, frozen=True):
    """What an audit log says of calls: how often each tool met each effect, and how many outcomes there are of them.

    `others` are the records of everything that is no call.
    """

    decisions: Counter[tuple[str, str]]
    outcomes: int
    others: int

    def by_tool(self) -> Counter[str]:
        """How often each tool was called."""
        found: Counter[str] = Counter()
        for (tool, _), number in self.decisions.items():
            found[tool] += number
        return found


def recorded(audit: str) -> Record:
    """Count what is in the audit log."""
    decisions: Counter[tuple[str, str]] = Counter()
    calls, outcomes, others = set(), 0, 0
    with open(audit, encoding="utf-8") as file:
        for record in map(msgspec.json.decode, file):
            if record["event"] == "decision" and "tool" in record:
                decisions[record["tool"], record["effect"]] += 1
                calls.add(record["id"])
            elif record["event"] == "outcome" and record["id"] in calls:
                outcomes += 1
            else:
                others += 1
    return Record(decisions, outcomes, others)
