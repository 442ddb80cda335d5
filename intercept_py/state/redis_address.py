"""What the URL of a Redis says. Nothing of the `redis` package is imported, so that a mistake is told at the start.

Below: errors. Above: `state.check`, and the storage in `redis`.
"""

from __future__ import annotations

__all__ = ["Address", "check", "parse"]

import re
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from intercept_py.errors import StateError

_PORT = 6379
_MAX_SECONDS = 10.0
_EXAMPLE = "write `redis://HOST:PORT/DATABASE`, `rediss://…` for TLS or `redis+unix:///PATH`"


class Address(msgspec.Struct, frozen=True):
    """A Redis server and how to talk to it. `options` are those of the library's connection, `place` is for people.

    `timeout`: how many seconds the server may take to accept a connection, and to answer.
    """

    kind: str
    place: str
    options: Mapping[str, str | int]
    timeout: float
    password: str | None = None

    def without_password(self, text: str) -> str:
        """A text that others wrote, without the password."""
        return text.replace(self.password, "…") if self.password else text


_WORD = re.compile("[a-z_]+")


def check(url: str) -> None:
    """Raise `StateError` for a URL that names no Redis, and where the package that talks to Redis is missing."""
    parse(url)
    if find_spec("redis") is None:
        raise StateError("limits in Redis need the package `redis`: pip install redis")


def parse(url: str) -> Address:
    """The address that a URL names. Raises `StateError`, which never quotes the URL: it may hold a password."""
    scheme = url.partition(":")[0]
    unix = scheme.endswith("unix")
    try:
        parts = urlsplit(url)
        host, port, path = parts.hostname, parts.port or _PORT, unquote(parts.path)
        user, password = (None if text is None else unquote(text) for text in (parts.username, parts.password))
    except ValueError as exc:
        raise StateError(f"the URL of the state is not understood: {_EXAMPLE}") from exc
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    timeout = _seconds(given.pop("timeout", "0.25"))
    options: dict[str, str | int] = {}
    if unix:
        options["path"] = path
    else:
        options["host"], options["port"] = host or "", port
        given.setdefault("db", path.strip("/") or "0")
    options["db"] = _database(given.pop("db", "0"))
    if not options.get("path" if unix else "host") or parts.fragment:
        raise StateError(f"the URL of the state names no server: {_EXAMPLE}")
    allowed = _TLS if scheme == "rediss" else {}
    for name, value in given.items():
        options[name] = _tls_option(name, value, allowed)
    for name, secret in (("username", user), ("password", password)):
        if secret:
            options[name] = secret
    place = path if unix else f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"
    return Address("unix" if unix else "tls" if scheme == "rediss" else "tcp", place, options, timeout, password)


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


def _tls_option(name: str, value: str, allowed: Mapping[str, Callable[[str], bool]]) -> str:
    if name not in allowed:
        known = ", ".join(f"`{known}`" for known in ("timeout", "db", *allowed))
        # What is no word may be a piece of a password that holds a `?`.
        which = f"`{name[:32]}`" if _WORD.fullmatch(name) else "something after `?`"
        raise StateError(f"{which} in the URL of the state is not an option of it: there are {known}")
    if not allowed[name](value):
        raise StateError(f"`{name}` in the URL of the state has a value that it cannot have")
    return value
