"""Which results count as failures although their server reports success."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intercept_py.model import Failure, Json, ToolCall
from intercept_py.policy.loader import load
from intercept_py.policy.operators import OPERATORS
from intercept_py.policy.pdp import decide

OPERANDS: dict[str, Json] = {
    "exists": True,
    "in": [1],
    "not_in": [1],
    "subset_of": [1],
    "is_type": "string",
    "cidr_in": "10.0.0.0/8",
    "path_under": "/srv",
}


def failure(*conditions: tuple[str, str, Json], tool: str = "cancel", **entries: object) -> Failure:
    """What a policy with these conditions asks about the results of `cancel`."""
    listed = [{"path": path, "op": op, "value": value} for path, op, value in conditions]
    document = {"tools": {tool: {"outcome": {"failure": listed}}, **entries}}
    asked = decide(load(json.dumps(document).encode(), "p.yaml"), ToolCall("cancel", {})).failure
    assert asked is not None
    return asked


def said(*texts: str, **more: Json) -> Json:
    return {"content": [{"type": "text", "text": text} for text in texts], **more}


@pytest.mark.parametrize(
    ("condition", "result", "holds"),
    [
        (("json.error", "exists", True), said('{"error": "Job not found"}'), True),
        (("json.error", "exists", True), said('{"error": null}'), False),
        (("json.error", "exists", True), said("error"), False),
        (("json.error", "exists", True), said("fine", '{"error": 1}'), False),
        (("json.error", "exists", True), said(structuredContent={"error": 1}), False),
        (("json.cancelled", "eq", False), said(' {"cancelled": false}\n'), True),
        (("json.cancelled", "eq", False), said('{"cancelled": true}'), False),
        (("json.cancelled", "eq", False), said('{"cancelled": 0}'), False),
        (("json.cancelled", "neq", True), said("{}"), False),
        (("json", "is_type", "string"), said('"x"'), True),
        (("json[1].id", "eq", 7), said('[0, {"id": 7}]'), True),
        (("json.a", "exists", False), said("no JSON at all"), True),
        (("structured.result", "starts_with", "Error:"), said("x", structuredContent={"result": "Error: no"}), True),
        (("structured.result", "starts_with", "Error:"), said("Error: no"), False),
        (("structured", "exists", False), said("x"), True),
        (("structured", "exists", False), said("x", structuredContent={}), False),
        (("text", "starts_with", "Error:"), said("Error: no"), True),
        (("text", "starts_with", "Error:"), said("an Error: no"), False),
        (("text", "eq", "a\nb"), said("a", "b"), True),
        (("text", "not_regex", "(?m)^Status: CANCELED$"), said("Run r canceled.\nStatus: COMPLETED"), True),
        (("text", "not_regex", "(?m)^Status: CANCELED$"), said("Run r canceled.", "Status: CANCELED", "x"), False),
        (("text", "not_regex", "x"), said(), False),
        (("text", "regex", "x"), said("x" * 65_537), False),
        (("text", "not_regex", "y"), said("x" * 65_537), False),
        (("text", "exists", False), {"content": [{"type": "image", "data": "", "mimeType": "image/png"}]}, True),
        (("text", "exists", False), said("x", resultType="complete"), False),
        (("text", "exists", False), {"resultType": "input_required", "inputRequests": {}}, False),
    ],
)
def test_a_condition_on_a_result(condition: tuple[str, str, Json], result: Json, holds: bool) -> None:
    path, op, _ = condition
    assert failure(condition)(result) == (f"{path} {op}" if holds else None)


def test_any_one_is_enough_and_the_first_that_holds_is_named() -> None:
    asked = failure(("json.a", "eq", 1), ("text", "contains", "b"), ("json.b", "exists", True))
    assert asked(said('{"b": 1}')) == "text contains"
    assert asked(said('{"a": 2}')) is None


def test_the_conditions_of_all_entries_that_match_count() -> None:
    def entry(path: str) -> Json:
        return {"outcome": {"failure": [{"path": path, "op": "exists", "value": True}]}}

    asked = failure(("json.a", "exists", True), tool="*", **{"can*": entry("json.b"), "other": entry("json.c")})
    assert [asked(said(json.dumps({name: 1}))) for name in "abc"] == ["json.a exists", "json.b exists", None]


def test_a_tool_without_conditions_has_no_question() -> None:
    policy = load(b"tools: {cancel: {outcome: {failure: [{path: text, op: eq, value: x}]}}, other: {}}", "p.yaml")
    assert decide(policy, ToolCall("other", {})).failure is None
    assert decide(policy, ToolCall("cancel", {})).failure is not None


def test_a_policy_that_only_watches_asks_as_well() -> None:
    policy = load(b"{mode: shadow, tools: {cancel: {outcome: {failure: [{path: text, op: eq, value: x}]}}}}", "p.yaml")
    assert decide(policy, ToolCall("cancel", {})).failure is not None


def test_a_result_leaves_nothing_but_the_policys_words() -> None:
    asked = failure(('json["key"].token', "regex", "secret"))
    assert asked(said('{"key": {"token": "my secret"}}')) == 'json["key"].token regex'
    long = failure((f"json.{'k' * 500}", "exists", True))(said(json.dumps({"k" * 500: 1})))
    assert long is not None
    assert len(long) < 210


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["content", "type", "text", "structuredContent", "a"]), inner, max_size=4)
    ),
    max_leaves=12,
)
RESULTS = JSON | st.fixed_dictionaries(
    {"content": JSON | st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": JSON}))},
    optional={"structuredContent": JSON, "resultType": JSON},
)
ALL = [
    failure((path, op, OPERANDS.get(op, "1" if op != "length_lte" else 1)))
    for path in ("text", "json", "json.a", "json[0]", "structured", "structured.a")
    for op in OPERATORS
]


@given(RESULTS)
def test_whatever_a_server_returns_the_question_has_an_answer(result: Json) -> None:
    for asked in ALL:
        assert asked(result) is None or isinstance(asked(result), str)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a":' * 100_000, "9" * 100_000, "1e999", '"\\ud800"', "\ud800", "", "NaN", "\ufeff{}"]
)
def test_a_text_that_is_no_harmless_json_is_just_no_json(text: str) -> None:
    assert failure(("json.a", "exists", True))(said(text)) is None
