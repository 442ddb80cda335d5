"""Every HTTP request's `Authorization` becomes a `Caller`, or the refusal that answers it.

Below: `bearer` (texts), `tokens` (our own), `access_tokens` (an issuer's). Above: the gateway, one for each mount.
"""

from __future__ import annotations

__all__ = ["Authenticator"]

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from intercept_py.identity import bearer
from intercept_py.identity.bearer import Challenges
from intercept_py.identity.faults import IdentityError, TokenError, Unauthorized
from intercept_py.identity.settings import Issuer, Settings, check_scopes, check_url
from intercept_py.identity.tokens import PREFIX, TokenFile
from intercept_py.model import Caller

if TYPE_CHECKING:
    from intercept_py.identity.access_tokens import AccessTokens
    from intercept_py.identity.keys import Keys


class Authenticator:
    """Who calls one MCP endpoint.

    Raises `IdentityError` for settings that cannot be used, and for files that cannot be read. `log` takes a level and
    a line; `clock` tells seconds since the epoch, `timer` any seconds that only go forward.
    """

    def __init__(
        self,
        settings: Settings,
        log: Callable[[str, str], None],
        clock: Callable[[], float] = time.time,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        _check(settings)
        self.demands_token = settings.tokens is not None or settings.issuer is not None
        self.metadata_path = bearer.metadata_path(settings.resource)
        self.metadata = bearer.metadata(settings)
        self._challenges = Challenges.of(settings)
        self._scopes = frozenset(settings.scopes)
        self._tokens = TokenFile(settings.tokens, log, clock) if settings.tokens is not None else None
        self._keys: Keys | None = None
        self._access_tokens: AccessTokens | None = None
        if settings.issuer is not None:
            # Cryptography takes 110 ms to import, which endpoints with our own tokens need not wait for.
            from intercept_py.identity.access_tokens import AccessTokens

            self._keys = _keys(settings.issuer, log, timer)
            audience = settings.issuer.audience or settings.resource
            self._access_tokens = AccessTokens(settings.issuer, audience, self._keys, clock)

    def recognise(self, authorization: str | None, address: str) -> Caller | None:
        """As `authenticate`, where nothing has to be waited for, which is nearly always; None: something has."""
        if not self.demands_token:
            return Caller(address=address)
        token = bearer.token_of(authorization)
        if token is None:
            raise Unauthorized(self._challenges.missing, reason="no bearer token was sent")
        if self._tokens is not None and token.startswith(PREFIX):
            try:
                return self._admitted(self._tokens.caller(token), address)
            except TokenError as exc:
                raise self._invalid(exc.reason) from None
        if self._access_tokens is None:
            raise self._invalid("the token is none of a kind that is accepted here")
        caller = self._access_tokens.known(token)
        return None if caller is None else self._admitted(caller, address)

    async def authenticate(self, authorization: str | None, address: str) -> Caller:
        """Who sent a request with this `Authorization` header from this peer address. Raises `Unauthorized`.

        Where no token is demanded none is looked at: the caller is known by address alone.
        """
        caller = self.recognise(authorization, address)
        if caller is not None:
            return caller
        assert self._access_tokens is not None
        try:
            found = await self._access_tokens.caller(bearer.token_of(authorization) or "")
        except TokenError as exc:
            raise self._invalid(exc.reason) from None
        return self._admitted(found, address)

    def warnings(self) -> list[str]:
        """Who else may decide who may call."""
        return self._tokens.warnings() if self._tokens is not None else []

    async def close(self) -> None:
        """Stop following the issuer's keys."""
        if self._keys is not None:
            await self._keys.close()

    def _admitted(self, caller: Caller, address: str) -> Caller:
        if not self._scopes.issubset(caller.scopes):
            raise Unauthorized(self._challenges.insufficient, 403, "the token lacks scopes that every caller must have")
        return msgspec.structs.replace(caller, address=address)

    def _invalid(self, reason: str) -> Unauthorized:
        return Unauthorized(self._challenges.invalid, reason=reason)


def _check(settings: Settings) -> None:
    """Raises `IdentityError` for what cannot be meant."""
    named = {"the resource": settings.resource}
    if settings.issuer is not None:
        named["the issuer"] = settings.issuer.url
    for what, url in named.items():
        check_url(url, what)
        if "?" in url:
            raise IdentityError(f"{what} `{url}` must be without a query")
    check_scopes(settings.scopes)


def _keys(issuer: Issuer, log: Callable[[str, str], None], timer: Callable[[], float]) -> Keys:
    from intercept_py.identity.keys import KeyFile, RemoteKeys

    if "://" not in issuer.keys:
        return KeyFile(issuer.keys, log)
    check_url(issuer.keys, "the URL of the issuer's keys")
    return RemoteKeys(issuer.keys, log, timer)
