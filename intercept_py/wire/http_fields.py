"""The HTTP header fields that repeat parts of a message: built from it, and checked against it.

Servers and everything on the way route by these fields, so that one which contradicts the body would show them another
call than the one that was judged (security rule 2). Sources: MCP 2026-07-28, streamable HTTP, request metadata;
SEP-2663 for `tasks/*`; MCP 2025-06-18 to 2025-11-25, transports, protocol version header.

Pure. Below: `messages`, `http_params`. Above: `transports.http_link` builds, `transports.http_server` checks.
"""

from __future__ import annotations

__all__ = [
    "LEGACY_VERSIONS",
    "Fields",
    "decode_value",
    "disagreement",
    "encode_value",
    "incomparable",
    "is_modern",
    "outbound_fields",
    "trace_fields",
    "version_field",
    "version_of",
]

import binascii
import re
from base64 import b64decode, b64encode
from collections.abc import Iterable
from typing import TypeAlias

from intercept_py.model import Json, JsonObject
from intercept_py.wire.http_params import Mirror, render, value_at
from intercept_py.wire.messages import PROTOCOL_VERSION_KEY

Fields: TypeAlias = Iterable[tuple[bytes, bytes]]
"""Header fields as ASGI has them: names in lower case, values without the white space around them."""

LEGACY_VERSIONS = frozenset({"2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"})
"""The revisions that begin with `initialize`. A header with any other version is of the modern era."""

_VERSION = b"mcp-protocol-version"
_METHOD = b"mcp-method"
_NAME = b"mcp-name"
_PARAM = b"mcp-param-"

_NAMED = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
_TASKS = ("tasks/get", "tasks/update", "tasks/cancel", "tasks/result")
_NAME_KEYS = _NAMED | dict.fromkeys(_TASKS, "taskId")
"""The member of `params` that `Mcp-Name` repeats. SDKs know nothing of tasks, so that theirs may be missing."""

_DECIMAL = re.compile(r"(-?[0-9]+)(\.0+)?")
_OPEN, _CLOSE = "=?base64?", "?="


def version_of(params: JsonObject) -> Json:
    """The modern version that a message names in its `_meta`; None for a legacy message. No string if it is wrong."""
    meta = params.get("_meta")
    return meta.get(PROTOCOL_VERSION_KEY) if type(meta) is dict else None


def is_modern(version: str | None) -> bool:
    """Whether a version header belongs to the modern era, be it a version that nobody knows."""
    return version is not None and version not in LEGACY_VERSIONS


def version_field(fields: Fields) -> str | None:
    """The `MCP-Protocol-Version` of a request; None when it has none."""
    for name, value in fields:
        if name == _VERSION:
            return value.decode("latin-1")
    return None


# ---- values


def encode_value(text: str) -> bytes:
    """A field value that stands for the text, wrapped in `=?base64?...?=` where plain ASCII would not survive."""
    if text.isascii() and text.isprintable() and text.strip(" ") == text and not _is_wrapped(text):
        return text.encode("ascii")
    return b"=?base64?%b?=" % b64encode(text.encode("utf-8"))


def _is_wrapped(text: str) -> bool:
    return text.startswith(_OPEN) and text.endswith(_CLOSE) and len(text) >= len(_OPEN) + len(_CLOSE)


def decode_value(value: bytes) -> str | None:
    """What a field value stands for; None when it stands for nothing (not ASCII, or base64 that is not canonical)."""
    try:
        text = value.decode("ascii")
        if not _is_wrapped(text):
            return text if text.isprintable() or text.replace("\t", " ").isprintable() else None
        payload = value[len(_OPEN) : -len(_CLOSE)]
        decoded = b64decode(payload, validate=True)
        return decoded.decode("utf-8") if b64encode(decoded) == payload else None
    except (UnicodeDecodeError, binascii.Error):
        return None


# ---- building


def outbound_fields(
    method: str | None, params: JsonObject, version: str | None, mirrors: tuple[Mirror, ...] = ()
) -> list[tuple[bytes, bytes]]:
    """The fields with which a message goes to a server.

    A modern message has its version in `params`. `version` is what a legacy session agreed on: None before that, and in
    `initialize`. `mirrors`: the arguments that fields repeat, where a tool is called.
    """
    modern = version_of(params)
    if type(modern) is not str:
        return [] if version is None else [(b"MCP-Protocol-Version", encode_value(version))]
    fields = [(b"MCP-Protocol-Version", encode_value(modern))]
    if method is None:
        return fields
    fields.append((b"Mcp-Method", encode_value(method)))
    key = _NAME_KEYS.get(method)
    name = None if key is None else params.get(key)
    if type(name) is str:
        fields.append((b"Mcp-Name", encode_value(name)))
    for mirror in mirrors:
        text = render(value_at(params.get("arguments"), mirror.path))
        if text is not None:
            fields.append((mirror.field, encode_value(text)))
    return fields


