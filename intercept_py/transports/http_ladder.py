"""What a POST of a message says about its era, and what is refused before a conversation sees the message. Pure.

Sources: MCP 2026-07-28, basic/index (`_meta`) and streamable HTTP ("modern"; the rest is "legacy"). Statuses, codes and
their order are those of the Python SDK, so that clients see no difference. Below: `wire.http_fields`. Above:
`http_endpoint`.
"""

from __future__ import annotations

__all__ = ["Post", "read_post", "unsound"]

from collections.abc import Callable
from typing import Final

import msgspec

from intercept_py.errors import ProtocolError
from intercept_py.model import Caller, Json, JsonObject, RequestId
from intercept_py.transports.http_guard import Head
from intercept_py.transports.http_messages import Answer, empty, problem
from intercept_py.wire import http_fields, messages
from intercept_py.wire.codec import INVALID_PARAMS
from intercept_py.wire.http_params import Mirror
from intercept_py.wire.messages import PROTOCOL_VERSION_KEY, Incoming

_UNSUPPORTED_VERSION: Final = -32022
_METHOD_NOT_FOUND: Final = -32601
# A set that keeps its order: that is how what is missing is told.
_ENVELOPE: Final = dict.fromkeys((PROTOCOL_VERSION_KEY, "io.modelcontextprotocol/clientCapabilities")).keys()
"""What `params._meta` of every modern request must have."""
_MODERN_VERSIONS: Final = ["2026-07-28"]
_REMOVED: Final = frozenset({"initialize", "logging/setLevel", "ping", "resources/subscribe", "resources/unsubscribe"})
"""Methods that MCP 2026-07-28 has no more."""

_MOST_AGREED: Final = 8

_decode = msgspec.json.Decoder().decode


class Post(msgspec.Struct, frozen=True):
    """A message on its way to a conversation, taken apart, or what is wrong with it.

    `request` is its id; None: it is no request, or one that is refused.
    """

    message: Incoming | ProtocolError
    modern: bool
    request: RequestId | None
    method: str | None


def read_post(
    head: Head, body: bytes, caller: Caller, mirrors_of: Callable[[str, Caller], tuple[Mirror, ...]]
) -> Post | Answer:
    """What a POST is, or its refusal. Whether the message itself is sound is the relay's to judge.

    `mirrors_of` knows which arguments of a tool the head repeats, as far as this caller may know the tool. Before
    anybody knows that, the session compares them.
    """
    if not (head.json and head.events):
        return problem(406, "the client must accept both application/json and text/event-stream")
    message: Incoming | ProtocolError
    method: Json
    value: Json
    try:
        message = messages.parse_client(body)
        value, method, params = message.value, message.method, message.params
        request = None if method is None else message.id
        message.arrival = head.arrival
    except ProtocolError as exc:
        # One that was not raised: it refers to no frame, which would keep the body until somebody looks for garbage.
        message = ProtocolError(exc.code, str(exc), exc.request_id)
        try:
            value = _decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            value = None
        if type(value) is not dict:
            return unsound(exc)
        # Others would read it, so it is refused in their order.
        method, request = value.get("method"), _request_id(value)
        params = found if type(found := value.get("params")) is dict else {}
    version = http_fields.version_of(params)
    modern = head.modern or version is not None
    name = params.get("name")
    refusal = _refusal(head, value, params, request) if modern else None
    mirrors: tuple[Mirror, ...] = ()
    same: tuple[str, str, bool] | None = None
    if method == "tools/call" and type(name) is str:
        mirrors = mirrors_of(name, caller)
        if not mirrors and type(version) is str:
            # Calls that differ in nothing but arguments that no field repeats, with the same head, agree once for all.
            same = (name, version, "id" in value)
    if refusal is None and same not in head.agreed:
        refusal = _disagreement(head, value, mirrors, same)
    if modern and refusal is None and type(method) is str and method in _REMOVED:
        refusal = problem(404, "Method not found", code=_METHOD_NOT_FOUND, request_id=request, data=method)
    if refusal is not None:
        return refusal
    return Post(message, modern, request, method if type(method) is str else None)


def unsound(exc: ProtocolError) -> Answer:
    """A message that goes no further, told in the words in which the relay would."""
    return problem(400, str(exc), code=exc.code, request_id=exc.request_id)


def _request_id(value: JsonObject) -> RequestId | None:
    request_id = value.get("id")
    return request_id if "method" in value and messages.is_id(request_id) else None


def _refusal(head: Head, value: JsonObject, params: JsonObject, request_id: RequestId | None) -> Answer | None:
    """What a modern message lacks. A version that nobody knows is the server's to refuse."""
    if "id" not in value and "method" in value:
        return _notification(head)
    if request_id is None:
        return problem(400, "the body must be one JSON-RPC request or notification")
    meta = params.get("_meta")
    if type(meta) is dict and meta.keys() >= _ENVELOPE:
        return None
    missing = [key for key in _ENVELOPE if type(meta) is not dict or key not in meta]
    why = f"`params._meta` lacks what every request of this version must have: {', '.join(missing)}"
    return problem(400, why, code=INVALID_PARAMS, request_id=request_id)


def _notification(head: Head) -> Answer:
    """Clients have none in the modern era over HTTP; the SDK takes those that come nonetheless and drops them."""
    if head.version in _MODERN_VERSIONS:
        return empty(202)
    data = {"supported": _MODERN_VERSIONS, "requested": head.version}
    return problem(400, "unsupported protocol version", code=_UNSUPPORTED_VERSION, data=data)


def _disagreement(
    head: Head, value: JsonObject, mirrors: tuple[Mirror, ...], same: tuple[str, str, bool] | None
) -> Answer | None:
    """What head and body say differently. That they agree is kept for `same` calls."""
    why = http_fields.disagreement(head.mcp, value, mirrors)
    if why is not None:
        return problem(400, why, code=messages.HEADER_MISMATCH, request_id=_request_id(value))
    if same is not None and len(head.agreed) < _MOST_AGREED:
        head.agreed.add(same)
    return None
