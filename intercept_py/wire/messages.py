"""The JSON-RPC messages the relay knows: their names, their checked shapes, and the answers the proxy itself gives.

Pure. Below: `codec`. Above: `relay`. Sources: JSON-RPC 2.0; MCP 2024-11-05 to 2025-11-25 ("legacy") and 2026-07-28
("modern").
"""

from __future__ import annotations

__all__ = [
    "CACHE_SCOPE",
    "DECISION_KEY",
    "DENIED",
    "DENIED_CODE",
    "HEADER_MISMATCH",
    "INTERNAL_ERROR",
    "KNOWN_METHODS",
    "PROTOCOL_VERSION_KEY",
    "SUBSCRIPTION_KEY",
    "Arrival",
    "Denial",
    "Incoming",
    "denial_text",
    "error",
    "is_id",
    "is_method",
    "modern_envelope",
    "parse_client",
    "refusal",
    "response",
]

from collections.abc import Sequence
from typing import final

import msgspec

from intercept_py.errors import ProtocolError
from intercept_py.model import Json, JsonObject, RequestId
from intercept_py.wire import codec
from intercept_py.wire.codec import INVALID_PARAMS, INVALID_REQUEST

INTERNAL_ERROR = -32603
HEADER_MISMATCH = -32020
"""An HTTP request whose head and body disagree (MCP 2026-07-28, streamable HTTP)."""
DENIED_CODE = -31403
"""Our own code for a refused method; MCP 2026-07-28 keeps -32768..-32000 for itself (basic/index, error codes)."""
DENIED = "[INTERCEPT POLICY DENIED]"
DECISION_KEY = "dev.intercept-py/decision"
PROTOCOL_VERSION_KEY = "io.modelcontextprotocol/protocolVersion"
"""Its presence in `params._meta` makes a message modern (MCP 2026-07-28, basic/index, `_meta`)."""
SUBSCRIPTION_KEY = "io.modelcontextprotocol/subscriptionId"
CACHE_SCOPE = "cacheScope"

_META_PREFIX = "io.modelcontextprotocol/"
_MAX_ID_LENGTH = 1024
_MAX_METHOD_LENGTH = 256
_MAX_SAFE_INTEGER = 2**53 - 1

KNOWN_METHODS = frozenset(
    {
        "completion/complete", "initialize", "logging/setLevel", "ping", "prompts/get", "prompts/list",
        "resources/list", "resources/read", "resources/subscribe", "resources/templates/list",
        "resources/unsubscribe", "server/discover", "subscriptions/listen", "tools/call", "tools/list", "tasks/get",
        "tasks/list", "tasks/result", "tasks/cancel", "tasks/update", "notifications/cancelled",
        "notifications/initialized", "notifications/progress", "notifications/roots/list_changed",
        "elicitation/create", "roots/list", "sampling/createMessage", "notifications/elicitation/complete",
        "notifications/message", "notifications/prompts/list_changed", "notifications/resources/list_changed",
        "notifications/resources/updated", "notifications/subscriptions/acknowledged", "notifications/tasks/status",
        "notifications/tools/list_changed",
    }
)  # fmt: skip
"""Every method and notification of MCP in either direction, tasks (2025-11-25, and the 2026 extension) included."""


class Arrival(msgspec.Struct, frozen=True):
    """What an HTTP request says about a message besides its body. None of it has any part in a decision.

    `traceparent` and `tracestate` are headers (W3C Trace Context), `version` is `MCP-Protocol-Version`. `mcp`: all
    headers that repeat what the body says, as ASGI has them.
    """

    traceparent: str | None = None
    tracestate: str | None = None
    version: str | None = None
    mcp: Sequence[tuple[bytes, bytes]] = ()


@final
class Incoming(msgspec.Struct):
    """A checked message. Request: id and method. Notification: method. Response: id alone. `line` is its bytes.

    From the client: `value` is the decoded message itself, `params` its params ({} when absent), `modern` its era. What
    comes from the server goes on as `line` and has an empty `value`; `request` is then the client's request that it
    belongs to, as far as that is known, and `stream` where it came from. `arrival` is for the transport to set.
    """

    value: JsonObject
    id: RequestId | None
    method: str | None
    params: JsonObject
    modern: bool
    line: bytes
    request: RequestId | None = None
    stream: int = 0
    arrival: Arrival | None = None


