"""`intercept-py jobs serve`: real jobs behind the tools of one of the servers that the engine can stand for."""

from __future__ import annotations

__all__ = ["main"]

import argparse
import os
import socket
import sys
from contextlib import nullcontext
from ipaddress import ip_address

from intercept_py.cli.arguments import CANNOT_CREATE, SECONDS, USAGE, Parser, number, secret
from intercept_py.cli.garbage import importing
from intercept_py.cli.text import printable
from intercept_py.jobs.dialects import DIALECTS, Options
from intercept_py.jobs.model import JobError, Settings

_LOOPBACK = "127.0.0.1"
_COUNT = number(int, "whole number", 1, 100_000)
_OPTION_OF = {"agent_async": ("codex", "--agent-async"), "servers": ("ssh", "--servers")}


def main(argv: list[str]) -> int:
    """Serve until the client hangs up (0) or a signal comes (128 and its number); every job has ended then."""
    if argv[:1] == ["worker"]:
        from intercept_py.cli.job_worker import main as work

        return work(argv[1:])
    options, address = _parse(argv)
    try:
        with _listen(*address, options.insecure_listen) if address else nullcontext() as listener:
            # Importing what serves takes most of a second; who mistypes an option need not wait for it.
            with importing():
                from intercept_py.cli.job_server import run
                from intercept_py.jobs.placing import Placing

            settings = _settings(options)
            chosen = Options(settings, options.agent_async, options.servers)
            place = Placing(options.redis, options.worker_queue) if options.redis else None
            return run(DIALECTS[options.dialect], chosen, listener, place)
    except JobError as exc:
        sys.stderr.write(f"intercept-py jobs: {printable(str(exc))}\n")
        return CANNOT_CREATE if exc.code in ("listen", "store", "redis") else USAGE


def _parse(argv: list[str]) -> tuple[argparse.Namespace, tuple[str, int] | None]:
    defaults = Settings(state_dir="", root="")
    parser = Parser("intercept-py jobs", "Run jobs, real processes, behind the tools of an MCP server that you know.")
    parser.usage = (
        "intercept-py jobs serve --dialect NAME --state-dir DIR [option ...]\n"
        "       intercept-py jobs worker [--redis URL] [--worker-queue NAME]"
    )
    add = parser.add_argument
    add("command", choices=["serve"], help="serve one dialect until the client hangs up or a signal comes")
    add("--dialect", choices=list(DIALECTS), metavar="NAME", help=f"whose tools: {', '.join(DIALECTS)}")
    add("--state-dir", metavar="DIR", help="where jobs are remembered; made if need be")
    add(
        "--listen",
        metavar="HOST:PORT",
        help="serve HTTP there and not stdio (`:0`: any free port of this machine); nobody is asked who he is",
    )
    add("--insecure-listen", action="store_true", help="listen also where other machines can run and end jobs then")
    add("--root", default=os.curdir, metavar="DIR", help="jobs may only work in here (default: current directory)")
    add("--allow-shell", action="store_true", help="run real shell commands too, not recipes alone")
    add("--max-running", type=_COUNT, default=defaults.max_running, metavar="N", help="jobs at once (default: 4)")
    add("--queue", type=_COUNT, default=defaults.queue, metavar="N", help="jobs that may wait (default: 1000)")
    add("--grace", type=SECONDS, default=defaults.grace, metavar="S", help="seconds from TERM to KILL (default: 2)")
    add(
        "--job-timeout",
        type=SECONDS,
        default=defaults.timeout,
        metavar="S",
        help="seconds a job may run (default: 1800; 0: for ever)",
    )
    add("--agent-async", action="store_true", help="codex: one job after another, and tools that wait")
    add("--servers", metavar="FILE", help="ssh: the hosts that jobs can be sent to")
    add(
        "--redis",
        type=secret,
        metavar="URL",
        help="run the jobs with the workers (`jobs worker`) that share this Redis: redis://HOST:6379/0, "
        "or env:NAME or @FILE, which hold the URL",
    )
    add("--worker-queue", default="intercept-jobs", metavar="NAME", help="which workers (default: intercept-jobs)")
    options = parser.parse_args(argv)
    _check(parser, options)
    return options, _address(parser, options.listen) if options.listen else None


def _check(parser: Parser, options: argparse.Namespace) -> None:
    if options.dialect is None:
        parser.error(f"name the tools to serve with --dialect, one of {', '.join(DIALECTS)}")
    if not options.state_dir:
        parser.error("name a directory to remember jobs in with --state-dir")
    if not os.path.isdir(options.root):
        parser.error(f"--root `{options.root}` is no directory")
    for name, (dialect, flag) in _OPTION_OF.items():
        if getattr(options, name) and options.dialect != dialect:
            parser.error(f"{flag} is an option of --dialect {dialect}")
    if options.listen:
        return
    if DIALECTS[options.dialect].asgi:
        parser.error(f"--dialect {options.dialect} is served over HTTP: say where with --listen HOST:PORT")
    if sys.stdin is None or sys.stdout is None:  # which they are where the descriptor was closed
        parser.error("stdin and stdout must be open: they are where the client is")


def _address(parser: Parser, text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdigit() and int(port) < 65536):
        parser.error(f"--listen `{text}`: give it as HOST:PORT, e.g. {_LOOPBACK}:8080")
    return host.removeprefix("[").removesuffix("]") or _LOOPBACK, int(port)


def _listen(host: str, port: int, anywhere: bool) -> socket.socket:
    try:
        listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, UnicodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "no such host"
        raise JobError("listen", f"cannot listen on `{host}:{port}`: {reason}") from None
    # The address that it has become: names such as `localhost` mean what the machine says they mean.
    if not anywhere and not ip_address(listener.getsockname()[0].partition("%")[0]).is_loopback:
        listener.close()
        address = f"{f'[{host}]' if ':' in host else host}:{port}"
        why = f"--listen `{address}` is open to other machines, and nobody is asked who he is"
        raise JobError("exposed", f"{why}: use {_LOOPBACK}, or add --insecure-listen")
    return listener


def _settings(options: argparse.Namespace) -> Settings:
    return Settings(
        state_dir=os.path.abspath(options.state_dir),
        root=os.path.realpath(options.root),
        allow_shell=options.allow_shell,
        max_running=options.max_running,
        queue=options.queue,
        grace=options.grace,
        timeout=options.job_timeout or None,
    )
