"""`intercept-py limits`: how much of every limit of a policy is used, and counters that begin anew."""

from __future__ import annotations

__all__ = ["main"]

import argparse
import json
import os
import pwd
import sys
import time
from contextlib import closing, suppress

from intercept_py import policy_file
from intercept_py.audit.log import AuditLog
from intercept_py.audit.record import reset_record, timestamp
from intercept_py.cli import usage
from intercept_py.cli.arguments import BAD_POLICY, CANNOT_CREATE, OK, Parser, default_audit, secret, state_url
from intercept_py.cli.text import printable
from intercept_py.cli.usage import Line, Report, Use
from intercept_py.errors import AuditError, PolicyError, StateError
from intercept_py.log import Log
from intercept_py.model import JsonObject
from intercept_py.policy.budgets import Budget, budgets
from intercept_py.policy.matching import glob
from intercept_py.policy.rules import Policy
from intercept_py.state.inventory import Inventory, open_inventory


def main(argv: list[str]) -> int:
    """Show or reset. 0: done, 64: wrong usage, 73: counters or audit file cannot be used, 78: a bad policy."""
    parser, options = _parse(argv)
    log = Log()
    try:
        policy = policy_file.read(options.config)
        found = budgets(policy)
        _check_tool(parser, found, options.tool)
        url = state_url(options.state, policy)
        if url.startswith("memory:"):
            parser.error("limits in memory are known to their proxy alone, and end with it: name a store with --state")
        with closing(open_inventory(url, options.state_prefix)) as inventory:
            report = usage.survey(found, inventory, options.tool)
            if options.command == "reset":
                _reset(options, policy, report, inventory, log)
            elif options.json:
                _print_json({**_document(report), "others": report.others})
            else:
                _show(report)
    except PolicyError as exc:
        for problem in exc.problems:
            log("error", str(problem))
        return BAD_POLICY
    except (AuditError, StateError) as exc:
        log("error", str(exc))
        return CANNOT_CREATE
    return OK


def _parse(argv: list[str]) -> tuple[Parser, argparse.Namespace]:
    parser = Parser("intercept-py limits", "See how much of every limit is used, or have counters begin anew.")
    add = parser.add_argument
    add("command", choices=["show", "reset"], help="what to do with the counters")
    add("-c", "--config", required=True, metavar="POLICY", help="the policy file, which says what limits there are")
    add(
        "--state",
        "--state-dsn",
        type=secret,
        metavar="URL",
        help="where the proxies count: sqlite:///FILE or redis://HOST; or env:NAME or @FILE, which hold the URL "
        "(default: that of `run`)",
    )
    add("--state-prefix", default="", metavar="TEXT", help="that of the proxies")
    add("--tool", metavar="TOOL", help="only limits of this entry, written as in the policy")
    add("--all", action="store_true", help="reset: every counter of the policy's limits, and those with long names")
    add("--audit", metavar="FILE", help="reset: the audit file (default: the one of the day, as of `run`)")
    add("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args(argv)
    if options.command == "reset" and options.all == (options.tool is not None):
        parser.error("say what to reset: either --tool TOOL or --all")
    if options.command == "show" and (options.all or options.audit):
        parser.error("--all and --audit are for `limits reset`")
    return parser, options


def _check_tool(parser: Parser, found: tuple[Budget, ...], tool: str | None) -> None:
    """A name that no entry has is a usage error: it might be meant for any entry that it matches."""
    if tool is not None and all(budget.tool != tool for budget in found):
        others = dict.fromkeys(f"`{budget.tool}`" for budget in found if glob(budget.tool)(tool))
        hint = f"; its calls count for {', '.join(others)}" if others else ""
        parser.error(f"no entry `{tool}` of the policy has limits{hint}")


def _show(report: Report) -> None:
    if sys.stdout.isatty():
        # Only a terminal has a use for rich, which is slow to import.
        from intercept_py.cli import render_limits

        render_limits.print_report(report)
        return
    sys.stdout.writelines(f"{line}\n" for line in usage.lines(report))


# -- reset -------------------------------------------------------------------------------------------------------------


def _reset(options: argparse.Namespace, policy: Policy, report: Report, inventory: Inventory, log: Log) -> None:
    """Record it, do it, say so: nothing is done that could not be recorded."""
    lines = tuple(line for line in report.lines if line.uses)
    keys = dict.fromkeys(use.key for line in lines for use in line.uses)
    if options.all:
        keys |= dict.fromkeys(named.key for named in report.digests)
    gone, audit = 0, None
    doubtful = options.all and inventory.in_doubt()
    if keys or doubtful:
        audit = _record(options.audit or default_audit(), policy, lines, len(keys), log)
        gone = inventory.forget(keys)
    if doubtful:
        inventory.trust()
    done = Report(lines, report.digests if options.all else (), 0)
    if options.json:
        _print_json({"reset": gone, "audit": audit, **_document(done)})
        return
    if audit is None:
        sys.stdout.write("nothing to reset: no counter of these limits is in use\n")
        return
    counters = "1 counter" if gone == 1 else f"{gone} counters"
    summary = f"reset {counters}, recorded in `{printable(audit)}`; what was used until then:"
    sys.stdout.writelines(f"{line}\n" for line in [summary, *usage.lines(done)])


def _record(path: str, policy: Policy, lines: tuple[Line, ...], counters: int, log: Log) -> str:
    """Write into the audit file who resets what; its path. Raises `AuditError`."""
    by: JsonObject = {"uid": os.getuid()}
    with suppress(KeyError):
        by["name"] = pwd.getpwuid(os.getuid()).pw_name
    entries = sorted({line.budget.tool for line in lines})
    servers = sorted({use.server for line in lines for use in line.uses})
    audit = AuditLog.open(path)
    with closing(audit):
        for warning in audit.warnings():
            log("warn", warning)
        audit.append(reset_record(timestamp(time.time()), by, policy.revision, entries, servers, counters))
        audit.flush()
    return audit.path


# -- for programs ------------------------------------------------------------------------------------------------------


def _document(report: Report) -> JsonObject:
    return {
        "limits": [_limit(line) for line in report.lines],
        "long_names": [named.digest for named in report.digests],
    }


def _limit(line: Line) -> JsonObject:
    budget, charge = line.budget, line.budget.charge
    return {
        "tool": budget.tool,
        "rule": charge.rule,
        "counter": budget.counter,
        "max": format(charge.limit, "f") if not isinstance(charge.limit, int) else str(charge.limit),
        "inclusive": charge.inclusive,
        "window": charge.window.calendar or charge.window.seconds,
        "strategy": charge.strategy.value,
        "per": budget.per,
        "shadow": charge.shadow,
        "counters": [_counter(use) for use in line.uses],
    }


def _counter(use: Use) -> JsonObject:
    standing = use.standing
    return {
        "server": use.server,
        "scope": use.scope,
        "used": format(standing.used, "f"),
        "next_in": standing.next_in,
        "empty_in": standing.empty_in,
    }


def _print_json(document: JsonObject) -> None:
    # ASCII, since names may hold what UTF-8 cannot carry.
    sys.stdout.write(json.dumps(document, indent=2) + "\n")
