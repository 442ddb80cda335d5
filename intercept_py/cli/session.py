"""The part of `run` that relays: from a started server to its end."""

from __future__ import annotations

__all__ = ["relay"]

import argparse
import os
import time
from collections.abc import Callable

from intercept_py import policy_file
from intercept_py.audit.log import AuditLog
from intercept_py.cli.garbage import collect_rarely
from intercept_py.enforcer import Enforcer
from intercept_py.errors import PolicyError
from intercept_py.log import Log
from intercept_py.model import Caller
from intercept_py.observing import Observer
from intercept_py.policy.rules import Policy
from intercept_py.processes import Child
from intercept_py.proxy import Session
from intercept_py.state.deferred import Deferred
from intercept_py.transports.signals import Signals
from intercept_py.transports.stdio import Stdio


def relay(
    options: argparse.Namespace,
    policy: Policy,
    counters: Deferred,
    audit: AuditLog,
    server: str,
    child: Child,
    signals: Signals,
    log: Log,
    observer: Observer | None,
) -> int:
    """Relay between client and child until one of them is done; the exit status. `options` are those of `run`."""
    caller = Caller(session=os.urandom(16).hex())
    fail_open = options.state_fail_mode == "open"
    enforcer = Enforcer(
        policy, counters, audit, server, caller, time.time, time.monotonic, fail_open=fail_open, observer=observer
    )
    session = Session(enforcer, log, time.monotonic, options.timeout)
    idle = None if options.no_reload else _reloader(session, enforcer, options, policy, log)
    collect_rarely()
    loop = Stdio(session, child, signals, log, options.max_message_bytes)
    status = loop.run(idle, counters.prepare if policy.counts else None)
    enforcer.stopped(f"exit status {status}")
    audit.close()
    counters.close()
    return status


def _reloader(
    session: Session, enforcer: Enforcer, options: argparse.Namespace, policy: Policy, log: Log
) -> Callable[[bool], None]:
    """What the loop calls when it has time: look at the policy file, and take it if it may be used."""
    path = options.config
    watch = policy_file.Watch(path, policy.revision)

    def look(force: bool) -> None:
        try:
            changed = watch.poll(force)
        except PolicyError as exc:
            for problem in exc.problems:
                log("error", str(problem))
            log("error", "the changed policy is refused, the one before stays in force")
            enforcer.reloaded(len(exc.problems))
            return
        if changed is not None:
            session.replace_policy(changed)
            if changed.counts_beyond_session and not policy.counts_beyond_session and options.state is None:
                log("warn", "limits wider than a session are counted in memory until the proxy is started again")
            log("info", f"policy `{path}` reloaded: {policy_file.describe(changed)}")
            enforcer.reloaded(0)

    return look
