"""What an `Authenticator` is built from, and which URLs may be trusted for what.

Above: every module of the package.
"""

from __future__ import annotations

__all__ = ["Issuer", "Settings", "check_scopes", "check_url"]

import re
from collections.abc import Iterable
from ipaddress import ip_address
from typing import Final
from urllib.parse import SplitResult, urlsplit

import msgspec

from intercept_py.identity.faults import IdentityError

# RFC 6749, section 3.3: what a scope may be made of. None of it ends a quoted string.
_SCOPE: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,256}")
_URL: Final = re.compile(r"[!#-;=?-\[\]_a-z~%]{1,2048}")


class Issuer(msgspec.Struct, frozen=True):
    """Whose access tokens (JWT, RFC 9068) are accepted.

    `url` is what `iss` must be, letter by letter. `keys`: the URL of its JWK set, or the path of a file that holds it.
    `audience`: what `aud` must name; None: the URL of the resource itself (RFC 8707), which is what MCP demands.
    `untyped`: accept tokens whose `typ` is `JWT` or missing as well as `at+jwt`, for issuers that do not follow
    RFC 9068.
    """

    url: str
    keys: str
    audience: str | None = None
    untyped: bool = False


class Settings(msgspec.Struct, frozen=True):
    """Who may call one MCP endpoint. With neither `tokens` nor `issuer` everybody may, and is known by address alone.

    `resource` is the endpoint's own URL, as clients see it. `tokens`: the path of a file of hashed tokens (see the
    command `tokens`). `scopes` are demanded of every caller.
    """

    resource: str
    tokens: str | None = None
    issuer: Issuer | None = None
    scopes: tuple[str, ...] = ()


def check_url(text: str, what: str) -> SplitResult:
    """The parts of an absolute URL without credentials and fragment; `https`, or `http` to this very machine.

    Raises `IdentityError`, which does not repeat a URL that may hold a password.
    """
    if not _URL.fullmatch(text):
        raise IdentityError(f"{what} is no URL: it must have 1 to 2048 characters of those that RFC 3986 allows")
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise IdentityError(f"{what} is no URL: its host or port is malformed") from None
    if parts.scheme not in ("https", "http") or not host:
        raise IdentityError(f"{what} must be an absolute URL that starts with `https://`")
    if "@" in parts.netloc or "#" in text:
        raise IdentityError(f"{what} must hold neither credentials nor a fragment")
    if parts.scheme == "http" and not _is_loopback(host):
        raise IdentityError(f"{what} `{text}` is open to whoever sits in between: use `https://` beyond this machine")
    return parts


def check_scopes(scopes: Iterable[str]) -> None:
    """Raises `IdentityError` for what RFC 6749 does not allow as a scope."""
    for scope in scopes:
        if not _SCOPE.fullmatch(scope):
            raise IdentityError('a scope has 1 to 256 visible ASCII characters, without `"` and `\\` (RFC 6749, 3.3)')


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
