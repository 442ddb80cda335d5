"""A gateway file's bytes become a `Gateway`; or every mistake in it is told, with its place.

Below: `policy.source` reads YAML strictly, `section` and `values` read fields, `upstreams` the servers'.
Above: `cli.serve`.
"""

from __future__ import annotations

__all__ = ["load", "read"]

import os
import re
from typing import Final
from urllib.parse import urlsplit

from intercept_py import policy_file
from intercept_py.errors import PolicyError
from intercept_py.gateway_file import messages as say
from intercept_py.gateway_file.model import Auth, Gateway, Issuer, Reference, Server
from intercept_py.gateway_file.section import Section
from intercept_py.gateway_file.upstreams import upstream
from intercept_py.gateway_file.values import Values
from intercept_py.identity.settings import check_url
from intercept_py.policy import messages as say_of_all
from intercept_py.policy import source as strict
from intercept_py.policy.tree import Object, Scalar
from intercept_py.transports.http_guard import is_loopback
from intercept_py.transports.http_names import BAD_HOST, BAD_ORIGIN, is_address, is_host, is_origin

_NAME: Final = re.compile("[a-z0-9][a-z0-9-]{0,62}")
_ADDRESS: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9_.-]+)):([0-9]{1,5})")
_DEFAULT_ADDRESS: Final = ("127.0.0.1", 8000)


def read(path: str) -> Gateway:
    """Load the gateway file at `path`. Raises `PolicyError` with all problems at once."""
    return load(policy_file.read_bytes(path, "gateway file"), path)


def load(text: bytes, source: str) -> Gateway:
    """The gateway in `text`; `source` is the file's path. Raises `PolicyError` with all problems at once."""
    root, problems = strict.read(text, source, "gateway", "servers")
    section = None if root is None else Section.open(root, "$", "gateway", problems)
    values = Values(os.path.dirname(os.path.abspath(source)), problems)
    gateway = None if section is None else _gateway(section, values, source)
    found = problems.sorted()
    if found or gateway is None:
        raise PolicyError(found)
    return gateway


def _gateway(section: Section, values: Values, source: str) -> Gateway:
    _check_version(section)
    host, port = _listen(section)
    public_url = _public_url(section)
    _check_reach(section, host, public_url)
    hosts = section.listed("allow_hosts", is_host, BAD_HOST)
    return Gateway(
        source=source,
        host=host,
        port=port,
        public_url=public_url,
        allow_hosts=tuple(dict.fromkeys((*_host_of(public_url), *(name.lower() for name in hosts)))),
        allow_origins=section.listed("allow_origins", is_origin, BAD_ORIGIN),
        auth=_auth(section, values),
        audit=values.file(section, "audit"),
        state=values.address(section, "state"),
        state_prefix=section.clean("state_prefix") or "",
        fail_open=section.choice("state_fail_mode") == "open",
        max_message_bytes=section.whole("max_message_bytes", 65536, 1024**3) or 10 * 1024**2,
        servers=_servers(section, values),
    )


def _check_version(section: Section) -> None:
    scalar = section.scalar("version")
    if scalar is None or scalar.value == "1":
        return
    if scalar.value in (1, 1.0) and not isinstance(scalar.value, bool):
        section.report("version", say_of_all.VERSION_UNQUOTED)
    else:
        section.wrong_type("version")


# ---- where, and for whom


def _listen(section: Section) -> tuple[str, int]:
    text = section.clean("listen")
    if text is None:
        return _DEFAULT_ADDRESS
    match = _ADDRESS.fullmatch(text)
    if match is None or int(match[3]) > 65535 or (match[1] and not is_address(match[1])):
        section.report("listen", say.BAD_LISTEN, text=text)
        return _DEFAULT_ADDRESS
    return match[1] or match[2], int(match[3])


def _public_url(section: Section) -> str | None:
    url = section.checked("public_url", lambda text: check_url(text, "the URL of the gateway"))
    if url is not None and "?" in url:
        section.report("public_url", say.BAD_PUBLIC_URL, text=url[url.index("?") :])
        return None
    return None if url is None else url.rstrip("/")


def _check_reach(section: Section, host: str, public_url: str | None) -> None:
    """Only this machine may call without a token (security rule 2)."""
    if not is_loopback(host):
        if "auth" not in section:
            section.report("listen", say.OPEN_TO_OTHERS, host=host)
        if "public_url" not in section:
            section.report("listen", say.NO_PUBLIC_URL, host=host)
    elif "auth" not in section and not all(map(is_loopback, _host_of(public_url))):
        section.report("public_url", say.PUBLIC_TO_OTHERS)


def _host_of(url: str | None) -> tuple[str, ...]:
    host = None if url is None else urlsplit(url).hostname
    return () if host is None else (host,)


def _auth(section: Section, values: Values) -> Auth | None:
    auth = section.section("auth", "auth")
    if auth is None:
        return None
    if "tokens" not in auth and "issuer" not in auth:
        auth.problems.add(auth.node, auth.path, say.NOBODY)
    issuer = auth.section("issuer", "issuer")
    return Auth(values.file(auth, "tokens"), None if issuer is None else _issuer(issuer, values), auth.scopes())


def _issuer(issuer: Section, values: Values) -> Issuer | None:
    url = issuer.checked("url", lambda text: check_url(text, "the issuer"))
    keys = _keys(issuer, values)
    audience, untyped = issuer.clean("audience"), issuer.boolean("untyped")
    return None if url is None or keys is None else Issuer(url, keys, audience, untyped)


def _keys(issuer: Section, values: Values) -> Reference | None:
    node = issuer.value("jwks")
    if "://" not in (issuer.clean("jwks") or ""):
        return values.file(issuer, "jwks")
    url = issuer.checked("jwks", lambda text: check_url(text, "the URL of the issuer's keys"))
    return None if url is None or node is None else Reference(url, node.line, node.column, issuer.at("jwks"))


# ---- servers


def _servers(section: Section, values: Values) -> tuple[Server, ...]:
    found = []
    members = list(section.members("servers"))
    names = frozenset(name for _, name, _ in members)
    if isinstance(section.value("servers"), Object) and not members:
        section.report("servers", say.NO_SERVERS)
    for path, name, member in members:
        if not _NAME.fullmatch(name):
            _tell_bad_name(section, path, member.key, names)
        server = Section.open(member.node, path, "server", section.problems)
        made = None if server is None else _server(name, server, values)
        if made is not None:
            found.append(made)
    return tuple(found)


def _tell_bad_name(section: Section, path: str, key: Scalar, names: frozenset[str]) -> None:
    guess = re.sub("[^a-z0-9]+", "-", key.text.lower()).strip("-")
    if _NAME.fullmatch(guess) and guess not in names:
        section.problems.add(key, path, say.BAD_NAME_GUESS, name=key.text, guess=guess)
    else:
        section.problems.add(key, path, say.BAD_NAME, name=key.text)


def _server(name: str, server: Section, values: Values) -> Server | None:
    policy = values.file(server, "policy")
    reached = upstream(server, values)
    scopes = server.scopes()
    max_sessions = server.whole("max_sessions", 1, 100_000)
    session_idle = server.span("session_idle", 1800.0, least=1)
    timeout = server.span("timeout", 300.0, least=0)
    if policy is None or reached is None:
        return None
    return Server(
        name=name,
        policy=policy,
        upstream=reached,
        scopes=scopes,
        max_sessions=max_sessions,
        session_idle=session_idle,
        timeout=timeout,
    )
