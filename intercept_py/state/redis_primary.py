"""Which Redis counts, and a connection to it. Of servers that take over from each other some must say which one it is.

Below: the `redis` package. Above: `redis_link`.
"""

from __future__ import annotations

__all__ = ["ask", "locate", "make"]

import socket
from typing import Any

from redis.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.crc import key_slot
from redis.exceptions import RedisError

from intercept_py.state.breaker import UnreachableError
from intercept_py.state.redis_address import Address, Group, Host, Options

_KINDS = {"tcp": Connection, "tls": SSLConnection, "unix": UnixDomainSocketConnection}
# A connection that a router on the way has forgotten is noticed within a minute. Not every system has these options.
_KEEPALIVE = {
    getattr(socket, name): value
    for name, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))
    if hasattr(socket, name)
}


def locate(address: Address, key: str) -> tuple[Options, str]:
    """The options of a connection to the server that holds a key, and that server for people.

    Raises `UnreachableError` where nobody knows it.
    """
    if address.group is None:
        return address.options, address.place
    host, port = _find(address, address.group, key)
    return {**address.options, "host": host, "port": port}, f"{host}:{port}"


def make(address: Address, options: Options) -> Any:
    """The library's connection, not connected yet. It has no types; all its waits are bounded."""
    given: dict[str, Any] = dict(options)
    if address.kind != "unix":
        given |= {"socket_keepalive": True, "socket_keepalive_options": _KEEPALIVE}
    return _KINDS[address.kind](
        socket_timeout=address.timeout,
        socket_connect_timeout=address.timeout,
        encoding_errors="surrogatepass",
        protocol=2,
        **given,
    )


def ask(connection: Any, *words: str | int) -> Any:
    """What the server answers. Raises what the library raises."""
    connection.send_command(*words, check_health=False)
    return connection.read_response()


def _find(address: Address, group: Group, key: str) -> Host:
    """What the first seed says that knows it."""
    tls = {name: value for name, value in address.options.items() if name.startswith("ssl_")}
    why = ""
    for host, port in group.seeds:
        connection = make(address, {**tls, **group.login, "host": host, "port": port})
        try:
            connection.connect()
            if group.service is None:
                return _holder(ask(connection, "CLUSTER", "SLOTS"), key_slot(key.encode()), host)
            found = ask(connection, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", group.service)
            if found is not None:
                return found[0].decode(), int(found[1])
            why = f"{host}:{port} knows no such service"
        except (RedisError, OSError, LookupError, TypeError, ValueError) as exc:
            why = f"{host}:{port}: {address.without_secrets(str(exc)) or type(exc).__name__}"
        finally:
            connection.disconnect()
    raise UnreachableError(f"nobody says which server counts for Redis {address.place}: {why}")


def _holder(slots: Any, slot: int, asked: str) -> Host:
    """The primary of a slot by the answer of `CLUSTER SLOTS`: ranges with their first, last, primary and replicas."""
    for first, last, (host, port, *_), *_ in slots:
        if first <= slot <= last:
            return (host or b"").decode() or asked, int(port)
    raise LookupError(f"no node has slot {slot}")