class Denial(msgspec.Struct, frozen=True):
    """What a denial tells the agent: one text for the model, the rest for programs. `retry_after` is in seconds."""

    decision: str
    code: str
    reason: str
    rule: str | None = None
    retry_after: float | None = None


_SHAPES = {
    frozenset({"jsonrpc", "id", "method"}),
    frozenset({"jsonrpc", "id", "method", "params"}),
    frozenset({"jsonrpc", "method"}),
    frozenset({"jsonrpc", "method", "params"}),
    frozenset({"jsonrpc", "id", "result"}),
    frozenset({"jsonrpc", "id", "error"}),
}


def parse_client(line: bytes) -> Incoming:
    """Decode and check one message from the client, or raise `ProtocolError` with the JSON-RPC code to answer."""
    try:
        value, large = codec.decode_call(line)
    except ProtocolError as exc:
        exc.request_id = codec.peek_id(line)
        raise
    try:
        return _check(line, value, large)
    except ProtocolError as exc:
        if type(value) is dict and "method" in value and is_id(value.get("id")):
            exc.request_id = value["id"]
        raise


def _check(line: bytes, value: Json, large: bool) -> Incoming:
    if type(value) is not dict:
        what = "a batch (MCP has none since 2025-06-18)" if type(value) is list else "not an object"
        raise ProtocolError(INVALID_REQUEST, f"message is {what}: send one JSON-RPC object at a time")
    if frozenset(value) not in _SHAPES or value["jsonrpc"] != "2.0":
        raise ProtocolError(INVALID_REQUEST, "message is no JSON-RPC 2.0 request, notification or response")
    if "id" in value and not is_id(value["id"]):
        raise ProtocolError(INVALID_REQUEST, _BAD_ID)
    method = value.get("method")
    if method is None and "method" not in value:
        return Incoming(value, value["id"], None, {}, False, line)
    if not is_method(method):
        raise ProtocolError(INVALID_REQUEST, "`method` must be a printable string, and no look-alike of `tools/call`")
    params = value.get("params", {})
    if type(params) is not dict:
        raise ProtocolError(INVALID_PARAMS, "`params` must be an object")
    meta = params.get("_meta", {})
    if type(meta) is not dict:
        raise ProtocolError(INVALID_PARAMS, "`params._meta` must be an object")
    if not (params.keys() <= _PARAMS.keys() and meta.keys() <= _META.keys()):
        _refuse_look_alikes(params, _PARAMS)
        _refuse_look_alikes(meta, _META)
    _check_token(meta)
    if method == "tools/call":
        _check_call(value, params, large)
    return Incoming(value, value.get("id"), method, params, PROTOCOL_VERSION_KEY in meta, line)


def _check_token(meta: JsonObject) -> None:
    """A server may read 1.0 as 1: it would report the progress of one caller's call to another."""
    if "progressToken" in meta and not is_id(meta["progressToken"]):
        raise ProtocolError(INVALID_PARAMS, _BAD_TOKEN)


def is_id(request_id: Json) -> bool:
    """An id is a string or an integer (MCP, basic/index: never null; some servers run 1.0 as 1). Bounds: ours."""
    if type(request_id) is int:
        return -_MAX_SAFE_INTEGER <= request_id <= _MAX_SAFE_INTEGER
    return type(request_id) is str and len(request_id) <= _MAX_ID_LENGTH


def is_method(method: Json) -> bool:
    """A printable string of bounded length that nobody could take for `tools/call` if it is not (bounds: ours)."""
    if type(method) is not str:
        return False
    if method in KNOWN_METHODS:
        return True
    bounded = 0 < len(method) <= _MAX_METHOD_LENGTH and method.isprintable()
    return bounded and codec.fold(method).strip() != "tools/call"


