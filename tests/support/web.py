"""HTTP clients for servers on this machine."""

from __future__ import annotations

import ssl
from typing import Any

import httpx2

_NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""A client makes a context of its own, with all authorities, which takes longer than most tests."""


def client(**options: Any) -> httpx2.AsyncClient:
    """A client for `http:`, which waits for 20 seconds at most."""
    return httpx2.AsyncClient(**{"timeout": 20, "verify": _NO_TLS, **options})


def post(url: str, **options: Any) -> httpx2.Response:
    """The answer to one POST."""
    return httpx2.post(url, verify=_NO_TLS, **options)
