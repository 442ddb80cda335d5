"""`intercept-py demo`: twelve running jobs, ten cancelled, two denied and still running; every claim checked.

With `--scale N`, many short jobs. Shown live on a terminal, as lines of text elsewhere, as one document with `--json`.

Below: `scenario`, `scale`, and who shows them: `plain`, `render_demo`.
"""

from __future__ import annotations

__all__ = ["main"]

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from types import TracebackType
from typing import Protocol, TextIO, TypeVar

import anyio
import msgspec

from intercept_py import policy_file
from intercept_py.cli import scale, scenario
from intercept_py.cli.arguments import BAD_POLICY, FAILED, INTERRUPTED, OK, Parser, number
from intercept_py.cli.demo_dialects import DEFAULT, DIALECTS, policy, scale_policy
from intercept_py.cli.findings import Findings
from intercept_py.cli.plain import ScaleLines, Silence, StoryLines
from intercept_py.cli.render_demo import Meter, Theatre
from intercept_py.cli.stage import Stage
from intercept_py.cli.text import printable
from intercept_py.errors import PolicyError

F = TypeVar("F", bound=Findings)
F_contra = TypeVar("F_contra", bound=Findings, contravariant=True)


class Audience(Protocol[F_contra]):
    """Whoever watches. A context: what it does to the terminal is undone however the play ends."""

    pause: float

    def __enter__(self) -> object:
        """Before anything happens."""

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        """After everything."""

    def show(self, found: F_contra, /) -> None:
        """The newest of what is known."""

    def end(self, found: F_contra, seconds: float, /) -> None:
        """How it went."""


def main(argv: list[str]) -> int:
    """Play the demo. 0: every expectation held; 1: one did not, and the output names it."""
    options = _parse(argv)
    with tempfile.TemporaryDirectory(prefix="intercept-demo-") as made:
        directory = os.path.realpath(made)
        options.config = options.config or _write_policy(options, directory)
        options.audit = options.audit or os.path.join(directory, "audit.jsonl")
        try:
            policy_file.read(options.config)
        except PolicyError as exc:
            sys.stderr.writelines(f"{printable(str(problem))}\n" for problem in exc.problems)
            return BAD_POLICY
        with open(os.path.join(directory, "stderr.log"), "w+", encoding="utf-8", errors="replace") as log:
            stage = Stage(options.dialect, directory, options.config, options.audit, log)
            try:
                held = _scale(options, stage) if options.scale else _story(options, stage)
            except KeyboardInterrupt:
                left = stage.witness.everything()
                ended = f"still running: {left}" if left else "everything it started has ended"
                sys.stderr.write(f"intercept-py demo: interrupted, {ended}\n")
                return INTERRUPTED
            if not held:
                _quote(log)
            return OK if held else FAILED


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = Parser(
        "intercept-py demo",
        "Twelve running jobs, twelve cancels, a policy that allows ten: see what happens. "
        "Or run many short jobs through the proxy, and see whether the books agree.",
    )
    add = parser.add_argument
    add(
        "--dialect",
        choices=list(DIALECTS),
        default=DEFAULT,
        metavar="NAME",
        help=f"whose tools: {', '.join(DIALECTS)} (default: {DEFAULT})",
    )
    add(
        "--scale",
        type=number(int, "number", 1, scale.MOST),
        metavar="N",
        help=f"run N short jobs, up to {scale.MOST}, and cancel some",
    )
    add("-c", "--config", metavar="POLICY", help="a policy of your own instead of the demo's")
    add("--audit", metavar="FILE", help="keep the audit log in this new file")
    add("--json", action="store_true", help="print one machine-readable summary")
    add("--no-color", action="store_true", help="print plain lines, on a terminal as well")
    options = parser.parse_args(argv)
    if options.audit and os.path.lexists(options.audit):
        parser.error(f"`{options.audit}` exists: name a new file for the audit log")
    return options


def _write_policy(options: argparse.Namespace, directory: str) -> str:
    """The demo's own policy, in a file."""
    make = scale_policy if options.scale else policy
    path = os.path.join(directory, "policy.yaml")
    with open(path, "w", encoding="utf-8") as file:
        file.write(make(DIALECTS[options.dialect]))
    return path


def _story(options: argparse.Namespace, stage: Stage) -> bool:
    with open(options.config, encoding="utf-8") as file:
        text = file.read()
    audience = Silence() if options.json else Theatre(text) if _live(options) else StoryLines(text)
    stage = msgspec.structs.replace(stage, pause=audience.pause)
    return _play(partial(scenario.perform, stage), audience)


def _scale(options: argparse.Namespace, stage: Stage) -> bool:
    jobs = options.scale
    audience = Silence() if options.json else Meter(jobs) if _live(options) else ScaleLines(jobs)
    return _play(partial(scale.perform, jobs, stage), audience)


def _live(options: argparse.Namespace) -> bool:
    unicode = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    return sys.stdout.isatty() and unicode and not options.no_color


def _play(perform: Callable[[Callable[[F], None]], Awaitable[F]], audience: Audience[F]) -> bool:
    """Whether every expectation held."""
    started = time.monotonic()
    with audience:
        found = anyio.run(perform, audience.show)
    audience.end(found, time.monotonic() - started)
    return found.held


def _quote(log: TextIO) -> None:
    """What the proxy and the server said on stderr, where the reason usually is."""
    log.seek(0)
    for line in log.read().splitlines()[-10:]:
        sys.stderr.write(f"  {printable(line)}\n")