_BAD_ID = f"`id` must be an integer within ±(2^53-1) or a string of at most {_MAX_ID_LENGTH} characters"
_BAD_TOKEN = "`params._meta.progressToken` must be a string or an integer, as ids are"
_PARAMS = {name: codec.fold(name) for name in ("name", "arguments", "_meta", "requestId", "cursor", "uri")}
_ENVELOPE = tuple(f"{_META_PREFIX}{name}" for name in ("clientCapabilities", "clientInfo", "logLevel"))
_META = {name: codec.fold(name) for name in (PROTOCOL_VERSION_KEY, SUBSCRIPTION_KEY, "progressToken", *_ENVELOPE)}


def _refuse_look_alikes(members: JsonObject, read: dict[str, str]) -> None:
    """Refuse `Name` beside or instead of `name`: a parser that ignores case would read what was not judged."""
    for key in members:
        if key not in read and codec.fold(key) in read.values():
            raise ProtocolError(INVALID_PARAMS, "a key of `params` is spelled almost like one that is read")


def _check_call(value: JsonObject, params: JsonObject, large: bool) -> None:
    """A `tools/call` has an id, a tool name and an object of arguments whose integers every parser reads alike."""
    if "id" not in value:
        raise ProtocolError(INVALID_REQUEST, "`tools/call` without an id is refused: nobody could be answered")
    if type(params.get("name")) is not str:
        raise ProtocolError(INVALID_PARAMS, "`params.name` of `tools/call` must be a string")
    if type(params.get("arguments", {})) is not dict:
        raise ProtocolError(INVALID_PARAMS, "`params.arguments` of `tools/call` must be an object")
    if large:
        raise ProtocolError(
            INVALID_PARAMS, "a number in `tools/call` is an integer beyond ±(2^53-1): send it as a string"
        )


def modern_envelope(params: JsonObject) -> JsonObject:
    """The `_meta` members that say who asks (version, client, capabilities): to ask something for the same caller."""
    return {key: value for key, value in params.get("_meta", {}).items() if key.startswith(_META_PREFIX)}


def response(request_id: RequestId, member: bytes, payload: bytes) -> bytes:
    """A response line whose `result` or `error` (`member`) is already encoded."""
    if type(request_id) is int:
        return b'{"jsonrpc":"2.0","id":%d,"%b":%b}' % (request_id, member, payload)
    return b'{"jsonrpc":"2.0","id":%b,"%b":%b}' % (codec.encode(request_id), member, payload)


def error(request_id: RequestId | None, code: int, message: str, data: JsonObject | None = None) -> bytes:
    """An error response; `request_id` None where the request's id could not be read (JSON-RPC 2.0, section 5)."""
    body: JsonObject = {"code": code, "message": message}
    if data is not None:
        body["data"] = data
    return codec.encode({"jsonrpc": "2.0", "id": request_id, "error": body})


def denial_text(denial: Denial) -> str:
    """All the model needs, in one text: clients show the first text block, some show nothing else."""
    text = f"{DENIED} {denial.reason}"
    if denial.rule is not None:
        text += f"; rule `{denial.rule}`"
    if denial.retry_after is not None:
        text += f"; retry in {_seconds(denial.retry_after)}"
    return text


def _seconds(seconds: float) -> str:
    """Whole seconds, rounded up: a client that waits as long as it was told must not come too early."""
    return f"{max(1, -int(-seconds // 1))} s"


def refusal(request_id: RequestId, method: str, modern: bool, denial: Denial) -> bytes:
    """The answer to a denied request: a tool result for `tools/call`, so that the model reads it, else an error.

    MCP 2026-07-28, server/tools, error handling. `resultType` belongs to modern results only; `structuredContent`
    would be validated against the tool's outputSchema and is never sent.
    """
    detail: JsonObject = {"id": denial.decision, "code": denial.code, "rule": denial.rule}
    if denial.retry_after is not None:
        detail["retry_after"] = -(-denial.retry_after * 1000 // 1) / 1000  # up, as in the text
    text = denial_text(denial)
    if method != "tools/call":
        return error(request_id, DENIED_CODE, text, {DECISION_KEY: detail})
    result: JsonObject = {"content": [{"type": "text", "text": text}], "isError": True, "_meta": {DECISION_KEY: detail}}
    if modern:
        result["resultType"] = "complete"
    return response(request_id, b"result", codec.encode(result))
