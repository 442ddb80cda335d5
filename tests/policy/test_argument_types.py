"""Security rule 4: arguments whose JSON type contradicts the tool's schema."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from intercept_py.model import Json, JsonObject
from intercept_py.policy.argument_types import compile_types

DRAFT_7 = "http://json-schema.org/draft-07/schema#"


def contradiction(schema: JsonObject, value: Json) -> str | None:
    return compile_types({"type": "object", "properties": {"a": schema}})({"a": value})


@pytest.mark.parametrize(
    ("schema", "value", "reason"),
    [
        ({"type": "string"}, 1, "argument `a` must be string, not integer"),
        ({"type": "string"}, None, "argument `a` must be string, not null"),
        ({"type": "number"}, "1", "argument `a` must be number, not string"),
        ({"type": "number"}, True, "argument `a` must be number, not boolean"),
        ({"type": "integer"}, 1.5, "argument `a` must be integer, not number"),
        ({"type": "boolean"}, "yes", "argument `a` must be boolean, not string"),
        ({"type": "boolean"}, 1, "argument `a` must be boolean, not integer"),
        ({"type": "array"}, {}, "argument `a` must be array, not object"),
        ({"type": "object"}, "{}", "argument `a` must be object, not string"),
        ({"type": ["string", "null"]}, 1, "argument `a` must be string or null, not integer"),
        ({"type": "string", "nullable": True}, 1, "argument `a` must be string or null, not integer"),
        ({"enum": ["a", 1, None]}, True, "argument `a` must be string or number or null, not boolean"),
        ({"const": "a"}, 1, "argument `a` must be string, not integer"),
        ({"properties": {"b": {"type": "string"}}}, {"b": 1}, "argument `a.b` must be string, not integer"),
        ({"additionalProperties": {"type": "string"}}, {"x": 1}, "argument `a.x` must be string, not integer"),
        ({"items": {"type": "string"}}, ["a", 1], "argument `a[1]` must be string, not integer"),
        ({"prefixItems": [{"type": "string"}]}, [1], "argument `a[0]` must be string, not integer"),
        ({"items": [{"type": "string"}]}, [1], "argument `a[0]` must be string, not integer"),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, 1, "argument `a` must be string or null, not integer"),
        ({"anyOf": [False, {"type": "string"}]}, 1, "argument `a` must be string, not integer"),
        ({"oneOf": [{"type": "string"}, {"enum": [1]}]}, [], "argument `a` must be string or number, not array"),
        ({"allOf": [{}, {"type": "string"}]}, 1, "argument `a` must be string, not integer"),
    ],
)
def test_a_contradicting_type_is_named(schema: JsonObject, value: Json, reason: str) -> None:
    assert contradiction(schema, value) == reason


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "integer"}, 1.0),
        ({"type": "number"}, 1),
        ({"type": "string", "nullable": True}, None),
        ({"type": "string", "nullable": True, "enum": ["a"]}, None),
        ({"type": "any"}, 1),
        ({"type": ["string", "file"]}, 1),
        ({"type": []}, 1),
        ({"type": 7}, 1),
        ({"enum": [1]}, 1.0),
        ({"enum": ["a"]}, "b"),
        ({"enum": []}, 1),
        ({"anyOf": [{"type": "string"}, {}]}, 1),
        ({"anyOf": [{"type": "string"}, {"not": {}}]}, 1),
        ({"anyOf": []}, 1),
        ({"oneOf": [{"type": "string"}, {"type": "string"}]}, "a"),
        ({"not": {"type": "integer"}}, 1),
        ({"if": {}, "then": {"type": "string"}}, 1),
        ({"additionalProperties": False}, {"x": 1}),
        ({"additionalProperties": {"type": "string"}, "patternProperties": {"^n": {}}}, {"n": 1}),
        ({"properties": {"b": True}, "additionalProperties": {"type": "string"}}, {"b": 1}),
        ({"prefixItems": [{}], "items": {"type": "string"}}, [1, "a"]),
        ({"$ref": "#anchor"}, 1),
        ({"$ref": "https://example.com/x.json"}, 1),
        ({"$ref": "#/$defs/nowhere"}, 1),
        ({"$id": "https://example.com/x", "type": "string"}, 1),
        ({"$schema": DRAFT_7, "type": "string"}, 1),
        (True, 1),
        (False, 1),
    ],
)
def test_what_is_not_known_to_contradict_passes(schema: Json, value: Json) -> None:
    assert contradiction(schema, value) is None


def test_local_references_are_followed() -> None:
    schema = {"properties": {"a": {"$ref": "#/$defs/id"}}, "$defs": {"id": {"type": "string"}}}
    assert compile_types(schema)({"a": 1}) == "argument `a` must be string, not integer"
    assert compile_types(schema)({"a": "x"}) is None


def test_up_to_draft_7_a_reference_hides_its_neighbours() -> None:
    schema = {"properties": {"a": {"$ref": "#/definitions/any", "type": "string"}}, "definitions": {"any": {}}}
    assert compile_types({"$schema": DRAFT_7, **schema})({"a": 1}) is None
    assert compile_types(schema)({"a": 1}) is not None


def test_the_arguments_themselves_have_a_type_too() -> None:
    assert compile_types({"type": "array"})({}) == "the value of `arguments` must be array, not object"


def test_the_branch_that_fits_best_is_reported() -> None:
    schema = {"anyOf": [{"type": "null"}, {"properties": {"b": {"items": {"type": "string"}}}}]}
    assert contradiction(schema, {"b": [1]}) == "argument `a.b[0]` must be string, not integer"


def test_a_schema_that_refers_to_itself_is_checked_all_the_way_down() -> None:
    tree: JsonObject = {"type": "object", "properties": {"child": {"$ref": "#"}, "name": {"type": "string"}}}
    deep: JsonObject = {"name": 1}
    for _ in range(60):
        deep = {"child": deep}
    reason = compile_types(tree)(deep)
    assert reason is not None
    assert reason.endswith("must be string, not integer")


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"allOf": [{"$ref": "#"}, {"$ref": "#"}]},
        {"anyOf": [{"$ref": "#/$defs/x"}], "$defs": {"x": {"oneOf": [{"$ref": "#"}, {"$ref": "#/$defs/x"}]}}},
    ],
)
def test_a_reference_in_a_circle_means_nothing(schema: JsonObject) -> None:
    assert compile_types(schema)({"a": 1}) is None


def test_a_schema_that_doubles_at_every_level_is_still_quick() -> None:
    branch = {"properties": {"c": {"$ref": "#/$defs/t"}, "x": {"type": "string"}}}
    schema = {"$ref": "#/$defs/t", "$defs": {"t": {"anyOf": [branch, dict(branch), dict(branch)], "allOf": [branch]}}}
    deep: JsonObject = {"x": 1}
    for _ in range(60):
        deep = {"c": deep}
    assert compile_types(schema)(deep) is not None


# -- against a validator -----------------------------------------------------------------------------------------------

NAMES = ("string", "number", "integer", "boolean", "object", "array", "null")
SCALARS = (
    st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from([0.5, 1.0, -0.0]) | st.sampled_from(["", "a"])
)
KEYS = st.sampled_from(["a", "b", "c"])
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=8
)
DIALECTS = (
    None,
    "https://json-schema.org/draft/2020-12/schema",
    "https://json-schema.org/draft/2019-09/schema",
    DRAFT_7,
)


def keywords(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    several = st.lists(inner, min_size=1, max_size=3)
    return st.booleans() | st.fixed_dictionaries(
        {},
        optional={
            "type": st.sampled_from(NAMES) | st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True),
            "enum": st.lists(SCALARS, min_size=1, max_size=2),
            "const": SCALARS,
            "properties": st.dictionaries(KEYS, inner, max_size=2),
            "additionalProperties": inner,
            "patternProperties": st.dictionaries(st.just("^a"), inner, max_size=1),
            "items": inner,
            "prefixItems": several,
            "allOf": several,
            "anyOf": several,
            "oneOf": several,
            "not": inner,
            "if": inner,
            "then": inner,
            # To a definition of its own level or a deeper one: never in a circle, which no validator can follow.
            "$ref": st.sampled_from(["#/$defs/leaf", "#/$defs/pair"]),
        },
    )


SCHEMAS = st.recursive(
    st.fixed_dictionaries({}, optional={"type": st.sampled_from(NAMES), "const": SCALARS}), keywords, max_leaves=6
)
LEAVES = st.fixed_dictionaries({}, optional={"type": st.sampled_from(NAMES), "nullable": st.booleans()})


@given(
    schema=SCHEMAS.filter(lambda schema: isinstance(schema, dict)),
    leaf=LEAVES,
    arguments=st.dictionaries(KEYS, VALUES, max_size=3),
    dialect=st.sampled_from(DIALECTS),
)
@settings(max_examples=150, deadline=None)
def test_it_never_denies_what_a_validator_accepts(
    schema: JsonObject, leaf: JsonObject, arguments: JsonObject, dialect: str | None
) -> None:
    document = {**schema, "$defs": {"leaf": leaf, "pair": {"properties": {"b": {"$ref": "#/$defs/leaf"}}}}}
    if dialect is not None:
        document["$schema"] = dialect
    if compile_types(document)(arguments) is not None:
        validator = jsonschema.validators.validator_for(document, default=jsonschema.Draft202012Validator)
        assert not validator(document).is_valid(arguments)


PLAIN = st.recursive(
    st.fixed_dictionaries({}, optional={"type": st.sampled_from(NAMES)}),
    lambda inner: st.fixed_dictionaries(
        {},
        optional={
            "type": st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True),
            "properties": st.dictionaries(KEYS, inner, max_size=2),
            "additionalProperties": inner,
            "items": inner,
            "prefixItems": st.lists(inner, min_size=1, max_size=2),
            "allOf": st.lists(inner, min_size=1, max_size=2),
            "anyOf": st.lists(inner, min_size=1, max_size=2),
        },
    ),
    max_leaves=6,
)


@given(schema=PLAIN, arguments=st.dictionaries(KEYS, VALUES, max_size=3))
@settings(max_examples=150, deadline=None)
def test_on_schemas_of_types_alone_it_agrees_with_a_validator(schema: JsonObject, arguments: JsonObject) -> None:
    accepted = jsonschema.Draft202012Validator(schema).is_valid(arguments)
    assert (compile_types(schema)(arguments) is None) is accepted


@given(schema=st.dictionaries(st.sampled_from(["type", "$ref", "items", "anyOf", "enum", "properties"]), VALUES))
@settings(max_examples=100, deadline=None)
def test_a_schema_of_nonsense_never_raises(schema: JsonObject) -> None:
    reason = compile_types(schema)({"a": 1})
    assert reason is None or isinstance(reason, str)