_TRACE_PARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_TRACE_STATE = re.compile(r"[\x20-\x7e]{1,512}")


def trace_fields(parent: str | None, state: str | None) -> list[tuple[bytes, bytes]]:
    """The header fields of a trace context; none where it is not sound (W3C Trace Context, sections 3.2 and 3.3)."""
    if parent is None or not _TRACE_PARENT.fullmatch(parent):
        return []
    fields = [(b"traceparent", parent.encode("ascii"))]
    if state is not None and _TRACE_STATE.fullmatch(state):
        fields.append((b"tracestate", state.encode("ascii")))
    return fields


# ---- checking


def disagreement(fields: Fields, message: Json, mirrors: tuple[Mirror, ...] = ()) -> str | None:
    """What the fields of a request and the message in its body say differently; None when they agree.

    For HTTP 400 with `HEADER_MISMATCH` (MCP 2026-07-28). A modern request must have the fields; those of any other
    message may be absent, but what is there must be true (ours: others may have routed by it). `mirrors` as in
    `outbound_fields`. What is no request at all agrees with everything: it is refused for that.
    """
    told: dict[bytes, bytes] = {}
    for name, value in fields:
        if name.startswith(b"mcp-"):
            if name in told:
                return f"the {name.decode('latin-1')} header appears more than once"
            told[name] = value
    if type(message) is not dict:
        return None
    method, params = message.get("method"), message.get("params")
    if type(params) is not dict:
        params = {}
    version = version_of(params)
    if version is not None and (_VERSION not in told or told[_VERSION] != _literal(version)):
        return "the mcp-protocol-version header does not match the protocol version in `params._meta`"
    required = version is not None and "id" in message
    if type(method) is str:
        return _method_disagreement(told, method, params, required) or _param_disagreement(
            told, params.get("arguments"), mirrors, required
        )
    return None


def incomparable(fields: Fields) -> str | None:
    """What the fields of a call say that could be told from its arguments only if the tool's schema were known."""
    for name, _ in fields:
        if name.startswith(_PARAM):
            return f"the {name.decode('latin-1')} header cannot be compared: the server does not list its tools"
    return None


def _literal(text: Json) -> bytes | None:
    """A value that is compared as it stands: versions and methods are never wrapped."""
    return text.encode("utf-8", "surrogatepass") if type(text) is str else None


def _method_disagreement(told: dict[bytes, bytes], method: str, params: JsonObject, required: bool) -> str | None:
    field = told.get(_METHOD)
    if field != _literal(method) and (required or field is not None):
        return "the mcp-method header does not match the method in the body"
    key = _NAME_KEYS.get(method)
    name = None if key is None else params.get(key)
    if name is None:
        return None
    field = told.get(_NAME)
    if field is None:
        missing = required and method in _NAMED
        return f"the mcp-name header is missing: `{method}` names `params.{key}` there" if missing else None
    if decode_value(field) != name:
        return f"the mcp-name header does not match `params.{key}` in the body"
    return None


def _param_disagreement(
    told: dict[bytes, bytes], arguments: Json, mirrors: tuple[Mirror, ...], required: bool
) -> str | None:
    for mirror in mirrors:
        field = told.get(mirror.lower)
        value = value_at(arguments, mirror.path)
        text = render(value)
        shown = mirror.lower.decode("ascii")
        if field is None:
            if text is not None and required:
                return f"the {shown} header is missing, but the body has the argument that it repeats"
        elif text is None or not _is_same(decode_value(field), text, value, mirror.integer):
            return f"the {shown} header does not match its argument in the body"
    return None


def _is_same(told: str | None, text: str, value: Json, integer: bool) -> bool:
    """Integers are compared as numbers, exactly: `42.0` is 42 (MCP 2026-07-28, server validation)."""
    if told == text:
        return True
    if told is None or not integer or type(value) not in (int, float) or value != value // 1:
        return False
    number = _DECIMAL.fullmatch(told)
    try:
        return number is not None and int(number[1]) == value
    except ValueError:  # more digits than Python reads
        return False
