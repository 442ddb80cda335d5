"""What a proxy is told so that it gets tokens of its own for a server: options, which whoever sets it up looks up once.

Below: urllib. Above: the client that the suite checks.
"""

from __future__ import annotations

__all__ = ["options"]

import json
import os
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit


def options(url: str, client_id: str, client_secret: str, folder: Path) -> list[str]:
    """For the server at `url` and these credentials. The secret goes into a file in `folder`."""
    issuer = _metadata(url, "oauth-protected-resource")["authorization_servers"][0]
    token_url = _metadata(issuer, "oauth-authorization-server")["token_endpoint"]
    secret = folder / "client-secret"
    secret.touch(mode=0o600)
    secret.write_text(client_secret)
    named = {"token-url": token_url, "client-id": client_id, "client-secret": f"@{os.fspath(secret)}"}
    return [word for name, value in named.items() for word in (f"--oauth-{name}", value)]


def _metadata(url: str, kind: str) -> dict[str, Any]:
    """The document of RFC 9728 (protected resources) or RFC 8414 (authorization servers) about what is at `url`."""
    parts = urlsplit(url)
    where = parts._replace(path=f"/.well-known/{kind}{parts.path.rstrip('/')}").geturl()
    with urllib.request.urlopen(where, timeout=10) as answer:
        document: dict[str, Any] = json.load(answer)
        return document
