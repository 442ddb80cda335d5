"""Re-spelling a value does not dodge a rule (security rule 4): rules are asked about what lenient servers read."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intercept_py.model import Effect, Tool, ToolCall
from intercept_py.policy import loader, pdp
from intercept_py.policy.readings import readings

ANY = Tool("pay", {"type": "object", "properties": {}})


def effect(rule: str, arguments: Any) -> Effect:
    policy = loader.load(f"tools: {{pay: {{rules: [{rule}]}}}}\n".encode(), "p.yaml")
    return pdp.decide(policy, ToolCall("pay", arguments, tool=ANY)).effect


@pytest.mark.parametrize(
    "amount", [1000, 1000.5, "1000", "1e6", "+1000", " 1000 ", "1_000", "1E3", "٣٠٠٠", "inf", "Infinity", "1e400"]
)
def test_a_guard_on_a_number_is_not_dodged_by_spelling_it_as_text(amount: Any) -> None:
    assert effect("{action: deny, when: [{path: args.amount, op: gt, value: 100}]}", {"amount": amount}) is Effect.DENY


@pytest.mark.parametrize("amount", [1, "1", "1e1", " 99 ", "ninety", "", "-inf", [1000], None])
def test_a_guard_on_a_number_leaves_smaller_ones_and_words_alone(amount: Any) -> None:
    assert effect("{action: deny, when: [{path: args.amount, op: gt, value: 100}]}", {"amount": amount}) is Effect.ALLOW


@pytest.mark.parametrize("target", [{"env": "prod"}, '{"env":"prod"}', ' {"env": "pr\\u006fd"}\n'])
def test_a_guard_looks_into_objects_that_are_spelled_as_text(target: Any) -> None:
    rule = "{action: deny, when: [{path: args.target.env, op: eq, value: prod}]}"
    assert effect(rule, {"target": target}) is Effect.DENY
    assert effect(rule, {"target": '{"env":"dev"}'}) is Effect.ALLOW


@pytest.mark.parametrize("people", [["a@evil.com"], '["a@evil.com"]', '["a\\u0040evil.com"]'])
def test_a_guard_looks_into_arrays_that_are_spelled_as_text(people: Any) -> None:
    assert effect(
        "{action: deny, when: [{path: 'args.people[0]', op: ends_with, value: '@evil.com'}]}", {"people": people}
    ) is (Effect.DENY)


@pytest.mark.parametrize(
    ("rule", "value"),
    [
        ("{conditions: [{path: args.x, op: neq, value: 100}]}", "1e2"),
        ("{conditions: [{path: args.x, op: neq, value: 100}]}", " 100"),
        ("{conditions: [{path: args.x, op: neq, value: [1]}]}", "[1]"),
        ("{conditions: [{path: args.x, op: not_in, value: [1, 2]}]}", "2.0e0"),
        ("{conditions: [{path: args.x, op: not_contains, value: a@evil.com}]}", '["a\\u0040evil.com"]'),
        ("{conditions: [{path: args.x, op: not_contains, value: secret}]}", '{"k": ["the s\\u0065cret"]}'),
        ("{conditions: [{path: args.x, op: not_regex, value: '^rm '}]}", '["\\u0072m -rf"]'),
    ],
)
def test_a_negative_requirement_holds_for_every_reading(rule: str, value: str) -> None:
    assert effect(rule, {"x": value}) is Effect.DENY


@pytest.mark.parametrize("op", ["not_contains", "not_regex"])
def test_harmless_json_text_passes_a_negative_requirement(op: str) -> None:
    rule = f"{{conditions: [{{path: args.content, op: {op}, value: password}}]}}"
    assert effect(rule, {"content": json.dumps({"name": "x", "list": [1, None, "fine"]})}) is Effect.ALLOW


@given(st.text(max_size=20), st.sampled_from(["eq", "contains", "regex", "gt", "in"]))
def test_the_literal_value_is_always_the_first_reading_and_nothing_raises(text: str, op: str) -> None:
    assert readings({"x": text}, ("x",), op)[0] == text


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=4), lambda one: st.lists(one) | st.dictionaries(st.text(), one)
    )
)
def test_json_text_is_also_what_it_spells(value: Any) -> None:
    if isinstance(value, dict | list):
        assert value in readings({"x": json.dumps(value)}, ("x",), "eq")
