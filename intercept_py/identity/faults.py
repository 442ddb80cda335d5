"""The faults of this package that somebody catches.

    IdentityError    settings, a file or a remote service by which callers are known cannot be used
    Unauthorized     a request that may not go on; carries the answer to it
    TokenError       a token that is not good; only the `Authenticator` sees it

Above: every module of the package.
"""

from __future__ import annotations

__all__ = ["IdentityError", "TokenError", "Unauthorized"]

from intercept_py.errors import InterceptError


class IdentityError(InterceptError):
    """What callers are known by cannot be used; `str()` is one line for a person, without secrets."""


class TokenError(Exception):
    """A token that is not good. `reason` is one line for our own log; it never goes to the caller."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Unauthorized(Exception):  # noqa: N818 - RFC 9110's name for it, and no error of ours
    """A request without the right to go on: answer `status` (401 or 403) with `WWW-Authenticate: <challenge>`.

    `reason` is for our own log. `str()` has nothing of it, so that it cannot reach the caller by accident.
    """

    def __init__(self, challenge: str, status: int = 401, reason: str = "") -> None:
        super().__init__("the request is not authorized")
        self.challenge = challenge
        self.status = status
        self.reason = reason
