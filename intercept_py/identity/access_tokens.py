"""Access tokens of an issuer: JWTs verified as RFC 9068 section 4 and RFC 8725 say, then remembered until they expire.

Below: `jws`, `keys`. Above: `authenticator`. PyJWT does the cryptography; what a token says is read by our strict
parser alone, from the bytes that were verified.
"""

from __future__ import annotations

__all__ = ["AccessTokens"]

import time
from collections.abc import Callable
from hashlib import sha256
from math import isfinite
from typing import Final

from jwt import PyJWK, PyJWS, PyJWTError

from intercept_py.errors import ProtocolError
from intercept_py.identity.faults import TokenError
from intercept_py.identity.jws import Header, parse_header
from intercept_py.identity.keys import NO_KEYS, Keys
from intercept_py.identity.settings import Issuer
from intercept_py.model import Caller, Json, JsonObject
from intercept_py.wire import codec

SKEW: Final = 60.0
"""Seconds by which the clocks of issuer and proxy may differ."""
REMEMBERED: Final = 4096
"""Tokens that need not be verified again; the oldest makes room for the next."""
_LONGEST_SUBJECT: Final = 255

_jws: Final = PyJWS()


class AccessTokens:
    """Verifies the tokens of one issuer for one audience. `clock` tells seconds since the epoch.

    A token that was verified is known by its SHA-256 until it expires, or the issuer's keys change.
    """

    def __init__(self, issuer: Issuer, audience: str, keys: Keys, clock: Callable[[], float] = time.time) -> None:
        self._issuer = issuer
        self._audience = audience
        self._keys = keys
        self._clock = clock
        self._verified_with = NO_KEYS
        self._verified: dict[bytes, tuple[Caller, float]] = {}

    def known(self, token: str) -> Caller | None:
        """Whose token it is, if it was verified before and is still good."""
        keys = self._keys.current()
        if keys is not self._verified_with:
            self._verified.clear()
            self._verified_with = keys
        found = self._verified.get(sha256(token.encode()).digest())
        return found[0] if found is not None and self._clock() < found[1] else None

    async def caller(self, token: str) -> Caller:
        """Whose token it is. Raises `TokenError`."""
        caller = self.known(token)
        if caller is not None:
            return caller
        caller, until = await self._verify(token)
        # Other keys may have come meanwhile: what they do not know is verified once more, next time.
        if self._keys.current() is self._verified_with:
            if len(self._verified) >= REMEMBERED:
                del self._verified[next(iter(self._verified))]
            self._verified[sha256(token.encode()).digest()] = caller, until
        return caller

    async def _verify(self, token: str) -> tuple[Caller, float]:
        header = parse_header(token)
        self._check_type(header)
        key = await self._keys.find(header.kid, header.alg)
        if key is None:
            raise TokenError("the issuer has no key that the token could be verified with")
        claims = _claims(token, key, header.alg)
        until = self._check(claims)
        return Caller(principal=self._principal(claims), scopes=_scopes(claims), claims=claims), until

    def _check_type(self, header: Header) -> None:
        """RFC 9068, section 4: only `at+jwt`, so that an ID token cannot pass for an access token."""
        if header.typ == "at+jwt" or (self._issuer.untyped and header.typ in (None, "jwt")):
            return
        raise TokenError(
            "the `typ` of the token is not `at+jwt`: it is no access token, or of an issuer without RFC 9068"
        )

    def _check(self, claims: JsonObject) -> float:
        """Whether the token is for us and good by now; until when it is, in seconds since the epoch."""
        if claims.get("iss") != self._issuer.url:
            raise TokenError("the token is of another issuer")
        audience = claims.get("aud")
        if self._audience not in (audience if isinstance(audience, list) else [audience]):
            raise TokenError("the token is for another audience")
        now = self._clock()
        until = _time(claims, "exp")
        if until is None:
            raise TokenError("the token has no `exp`")
        if now >= until + SKEW:
            raise TokenError("the token has expired")
        for name in ("nbf", "iat"):
            begins = _time(claims, name)
            if begins is not None and begins > now + SKEW:
                raise TokenError(f"the token is of the future: see its `{name}`")
        return until + SKEW

    def _principal(self, claims: JsonObject) -> str:
        """`iss#sub`: an issuer's URL has no fragment, so no two subjects of any issuers get the same name."""
        subject = claims.get("sub")
        if not isinstance(subject, str) or not 0 < len(subject) <= _LONGEST_SUBJECT or not subject.isprintable():
            raise TokenError("the `sub` of the token is no printable text of 1 to 255 characters")
        return f"{self._issuer.url}#{subject}"


def _claims(token: str, key: PyJWK, alg: str) -> JsonObject:
    """What the token says, after its signature was found good."""
    try:
        payload = _jws.decode_complete(token, key, [alg])["payload"]
    except (PyJWTError, ValueError, TypeError):
        raise TokenError("the signature of the token is not good") from None
    try:
        claims = codec.decode(payload)
    except ProtocolError:
        raise TokenError("the token's payload is no JSON, or not in the only way that all parsers read alike") from None
    if not isinstance(claims, dict):
        raise TokenError("the token's payload is no JSON object")
    return claims


def _time(claims: JsonObject, name: str) -> float | None:
    value: Json = claims.get(name)
    if value is None and name not in claims:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        raise TokenError(f"the `{name}` of the token is no number")
    return float(value)


def _scopes(claims: JsonObject) -> tuple[str, ...]:
    """`scope` (RFC 8693, section 4.2: a text), else `scp` (a text or a list, as some issuers write it)."""
    value = claims["scope"] if "scope" in claims else claims.get("scp", [])
    scopes = value.split() if isinstance(value, str) else value
    if not isinstance(scopes, list) or not all(isinstance(scope, str) for scope in scopes):
        raise TokenError("the scopes of the token are no text and no list of texts")
    return tuple(dict.fromkeys(scopes))
