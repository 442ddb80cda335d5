"""`intercept-py run`: the proxy between a client on stdin and stdout and the server that it starts.

Imports are part of its speed. What is imported here is needed before the server may be started; what relays messages
(`session`) is imported while it starts, and what only some policies need where they need it.
"""

from __future__ import annotations

__all__ = ["main"]

import argparse
import os
import time
from contextlib import suppress
from hashlib import sha256

from intercept_py import __version__, policy_file, processes, state
from intercept_py.audit.log import AuditLog
from intercept_py.audit.record import start_record, stop_record, timestamp
from intercept_py.cli.arguments import BAD_POLICY, CANNOT_CREATE, USAGE, Parser, default_audit, secret, state_url
from intercept_py.errors import AuditError, PolicyError, StateError, UpstreamError
from intercept_py.log import LEVELS, Log
from intercept_py.state.deferred import Deferred
from intercept_py.transports.signals import Signals

NOT_FOUND = 127

_MIB = 1024 * 1024


def main(argv: list[str]) -> int:
    """Run the proxy until the client or the server is done; the server's exit status, or our own before it started."""
    options, command = _parse(argv)
    log = Log(options.log_level)
    if not _has_standard_streams():
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
    server = _server_name(command)
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
                audit.append(stop_record(timestamp(time.time()), str(exc)))
                audit.close()
            return NOT_FOUND
        log("info", f"policy `{options.config}` is {policy_file.describe(policy)}; audit file `{audit.path}`")
        log("debug", f"started the server as process {child.pid}")
        # Imported while the server starts, so that neither has to wait for the other.
        from intercept_py.cli.session import relay

        counters = Deferred(lambda: state.open_state(url, prefix=options.state_prefix))
        return relay(options, policy, counters, audit, server, child, signals, log)


def _has_standard_streams() -> bool:
    """Whether 0 and 1 are open. A closed 2 becomes /dev/null: what is opened next must not be taken for it."""
    with suppress(OSError):
        os.fstat(0)
        os.fstat(1)
        while os.open(os.devnull, os.O_RDWR) < 2:
            pass
        return True
    return False


def _parse(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Our options end at `--` or at the first word that is none: what follows is the server's command, untouched."""
    parser = Parser("intercept-py run", "Put the proxy in front of an MCP server that speaks stdio.")
    parser.usage = "intercept-py run -c POLICY [option ...] [--] COMMAND [argument ...]"
    add = parser.add_argument
    actions = [
        add("-c", "--config", metavar="POLICY", help="the policy file"),
        add(
            "--state",
            "--state-dsn",
            type=secret,
            metavar="URL",
            help="where limits are counted: memory:// (for this process alone), sqlite:///FILE, redis://HOST; or "
            "env:NAME or @FILE, which hold the URL (default: sqlite: in the user's state directory if the policy has "
            "limits wider than a session, else memory://)",
        ),
        add("--state-prefix", default="", metavar="TEXT", help="put in front of every counter's name"),
        add(
            "--state-fail-mode",
            default="closed",
            choices=("closed", "open"),
            help="while limits cannot be checked, deny calls that have some (closed, default) or let them go on "
            "uncounted (open); what the policy says for a limit (fail) comes first",
        ),
        add("--audit", metavar="FILE", help="the audit file (default: one a day in the user's state directory)"),
        add("--log-level", default="info", choices=LEVELS, help="what is said on stderr (default: info)"),
        add(
            "--timeout",
            type=seconds,
            default=300.0,
            metavar="SECONDS",
            help="how long the server may take to answer (default: 300; 0: for ever)",
        ),
        add(
            "--max-message-bytes",
            type=whole_bytes,
            default=10 * _MIB,
            metavar="N",
            help="the longest message that is relayed (default: 10 MiB)",
        ),
        add("--no-reload", action="store_true", help="do not watch the policy file (SIGHUP does nothing then)"),
    ]
    valued = {name for action in actions if action.nargs != 0 for name in action.option_strings}
    end = 0
    while end < len(argv) and argv[end] != "--" and argv[end].startswith("-"):
        end += 2 if argv[end] in valued else 1
    options = parser.parse_args(argv[:end])
    command = argv[end + 1 :] if argv[end : end + 1] == ["--"] else argv[end:]
    if options.config is None:
        parser.error("name a policy with -c FILE")
    if not command:
        parser.error("name the server's command after the options, e.g. -- npx trigger mcp")
    return options, command


def seconds(text: str) -> float:
    """An option's value: 0 to a week. The function's name stands in the message for any other."""
    value = float(text)
    if not 0 <= value <= 7 * 86400:
        raise ValueError
    return value


def whole_bytes(text: str) -> int:
    """An option's value: 64 KiB to 1 GiB, in bytes."""
    size = int(text)
    if not 65536 <= size <= 1024 * _MIB:
        raise ValueError
    return size


def _server_name(command: list[str]) -> str:
    """Names the server in records and in the keys of its limits: stable for a command, without its secrets."""
    digest = sha256("\0".join(command).encode("utf-8", "surrogateescape")).hexdigest()[:12]
    return f"{os.path.basename(command[0])}-{digest}"
