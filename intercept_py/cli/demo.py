"""`intercept-py demo`: twelve running jobs, ten cancelled, two denied and still running; every claim checked.

Shown as a live table on a terminal, as lines of text elsewhere, as one document with `--json`.
"""

from __future__ import annotations

__all__ = ["main"]

import json
import os
import sys
import tempfile
import time
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Protocol

import anyio
import msgspec

from intercept_py import policy_file
from intercept_py.cli import render
from intercept_py.cli.arguments import BAD_POLICY, FAILED, INTERRUPTED, OK, Parser
from intercept_py.cli.scenario import POLICY, Scene, Stage, perform
from intercept_py.cli.text import printable
from intercept_py.errors import PolicyError


class Audience(Protocol):
    """Whoever watches the demo. A context: what it does to the terminal is undone however the play ends."""

    pause: float

    def __enter__(self) -> object:
        """Before the first scene."""

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        """After the last one."""

    def show(self, scene: Scene) -> None:
        """The newest scene."""

    def end(self, scene: Scene, seconds: float) -> None:
        """How it went."""


class Silence(AbstractContextManager["Silence", None]):
    """Says nothing until the end, then everything in one JSON document."""

    pause = 0.0

    def __exit__(self, *_: object) -> None:
        return None

    def show(self, scene: Scene) -> None:
        """Nothing."""

    def end(self, scene: Scene, seconds: float) -> None:
        """Print the document."""
        document = {"ok": scene.held, "seconds": round(seconds, 3), **msgspec.to_builtins(scene)}
        _say(json.dumps(document, indent=2))


class Lines(AbstractContextManager["Lines", None]):
    """Tells the story in plain lines, each as soon as it is true."""

    pause = 0.0

    def __init__(self, policy: str) -> None:
        _say("the policy:\n")
        for line in policy.splitlines():
            _say(f"    {printable(line)}".rstrip())
        _say("")
        self._seen = Scene()

    def __exit__(self, *_: object) -> None:
        return None

    def show(self, scene: Scene) -> None:
        """Print what is new."""
        before = {row.number: row.verdict for row in self._seen.rows}
        for row in scene.rows:
            if row.verdict and not before.get(row.number):
                process = "still running" if row.alive else "gone"
                _say(f"     run {row.number:2}  {row.verdict:<9}  process {row.pid} {process}")
        for check in scene.checks[len(self._seen.checks) :]:
            _say(f"{'ok  ' if check.held else 'FAIL'} {check.name}: {check.seen}")
        self._seen = scene

    def end(self, scene: Scene, seconds: float) -> None:
        """Print the summary."""
        _say(f"\nthe agent was told: {scene.told}\n\n{scene.summary(seconds)}")


def main(argv: list[str]) -> int:
    """Play the demo. 0: every expectation held; 1: one did not, and the output names it."""
    parser = Parser(
        "intercept-py demo", "Twelve running jobs, twelve cancels, a policy that allows ten: see what happens."
    )
    parser.add_argument("-c", "--config", metavar="POLICY", help="a policy of your own instead of the demo's")
    parser.add_argument("--audit", metavar="FILE", help="keep the audit log in this new file")
    parser.add_argument("--json", action="store_true", help="print one machine-readable summary")
    parser.add_argument("--no-color", action="store_true", help="print plain lines, on a terminal as well")
    options = parser.parse_args(argv)
    if options.audit and os.path.lexists(options.audit):
        parser.error(f"`{options.audit}` exists: name a new file for the audit log")
    with tempfile.TemporaryDirectory(prefix="intercept-demo-") as directory:
        policy = options.config or _write(os.path.join(directory, "policy.yaml"), POLICY)
        try:
            policy_file.read(policy)
        except PolicyError as exc:
            sys.stderr.writelines(f"{printable(str(problem))}\n" for problem in exc.problems)
            return BAD_POLICY
        audience = Silence() if options.json else _audience(policy, options.no_color)
        try:
            return _play(audience, policy, options.audit or os.path.join(directory, "audit.jsonl"), directory)
        except KeyboardInterrupt:
            sys.stderr.write("intercept-py demo: interrupted, everything it started has ended\n")
            return INTERRUPTED


def _audience(policy: str, plain: bool) -> Audience:
    with open(policy, encoding="utf-8") as file:
        text = file.read()
    unicode = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    return render.Theatre(text) if sys.stdout.isatty() and unicode and not plain else Lines(text)


def _play(audience: Audience, policy: str, audit: str, directory: str) -> int:
    started = time.monotonic()
    log = os.path.join(directory, "stderr.log")
    with open(log, "w", encoding="utf-8") as stderr, audience:
        scene = anyio.run(perform, Stage(policy, audit, stderr, audience.pause), audience.show)
    audience.end(scene, time.monotonic() - started)
    if scene.held:
        return OK
    _quote(log)
    return FAILED


def _quote(log: str) -> None:
    """What the proxy and the server said on stderr, where the reason usually is."""
    with open(log, encoding="utf-8", errors="replace") as file:
        for line in file.read().splitlines()[-10:]:
            sys.stderr.write(f"  {printable(line)}\n")


def _write(path: str, text: str) -> str:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    return path


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
