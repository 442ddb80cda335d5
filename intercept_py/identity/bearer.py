"""The texts of bearer authentication: `Authorization` in, `WWW-Authenticate` and the metadata document out. Pure.

Sources: RFC 6750 (bearer tokens), RFC 9728 (protected resource metadata), MCP 2026-07-28 (authorization). Below:
`settings`. Above: `authenticator`.
"""

from __future__ import annotations

__all__ = ["Challenges", "metadata", "metadata_path", "token_of"]

import re
from typing import Final

import msgspec

from intercept_py.identity.settings import Settings, check_url

LONGEST: Final = 16 * 1024
"""Characters of a token; longer ones are no tokens to us."""
_WELL_KNOWN: Final = "/.well-known/oauth-protected-resource"
# RFC 6750, section 2.1: the scheme in any case (RFC 9110, 11.1), then `b64token`.
_BEARER: Final = re.compile(r"[Bb][Ee][Aa][Rr][Ee][Rr] +([A-Za-z0-9._~+/-]+=*)")
_SCHEME: Final = re.compile(r"bearer(?: |$)", re.IGNORECASE)


def token_of(authorization: str | None) -> str | None:
    """The token of an `Authorization` header; empty for a malformed one, None where no bearer token was sent at all."""
    if authorization is None or not _SCHEME.match(authorization):
        return None
    found = _BEARER.fullmatch(authorization)
    return found[1] if found is not None and len(found[1]) <= LONGEST else ""


class Challenges(msgspec.Struct, frozen=True):
    """The values of `WWW-Authenticate` of one resource.

    `missing`: no token was sent, so there is no `error` (RFC 6750, section 3.1). `invalid`: one was sent that is not
    good; all of them get the same answer. `insufficient`: a good one without the scopes, which is a 403.
    """

    missing: str
    invalid: str
    insufficient: str

    @classmethod
    def of(cls, settings: Settings) -> Challenges:
        """With a link to the metadata (RFC 9728, section 5.1) where there is an issuer that gives out tokens."""
        scope = f', scope="{" ".join(settings.scopes)}"' if settings.scopes else ""
        # The scheme needs a parameter (RFC 6750, section 3), and a client must not look for an issuer that is none.
        where = 'realm="mcp"'
        if settings.issuer is not None:
            parts = check_url(settings.resource, "the resource")
            where = f'resource_metadata="{parts.scheme}://{parts.netloc}{metadata_path(settings.resource)}"'
        return cls(
            missing=f"Bearer {where}{scope}",
            invalid=f'Bearer {where}{scope}, error="invalid_token"',
            insufficient=f'Bearer {where}{scope}, error="insufficient_scope"',
        )


def metadata_path(resource: str) -> str:
    """Where the metadata of a resource are: the well-known path goes between its host and its path (RFC 9728, 3.1)."""
    return _WELL_KNOWN + check_url(resource, "the resource").path.rstrip("/")


def metadata(settings: Settings) -> bytes | None:
    """The metadata document (RFC 9728, section 2) as JSON; None where there is no issuer to tell of."""
    if settings.issuer is None:
        return None
    document: dict[str, object] = {
        "resource": settings.resource,
        "authorization_servers": [settings.issuer.url],
        "bearer_methods_supported": ["header"],
    }
    if settings.scopes:
        document["scopes_supported"] = list(settings.scopes)
    return msgspec.json.encode(document)
