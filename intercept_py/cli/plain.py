"""The demo without a terminal: lines of text, each as soon as it is true, or one JSON document at the end.

Below: `scenario`, `scale` (what is shown). Above: `demo`.
"""

from __future__ import annotations

__all__ = ["ScaleLines", "Silence", "StoryLines"]

import json
import sys
from contextlib import AbstractContextManager

import msgspec

from intercept_py.cli.findings import Check, Findings
from intercept_py.cli.scale import AT_ONCE, Tally
from intercept_py.cli.scenario import Scene
from intercept_py.cli.text import printable


class _Plain(AbstractContextManager["_Plain", None]):
    """An audience that does nothing to a terminal, and needs no time to watch."""

    pause = 0.0

    def __exit__(self, *_: object) -> None:
        return None


class Silence(_Plain):
    """Says nothing until the end, then everything in one JSON document."""

    def show(self, _: Findings) -> None:
        """Nothing."""

    def end(self, found: Findings, seconds: float) -> None:
        """Print the document."""
        facts = msgspec.to_builtins(found)
        facts.pop("doing")
        _say(json.dumps({"ok": found.held, "seconds": round(seconds, 3), **facts}, indent=2))


class StoryLines(_Plain):
    """Tells the story in plain lines."""

    def __init__(self, policy: str) -> None:
        _say("the policy:\n")
        for line in policy.splitlines():
            _say(f"    {printable(line)}".rstrip())
        _say("")
        self._seen = Scene()

    def show(self, scene: Scene) -> None:
        """Print what is new."""
        before = {row.number: row.verdict for row in self._seen.rows}
        for row in scene.rows:
            if row.verdict and not before.get(row.number):
                process = "still running" if row.alive else "gone"
                _say(f"     job {row.number:2}  {row.recipe:<14}  {row.verdict:<9}  process {row.pid} {process}")
        _say_checks(scene.checks[len(self._seen.checks) :])
        self._seen = scene

    def end(self, scene: Scene, seconds: float) -> None:
        """Print the summary."""
        _say(f"\nthe agent was told: {scene.told}\n\n{scene.summary(seconds)}")


class ScaleLines(_Plain):
    """Says how far the jobs are, ten times in all."""

    def __init__(self, jobs: int) -> None:
        _say(f"{jobs} jobs, {AT_ONCE} at once, every call through the proxy\n")
        self._told = 0
        self._checks = 0

    def show(self, tally: Tally) -> None:
        """Print what is new."""
        tenths = 10 * tally.ended // tally.jobs
        if tenths > self._told:
            self._told = tenths
            done = f"{tally.ended:5} of {tally.jobs} jobs have ended"
            _say(f"     {done}  {tally.calls:6} calls  {tally.working_seconds:6.1f} s")
        _say_checks(tally.checks[self._checks :])
        self._checks = len(tally.checks)

    def end(self, tally: Tally, seconds: float) -> None:
        """Print the summary."""
        speed = f"{tally.jobs_per_second:.1f} jobs/s"
        _say(f"\n{tally.calls} calls in {tally.working_seconds:.1f} s, {speed}\n\n{tally.summary(seconds)}")


def _say_checks(checks: tuple[Check, ...]) -> None:
    for check in checks:
        _say(f"{'ok  ' if check.held else 'FAIL'} {check.name}: {check.seen}")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
