"""What a gateway file describes is made and run: for each server a mount of its own, all of them behind one port.

Below: `site`, `gateway`. Above: `serve`.
"""

from __future__ import annotations

__all__ = ["serve"]

import os
import time
from collections.abc import Mapping

import msgspec

from intercept_py import __version__, policy_file, state
from intercept_py.audit.log import AuditLog
from intercept_py.audit.record import start_record, timestamp
from intercept_py.cli import site
from intercept_py.cli.arguments import OK
from intercept_py.cli.site import Observers, Served
from intercept_py.gateway import Mount, Settings
from intercept_py.gateway_file import Command, Gateway, Remote, Server
from intercept_py.gateway_file.surroundings import Resolved
from intercept_py.identity import Authenticator, Issuer
from intercept_py.identity import Settings as Callers
from intercept_py.identity.client_credentials import Grant
from intercept_py.log import Log
from intercept_py.policy.rules import Policy
from intercept_py.state.deferred import Deferred
from intercept_py.telemetry import open_telemetry
from intercept_py.transports.http_gateway import Settings as HttpSettings
from intercept_py.transports.http_guard import is_loopback
from intercept_py.transports.http_service import bind
from intercept_py.upstreams import Command as Started
from intercept_py.upstreams import Upstream


async def serve(
    gateway: Gateway, policies: Mapping[str, Policy], resolved: Resolved, url: str, audit: AuditLog, log: Log
) -> int:
    """Serve until told to end. Limits are counted at `url`. Raises one of our faults if that cannot begin."""
    listener = bind(gateway.host, gateway.port, authenticated=gateway.auth is not None)
    try:
        observers = Observers(open_telemetry(os.environ, __version__, log))
        known = msgspec.structs.replace(gateway, public_url=gateway.public_url or site.url_of(listener, ""))
        maker = _Maker(known, url, audit, observers, log)
        served = [maker.make(server, policies[server.name], resolved) for server in gateway.servers]
        for name, policy in policies.items():
            audit.append(start_record(timestamp(time.time()), name, policy.revision, __version__))
        audit.flush()
    except BaseException:
        listener.close()
        raise
    log("info", f"gateway `{gateway.source}`: servers: {len(served)}; audit file `{audit.path}`")
    await site.serve(served, listener, _http(gateway), observers, log)
    return OK


class _Maker:
    """Makes what serves one server after the other."""

    def __init__(self, gateway: Gateway, url: str, audit: AuditLog, observers: Observers, log: Log) -> None:
        self._gateway = gateway
        self._url = url
        self._audit = audit
        self._observers = observers
        self._log = log
        self._warned: set[str] = set()

    def make(self, server: Server, policy: Policy, resolved: Resolved) -> Served:
        """The server's mount, with counters of its own."""
        log, name, path = _Named(self._log, server.name), server.name, f"/{server.name}/mcp"
        counters = Deferred(lambda: state.open_state(self._url, prefix=self._gateway.state_prefix))
        if policy.counts:
            counters.prepare()
        door = self._door(server)
        mount = Mount(
            name,
            policy,
            policy_file.Watch(server.policy.target, policy.revision),
            counters,
            self._audit,
            self._upstream(server, resolved, log),
            log,
            Settings(server.timeout, self._gateway.max_message_bytes, self._gateway.fail_open),
            door,
            self._observers.watch(name, policy, self._url, self._gateway.state_prefix, counters),
        )
        log("info", f"policy `{server.policy.target}` is {policy_file.describe(policy)}")
        if (warning := policy_file.warning_of_sessions(server.policy.target, policy)) is not None:
            log("warn", warning)
        http = msgspec.structs.replace(
            _http(self._gateway), max_sessions=_most_sessions(server), session_idle=server.session_idle
        )
        return Served(path, mount, door, http)

    def _upstream(self, server: Server, resolved: Resolved, log: Log) -> Upstream:
        limit, reached = self._gateway.max_message_bytes, server.upstream
        if isinstance(reached, Command):
            return Started(reached.words, resolved.environments[server.name], limit, log)
        fields = resolved.headers[server.name]
        return site.reach(reached.url, fields, _grant(reached), log, limit=limit, sse=reached.sse, alone=False)

    def _door(self, server: Server) -> Authenticator | None:
        auth = self._gateway.auth
        if auth is None:
            return None
        issuer = None
        if auth.issuer is not None:
            known = auth.issuer
            issuer = Issuer(known.url, known.keys.target, known.audience, known.untyped)
        tokens = None if auth.tokens is None else auth.tokens.target
        scopes = tuple(dict.fromkeys((*auth.scopes, *server.scopes)))
        door = Authenticator(Callers(self._gateway.endpoint(server), tokens, issuer, scopes), self._log)
        for warning in door.warnings():
            if warning not in self._warned:
                self._warned.add(warning)
                self._log("warn", warning)
        return door


class _Named(Log):
    """Says of which server a line is."""

    def __init__(self, log: Log, server: str) -> None:
        self._all = log
        self._server = server

    def __call__(self, level: str, text: str) -> None:
        """Say one line."""
        self._all(level, f"`{self._server}`: {text}")


def _grant(server: Remote) -> Grant | None:
    if server.oauth is None:
        return None
    oauth = server.oauth
    secret = oauth.client_secret.target
    return Grant(oauth.token_url, oauth.client_id, secret, oauth.scopes, server.url)


def _most_sessions(server: Server) -> int:
    return server.max_sessions or (site.MAX_CHILDREN if isinstance(server.upstream, Command) else site.MAX_SESSIONS)


def _http(gateway: Gateway) -> HttpSettings:
    hosts = gateway.allow_hosts
    if hosts and is_loopback(gateway.host):
        hosts = (*hosts, gateway.host, "localhost")  # behind a reverse proxy, too, this machine may come directly
    return HttpSettings(
        local=gateway.auth is None,
        hosts=hosts,
        origins=gateway.allow_origins,
        body_limit=gateway.max_message_bytes,
    )
