"""Names, texts and full validation of arguments."""

from __future__ import annotations

import pytest

from intercept_py.model import Json, JsonObject
from intercept_py.policy.arguments import Remembered, blank, compile_schema, declare, fold, located, printable, resolve


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("cancel_run", "cancel_run"),
        ("größe 🚀", "größe 🚀"),
        ("a\nb\x1b[31m", "a\\u000ab\\u001b[31m"),
        ("\u202eevil", "\\u202eevil"),
        ("a`; rule `b", "a\\u0060; rule \\u0060b"),
        ("\ud800", "\\ud800"),
        ("\U000e0001", "\\U000e0001"),
        ("x" * 200, "x" * 127 + "…"),
    ],
)
def test_a_strangers_text_cannot_leave_its_place(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_arguments_are_located_by_their_steps() -> None:
    assert located(("a", "b", 0, "c\n")) == "a.b[0].c\\u000a"


@pytest.mark.parametrize(
    ("key", "other"),
    [
        ("Name", "name"),
        ("ｎａｍｅ", "name"),
        ("ﬁle", "file"),
        ("na\u200bme", "name"),
        ("STRASSE", "straße"),
        ("K", "k"),
    ],
)
def test_keys_that_look_alike_fold_alike(key: str, other: str) -> None:
    assert fold(key) == fold(other)


@pytest.mark.parametrize(("key", "other"), [("name", "names"), ("runId", "run_id"), ("a b", "ab")])
def test_other_keys_stay_apart(key: str, other: str) -> None:
    assert fold(key) != fold(other)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, True), ("", True), (" \t\n", True), ("\u3000", True), (0, False), (False, False), ([], False)],
)
def test_blank_is_null_or_white_space(value: Json, expected: bool) -> None:
    assert blank(value) is expected


def test_names_are_gathered_from_every_branch_and_required_from_the_certain_ones() -> None:
    schema: JsonObject = {
        "properties": {"a": {}},
        "required": ["a", 1],
        "allOf": [{"$ref": "#/$defs/base"}, {"properties": {"c": {}}, "required": ["c"]}],
        "anyOf": [{"properties": {"d": {}}, "required": ["d"]}, {"$ref": "#/$defs/base"}],
        "if": {"properties": {"x": {}}},
        "then": {"properties": {"E": {}}, "required": ["E"]},
        "$defs": {"base": {"properties": {"b": {}}, "required": ["b"], "allOf": [{"$ref": "#"}]}},
    }
    names = declare(schema)
    assert names.properties == {"a", "b", "c", "d", "E"}
    assert names.folded == {"a", "b", "c", "d", "e"}
    assert set(names.required) == {"a", "b", "c"}


@pytest.mark.parametrize(
    "schema", [{}, {"properties": []}, {"properties": None, "required": "a", "allOf": 3, "anyOf": [1, True], "$ref": 7}]
)
def test_a_schema_of_nonsense_declares_nothing(schema: JsonObject) -> None:
    assert not declare(schema).properties
    assert not declare(schema).required


@pytest.mark.parametrize(
    ("reference", "found"),
    [
        ("#/$defs/a~1b/items/0", {"type": "null"}),
        ("#/$defs/a~1b/items/1", None),
        ("#/$defs/x%41", None),
        ("#anchor", None),
        ("https://example.com/#/a", None),
        ("#/$defs/other/inner", None),
        (3, None),
    ],
)
def test_only_local_references_are_followed(reference: Json, found: JsonObject | None) -> None:
    root = {"$defs": {"a/b": {"items": [{"type": "null"}]}, "x%41": {}, "other": {"$id": "urn:x", "inner": {}}}}
    assert resolve(root, reference) == found


def test_a_reference_to_the_root_is_the_root() -> None:
    root: JsonObject = {"$id": "https://example.com/root"}
    assert resolve(root, "#") is root


