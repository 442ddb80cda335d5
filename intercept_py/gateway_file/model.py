"""What a gateway file says, checked: immutable, with absolute paths, and without any secret.

Above: every module of the package.
"""

from __future__ import annotations

__all__ = ["Auth", "Command", "Gateway", "Issuer", "OAuth", "Reference", "Remote", "Server", "Value", "Values"]

from collections.abc import Mapping
from typing import TypeAlias

import msgspec

from intercept_py.errors import Problem


class Reference(msgspec.Struct, frozen=True):
    """Something that the file names and that is somewhere else, with the place where it is named.

    `target` is an absolute path, a program, a URL; or leads to a secret: `env:NAME`, or `@` and an absolute path.
    """

    target: str
    line: int
    column: int
    path: str

    def problem(self, file: str, message: str) -> Problem:
        """That what is named cannot be used."""
        return Problem(file, self.line, self.column, self.path, message)


class Value(msgspec.Struct, frozen=True):
    """A text, and behind it what `secret` leads to: `Bearer env:TOKEN` is the text `Bearer ` and a reference."""

    text: str
    secret: Reference | None = None


Values: TypeAlias = Mapping[str, Value]


class Command(msgspec.Struct, frozen=True):
    """A server that is started: its words, the place of the first, and what its environment has besides ours."""

    words: tuple[str, ...]
    program: Reference
    environment: Values


class OAuth(msgspec.Struct, frozen=True):
    """Where the proxy gets its own access tokens for a server (RFC 6749, section 4.4)."""

    token_url: str
    client_id: str
    client_secret: Reference
    scopes: tuple[str, ...] = ()


class Remote(msgspec.Struct, frozen=True):
    """A server that is there already. `sse`: it speaks HTTP+SSE (MCP 2024-11-05)."""

    url: str
    sse: bool
    headers: Values
    oauth: OAuth | None


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """One server. `scopes` are demanded of its callers besides those of `Auth`; times in seconds.

    `max_sessions`: None for the number that fits this kind of server.
    """

    name: str
    policy: Reference
    upstream: Command | Remote
    scopes: tuple[str, ...]
    max_sessions: int | None
    session_idle: float
    timeout: float


class Issuer(msgspec.Struct, frozen=True):
    """Whose access tokens are accepted; `keys` is a URL or a path. See `identity.Issuer`."""

    url: str
    keys: Reference
    audience: str | None
    untyped: bool


class Auth(msgspec.Struct, frozen=True):
    """Who may call: bearers of tokens in a file, of an issuer's, or of either."""

    tokens: Reference | None
    issuer: Issuer | None
    scopes: tuple[str, ...]


class Gateway(msgspec.Struct, frozen=True, kw_only=True):
    """The whole file. `audit` and `state`: None for those of `run`. `auth`: None if everybody on this machine may call.

    `allow_hosts` has the host of `public_url` as well.
    """

    source: str
    host: str
    port: int
    public_url: str | None
    allow_hosts: tuple[str, ...]
    allow_origins: tuple[str, ...]
    auth: Auth | None
    audit: Reference | None
    state: Reference | None
    state_prefix: str
    fail_open: bool
    max_message_bytes: int
    servers: tuple[Server, ...]

    def endpoint(self, server: Server) -> str:
        """The URL of the server as its clients see it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.public_url or f'http://{host}:{self.port}'}/{server.name}/mcp"
