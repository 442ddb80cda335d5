"""The language as a table and as a JSON Schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from intercept_py.errors import PolicyError
from intercept_py.policy.loader import load
from intercept_py.policy.operators import OPERATORS
from intercept_py.policy.schema import FIELDS, FIELDS_OF, PLACES, json_schema
from intercept_py.policy.source import read
from intercept_py.policy.tree import plain

DOCUMENTS = sorted((Path(__file__).parent / "documents").glob("*.yaml"))
MISTAKES = sorted((Path(__file__).parents[1] / "mistakes").glob("*.yaml"))
VALIDATOR = jsonschema.Draft202012Validator(json_schema())

BEYOND_A_SCHEMA = frozenset(
    {
        "counter_limited_by_another_rule_only",
        "counter_misspelled",
        "counter_of_the_star_entry_unknown",
        "counter_of_the_star_entry_without_a_limit",
        "counter_twice",
        "counter_unknown",
        "counter_without_a_limit",
        "operand_is_no_network",
        "operand_is_no_type",
        "outcome_path_ends_early",
        "path_ends_early",
        "path_into_a_result_in_a_rule",
        "path_with_unknown_root",
        "path_without_root",
        "reason_with_control_characters",
        "regex_invalid",
        "regex_with_lookahead",
        "rule_enforced_in_a_shadow_policy",
        "schema_invalid",
        "scope_global_with_another",
        "scope_twice",
        "state_in_a_guard",
        "state_limit_is_no_number",
        "state_operator",
        "state_path_incomplete",
        "validate_with_everything_off",
        "tool_name_with_control_characters",
        "tool_named_like_the_global_scope",
        "two_limits_share_a_budget",
    }
)
"""Mistakes that need more than one place of the document, or the meaning of a text. The list must stay exact."""


def accepted(file: Path) -> bool | None:
    """Whether the schema accepts the file; None if it cannot be read as JSON at all."""
    root, problems = read(file.read_bytes(), file.name)
    return None if root is None or problems.sorted() else VALIDATOR.is_valid(plain(root))


def test_the_schema_is_a_valid_draft_2020_12_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema())
    assert json_schema()["$schema"] == "https://json-schema.org/draft/2020-12/schema"


@pytest.mark.parametrize("file", DOCUMENTS, ids=lambda file: file.stem)
def test_the_schema_accepts_every_valid_document(file: Path) -> None:
    assert accepted(file)


def test_the_schema_rejects_every_mistake_but_those_that_no_schema_can_see() -> None:
    assert {file.stem for file in MISTAKES if accepted(file)} == BEYOND_A_SCHEMA


@pytest.mark.parametrize("op", OPERATORS)
@pytest.mark.parametrize(
    "operand",
    [
        "x",
        "12.5",
        "10.0.0.0/8",
        "/srv",
        "string",
        "",
        0,
        7,
        -1,
        0.5,
        True,
        None,
        [],
        ["a"],
        [1, "/srv"],
        ["number"],
        {"a": 1},
    ],
    ids=repr,
)
def test_the_schema_accepts_every_operand_that_the_loader_accepts(op: str, operand: Any) -> None:
    document = {"tools": {"x": {"rules": [{"conditions": [{"path": "args.a", "op": op, "value": operand}]}]}}}
    assert VALIDATOR.is_valid(document) or not loads(document)


def loads(document: Any) -> bool:
    try:
        load(json.dumps(document).encode(), "p.yaml")
    except PolicyError:
        return False
    return True


def test_every_field_has_one_row_with_words_for_people() -> None:
    rows = [(field.where, field.name) for field in FIELDS]
    assert len(set(rows)) == len(rows)
    assert {where for where, _ in rows} == set(PLACES) == set(FIELDS_OF)
    for field in FIELDS:
        assert field.values
        assert field.default
        assert field.meaning
        assert (field.default == "required") is field.required


def test_every_field_is_described_in_the_schema() -> None:
    schema = json_schema()
    for field in FIELDS:
        place = schema if field.where == "policy" else schema["$defs"][field.where]
        assert field.meaning in place["properties"][field.name]["description"]
        assert place["additionalProperties"] is False
        assert (field.name in place.get("required", [])) is field.required


def test_the_operators_of_the_table_are_those_that_exist() -> None:
    assert FIELDS_OF["condition"]["op"].choices == tuple(OPERATORS)


def test_every_field_is_used_by_the_document_that_shows_the_whole_language() -> None:
    text = next(file for file in DOCUMENTS if file.stem == "whole_language").read_text("utf-8")
    for field in FIELDS:
        assert f"{field.name}:" in text, field.name
