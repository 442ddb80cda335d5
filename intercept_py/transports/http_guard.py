"""What the head of an HTTP request must be like before anybody reads its body (security rule 2), and what it says.

Below: `http_messages`, `http_pages`, `wire.http_fields`. Above: `http_server`; the gate of the job server shares the
rules.
"""

from __future__ import annotations

__all__ = ["Guard", "Head", "is_loopback", "is_plain", "names_loopback"]

import re
from collections.abc import Iterable
from email.message import Message
from ipaddress import IPv6Address, ip_address
from typing import Final

import msgspec

from intercept_py.transports.http_messages import Answer, Field, Fields, problem
from intercept_py.transports.http_pages import answer_preflight, is_preflight, readable_by
from intercept_py.wire import http_fields
from intercept_py.wire.messages import Arrival

_ONCE: Final = frozenset(
    {
        b"authorization", b"content-encoding", b"content-length", b"content-type", b"host", b"last-event-id",
        b"mcp-session-id", b"origin", b"traceparent", b"transfer-encoding",
    }
)  # fmt: skip
_LISTS: Final = frozenset({b"accept", b"tracestate"})
_UTF_8: Final = (None, "utf-8", "us-ascii")
"""Character sets that a content type may name."""
_AUTHORITY: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]{2,45})\]|([A-Za-z0-9._~-]{1,253}))(?::([0-9]{0,5}))?")
"""`Host` (RFC 9110, 7.2): an address of IPv6, or a name or an address; a port. No user, path, query or fragment."""
_SITE: Final = re.compile(r"(?:https?:)?//(.*)", re.IGNORECASE)
_MOST_KEPT: Final = 64
_LONGEST_ID: Final = 1024


class Head(msgspec.Struct, frozen=True):
    """What the head says, as far as anybody here reads it. `mcp`: the fields that repeat what the body says.

    `shared`: what goes with every answer to it. `agreed` is for who compares `mcp` with bodies: heads that come again
    are not read again.
    """

    method: str
    path: str
    address: str
    authorization: str | None
    session: str | None
    last_event_id: str | None
    json: bool
    events: bool
    modern: bool
    version: str | None
    mcp: list[Field]
    arrival: Arrival | None
    shared: Fields
    agreed: set[tuple[object, ...]] = msgspec.field(default_factory=set)


