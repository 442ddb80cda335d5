"""What the URL of a Redis says. Nothing of the `redis` package is imported, so that a mistake is told at the start.

Below: errors. Above: `state.check`, and the storage in `redis`.
"""

from __future__ import annotations

__all__ = ["Address", "Group", "Host", "Options", "check", "parse"]

import re
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import TypeAlias
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from intercept_py.errors import StateError

Host: TypeAlias = tuple[str, int]
"""A name or an address, and a port."""
Options: TypeAlias = Mapping[str, str | int]
"""Those of the library's connection."""

_PORT = 6379
_SENTINEL_PORT = 26379
_MAX_SECONDS = 10.0
_REPLICAS = [str(number) for number in range(1, 10)]
_EXAMPLE = "write `redis://HOST:PORT/DATABASE`, `rediss://…` for TLS or `redis+unix:///PATH`"
_EXAMPLES = {
    "sentinel": "write `redis+sentinel://HOST:PORT,HOST:PORT/SERVICE`: sentinels, and what they call the service",
    "cluster": "write `redis+cluster://HOST:PORT,HOST:PORT`: some nodes of the cluster",
}


class Group(msgspec.Struct, frozen=True):
    """Servers that take over from each other. `seeds` tell which one counts: sentinels, or nodes of a cluster.

    `service`: what the sentinels call it; None for a cluster. `login`: options of connections to the seeds.
    `replicas`: so many must have a charge before its call goes on; 0: one that takes over may not know of it.
    """

    seeds: tuple[Host, ...]
    service: str | None
    login: Options
    replicas: int


class Address(msgspec.Struct, frozen=True):
    """A Redis server and how to talk to it. `options` name no server where a `group` does. `place` is for people.

    `timeout`: how many seconds a server may take to accept a connection, and to answer.
    """

    kind: str
    place: str
    options: Options
    timeout: float
    secrets: tuple[str, ...] = ()
    group: Group | None = None

    def without_secrets(self, text: str) -> str:
        """A text that others wrote, without the passwords."""
        for secret in self.secrets:
            text = text.replace(secret, "…")
        return text


_WORD = re.compile("[a-z_]+")


def check(url: str) -> None:
    """Raise `StateError` for a URL that names no Redis, and where the package that talks to Redis is missing."""
    parse(url)
    if find_spec("redis") is None:
        raise StateError("limits in Redis need the package `redis`: pip install redis")


def parse(url: str) -> Address:
    """The address that a URL names. Raises `StateError`, which never quotes the URL: it may hold a password."""
    scheme = url.partition(":")[0]
    kind = "unix" if scheme.endswith("unix") else "tls" if scheme.startswith("rediss") else "tcp"
    form = "unix" if kind == "unix" else scheme.partition("+")[2]
    example = _EXAMPLES.get(form, _EXAMPLE)
    try:
        # Some versions of `urlsplit` know what may stand around brackets, and that is not a list of servers.
        before, slashes, rest = url.partition("//")
        authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
        parts = urlsplit(before + slashes + rest[len(authority) :])
        user, _, names = authority.rpartition("@")
        hosts = _hosts(names, _SENTINEL_PORT if form == "sentinel" else _PORT)
    except ValueError as exc:
        raise StateError(f"the URL of the state is not understood: {example}") from exc
    path = unquote(parts.path)
    if parts.fragment or not _NAMED[form](hosts, path):
        raise StateError(f"the URL of the state names no server: {example}")
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    timeout = _seconds(given.pop("timeout", "0.25"))
    login = _login(user)
    options = dict(login)
    group = _group(form, hosts, path.strip("/"), login, given) if form in _EXAMPLES else None
    if form != "cluster":  # which has only one
        options["db"] = _database(given.pop("db", (path.strip("/") if not form else "") or "0"))
    options |= _tls(given, kind, form)
    if not form:
        options["host"], options["port"] = hosts[0]
    elif form == "unix":
        options["path"] = path
    place = path if form == "unix" else ", ".join(map(_shown, hosts))
    if form == "sentinel":
        place = f"`{path.strip('/')}` (sentinels {place})"
    secrets = [str(of["password"]) for of in (login, group.login if group else {}) if "password" in of]
    return Address(kind, place, options, timeout, tuple(secrets), group)


_NAMED: Mapping[str, Callable[[tuple[Host, ...], str], bool]] = {
    "": lambda hosts, _: len(hosts) == 1 and bool(hosts[0][0]),
    "unix": lambda _, path: bool(path),
    "sentinel": lambda hosts, path: all(host for host, _ in hosts) and path.count("/") == 1 and len(path) > 1,
    "cluster": lambda hosts, path: all(host for host, _ in hosts) and path in ("", "/", "/0"),
}
"""Form of a URL to whether its hosts and its path name what they must."""


def _hosts(names: str, port: int) -> tuple[Host, ...]:
    """Raises `ValueError`."""
    parts = [urlsplit(f"//{name}") for name in names.split(",")]
    return tuple((part.hostname or "", part.port or port) for part in parts)


def _shown(host: Host) -> str:
    name, port = host
    return f"[{name}]:{port}" if ":" in name else f"{name}:{port}"


def _login(text: str) -> dict[str, str | int]:
    user, _, password = text.partition(":")
    return {name: unquote(value) for name, value in (("username", user), ("password", password)) if value}


def _group(form: str, seeds: tuple[Host, ...], service: str, login: Options, given: dict[str, str]) -> Group:
    """Takes its options out of those that were given."""
    failover, replicas = given.pop("failover", None), given.pop("replicas", "1")
    if failover not in (None, "may-forget"):
        raise StateError(
            "`failover` in the URL of the state can only be `may-forget`: then limits go on at once when a server "
            "takes over, and may let more calls through than they say"
        )
    if replicas not in _REPLICAS:
        raise StateError("`replicas` in the URL of the state must be a number from 1 to 9")
    if form == "sentinel" and "sentinel_password" in given:
        password = given.pop("sentinel_password")
        login = {"password": password} if password else {}
    return Group(seeds, service if form == "sentinel" else None, login, 0 if failover else int(replicas))


def _database(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 6):
        raise StateError("the database in the URL of the state must be a number, such as 0")
    return int(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= _MAX_SECONDS:
        raise StateError(f"`timeout` in the URL of the state must be seconds, above 0 and at most {_MAX_SECONDS:g}")
    return value


def _one_of(*values: str) -> Callable[[str], bool]:
    return lambda value: value in values


_TLS: Mapping[str, Callable[[str], bool]] = {
    "ssl_ca_certs": bool,
    "ssl_certfile": bool,
    "ssl_keyfile": bool,
    "ssl_cert_reqs": _one_of("required", "none"),
}
_KNOWN: Mapping[str, tuple[str, ...]] = {
    "sentinel": ("timeout", "db", "failover", "replicas", "sentinel_password"),
    "cluster": ("timeout", "failover", "replicas"),
}


def _tls(given: Mapping[str, str], kind: str, form: str) -> dict[str, str | int]:
    """The options that are left, which must be those of TLS."""
    allowed = _TLS if kind == "tls" else {}
    for name, value in given.items():
        if name not in allowed:
            known = ", ".join(f"`{known}`" for known in (*_KNOWN.get(form, ("timeout", "db")), *allowed))
            # What is no word may be a piece of a password that holds a `?`.
            which = f"`{name[:32]}`" if _WORD.fullmatch(name) else "something after `?`"
            raise StateError(f"{which} in the URL of the state is not an option of it: there are {known}")
        if not allowed[name](value):
            raise StateError(f"`{name}` in the URL of the state has a value that it cannot have")
    return dict(given)
