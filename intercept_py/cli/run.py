"""`intercept-py run`: the proxy between a client and a server, both of them on stdio unless options say HTTP.

Imports are part of its speed. What is imported here is needed before the server may be started; what relays messages
(`session`) is imported while it starts, and what only some policies need where they need it.
"""

from __future__ import annotations

__all__ = ["main"]

import os
import time
from argparse import Namespace
from contextlib import suppress
from typing import TYPE_CHECKING

from intercept_py import __version__, policy_file, processes, state
from intercept_py.audit.log import AuditLog
from intercept_py.audit.record import start_record, stop_record, timestamp
from intercept_py.cli import run_options
from intercept_py.cli.arguments import (
    BAD_POLICY,
    CANNOT_CREATE,
    NOT_FOUND,
    USAGE,
    default_audit,
    server_name,
    state_url,
)
from intercept_py.errors import AuditError, PolicyError, StateError, UpstreamError
from intercept_py.log import Log
from intercept_py.policy.rules import Policy
from intercept_py.state.deferred import Deferred
from intercept_py.transports.signals import Signals

if TYPE_CHECKING:
    from intercept_py.telemetry import Telemetry


def main(argv: list[str]) -> int:
    """Run the proxy until the client or the server is done; the server's exit status, or our own before it started."""
    options, command = run_options.parse(argv)
    log = Log(options.log_level)
    if options.listen is None and not _has_standard_streams():
        log("error", "stdin and stdout must be open: they are where the client is")
        return USAGE
    try:
        policy = policy_file.read(options.config)
        url = state_url(options.state, policy)
        state.check(url)
        audit = AuditLog.open(options.audit or default_audit())
    except PolicyError as exc:
        for problem in exc.problems:
            log("error", str(problem))
        return BAD_POLICY
    except (StateError, AuditError) as exc:
        log("error", str(exc))
        return CANNOT_CREATE
    for warning in policy_file.warnings(options.config) + state.warnings(url) + audit.warnings():
        log("warn", warning)
    counters = Deferred(lambda: state.open_state(url, prefix=options.state_prefix))
    if options.listen is not None or options.upstream is not None:
        from intercept_py.cli.service import serve

        return serve(options, command, policy, counters, audit, log)
    return _wrap(options, command, policy, counters, audit, log)


def _wrap(options: Namespace, command: list[str], policy: Policy, counters: Deferred, audit: AuditLog, log: Log) -> int:
    """From stdio to stdio: the client and a child of ours."""
    server = server_name(command)
    with Signals() as signals:
        try:
            audit.append(start_record(timestamp(time.time()), server, policy.revision, __version__))
            audit.flush()
            child = processes.start(command, os.environ)
        except AuditError as exc:
            log("error", str(exc))
            return CANNOT_CREATE
        except UpstreamError as exc:
            log("error", str(exc))
            with suppress(AuditError):  # why the server did not start is what must be said
                audit.append(stop_record(timestamp(time.time()), server, str(exc)))
                audit.close()
            return NOT_FOUND
        log("info", f"policy `{options.config}` is {policy_file.describe(policy)}; audit file `{audit.path}`")
        log("debug", f"started the server as process {child.pid}")
        # Imported while the server starts, so that neither has to wait for the other.
        from intercept_py.cli.session import relay

        telemetry = _telemetry(log)
        observer = None if telemetry is None else telemetry.watch(server, policy, "pipe")
        status = relay(options, policy, counters, audit, server, child, signals, log, observer)
    if telemetry is not None:  # a signal ends that now
        telemetry.close()
    return status


def _telemetry(log: Log) -> Telemetry | None:
    """What sends, where the environment asks for it."""
    if not any(name.startswith("OTEL_") for name in os.environ):
        return None
    from intercept_py.telemetry import open_for_stdio

    return open_for_stdio(os.environ, __version__, log)


def _has_standard_streams() -> bool:
    """Whether 0 and 1 are open. A closed 2 becomes /dev/null: what is opened next must not be taken for it."""
    with suppress(OSError):
        os.fstat(0)
        os.fstat(1)
        while os.open(os.devnull, os.O_RDWR) < 2:
            pass
        return True
    return False
