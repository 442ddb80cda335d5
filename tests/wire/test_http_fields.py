"""The header fields that repeat a message, against the SDK's own rules for both sides (`mcp.shared.inbound`)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from mcp.shared import inbound

from intercept_py.wire.http_fields import (
    decode_value,
    disagreement,
    encode_value,
    is_modern,
    outbound_fields,
    trace_fields,
    version_field,
    version_of,
)
from intercept_py.wire.http_params import mirrors_of

VERSION = "2026-07-28"
META = {"io.modelcontextprotocol/protocolVersion": VERSION, "io.modelcontextprotocol/clientCapabilities": {}}
Message = dict[str, Any]


def request(method: str, **params: Any) -> Message:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": {"_meta": META, **params}}


def fields_of(message: Message, schema: Message | None = None) -> list[tuple[bytes, bytes]]:
    """As they arrive: names in lower case."""
    mirrors = () if schema is None else mirrors_of(schema)
    built = outbound_fields(message.get("method"), message.get("params", {}), None, mirrors)
    return [(name.lower(), value) for name, value in built]


def as_text(fields: list[tuple[bytes, bytes]]) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in fields}


# ---- values


@given(st.text())
@example(" padded")
@example("tab\there")
@example("=?base64?literal?=")
@example("=?base64?=")
@example("caf\u00e9")
@example("line1\r\nX-Evil: 1")
def test_a_value_is_encoded_as_the_sdk_does_and_comes_back(text: str) -> None:
    value = encode_value(text)
    assert value.decode("ascii") == inbound.encode_header_value(text)
    assert decode_value(value) == text
    assert b"\r" not in value
    assert b"\n" not in value


@given(st.text(st.characters(max_codepoint=0x7E, min_codepoint=0x20)))
@example("=?base64?SGk=?=")
@example("=?base64?SGl=?=")
@example("=?base64?SGk?=")
@example("=?base64?/w==?=")
@example("=?base64?S Gk=?=")
def test_a_value_is_decoded_as_the_sdk_does(value: str) -> None:
    assert decode_value(value.encode()) == inbound.decode_header_value(value)


@pytest.mark.parametrize("value", [b"caf\xe9", b"\x00", b"a\x7fb", b"=?base64?\xe9?="])
def test_a_value_that_no_client_may_send_stands_for_nothing(value: bytes) -> None:
    assert decode_value(value) is None


# ---- versions


def test_the_era_of_a_request_is_that_of_its_version_field() -> None:
    assert version_field([(b"host", b"x"), (b"mcp-protocol-version", b"2025-06-18")]) == "2025-06-18"
    assert version_field([]) is None
    assert [is_modern(version) for version in (None, "2025-11-25", VERSION, "2099-01-01", "")] == [
        False, False, True, True, True,
    ]  # fmt: skip


def test_the_version_of_a_message_is_in_its_meta() -> None:
    assert version_of({"_meta": META}) == VERSION
    without: list[Message] = [{}, {"_meta": None}, {"_meta": {}}, {"_meta": [1]}]
    assert [version_of(params) for params in without] == [None] * 4


# ---- building


@pytest.mark.parametrize(
    ("method", "params", "name"),
    [
        ("tools/call", {"name": "echo"}, "echo"),
        ("prompts/get", {"name": "caf\u00e9"}, "=?base64?Y2Fmw6k=?="),
        ("resources/read", {"uri": "file:///a b"}, "file:///a b"),
        ("tasks/get", {"taskId": "t1"}, "t1"),
        ("tasks/cancel", {"taskId": "t1"}, "t1"),
        ("tools/list", {"name": "not this"}, None),
        ("tools/call", {}, None),
    ],
)
def test_a_modern_message_names_version_method_and_what_it_is_about(
    method: str, params: Message, name: str | None
) -> None:
    message = request(method, **params)
    expected = {"mcp-protocol-version": VERSION, "mcp-method": method}
    assert as_text(fields_of(message)) == (expected if name is None else {**expected, "mcp-name": name})
    classified = inbound.classify_inbound_request(message, headers=as_text(fields_of(message)))
    assert isinstance(classified, inbound.InboundModernRoute)


def test_a_legacy_message_names_the_version_that_was_agreed_on_and_no_more() -> None:
    assert outbound_fields("tools/call", {"name": "echo"}, "2025-06-18") == [(b"MCP-Protocol-Version", b"2025-06-18")]
    assert outbound_fields(None, {}, "2025-06-18") == [(b"MCP-Protocol-Version", b"2025-06-18")]
    assert outbound_fields("initialize", {}, None) == []


def test_nothing_in_a_message_can_add_a_line_to_the_head() -> None:
    message = request("tools/call\r\nX-Evil: 1", name="a\r\nX-Evil: 1", arguments={"a": "\r\nX-Evil: 1"})
    message["params"]["_meta"] = {"io.modelcontextprotocol/protocolVersion": "1\r\nX-Evil: 1"}
    for _, value in fields_of(message, SCHEMA):
        assert b"\r" not in value
        assert b"\n" not in value


SCHEMA: Message = {
    "type": "object",
    "properties": {
        "region": {"type": "string", "x-mcp-header": "Region"},
        "count": {"type": "integer", "x-mcp-header": "Count"},
        "dry": {"type": "boolean", "x-mcp-header": "Dry-Run"},
        "where": {"type": "object", "properties": {"city": {"type": "string", "x-mcp-header": "City"}}},
        "plain": {"type": "string"},
    },
}


def call(**arguments: Any) -> Message:
    return request("tools/call", name="t", arguments=arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        {"region": "eu", "count": 42, "dry": True, "where": {"city": "K\u00f6ln"}, "plain": "x"},
        {"region": None, "count": -7},
        {"where": "nowhere", "dry": False},
        {"count": 42.0},
        {"region": ["no", "scalar"]},
        {"region": ""},
        {},
    ],
)
def test_annotated_arguments_are_repeated_as_the_sdk_does(arguments: Message) -> None:
    built = {
        name.decode(): value.decode()
        for name, value in outbound_fields("tools/call", call(**arguments)["params"], None, mirrors_of(SCHEMA))
    }
    params = {name: value for name, value in built.items() if name.startswith("Mcp-Param-")}
    assert params == inbound.mcp_param_headers(inbound.x_mcp_header_map(SCHEMA), arguments)
    assert inbound.validate_mcp_param_headers(SCHEMA, arguments, built) is None


def annotated(token: Any, kind: Any = "string") -> Message:
    return {"type": kind, "x-mcp-header": token}


INVALID: list[Message] = [
    {"properties": {"a": annotated("A", "number")}},
    {"properties": {"a": annotated("A", ["string", "null"])}},
    {"properties": {"a": annotated("")}},
    {"properties": {"a": annotated("A b")}},
    {"properties": {"a": annotated("A\r\nX: y")}},
    {"properties": {"a": annotated(1)}},
    {"properties": {"a": annotated("A"), "b": annotated("a")}},
    {"properties": {"a": annotated("A"), "b": {"items": annotated("B")}}},
    {"properties": {"a": annotated("A")}, "anyOf": [{"properties": {"c": annotated("C")}}]},
    {"properties": {"a": annotated("A")}, "$defs": {"d": annotated("D")}},
    {"properties": {"a": annotated("A")}, **annotated("Root")},
]


@pytest.mark.parametrize("schema", INVALID)
def test_a_schema_with_one_invalid_annotation_has_none(schema: Message) -> None:
    assert inbound.find_invalid_x_mcp_header(schema) is not None
    names = [name for name, _ in outbound_fields("tools/call", call(a="x", b="y")["params"], None, mirrors_of(schema))]
    assert names == [b"MCP-Protocol-Version", b"Mcp-Method", b"Mcp-Name"]


def test_an_annotation_that_is_data_is_none() -> None:
    schema = {"properties": {"a": {"type": "string", "default": {"x-mcp-header": "D"}, "x-mcp-header": "A"}}}
    assert (b"Mcp-Param-A", b"x") in outbound_fields("tools/call", call(a="x")["params"], None, mirrors_of(schema))


def test_schemas_that_are_no_more_used_do_not_pile_up_nor_stand_for_others() -> None:
    for number in range(3000):
        schema = {"properties": {"a": {"type": "string", "x-mcp-header": f"N{number}"}}}
        assert (f"Mcp-Param-N{number}".encode(), b"x") in outbound_fields(
            "tools/call", call(a="x")["params"], None, mirrors_of(schema)
        )


# ---- checking


def test_what_we_build_agrees() -> None:
    messages: list[Message] = [call(region="\u00e9", count=1), request("tools/list"), request("tasks/get", taskId="1")]
    for message in messages:
        assert disagreement(fields_of(message, SCHEMA), message, mirrors_of(SCHEMA)) is None


def without(fields: list[tuple[bytes, bytes]], name: bytes) -> list[tuple[bytes, bytes]]:
    return [field for field in fields if field[0] != name]


@pytest.mark.parametrize("name", [b"mcp-protocol-version", b"mcp-method", b"mcp-name", b"mcp-param-region"])
@pytest.mark.parametrize("change", ["missing", "wrong", "twice"])
def test_a_modern_request_must_have_every_field_once_and_right(name: bytes, change: str) -> None:
    message = call(region="eu", count=1)
    fields = fields_of(message, SCHEMA)
    value = dict(fields)[name]
    if change == "twice":
        fields.append((name, value))
    else:
        fields = without(fields, name) + ([(name, b"other")] if change == "wrong" else [])
    told = disagreement(fields, message, mirrors_of(SCHEMA))
    assert told is not None
    assert name.decode() in told
    assert "other" not in told


@given(
    st.sampled_from(["42", "42.0", "42.00", "42.5", "042", "4e1", "+42", " 42", "\u0664\u0662", "-42", "42."]),
    st.sampled_from([42, 42.0, -42, 42.5, True, "42"]),
)
def test_integers_are_compared_as_the_sdk_does(told: str, value: Any) -> None:
    message = call(count=value)
    fields = [*without(fields_of(message), b"mcp-param-count"), (b"mcp-param-count", told.encode("utf-8"))]
    theirs = inbound.validate_mcp_param_headers(SCHEMA, {"count": value}, {"mcp-param-count": told})
    assert (disagreement(fields, message, mirrors_of(SCHEMA)) is None) == (theirs is None)


@pytest.mark.parametrize("arguments", [{}, {"region": None}, {"region": ["x"]}])
def test_a_field_for_an_argument_that_is_not_there_is_refused(arguments: Message) -> None:
    message = call(**arguments)
    assert disagreement([*fields_of(message), (b"mcp-param-region", b"eu")], message, mirrors_of(SCHEMA)) is not None


def test_fields_for_what_the_schema_does_not_annotate_are_nobodys_business() -> None:
    message = call(plain="x")
    assert disagreement([*fields_of(message), (b"mcp-param-plain", b"other")], message, mirrors_of(SCHEMA)) is None
    assert disagreement([*fields_of(message), (b"mcp-param-region", b"other")], message) is None


def test_a_field_that_is_no_ascii_never_matches() -> None:
    message = request("tools/call", name="caf\u00e9")
    for raw in ("caf\u00e9".encode("latin-1"), "caf\u00e9".encode()):
        assert disagreement([*without(fields_of(message), b"mcp-name"), (b"mcp-name", raw)], message) is not None


def test_a_legacy_message_needs_no_field_but_what_is_there_must_be_true() -> None:
    message = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {"name": "t", "arguments": {"region": "eu"}},
    }
    assert disagreement([], message, mirrors_of(SCHEMA)) is None
    assert disagreement([(b"mcp-protocol-version", b"2025-11-25")], message, mirrors_of(SCHEMA)) is None
    for field in [(b"mcp-method", b"tools/list"), (b"mcp-name", b"u"), (b"mcp-param-region", b"us")]:
        assert disagreement([field], message, mirrors_of(SCHEMA)) is not None


def test_tasks_may_leave_out_the_name_that_sdks_do_not_send() -> None:
    message = request("tasks/get", taskId="t1")
    fields = without(fields_of(message), b"mcp-name")
    assert disagreement(fields, message) is None
    assert disagreement([*fields, (b"mcp-name", b"t2")], message) is not None


@pytest.mark.parametrize(
    "message", [None, [], "x", {}, {"method": 1}, {"method": "a", "params": 1}, {"params": {"_meta": 1}}]
)
def test_what_is_no_request_is_refused_for_that_by_others(message: Any) -> None:
    assert disagreement([], message) is None


def test_a_version_that_is_no_string_matches_no_field() -> None:
    message = request("tools/list")
    message["params"]["_meta"] = {"io.modelcontextprotocol/protocolVersion": 5}
    assert disagreement([(b"mcp-protocol-version", b"5"), (b"mcp-method", b"tools/list")], message) is not None
    assert disagreement([(b"mcp-method", b"tools/list")], message) is not None


PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize(
    ("parent", "state", "expected"),
    [
        (PARENT, None, [(b"traceparent", PARENT.encode())]),
        (PARENT, "a=1,b=2", [(b"traceparent", PARENT.encode()), (b"tracestate", b"a=1,b=2")]),
        (PARENT, "a=1\r\nX: y", [(b"traceparent", PARENT.encode())]),
        (PARENT, "a" * 513, [(b"traceparent", PARENT.encode())]),
        (PARENT.upper(), "a=1", []),
        (PARENT + "\n", None, []),
        (PARENT + "-more", None, []),
        ("", "a=1", []),
        (None, "a=1", []),
    ],
)
def test_trace_context_goes_on_only_if_it_is_sound(
    parent: str | None, state: str | None, expected: list[tuple[bytes, bytes]]
) -> None:
    assert trace_fields(parent, state) == expected
