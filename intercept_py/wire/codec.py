"""Strict JSON in, canonical JSON out (security rule 1): the only place where bytes become values and back.

What comes from the client is decoded completely and checked, so that every parser that reads the canonical encoding
reads the value that was judged. What comes from the server is only taken apart (`Envelope`): its payload stays the
bytes it was, because the proxy adds nothing to the trust a client already puts into its server.
"""

from __future__ import annotations

__all__ = [
    "INVALID_PARAMS",
    "INVALID_REQUEST",
    "MAX_DEPTH",
    "PARSE_ERROR",
    "Envelope",
    "decode",
    "decode_call",
    "decode_envelope",
    "decode_payload",
    "encode",
    "fold",
    "guess_id",
    "peek_id",
]

import re
from unicodedata import normalize

import msgspec

from intercept_py.errors import ProtocolError
from intercept_py.model import Json, RequestId

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
INVALID_PARAMS = -32602
"""JSON-RPC 2.0, section 5.1."""

MAX_DEPTH = 64
_MAX_SAFE_INTEGER = 2**53 - 1

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_ID_FIRST = re.compile(rb'\s*\{\s*(?:"jsonrpc"\s*:\s*"2\.0"\s*,\s*)?"id"\s*:\s*(\d{1,15})\s*[,}]')
_ID_LAST = re.compile(rb',\s*"id"\s*:\s*(\d{1,15})\s*(?:,\s*"jsonrpc"\s*:\s*"2\.0"\s*)?\}\s*\Z')
_NOT_ASCII = re.compile(r"[^\x00-\x7e]")


class Envelope(msgspec.Struct):
    """A message from the server, taken apart. A member that is absent is UNSET, or empty (`bytes(raw) == b""`)."""

    id: int | str | msgspec.UnsetType | None = msgspec.UNSET
    method: str | msgspec.UnsetType = msgspec.UNSET
    params: msgspec.Raw = msgspec.Raw()
    result: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()


_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode
_MANY_DIGITS = b"0" * 16
"""No integer with fewer digits lies beyond ±(2^53-1)."""
_STRANGE = b"\\\x7f" + bytes(range(0x80, 0x100))
_KINDS = bytes.maketrans(b"123456789[" + _STRANGE, b"000000000{" + b"\\" * len(_STRANGE))
"""One byte for all of a kind that `_is_plain` looks for: digits, what opens a node, what may be in a bad key."""
_BACKSLASH, _DELETE = b"\\\x7f"  # as integers: before it looks for bytes in bytes, CPython makes and drops a TypeError
_decode_envelope = msgspec.json.Decoder(Envelope).decode


def decode(line: bytes) -> Json:
    """Decode one message from the client, or raise `ProtocolError`: -32700, or -32600 for what only JSON allows.

    Refused beyond RFC 8259: BOM, invalid UTF-8, lone surrogates, NaN and Infinity, numbers outside a double, nesting
    over `MAX_DEPTH`, duplicate keys however they are written, control characters in keys, anything after the first
    value.
    """
    return decode_call(line)[0]


def decode_call(line: bytes) -> tuple[Json, bool]:
    """As `decode`, and whether an integer lies beyond ±(2^53-1), which doubles cannot keep (RFC 8259, section 6)."""
    try:
        value = _decode(line)
    except RecursionError:
        raise ProtocolError(INVALID_REQUEST, f"message is nested deeper than {MAX_DEPTH} levels") from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
        raise ProtocolError(PARSE_ERROR, f"message is not JSON in UTF-8: {_why(exc)}") from None
    if _encode(value) == line and _is_plain(line):
        return value, False
    keys, nodes, large = _inspect(value)
    # Each key brings one colon of its own: more keys than colons cannot be, more colons are strings or lost duplicates.
    if line.count(b":") != keys and _STRING.sub(b"", line).count(b":") != keys:
        raise ProtocolError(INVALID_REQUEST, "message has an object with a duplicate key")
    if nodes > MAX_DEPTH:
        _check_depth(value)
    if _BACKSLASH in line or _DELETE in line or not line.isascii():
        _check_keys(value)
    return value, large


