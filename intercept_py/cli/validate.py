"""`intercept-py validate`: every problem of every policy file, each with its position."""

from __future__ import annotations

__all__ = ["main"]

import json
import sys

import msgspec

from intercept_py import policy_file
from intercept_py.cli.arguments import FAILED, OK, Parser
from intercept_py.cli.text import printable
from intercept_py.errors import PolicyError, Problem
from intercept_py.policy.rules import Policy


class Report(msgspec.Struct, frozen=True):
    """What one file turned out to be. `problems` is empty exactly if it may be used."""

    file: str
    problems: tuple[Problem, ...] = ()
    tools: int = 0
    rules: int = 0
    limits: int = 0
    default: str = "allow"
    mode: str = "enforce"


def main(argv: list[str]) -> int:
    """Check the files and print what is wrong with them. 0: all may be used, 1: at least one may not."""
    parser = Parser("intercept-py validate", "Check policy files; every problem is reported with its position.")
    parser.add_argument("policies", nargs="*", metavar="POLICY", help="a policy file")
    parser.add_argument("-c", "--config", action="append", default=[], metavar="POLICY", help="the same")
    parser.add_argument("--json", action="store_true", help="print a machine-readable report")
    options = parser.parse_args(argv)
    files: list[str] = [*options.config, *options.policies]
    if not files:
        parser.error("name at least one policy file")
    reports = [_check(file) for file in files]
    if options.json:
        _print_json(reports)
    elif sys.stdout.isatty():
        # Only a terminal has a use for rich, which is slow to import.
        from intercept_py.cli import render

        render.print_reports(reports)
    else:
        sys.stdout.writelines(f"{line}\n" for report in reports for line in lines(report))
    return FAILED if any(report.problems for report in reports) else OK


def lines(report: Report) -> list[str]:
    """The report as lines of plain text: one for a good file, else one for each problem."""
    if report.problems:
        return [printable(str(problem)) for problem in report.problems]
    return [f"{printable(report.file)}: ok, {counts(report)}"]


def counts(report: Report) -> str:
    """How much a good file governs."""
    parts = ((report.tools, "tool"), (report.rules, "rule"), (report.limits, "limit"))
    found = ", ".join(f"{number} {noun}{'' if number == 1 else 's'}" for number, noun in parts)
    unlisted = "allowed" if report.default == "allow" else "denied"
    return f"{found}, unlisted tools {unlisted}{'' if report.mode == 'enforce' else ', shadow mode: NOTHING enforced'}"


def _check(file: str) -> Report:
    try:
        policy = policy_file.read(file)
    except PolicyError as exc:
        return Report(file, problems=exc.problems)
    return _measure(file, policy)


def _measure(file: str, policy: Policy) -> Report:
    rules = [rule for entry in policy.entries for rule in entry.rules]
    return Report(
        file,
        tools=sum(entry.pattern != "*" for entry in policy.entries),
        rules=len(rules),
        default="allow" if policy.default_allow else "deny",
        mode="shadow" if policy.shadow else "enforce",
        limits=sum((rule.rate_limit is not None) + len(rule.checks) for rule in rules),
    )


def _print_json(reports: list[Report]) -> None:
    document = {
        "ok": not any(report.problems for report in reports),
        "files": [{"ok": not report.problems, **msgspec.to_builtins(report)} for report in reports],
    }
    # ASCII, since a file name may hold any bytes: they arrive here as surrogates, which UTF-8 cannot carry.
    sys.stdout.write(json.dumps(document, indent=2) + "\n")
