"""What the bodies and header fields of a server's HTTP answers say. Nothing of it is trusted. No I/O.

Below: `wire.codec`. Above: `link_requests`.
"""

from __future__ import annotations

__all__ = [
    "EVENTS",
    "JSON",
    "agreed_version",
    "as_error",
    "id_answered",
    "is_encoded",
    "is_session",
    "media_type",
    "one_line",
    "refusal",
    "shown",
]

import re

import msgspec

from intercept_py.errors import ProtocolError
from intercept_py.model import RequestId
from intercept_py.wire import codec, messages

JSON = b"application/json"
EVENTS = b"text/event-stream"

_SESSION = re.compile(rb"[\x21-\x7e]{1,1024}")  # MCP 2025-11-25, session management; the length is ours
_MEDIA_TYPE = re.compile(r"[\w!#$&^.+-]{1,64}/[\w!#$&^.+-]{1,64}", re.ASCII)
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class _Head(msgspec.Struct):
    id: int | str | msgspec.UnsetType | None = msgspec.UNSET
    method: msgspec.Raw = msgspec.Raw()


class _Result(msgspec.Struct):
    protocolVersion: str  # noqa: N815 - the wire's spelling


class _Handshake(msgspec.Struct):
    result: _Result


class _Error(msgspec.Struct):
    code: int
    message: str
    data: msgspec.Raw = msgspec.Raw()


class _Refusal(msgspec.Struct):
    error: _Error


_decode_head = msgspec.json.Decoder(_Head).decode
_decode_handshake = msgspec.json.Decoder(_Handshake).decode
_decode_refusal = msgspec.json.Decoder(_Refusal).decode


def id_answered(line: bytes) -> RequestId | None:
    """The id of the request that a message answers, None for one that is no answer."""
    try:
        head = _decode_head(line)
    except _UNREADABLE:
        return None
    return None if bytes(head.method) or head.id is msgspec.UNSET else head.id


def agreed_version(line: bytes) -> str | None:
    """The protocol version in the answer to `initialize`, None if it has none."""
    try:
        return _decode_handshake(line).result.protocolVersion
    except _UNREADABLE:
        return None


def as_error(body: bytes) -> bytes:
    """The JSON-RPC error in the body of a refusal, in our encoding and without an id; empty if it is something else."""
    try:
        error = _decode_refusal(body).error
        data = codec.decode_payload(bytes(error.data)) if bytes(error.data) else None
    except (*_UNREADABLE, ProtocolError):
        return b""
    return messages.error(None, error.code, error.message, data)


def one_line(data: bytes) -> bytes:
    """In JSON a line feed is white space, but in what is relayed it would end a message."""
    return data.replace(b"\n", b" ")


def media_type(fields: dict[bytes, bytes]) -> bytes:
    """The type in `Content-Type`, in lower case and without parameters; empty without one."""
    kind = fields.get(b"content-type", b"")
    return kind if kind == JSON else kind.partition(b";")[0].strip().lower()


def shown(kind: bytes) -> str:
    """A media type for a person to read."""
    text = kind.decode("latin-1")
    return f"`{text}`" if _MEDIA_TYPE.fullmatch(text) else "something else"


def is_encoded(fields: dict[bytes, bytes]) -> bool:
    """Whether the body is compressed, or otherwise not what it stands for."""
    return fields.get(b"content-encoding", b"identity").lower() not in (b"identity", b"")


def is_session(value: bytes) -> bool:
    """Whether a value may be a session's id."""
    return _SESSION.fullmatch(value) is not None


def refusal(status: int) -> str:
    """What a status of 300 or more means, for the client."""
    if status in (401, 403, 407):
        return f"the server does not accept the proxy's credentials (HTTP status {status})"
    if status < 400:
        return f"the server redirects (HTTP status {status}): give its final URL to the proxy"
    return f"the server answered with HTTP status {status}"