def test_a_result_is_remembered_for_the_object_and_not_for_its_value() -> None:
    built: list[JsonObject] = []
    remembered = Remembered(built.append)
    one: JsonObject = {"a": 1}
    other: JsonObject = {"a": 1}
    for schema in (one, one, other, one):
        remembered(schema)
    assert [schema is one for schema in built] == [True, False]


def test_many_schemas_do_not_fill_the_memory() -> None:
    remembered = Remembered(lambda schema: schema["n"])
    assert [remembered({"n": n}) for n in range(5000)] == list(range(5000))
    assert len(vars(remembered)["_built"]) <= 1024


# -- validation --------------------------------------------------------------------------------------------------------

SCHEMA: JsonObject = {
    "type": "object",
    "properties": {
        "runId": {"type": "string", "pattern": "^run_", "maxLength": 10},
        "tags": {"items": {"enum": ["a"]}},
    },
    "required": ["runId"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"runId": "run_1"}, None),
        ({}, 'arguments: "runId" is a required property'),
        ({"runId": "secret"}, 'argument `runId`: the value does not match "^run_"'),
        ({"runId": 12345678}, 'argument `runId`: the value is not of type "string"'),
        ({"runId": "run_1", "tags": ["a", "secret"]}, 'argument `tags[1]`: the value is not one of "a"'),
        ({"runId": "run_" + "9" * 99}, "argument `runId`: the value is longer than 10 characters"),
        ({"runId": "run_1", "x": 1}, "arguments: Additional properties are not allowed ('x' was unexpected)"),
    ],
)
def test_validation_says_what_is_wrong_and_never_quotes_a_value(arguments: JsonObject, reason: str | None) -> None:
    assert compile_schema(SCHEMA)(arguments) == reason


def test_a_name_that_a_stranger_chose_is_escaped_in_the_reason() -> None:
    reason = compile_schema(SCHEMA)({"runId": "run_1", "x\n\x1b[31m\u202e" + "y" * 1000: 1})
    assert reason is not None
    assert reason.isprintable()
    assert len(reason) < 300


@pytest.mark.parametrize("value", ["\ud800", {"\ud800": 1}, 10**400, {"a": object()}])
def test_what_cannot_be_validated_is_invalid(value: Json) -> None:
    reason = compile_schema({"type": "array"})(value)
    assert isinstance(reason, str)
    assert reason.isprintable()


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "objekt"},
        {"pattern": "("},
        {"$ref": "#/$defs/nowhere"},
        {"$ref": "https://192.0.2.1/schema.json"},
        {"$ref": "file:///etc/passwd"},
        {"$schema": "https://192.0.2.1/meta.json"},
        "true",
        None,
        [],
        3,
    ],
)
def test_a_schema_that_cannot_be_used_is_refused_in_one_line_and_nothing_is_fetched(schema: Json) -> None:
    with pytest.raises(ValueError, match=r"^(the JSON Schema cannot be used: |a JSON Schema is an object)[^\n]+$"):
        compile_schema(schema)


def test_true_allows_everything_and_false_nothing() -> None:
    assert compile_schema(True)({"a": 1}) is None
    assert compile_schema(False)({"a": 1}) is not None


def test_a_pattern_cannot_take_for_ever() -> None:
    assert compile_schema({"pattern": "^(a+)+$"})("a" * 50_000 + "b") is not None


def test_a_look_ahead_works_within_bounds() -> None:
    valid = compile_schema({"pattern": r"^(?!\.)[a-z.]+@[a-z]+$"})
    assert valid("a.b@c") is None
    assert valid(".b@c") is not None
    assert compile_schema({"pattern": r"^(?=a)(a+)+$"})("a" * 5_000 + "b") is not None


def test_drafts_are_told_apart_by_their_dialect() -> None:
    tuples = {"$schema": "http://json-schema.org/draft-07/schema#", "items": [{"type": "string"}]}
    assert compile_schema(tuples)(["a", 1]) is None
    assert compile_schema(tuples)([1]) is not None
