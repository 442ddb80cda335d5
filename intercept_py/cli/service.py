"""The part of `run` that is not between two pipes: clients or a server, or both, speak HTTP.

Below: `site`, `gateway`. Above: `run`.
"""

from __future__ import annotations

__all__ = ["serve"]

import argparse
import asyncio
import os
import time
from hashlib import sha256

from intercept_py import __version__, policy_file, processes
from intercept_py.audit.log import AuditLog
from intercept_py.audit.record import start_record, timestamp
from intercept_py.cli import site
from intercept_py.cli.arguments import CANNOT_CREATE, NOT_FOUND, OK, server_name, state_url
from intercept_py.cli.site import Served
from intercept_py.errors import InterceptError, UpstreamError
from intercept_py.gateway import Mount, Settings
from intercept_py.identity import Authenticator, Issuer
from intercept_py.identity import Settings as Callers
from intercept_py.identity.client_credentials import Grant
from intercept_py.log import Log
from intercept_py.model import Caller
from intercept_py.policy.rules import Policy
from intercept_py.state.deferred import Deferred
from intercept_py.telemetry import open_for_stdio, open_telemetry
from intercept_py.transports.http_address import parse_url
from intercept_py.transports.http_gateway import Settings as HttpSettings
from intercept_py.transports.http_service import bind
from intercept_py.transports.stdio_front import StdioFront
from intercept_py.upstreams import Command, Upstream

PATH = "/mcp"


def serve(
    options: argparse.Namespace, command: list[str], policy: Policy, counters: Deferred, audit: AuditLog, log: Log
) -> int:
    """Relay until told to end, or, where the client is on stdin, until one side is done; the exit status."""
    try:
        if command:
            processes.find(command[0])
        return site.run(_serve(options, command, policy, counters, audit, log))
    except InterceptError as exc:
        log("error", str(exc))
        return NOT_FOUND if isinstance(exc, UpstreamError) else CANNOT_CREATE
    finally:
        audit.close()


async def _serve(
    options: argparse.Namespace, command: list[str], policy: Policy, counters: Deferred, audit: AuditLog, log: Log
) -> int:
    server = server_name(command) if command else _url_name(options.upstream)
    begin = open_for_stdio if options.listen is None else open_telemetry
    telemetry = begin(os.environ, __version__, log)
    upstream = _upstream(options, command, log)
    listener = door = None
    try:
        if options.listen is not None:
            authenticated = options.tokens is not None or options.issuer is not None
            listener = bind(*options.listen, authenticated=authenticated)
            url = options.public_url or site.url_of(listener, PATH)
            door = _door(options, url, log) if authenticated else None
        audit.append(start_record(timestamp(time.time()), server, policy.revision, __version__))
        audit.flush()
    except BaseException:
        if listener is not None:
            listener.close()
        await upstream.close()
        raise
    log("info", f"policy `{options.config}` is {policy_file.describe(policy)}; audit file `{audit.path}`")
    watch = None if options.no_reload else policy_file.Watch(options.config, policy.revision)
    settings = Settings(options.timeout, options.max_message_bytes, options.state_fail_mode == "open")
    if listener is None:
        observer = None if telemetry is None else telemetry.watch(server, policy, "pipe")
        mount = Mount(server, policy, watch, counters, audit, upstream, log, settings, observer=observer)
        status = await _relay(mount, options.max_message_bytes, log)
        if telemetry is not None:  # nothing else is left to do, and a signal ends that now
            telemetry.close()
        return status
    if (warning := policy_file.warning_of_sessions(options.config, policy)) is not None:
        log("warn", warning)
    observers = site.Observers(telemetry)
    observer = observers.watch(server, policy, state_url(options.state, policy), options.state_prefix, counters)
    mount = Mount(server, policy, watch, counters, audit, upstream, log, settings, door, observer)
    http = HttpSettings(
        local=door is None,
        hosts=tuple(options.allow_host),
        origins=tuple(options.allow_origin),
        body_limit=options.max_message_bytes,
        session_idle=options.session_idle,
        max_sessions=options.max_sessions or (site.MAX_CHILDREN if command else site.MAX_SESSIONS),
    )
    await site.serve([Served(PATH, mount, door)], listener, http, observers, log)
    return OK


async def _relay(mount: Mount, limit: int, log: Log) -> int:
    """Between our stdin and stdout and a server that is elsewhere; the exit status."""
    status, why = OK, "the client is done"

    def stop(signum: int) -> None:
        nonlocal status, why
        status, why = 128 + signum, "the proxy was told to stop"
        front.stop()

    with StdioFront(limit, log) as front:
        conversation = mount.converse(front, Caller(), session=True)
        keeper = asyncio.ensure_future(mount.run())
        with site.signals(stop=stop, reload=lambda: mount.reload(force=True), log=log):
            await front.run(conversation)
        keeper.cancel()
        await conversation.close()
        await mount.close(why)
    return status


def _upstream(options: argparse.Namespace, command: list[str], log: Log) -> Upstream:
    limit = options.max_message_bytes
    if command:
        return Command(command, os.environ, limit, log)
    grant = None
    if options.oauth_token_url is not None:
        scopes = tuple((options.oauth_scope or "").split())
        grant = Grant(
            options.oauth_token_url, options.oauth_client_id, options.oauth_client_secret, scopes, options.upstream
        )
    sse, alone = options.transport == "sse", options.listen is None
    return site.reach(options.upstream, options.header, grant, log, limit=limit, sse=sse, alone=alone)


def _door(options: argparse.Namespace, url: str, log: Log) -> Authenticator:
    issuer = None
    if options.issuer is not None:
        issuer = Issuer(options.issuer, options.jwks, options.audience, options.untyped)
    door = Authenticator(Callers(url, options.tokens, issuer, tuple(options.scope)), log)
    for warning in door.warnings():
        log("warn", warning)
    return door


def _url_name(url: str) -> str:
    """Names a server as `server_name` does for a command: stable, and without secrets."""
    digest = sha256(url.encode("utf-8", "surrogateescape")).hexdigest()[:12]
    return f"{parse_url(url).host}-{digest}"
