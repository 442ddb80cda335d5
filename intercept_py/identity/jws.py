"""The header of a signed token (JWS, RFC 7515), read strictly before any of it is trusted. Pure.

Below: `wire.codec`. Above: `keys` and `access_tokens`.
"""

from __future__ import annotations

__all__ = ["ALGORITHMS", "Header", "parse_header"]

import re
from base64 import urlsafe_b64decode
from collections.abc import Mapping
from typing import Final

import msgspec

from intercept_py.errors import ProtocolError
from intercept_py.identity.faults import TokenError
from intercept_py.wire import codec

_RSA: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
ALGORITHMS: Final[Mapping[tuple[str, str | None], tuple[str, ...]]] = {
    ("RSA", None): _RSA,
    ("EC", "P-256"): ("ES256",),
    ("EC", "P-384"): ("ES384",),
    ("EC", "P-521"): ("ES512",),
    ("OKP", "Ed25519"): ("EdDSA",),
    ("OKP", "Ed448"): ("EdDSA",),
}
"""Kind and curve of a key to what may be verified with it (RFC 7518, section 3.1; RFC 8037).

No `none`, and no HS*: a secret that both sides know would make every holder of it an issuer, and a public key taken for
such a secret is the oldest forgery there is.
"""

_ALLOWED: Final = frozenset(name for names in ALGORITHMS.values() for name in names)
_KNOWN: Final = frozenset(("alg", "typ", "kid", "x5t", "x5t#S256", "cty"))
_COMPACT: Final = re.compile(r"([A-Za-z0-9_-]+)\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_LONGEST_KID: Final = 256


class Header(msgspec.Struct, frozen=True):
    """What of a token's header is used: an algorithm of `ALGORITHMS`, and which key the token says it was signed with.

    `typ` is lower case, without `application/` (RFC 7515, section 4.1.9).
    """

    alg: str
    kid: str | None
    typ: str | None


def parse_header(token: str) -> Header:
    """Read the header of a compact JWS. Raises `TokenError`.

    Members that bring or name a key (`jwk`, `jku`, `x5u`, `x5c`) are refused, since a token must not choose what it is
    verified with; so are `crit`, of whose extensions none is implemented (RFC 7515, 4.1.11), and whatever else could
    change how the token is read (`b64`, `zip`).
    """
    compact = _COMPACT.fullmatch(token)
    if compact is None:
        raise TokenError("the token is no compact JWS")
    header = _decode(compact[1])
    if header.keys() - _KNOWN:
        raise TokenError("the token's header has members that are not allowed, such as `crit`, `jwk`, `jku` or `x5u`")
    alg, kid, typ = header.get("alg"), header.get("kid"), header.get("typ")
    if not isinstance(alg, str) or alg not in _ALLOWED:
        raise TokenError("the token is not signed with an algorithm that is allowed")
    if kid is not None and not (isinstance(kid, str) and 0 < len(kid) <= _LONGEST_KID):
        raise TokenError("the `kid` of the token is no text of 1 to 256 characters")
    if typ is not None and not isinstance(typ, str):
        raise TokenError("the `typ` of the token is no text")
    return Header(alg, kid, None if typ is None else typ.lower().removeprefix("application/"))


def _decode(segment: str) -> dict[str, object]:
    try:
        value = codec.decode(urlsafe_b64decode(segment + "=" * (-len(segment) % 4)))
    except (ValueError, ProtocolError):
        raise TokenError("the token's header is no JSON, or not in the only way that all parsers read alike") from None
    if not isinstance(value, dict):
        raise TokenError("the token's header is no JSON object")
    return value
