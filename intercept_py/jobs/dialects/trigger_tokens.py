"""The bearer tokens of Trigger.dev's API: a person's, of any value, and the short-lived ones that are made of it.

This is no protection from people: there are no accounts, and whoever can reach the address can ask for a token. It
keeps a request to what its client meant: where a run id turns the path into another route, its token does not reach it.

Above: `rest_trigger`.
"""

from __future__ import annotations

__all__ = ["Tokens"]

import base64
import hmac
import json
import re
import secrets
import time

import msgspec

_PERSONAL = re.compile(r"Bearer tr_pat_[0-9A-Za-z_-]{1,200}")
_HEADER = '{"alg":"HS256","typ":"JWT"}'
_LIFETIME = 3600


class _Claims(msgspec.Struct):
    environment: str
    scopes: list[str]
    exp: float


class Tokens:
    """Issues tokens and reads them back; those of another instance mean nothing."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)

    def is_personal(self, authorization: str) -> bool:
        """Whether the header holds a personal access token."""
        return _PERSONAL.fullmatch(authorization) is not None

    def issue(self, environment: str, scopes: list[str]) -> str:
        """A JSON Web Token for one environment, good for an hour."""
        claims = {"environment": environment, "scopes": scopes, "exp": time.time() + _LIFETIME}
        signed = f"{_encode(_HEADER.encode())}.{_encode(json.dumps(claims).encode())}"
        return f"{signed}.{self._sign(signed)}"

    def environment(self, authorization: str, scope: str) -> str | None:
        """The token's environment if it is one of ours and reaches `scope`, `""` if it does not reach it, else None.

        A token for `write:tasks` reaches `write:tasks:sleep`, and one for `trigger:tasks:sleep` does too.
        """
        signed, _, signature = authorization.removeprefix("Bearer ").rpartition(".")
        if not hmac.compare_digest(signature.encode(), self._sign(signed).encode()):
            return None
        claims = msgspec.json.decode(_decode(signed.partition(".")[2]), type=_Claims)
        if claims.exp < time.time():
            return None
        action, resource, *_ = scope.split(":")
        allowed = {scope, f"{action}:{resource}", scope.replace("write:tasks:", "trigger:tasks:")}
        return claims.environment if allowed & set(claims.scopes) else ""

    def _sign(self, text: str) -> str:
        return _encode(hmac.digest(self._key, text.encode(), "sha256"))


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
