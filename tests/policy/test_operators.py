"""What every operator holds for, and which operands it refuses."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from intercept_py.model import Json
from intercept_py.policy.operators import OPERATORS, REGEX_INPUT, equal, numeric

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)
OPERANDS: dict[str, Json] = {
    "eq": 5,
    "neq": {"a": [1, None]},
    "in": ["a", 1, None, [2]],
    "not_in": ["a", 1.5, True],
    "lt": 5,
    "lte": 0.1,
    "gt": -1,
    "gte": "12.50",
    "regex": "^a+$",
    "contains": "a",
    "exists": True,
    "starts_with": "a",
    "ends_with": "a",
    "not_regex": "a",
    "not_contains": 1,
    "length_lte": 3,
    "is_type": ["integer", "null"],
    "subset_of": ["a", 1],
    "cidr_in": ["10.0.0.0/8", "::1/128"],
    "path_under": ["/srv/data", "notes"],
}


def holds(op: str, operand: Json, value: Json) -> bool:
    return OPERATORS[op].compile(operand)(value)


@pytest.mark.parametrize(
    ("value", "operand"),
    [
        ("a", "a"),
        (1, 1.0),
        (1.0, 1),
        (0.1, 0.1),
        (-0.0, 0),
        (1e22, 10**22),
        (True, True),
        (None, None),
        ([1, "a", {"b": None}], [1.0, "a", {"b": None}]),
        ("12.50", 12.5),
        ("-3", -3),
        ("0.1", 0.1),
    ],
)
def test_equal_values_are_equal_whatever_their_spelling(value: Json, operand: Json) -> None:
    assert holds("eq", operand, value)
    assert not holds("neq", operand, value)
    assert holds("in", ["other", operand], value)
    assert not holds("not_in", ["other", operand], value)


@pytest.mark.parametrize(
    ("value", "operand"),
    [
        (5, "5"),
        (True, 1),
        (1, True),
        (0, False),
        ("true", True),
        (None, False),
        ("null", None),
        ([1], [True]),
        ([5], ["5"]),
        (["5"], [5]),
        ({"a": "5"}, {"a": 5}),
        ([1, 2], [1]),
        ([], {}),
        (0.1 + 0.2, 0.3),
        # No canonical decimal strings: another parser may read another number, or none.
        ("5 ", 5),
        ("+5", 5),
        ("05", 5),
        ("5_0", 50),
        ("5.", 5),
        (".5", 0.5),
        ("5e0", 5),
        ("٥", 5),
        ("0x5", 5),
        ("5" + "0" * 64, float("5" + "0" * 64)),
    ],
)
def test_json_types_are_strict(value: Json, operand: Json) -> None:
    assert not holds("eq", operand, value)
    assert holds("neq", operand, value)
    assert not holds("in", [operand], value)
    assert holds("not_in", [operand], value)


@pytest.mark.parametrize("value", [4, 4.999, "4.5", -1e300, -(10**400), 0])
def test_order_compares_numbers_and_canonical_decimal_strings(value: Json) -> None:
    assert holds("lt", 5, value)
    assert holds("lte", 5, value)
    assert not holds("gt", 5, value)
    assert not holds("gte", 5, value)


@pytest.mark.parametrize("value", ["four", None, True, [4], {"a": 4}, "4 ", math.nan, math.inf, "1e1", ""])
def test_what_is_no_number_is_in_no_order(value: Json) -> None:
    assert not any(holds(op, 5, value) for op in ("lt", "lte", "gt", "gte"))


def test_bounds_are_exact() -> None:
    assert holds("lte", 0.3, 0.3)
    assert not holds("lte", 0.3, 0.1 + 0.2)
    assert holds("gte", "12.50", 12.5)
    assert not holds("lt", 2**53, 2**53)
    assert holds("lt", 2**53 + 1, 2**53)


@pytest.mark.parametrize(
    ("op", "operand", "value", "expected"),
    [
        ("regex", "^run_[a-z0-9]+$", "run_1", True),
        ("regex", "^run_[a-z0-9]+$", "run_1\n", False),
        ("regex", "un_", "run_1", True),
        ("regex", r"^\d$", "٣", False),
        ("regex", "", "", True),
        ("regex", "1", 1, False),
        ("regex", "a", ["a"], False),
        ("regex", "a", "a\ud800", False),
        ("regex", "^a*$", "a" * REGEX_INPUT, True),
        ("regex", "a", "a" * (REGEX_INPUT + 1), False),
        ("not_regex", "x", "abc", True),
        ("not_regex", "b", "abc", False),
        ("not_regex", "x", 1, False),
        ("not_regex", "x", None, False),
        ("not_regex", "x", ["abc"], False),
        ("not_regex", "x", "a\ud800", False),
        ("not_regex", "x", "a" * (REGEX_INPUT + 1), False),
        ("contains", "b", "abc", True),
        ("contains", "x", "abc", False),
        ("contains", "b", ["a", "b"], True),
        ("contains", "b", ["abc"], False),
        ("contains", 1, [True], False),
        ("contains", 1, [1.0], True),
        ("contains", 1, ["1"], False),
        ("contains", 1, "1", False),
        ("contains", "a", {"a": 1}, False),
        ("not_contains", "x", "abc", True),
        ("not_contains", "b", "abc", False),
        ("not_contains", "x", ["a"], True),
        ("not_contains", "a", ["a"], False),
        ("not_contains", "x", {"a": 1}, False),
        ("not_contains", "x", None, False),
        ("not_contains", 1, "abc", False),
        ("starts_with", "run_", "run_1", True),
        ("starts_with", "run_", "a run_1", False),
        ("starts_with", "1", 12, False),
        ("ends_with", ".md", "a.md", True),
        ("ends_with", ".md", "a.md.exe", False),
        ("length_lte", 2, "äö", True),
        ("length_lte", 2, "abc", False),
        ("length_lte", 2, [1, 2], True),
        ("length_lte", 2, {"a": 1, "b": 2, "c": 3}, False),
        ("length_lte", 2, 1, False),
        ("length_lte", 2, None, False),
        ("exists", True, 0, True),
        ("exists", True, "", True),
        ("exists", True, None, False),
        ("exists", False, None, True),
        ("exists", False, False, False),
        ("is_type", "string", "a", True),
        ("is_type", "number", 1.5, True),
        ("is_type", "number", True, False),
        ("is_type", "integer", 1.0, True),
        ("is_type", "integer", 1.5, False),
        ("is_type", "integer", True, False),
        ("is_type", "boolean", False, True),
        ("is_type", "object", {}, True),
        ("is_type", "array", [], True),
        ("is_type", "null", None, True),
        ("is_type", ["integer", "number"], 1.5, True),
        ("is_type", ["string", "null"], 1, False),
        ("subset_of", ["a", "b", 1], ["b", "a", "a", 1.0], True),
        ("subset_of", ["a", "b"], ["a", "c"], False),
        ("subset_of", ["a"], [], True),
        ("subset_of", ["a"], "a", False),
        ("subset_of", [1], ["1"], False),
        ("subset_of", [1], [True], False),
    ],
)
def test_operators_hold_for(op: str, operand: Json, value: Json, expected: bool) -> None:
    assert holds(op, operand, value) is expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("10.1.2.3", True),
        ("192.168.0.1", True),
        ("192.168.1.1", False),
        ("::ffff:10.1.2.3", True),
        ("::ffff:a01:203", True),
        ("fd00::1", True),
        ("fe80::1%eth0", False),
        ("010.1.2.3", False),
        ("10.1.2", False),
        ("0xa010203", False),
        ("10.1.2.3/32", False),
        (" 10.1.2.3", False),
        ("１0.1.2.3", False),
        ("", False),
        (167838211, False),
        (["10.1.2.3"], False),
        ("1" * 10_000, False),
    ],
)
def test_an_address_lies_in_one_of_the_networks(value: Json, expected: bool) -> None:
    assert holds("cidr_in", ["10.0.0.0/8", "192.168.0.0/24", "fd00::/8"], value) is expected


def test_one_network_needs_no_list() -> None:
    assert holds("cidr_in", "10.0.0.0/8", "10.255.255.255")


@pytest.mark.parametrize(
    "value",
    ["/srv/data", "/srv/data/", "/srv/data/a/b.txt", "/srv//data/./a", "//srv/data/x", "/srv/data/...", "notes/a"],
)
def test_a_path_lies_at_or_below_a_directory(value: str) -> None:
    assert holds("path_under", ["/srv/data/", "./notes"], value)


@pytest.mark.parametrize(
    "value",
    [
        "/srv/data/../secret",
        "/srv/data/..",
        "/srv/database",
        "/srv",
        "/",
        "",
        ".",
        "srv/data/a",
        "/notes/a",
        "../notes/a",
        "/srv/data/~root",
        "~/notes",
        "/srv/data\\..\\x",
        "/srv/data/\0",
        "/srv/data/%2e%2E/x",
        "/srv/data%2F..",
        "/srv/data/%252e%252e/x",
        "/srv/data/%5c",
        None,
        7,
        ["/srv/data"],
    ],
)
def test_a_path_that_could_mean_another_one_lies_below_nothing(value: Json) -> None:
    assert not holds("path_under", ["/srv/data/", "./notes"], value)


def test_the_root_takes_absolute_paths_only() -> None:
    assert holds("path_under", "/", "/etc")
    assert not holds("path_under", "/", "etc")
    assert holds("path_under", ".", "etc")
    assert not holds("path_under", ".", "/etc")


@pytest.mark.parametrize(
    ("op", "operand", "message"),
    [
        ("eq", math.nan, "`value` must be a finite number"),
        ("neq", [math.inf], "`value` must be a finite number"),
        ("in", "a", "`value` must be a list of at least one item"),
        ("in", [], "`value` must be a list of at least one item"),
        ("in", [math.nan], "`value` must be a finite number"),
        ("lt", "many", "`value` must be a number"),
        ("gte", True, "`value` must be a number"),
        ("lte", math.inf, "`value` must be a number"),
        ("regex", 1, "`value` must be a regular expression, written as a string"),
        ("regex", "(", "`value` is no regular expression in RE2 syntax: missing ): ("),
        ("not_regex", "(?=a)", "`value` is no regular expression in RE2 syntax: invalid perl operator: (?="),
        ("regex", "(\n", "`value` is no regular expression in RE2 syntax: missing ): (?"),
        ("starts_with", "", "`value` must be a string that is not empty"),
        ("ends_with", 1, "`value` must be a string that is not empty"),
        ("length_lte", -1, "`value` must be a whole number of at least 0"),
        ("length_lte", True, "`value` must be a whole number of at least 0"),
        ("exists", "true", "`value` must be true or false"),
        (
            "is_type",
            "text",
            "`text` is no JSON type: the types are string, number, integer, boolean, object, array, null",
        ),
        ("is_type", [], "`value` must be a list of at least one item"),
        ("subset_of", "a", "`value` must be a list of at least one item"),
        ("cidr_in", "10.0.0.1/8", "`value` must be an IP network: 10.0.0.1/8 has host bits set"),
        ("cidr_in", "::ffff:10.0.0.0/104", "`::ffff:10.0.0.0/104` maps IPv4 addresses: write the IPv4 network itself"),
        (
            "path_under",
            "/srv/../etc",
            "`value` must be a plain POSIX directory, without `..`, `~`, backslash or percent-encoding",
        ),
    ],
)
def test_an_operand_that_cannot_work_is_refused_in_one_line(op: str, operand: Json, message: str) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]+$") as caught:
        OPERATORS[op].compile(operand)
    assert str(caught.value) == message


def test_negative_operators_are_marked() -> None:
    negative = {name for name, operator in OPERATORS.items() if operator.negative}
    assert negative == {"neq", "not_in", "not_regex", "not_contains"}


def test_the_tests_below_try_every_operator() -> None:
    assert OPERANDS.keys() == OPERATORS.keys()


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("op", OPERATORS)
@pytest.mark.parametrize(
    "value",
    [10**5000, -(10**5000), "9" * 100_000, nested(100_000), {"a": nested(5000)}, "\ud800", math.nan, -math.inf],
    ids=["big", "small", "long", "deep", "deep object", "surrogate", "nan", "infinity"],
)
def test_no_value_makes_an_operator_raise(op: str, value: Json) -> None:
    assert isinstance(holds(op, OPERANDS[op], value), bool)


@given(st.sampled_from(sorted(OPERATORS)), JSON)
@settings(max_examples=150, deadline=None)
def test_every_operator_answers_for_every_value(op: str, value: Json) -> None:
    assert isinstance(holds(op, OPERANDS[op], value), bool)


@given(JSON)
@settings(max_examples=100, deadline=None)
def test_a_value_equals_its_json_copy_unless_it_holds_what_equals_nothing(value: Json) -> None:
    text = json.dumps(value)
    assert equal(value, json.loads(text)) or "NaN" in text


def test_equality_needs_no_recursion() -> None:
    assert equal(nested(100_000), nested(100_000))
    assert not equal(nested(100_000), nested(99_999))


@pytest.mark.parametrize(("value", "expected"), [("1.50", 1.5), (2, 2), (True, None), ("1e3", None), (None, None)])
def test_numeric_reads_numbers_and_canonical_strings(value: Json, expected: float | None) -> None:
    assert numeric(value) == expected
