"""Where an HTTP server is, and the header fields that go with every request to it, as whoever runs the proxy gave them.

What they typed may hold secrets, so that no message repeats more of it than a field's name (security rule 9).
Below: `errors`. Above: `http_client`.
"""

from __future__ import annotations

__all__ = ["Address", "encode_fields", "parse_fields", "parse_url"]

import re
from collections.abc import Iterable
from urllib.parse import quote, urlsplit

import msgspec

from intercept_py.errors import UpstreamError

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(r"[\x20-\x7e\t]*")
_OURS = re.compile(
    r"accept(-encoding)?|connection|content-.*|expect|host|keep-alive|last-event-id|mcp-.*|te|trailer"
    r"|transfer-encoding|upgrade|proxy-connection"
)


class Address(msgspec.Struct, frozen=True):
    """`authority` is the value of `Host`, `target` that of the request line; `host` has no brackets."""

    host: str
    port: int
    tls: bool
    authority: str
    target: str

    @property
    def url(self) -> str:
        """All of it, without a fragment."""
        return f"{'https' if self.tls else 'http'}://{self.authority}{self.target}"


def parse_url(url: str) -> Address:
    """Read an `http` or `https` URL; raise `UpstreamError` for one that is none, or that carries credentials."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise UpstreamError("the server's URL cannot be read: write it like `https://example.com/mcp`") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or not url.isprintable() or " " in url:
        raise UpstreamError("the server's URL must be like `https://example.com/mcp`")
    if parts.username is not None or parts.password is not None:
        raise UpstreamError("the server's URL must not carry credentials: give them with --header")
    try:
        host = parts.hostname if ":" in parts.hostname else parts.hostname.encode("idna").decode("ascii")
    except UnicodeError:
        raise UpstreamError("the server's URL names no host that can exist") from None
    tls = parts.scheme == "https"
    default = 443 if tls else 80
    shown = f"[{host}]" if ":" in host else host
    target = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._")
    if parts.query:
        target += "?" + quote(parts.query, safe="/%:@!$&'()*+,;=~-._?")
    return Address(host, port or default, tls, shown if port in (None, default) else f"{shown}:{port}", target)


def parse_fields(fields: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    """Check header fields from the command line; raise `UpstreamError` for what no field is, or is the proxy's own."""
    checked = []
    for name, value in fields:
        if not _TOKEN.fullmatch(name):
            raise UpstreamError("a header for the server has a name that HTTP does not allow: write `Name: value`")
        if _OURS.fullmatch(name.lower()):
            raise UpstreamError(f"the header `{name}` is set by the proxy itself: leave it out")
        if not _VALUE.fullmatch(value):
            raise UpstreamError(f"the header `{name}` has a value that is not plain ASCII on one line")
        checked.append((name.encode("ascii"), value.strip().encode("ascii")))
    return checked


def encode_fields(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The lines of a request's head that these fields make. They must have been checked."""
    return b"".join([b"%b: %b\r\n" % field for field in fields])