class Guard:
    """Reads heads and refuses some. `local`: requests must name this machine as their host, or one of `hosts`.

    `hosts` and `origins` are host names, and origins (`https://app.example`), that are let in; without `hosts`
    a server that is not `local` answers to every name.
    """

    def __init__(self, *, local: bool, hosts: Iterable[str] = (), origins: Iterable[str] = ()) -> None:
        self._local = local
        self._hosts = frozenset(host.lower() for host in hosts)
        self._origins = frozenset(origin.lower() for origin in origins)
        self._known: set[tuple[bytes, bytes]] = set()  # pairs of a field and a value that were found good
        self._accepts: dict[bytes, tuple[bool, bool]] = {}

    def read(self, method: str, path: str, fields: list[Field], address: str) -> Head | Answer:
        """The head of a request, or why it is refused. Nothing is read twice: this is what every call pays for."""
        found: dict[bytes, bytes] = {}
        mcp: list[Field] = []
        for field in fields:
            name, value = field
            if name in _ONCE:
                if name in found:
                    return problem(400, f"the {name.decode()} header appears more than once")
                found[name] = value
            elif name in _LISTS:
                found[name] = found[name] + b"," + value if name in found else value
            elif name.startswith(b"mcp-"):
                mcp.append(field)
        refusal = self._stranger(found)
        if refusal is not None:
            return refusal
        shared = readable_by(found[b"origin"]) if b"origin" in found and self._lists(found[b"origin"]) else ()
        if shared and is_preflight(method, fields):
            return answer_preflight(fields).sharing(shared)
        refusal = self._refusal(found, method)
        if refusal is not None:
            return refusal.sharing(shared)
        version = http_fields.version_field(mcp)
        json, events = self._accept(found.get(b"accept", b""))
        return Head(
            method,
            path,
            address,
            _text(found.get(b"authorization")),
            _text(found.get(b"mcp-session-id")),
            _text(found.get(b"last-event-id")),
            json,
            events,
            http_fields.is_modern(version),
            version,
            mcp,
            _arrival(found, version, mcp),
            shared,
        )

    def _stranger(self, found: dict[bytes, bytes]) -> Answer | None:
        """Why pages of strangers may not read the answer."""
        host = (b"host", found.get(b"host", b""))
        if host not in self._known and not self._keep(host, self._may_be_named(host[1])):
            if not _host_of(host[1].decode("latin-1")):  # RFC 9112, 3.2
                return problem(400, "the host header is missing, or names no host")
            return problem(421, "this server does not answer for the host that the request names")
        if b"origin" in found:
            origin = (b"origin", found[b"origin"])
            if origin not in self._known and not self._keep(origin, self._may_come_from(origin[1])):
                return problem(403, "web pages of this origin may not call this server")
        return None

    def _refusal(self, found: dict[bytes, bytes], method: str) -> Answer | None:
        if len(found.get(b"last-event-id", b"")) > _LONGEST_ID:
            return problem(400, "the last-event-id header is too long")
        if method != "POST":
            return None
        kind = (b"content-type", found.get(b"content-type", b""))
        if kind not in self._known and not self._keep(kind, is_plain(kind[1].decode("latin-1"), required=True)):
            return problem(415, "send the body as application/json in UTF-8")
        if found.get(b"content-encoding", b"identity").lower() != b"identity":
            return problem(415, "send the body without a content encoding")
        return None

    def _keep(self, pair: Field, good: bool) -> bool:
        if good and len(self._known) < _MOST_KEPT:
            self._known.add(pair)
        return good

    def _may_be_named(self, host: bytes) -> bool:
        name = _host_of(host.decode("latin-1"))
        if self._local and is_loopback(name):
            return True
        return name in self._hosts if self._local or self._hosts else bool(name)

    def _may_come_from(self, origin: bytes) -> bool:
        text = origin.decode("latin-1")
        return self._lists(origin) or (self._local and text[:4].lower() == "http" and names_loopback(text))

    def _lists(self, origin: bytes) -> bool:
        return origin.decode("latin-1").lower() in self._origins

    def _accept(self, accept: bytes) -> tuple[bool, bool]:
        """Whether the client takes JSON, and event streams (RFC 9110, 12.5.1; weights are not looked at)."""
        known = self._accepts.get(accept)
        if known is None:
            kinds = {kind.split(b";")[0].strip().lower() for kind in accept.split(b",")}
            known = bool(kinds & _JSON_KINDS), bool(kinds & _EVENT_KINDS)
            if len(self._accepts) < _MOST_KEPT and len(accept) <= 256:
                self._accepts[accept] = known
        return known


_JSON_KINDS: Final = {b"*/*", b"application/*", b"application/json"}
_EVENT_KINDS: Final = {b"*/*", b"text/*", b"text/event-stream"}


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the host, a name or an address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def names_loopback(url: str) -> bool:
    """Whether `http://HOST[:PORT]`, or https, names this machine. A `Host` field is one behind `//`."""
    site = _SITE.fullmatch(url)
    return site is not None and is_loopback(_host_of(site[1]))


def is_plain(content_type: str, *, required: bool) -> bool:
    """Whether a body of this type is plain JSON in UTF-8. Where it is not `required` only the charset is looked at."""
    fields = Message()
    fields["content-type"] = content_type
    if required and fields.get_content_type() != "application/json":
        return False
    return fields.get_content_charset() in _UTF_8


def _host_of(authority: str) -> str:
    """The host in `HOST[:PORT]`, in lower case and without brackets; empty where it is anything else."""
    found = _AUTHORITY.fullmatch(authority)
    if found is None or int(found[3] or 0) > 65535:
        return ""
    if found[1] is None:
        return found[2].lower()
    try:
        IPv6Address(found[1])
    except ValueError:
        return ""
    return found[1].lower()


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("latin-1")


def _arrival(found: dict[bytes, bytes], version: str | None, mcp: list[Field]) -> Arrival | None:
    parent = found.get(b"traceparent")
    if parent is None and version is None:
        return None
    return Arrival(_text(parent), _text(found.get(b"tracestate")), version, mcp)