def _is_plain(line: bytes) -> bool:
    """Whether a line that its value encodes to, which has no duplicate keys therefore, has nothing else to look for."""
    kinds = line.translate(_KINDS)
    return _BACKSLASH not in kinds and kinds.count(b"{") <= MAX_DEPTH and kinds.find(_MANY_DIGITS) < 0


def _why(exc: Exception) -> str:
    """The decoder's own reason on one line; for bad UTF-8 a short one that does not repeat the bytes."""
    return "invalid UTF-8" if isinstance(exc, UnicodeDecodeError) else str(exc).splitlines()[0]


def _inspect(value: Json) -> tuple[int, int, bool]:
    """The numbers of object keys, and of objects and arrays; whether an integer is one that doubles cannot keep."""
    keys = 0
    large = False
    nodes = [value]
    for node in nodes:  # which grows meanwhile
        if type(node) is dict:
            keys += len(node)
            node = node.values()
        elif type(node) is not list:
            node = (node,)
        for child in node:
            kind = type(child)
            if kind is dict or kind is list:
                nodes.append(child)
            elif kind is int and not -_MAX_SAFE_INTEGER <= child <= _MAX_SAFE_INTEGER:
                large = True
    return keys, len(nodes), large


def _check_depth(value: Json) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [child for node in level for child in _children(node) if type(child) in (dict, list)]
    if level:
        raise ProtocolError(INVALID_REQUEST, f"message is nested deeper than {MAX_DEPTH} levels")


def _check_keys(value: Json) -> None:
    nodes = [value]
    for node in nodes:
        if type(node) is dict and any(not key.isidentifier() and _CONTROL.search(key) for key in node):
            raise ProtocolError(INVALID_REQUEST, "message has a control character in an object key")
        nodes += _children(node)


def _children(node: Json) -> list[Json]:
    return list(node.values()) if type(node) is dict else node if type(node) is list else []


def encode(value: Json) -> bytes:
    """The canonical encoding: pure ASCII, one line, no insignificant white space, shortest numbers that round-trip.

    Floats must be finite, as decoded ones are. U+007F and everything beyond ASCII is escaped, so that no reader finds a
    line end (U+0085, U+2028) or another encoding in it.
    """
    data: bytes = _encode(value)
    if data.isascii() and _DELETE not in data:
        return data
    return _NOT_ASCII.sub(_escape, data.decode()).encode("ascii")


def _escape(match: re.Match[str]) -> str:
    """`\\uXXXX`, twice (a surrogate pair, RFC 8259 section 7) for a character beyond the basic plane."""
    units = match[0].encode("utf-16-be")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))


def decode_envelope(line: bytes) -> Envelope:
    """Take a message from the server apart; raise `ProtocolError` when it is no JSON object or its id is no id.

    The payload is checked to be JSON but stays encoded. Members that JSON-RPC does not define are dropped.
    """
    try:
        if not line.isascii():
            line.decode()
        return _decode_envelope(line)
    except RecursionError:
        raise ProtocolError(INVALID_REQUEST, "message is nested too deeply") from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
        raise ProtocolError(PARSE_ERROR, f"not a JSON-RPC message: {_why(exc)}") from None


def decode_payload(payload: bytes) -> Json:
    """Decode a part of a message from the server; raise `ProtocolError` when a parser could not agree on its value."""
    try:
        return _decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise ProtocolError(PARSE_ERROR, f"its payload is not JSON: {_why(exc)}") from None


def peek_id(line: bytes) -> RequestId | None:
    """The id under which a request that may not be relayed can be answered; None when it has none that is certain."""
    try:
        envelope = _decode_envelope(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    if envelope.method is msgspec.UNSET or envelope.id is msgspec.UNSET or line.count(b'"id"') != 1:
        return None
    return envelope.id


def guess_id(line: bytes) -> int | None:
    """The id at the very beginning or end of an unreadable response, where it can only be the response's own."""
    match = _ID_FIRST.match(line) or _ID_LAST.search(line)
    return int(match[1]) if match else None


def fold(key: str) -> str:
    """The spelling under which a lenient parser could take one key for another: NFKC, then case folding."""
    return key.lower() if key.isascii() else normalize("NFKC", normalize("NFKC", key).casefold())
