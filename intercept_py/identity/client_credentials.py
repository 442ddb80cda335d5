"""The proxy's own access token for a server: OAuth 2.0 client credentials (RFC 6749, section 4.4), renewed in time.

Below: `fetch`, `secret_source`. Above: the links to HTTP servers. What the proxy is given never goes to a client, and
what a client sends never comes here.
"""

from __future__ import annotations

__all__ = ["ClientCredentials", "Grant"]

import asyncio
import re
import time
from base64 import b64encode
from collections.abc import Callable
from typing import Final
from urllib.parse import quote_plus, urlencode

import msgspec

from intercept_py.errors import ProtocolError
from intercept_py.identity.faults import IdentityError
from intercept_py.identity.fetch import Answer, exchange
from intercept_py.identity.secret_source import read_secret
from intercept_py.identity.settings import check_scopes, check_url
from intercept_py.wire import codec

_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]{1,16384}=*")
_ERRORS: Final = frozenset(
    (
        "invalid_client",
        "invalid_grant",
        "invalid_request",
        "invalid_scope",
        "invalid_target",
        "unauthorized_client",
        "unsupported_grant_type",
    )
)
"""RFC 6749, section 5.2, and RFC 8707, section 2. Anything else that a server says is not repeated."""


class Grant(msgspec.Struct, frozen=True):
    """How to get tokens for one server.

    `secret` says where the client's secret is: `env:NAME` or `@FILE`. `resource`: the server's URL, for which the token
    shall be good (RFC 8707; MCP demands it, some issuers do not know it).
    """

    token_url: str
    client_id: str
    secret: str
    scopes: tuple[str, ...] = ()
    resource: str | None = None


class ClientCredentials:
    """Tokens of one grant. Many may ask at the same time; one request is made.

    A token is renewed when four fifths of its life are over, while it is still in use. The issuer is asked at most once
    in `PAUSE` seconds, also where a server takes none of its tokens. `log` takes a level and a line; `timer` tells
    seconds that only go forward. Raises `IdentityError` for a grant that cannot be used, as when its secret is not
    there.
    """

    PAUSE: Final = 2.0
    UNKNOWN_LIFE: Final = 300.0
    """Seconds for which a token is used whose issuer does not say how long it lives (`expires_in` is optional)."""

    def __init__(
        self, grant: Grant, log: Callable[[str, str], None], timer: Callable[[], float] = time.monotonic
    ) -> None:
        check_url(grant.token_url, "the token URL")
        check_scopes(grant.scopes)
        if not grant.client_id.isprintable() or not grant.client_id:
            raise IdentityError("the client id must be one line of text")
        read_secret(grant.secret)
        self._grant = grant
        self._log = log
        self._timer = timer
        self._token: str | None = None
        self._renew_at = self._ends_at = float("-inf")
        self._asked_at = float("-inf")
        self._problem = ""
        self._asking: asyncio.Task[None] | None = None

    async def authorization(self) -> str:
        """The value of the `Authorization` header. Raises `IdentityError`, without any secret, if there is no token."""
        asking = self._begin() if self._timer() >= self._renew_at else None
        token = self._current()
        if token is None and asking is not None:
            # Others wait for the same request: it must not end because one of them is not waited for any more.
            await asyncio.shield(asking)
            token = self._current()
        if token is None:
            raise IdentityError(f"no access token for the server from `{self._grant.token_url}`: {self._problem}")
        return f"Bearer {token}"

    def refused(self, authorization: str) -> None:
        """The server did not take this value (401): the next time another token is asked for."""
        if authorization == f"Bearer {self._token}":
            self._token, self._problem = None, "the server refused the last one"
            self._renew_at = float("-inf")

    async def close(self) -> None:
        """Stop asking."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait([self._asking])

    def _current(self) -> str | None:
        return self._token if self._timer() < self._ends_at else None

    def _begin(self) -> asyncio.Task[None] | None:
        """The request that is under way, a new one, or None if the last one was a moment ago."""
        if self._asking is None and self._timer() - self._asked_at >= self.PAUSE:
            self._asking = asyncio.get_running_loop().create_task(self._ask())
        return self._asking

    async def _ask(self) -> None:
        began = self._timer()
        try:
            self._token, life = await _request(self._grant)
            life = self.UNKNOWN_LIFE if life is None else life
            self._renew_at, self._ends_at = began + 0.8 * life, began + life
            self._problem = "the last one has expired"
        except IdentityError as exc:
            self._problem = str(exc)
            self._log("warn", f"no new access token from `{self._grant.token_url}`: {exc}")
        finally:
            self._asked_at = self._timer()
            self._asking = None


async def _request(grant: Grant) -> tuple[str, float | None]:
    """A token and the seconds that it lives, None if that is not said. Raises `IdentityError`."""
    form = {"grant_type": "client_credentials"}
    if grant.scopes:
        form["scope"] = " ".join(grant.scopes)
    if grant.resource is not None:
        form["resource"] = grant.resource
    # RFC 6749, section 2.3.1: both are encoded as in a form, since either may hold a colon.
    pair = f"{quote_plus(grant.client_id)}:{quote_plus(read_secret(grant.secret))}"
    headers = {
        "Accept": "application/json",
        "Authorization": f"Basic {b64encode(pair.encode()).decode()}",
        "Content-Type": "application/x-www-form-urlencoded",
    }
    return _read(await exchange("POST", grant.token_url, headers, urlencode(form).encode()))


def _read(answer: Answer) -> tuple[str, float | None]:
    """RFC 6749, sections 5.1 and 5.2."""
    try:
        said = codec.decode(answer.body)
    except ProtocolError:
        said = None
    if not isinstance(said, dict):
        raise IdentityError(f"the answer has status {answer.status} and is no JSON object")
    if answer.status != 200:
        error = said.get("error")
        told = f" and says `{error}`" if isinstance(error, str) and error in _ERRORS else ""
        raise IdentityError(f"the answer has status {answer.status}{told}")
    token, kind, life = said.get("access_token"), said.get("token_type"), said.get("expires_in")
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        raise IdentityError("the answer has no access token that could stand in a header")
    if not isinstance(kind, str) or kind.lower() != "bearer":
        raise IdentityError("the answer has a token that is no bearer token")
    return token, _seconds(life)


def _seconds(life: object) -> float | None:
    """`expires_in`, which some issuers write as a text."""
    if isinstance(life, str) and life.isascii() and life.isdecimal() and len(life) < 10:
        life = int(life)
    if life is None or (isinstance(life, int | float) and not isinstance(life, bool) and life > 0):
        return life
    raise IdentityError("the answer has an `expires_in` that is no number of seconds")
