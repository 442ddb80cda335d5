"""`intercept-py serve`: several servers behind one port, each behind a policy of its own.

Below: `gateway_file`, `mounts`. Above: `__main__`.
"""

from __future__ import annotations

__all__ = ["main"]

import sys

from intercept_py import gateway_file, policy_file, state
from intercept_py.audit.log import AuditLog
from intercept_py.cli.arguments import BAD_POLICY, CANNOT_CREATE, FAILED, OK, Parser, default_audit
from intercept_py.cli.text import printable
from intercept_py.errors import InterceptError, PolicyError, Problem
from intercept_py.gateway_file import Gateway, surroundings
from intercept_py.gateway_file.surroundings import Resolved
from intercept_py.log import LEVELS, Log
from intercept_py.policy.rules import Policy


def main(argv: list[str]) -> int:
    """Serve until told to end. 0: ended in good order, 73: something cannot be created, 78: the file cannot be used."""
    parser = Parser("intercept-py serve", "Put one port in front of several MCP servers, each behind its own policy.")
    parser.add_argument("-c", "--config", metavar="FILE", required=True, help="the gateway file, see docs/gateway.md")
    parser.add_argument("--check", action="store_true", help="tell what is wrong with it and its policies, and end")
    parser.add_argument("--log-level", default="info", choices=LEVELS, help="what is said on stderr (default: info)")
    options = parser.parse_args(argv)
    if options.check:
        return _check(options.config)
    log = Log(options.log_level)
    try:
        gateway = gateway_file.read(options.config)
        policies, problems = surroundings.read_policies(gateway)
        resolved, missing = surroundings.resolve(gateway)
    except PolicyError as exc:
        problems, missing = list(exc.problems), []
    for problem in (*problems, *missing):
        log("error", str(problem))
    return BAD_POLICY if problems or missing else _serve(gateway, policies, resolved, log)


def _serve(gateway: Gateway, policies: dict[str, Policy], resolved: Resolved, log: Log) -> int:
    try:
        url = resolved.state or _state_url(policies)
        state.check(url)
        audit = AuditLog.open(default_audit() if gateway.audit is None else gateway.audit.target)
    except InterceptError as exc:
        log("error", str(exc))
        return CANNOT_CREATE
    warnings = policy_file.warnings(gateway.source, "gateway file") + state.warnings(url) + audit.warnings()
    for server in gateway.servers:
        warnings += policy_file.warnings(server.policy.target)
    for warning in dict.fromkeys(warnings):
        log("warn", warning)
    # What serves takes time to import, which somebody with a mistake in a file need not wait for.
    from intercept_py.cli import mounts, site

    try:
        return site.run(mounts.serve(gateway, policies, resolved, url, audit, log))
    except InterceptError as exc:
        log("error", str(exc))
        return CANNOT_CREATE
    finally:
        audit.close()


def _state_url(policies: dict[str, Policy]) -> str:
    """Where limits are counted if the file does not say so: where those outlive us that are wider than a session."""
    return state.KEPT if any(policy.counts_beyond_session for policy in policies.values()) else state.MEMORY


# ---- the check


def _check(path: str) -> int:
    """All that can be said without starting anything. Secrets and programs may be elsewhere: those are no mistakes."""
    try:
        gateway = gateway_file.read(path)
    except PolicyError as exc:
        return _refuse(exc.problems)
    policies, problems = surroundings.read_policies(gateway)
    if problems:
        return _refuse(tuple(problems))
    _, missing = surroundings.resolve(gateway)
    _say(f"{path}: ok, {_described(gateway)}")
    for server in gateway.servers:
        _say(f"{path}: `{server.name}` at {gateway.endpoint(server)}: {policy_file.describe(policies[server.name])}")
    for problem in missing:
        _say(f"{problem} (here and now)")
    return OK


def _refuse(problems: tuple[Problem, ...]) -> int:
    for problem in problems:
        _say(str(problem))
    return FAILED


def _described(gateway: Gateway) -> str:
    """One phrase for a person: how many servers, and who may call them."""
    count = len(gateway.servers)
    callers = "everybody on this machine may call" if gateway.auth is None else "callers show a token"
    return f"{count} server{'' if count == 1 else 's'}, {callers}"


def _say(line: str) -> None:
    sys.stdout.write(f"{printable(line)}\n")
