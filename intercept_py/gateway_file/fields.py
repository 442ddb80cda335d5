"""The language of gateway files as one table, like `policy.schema`. A row is a field; nothing else knows which exist.

Messages take their suggestions from it, and a test compares the table in `docs/gateway.md` with it.
"""

from __future__ import annotations

__all__ = ["FIELDS", "FIELDS_OF", "PLACES", "Field"]

from collections.abc import Mapping
from typing import Final

import msgspec


class Field(msgspec.Struct, frozen=True):
    """One field: where it stands, what it takes (for people), what it means when omitted."""

    where: str
    name: str
    values: str
    default: str
    meaning: str
    choices: tuple[str, ...] = ()

    @property
    def required(self) -> bool:
        """Whether a mapping without it is a mistake."""
        return self.default == "required"


PLACES: Final[Mapping[str, str]] = {
    "gateway": "the gateway",
    "server": "a server",
    "oauth": "`oauth`",
    "auth": "`auth`",
    "issuer": "`issuer`",
}
"""What messages call the mappings of the language, in the order of `FIELDS`."""

_SPAN: Final = "seconds, or a span such as `90s`, `5m`, `2h`, `1d`"
_SCOPES: Final = "a list of scopes"

FIELDS: Final = (
    Field("gateway", "version", 'the text `"1"`', '`"1"`', "version of this language"),
    Field("gateway", "listen", "HOST:PORT", "`127.0.0.1:8000`", "where clients connect; port 0 takes a free one"),
    Field(
        "gateway", "servers", "a mapping from names to servers", "required",
        "the server NAME answers at `/NAME/mcp`, and NAME is its name in records and counters",
    ),
    Field(
        "gateway", "auth", "a mapping that says who may call", "everybody on this machine",
        "required where others can reach the gateway",
    ),
    Field(
        "gateway", "public_url", "an `https` URL", "that of `listen`",
        "the gateway's URL as clients see it, before `/NAME/mcp`; required where others can reach the gateway",
    ),
    Field("gateway", "allow_hosts", "a list of host names", "that of `public_url`", "further names to answer to"),
    Field(
        "gateway", "allow_origins", "a list of origins such as `https://app.example.com`", "none",
        "web pages that may call and read the answers (CORS)",
    ),
    Field(
        "gateway", "audit", "a file", "one a day in the user's state directory",
        "the audit file; a decision names its server, an outcome has the `id` of its decision",
    ),
    Field(
        "gateway", "state", 'a URL, `env:NAME` or `"@FILE"`', "as for `run`",
        "where limits are counted: `memory://`, `sqlite:///FILE`, `redis://HOST`",
    ),
    Field("gateway", "state_prefix", "text", "none", "put in front of every counter's name"),
    Field(
        "gateway", "state_fail_mode", "`closed` or `open`", "`closed`",
        "what becomes of calls while limits cannot be checked, where a policy does not say",
        ("closed", "open"),
    ),
    Field(
        "gateway", "max_message_bytes", "a whole number from 65536 to 1073741824", "10 MiB",
        "the longest message that is relayed",
    ),
    Field("server", "policy", "a file", "required", "its policy, watched for changes"),
    Field("server", "command", "a list of words", "this or `url`", "the program that is the server, and its arguments"),
    Field(
        "server", "env", "a mapping from names to text", "none",
        'what its environment has besides the gateway\'s own; secrets as `env:NAME` or `"@FILE"`',
    ),
    Field("server", "url", "a URL", "this or `command`", "where the server answers"),
    Field(
        "server", "transport", "`http` or `sse`", "`http`",
        "`http`: Streamable HTTP; `sse`: HTTP+SSE (MCP 2024-11-05)", ("http", "sse"),
    ),
    Field(
        "server", "headers", "a mapping from names to text", "none",
        'what every request to `url` carries; secrets as `env:NAME`, `Bearer env:NAME` or `"@FILE"`',
    ),
    Field("server", "oauth", "a mapping", "none", "get access tokens for `url` (OAuth 2.0 client credentials)"),
    Field("server", "scopes", _SCOPES, "none", "what callers of this server must have, besides `auth.scopes`"),
    Field(
        "server", "max_sessions", "a whole number from 1 to 100000", "64 with `command`, 10000 with `url`",
        "sessions at a time; each of them is a process with `command`",
    ),
    Field("server", "session_idle", _SPAN, "`30m`", "how long a session may be idle"),
    Field("server", "timeout", _SPAN, "`5m`", "how long the server may take to answer; 0: for ever"),
    Field("oauth", "token_url", "a URL", "required", "where tokens are asked for"),
    Field("oauth", "client_id", "text", "required", "as whom"),
    Field("oauth", "client_secret", '`env:NAME` or `"@FILE"`', "required", "proved how"),
    Field("oauth", "scopes", _SCOPES, "none", "for which scopes"),
    Field("auth", "tokens", "a file", "this or `issuer`", "tokens made by `intercept-py tokens`"),
    Field("auth", "issuer", "a mapping", "this or `tokens`", "whose access tokens (JWT) are accepted"),
    Field("auth", "scopes", _SCOPES, "none", "what every caller must have"),
    Field("issuer", "url", "a URL", "required", "what `iss` must be, letter by letter"),
    Field("issuer", "jwks", "a URL or a file", "required", "the issuer's keys"),
    Field("issuer", "audience", "text", "the URL of the endpoint", "what `aud` must name"),
    Field(
        "issuer", "untyped", "true or false", "false",
        "accept tokens whose `typ` is `JWT` or missing, not only `at+jwt` (RFC 9068)",
    ),
)  # fmt: skip

FIELDS_OF: Final[Mapping[str, Mapping[str, Field]]] = {
    where: {field.name: field for field in FIELDS if field.where == where} for where in PLACES
}
