"""How paths are written and what they find."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from intercept_py.model import Caller, Json, ToolCall
from intercept_py.policy.paths import MISSING, lookup, parse, parse_result, parse_state, render

CALL = ToolCall(
    name="refund",
    arguments={"a": {"b": 1, "": 2}, "items": [{"id": "x"}, None], "odd.key": 3, "null": None, 'q"': 4, "0": 5},
    caller=Caller(session="s", scopes=("read", "write"), claims={"team": {"id": 7}}),
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("args.a.b", 1),
        ('args["a"]["b"]', 1),
        ('args.a[""]', 2),
        ("args.items[0].id", "x"),
        ("args.items[1]", None),
        ("args.items[2]", MISSING),
        ("args.items.id", MISSING),
        ('args["odd.key"]', 3),
        ('args["q\\""]', 4),
        ("args.0", 5),
        ("args[0]", MISSING),
        ("args.null", None),
        ("args.null.x", MISSING),
        ("args.A", MISSING),
        ("args.a.b.c", MISSING),
        ("caller.session", "s"),
        ("caller.principal", MISSING),
        ("caller.address", MISSING),
        ("caller.scopes", ["read", "write"]),
        ("caller.scopes[1]", "write"),
        ("caller.claims.team.id", 7),
        ("caller.claims.other", MISSING),
        ("tool.name", "refund"),
        ("tool.category", "financial"),
    ],
)
def test_a_path_finds_what_it_names(text: str, value: Json) -> None:
    found = lookup(parse(text), CALL, "financial")
    assert found is MISSING if value is MISSING else found == value


def test_a_tool_without_a_category_has_none() -> None:
    assert lookup(parse("tool.category"), CALL, None) is MISSING


def test_a_path_keeps_the_spelling_of_its_author() -> None:
    assert parse('args["a"].b').text == 'args["a"].b'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("args", "`args` needs a name after `args.`"),
        ("args.", '`args.` is no path from `.` on: write `.name`, `[0]` or `["any key"]`'),
        ("args..a", '`args..a` is no path from `..a` on: write `.name`, `[0]` or `["any key"]`'),
        ("args.a b", '`args.a b` is no path from ` b` on: write `.name`, `[0]` or `["any key"]`'),
        ("args[01]", '`args[01]` is no path from `[01]` on: write `.name`, `[0]` or `["any key"]`'),
        ("args[-1]", '`args[-1]` is no path from `[-1]` on: write `.name`, `[0]` or `["any key"]`'),
        ("args.a\n", '`args.a?` is no path from `?` on: write `.name`, `[0]` or `["any key"]`'),
        (
            'args["\\x"]',
            '`args["\\x"]` has a quoted key that is no JSON string: write `.name`, `[0]` or `["any key"]`',
        ),
        ("amount", "`amount` is no path: start with `args.`, `caller.`, `tool.` or `state.`"),
        ("", "`` is no path: start with `args.`, `caller.`, `tool.` or `state.`"),
        ("argsx.a", "`argsx.a` is no path: start with `args.`, `caller.`, `tool.` or `state.`"),
        ("state.a.b", "`state.a.b` is a counter: it can only be compared with `lt` or `lte`"),
        ("tool.risk", "`tool.risk` does not exist: the tool has `tool.name` and `tool.category`"),
        ("tool.name.x", "`tool.name.x` does not exist: the tool has `tool.name` and `tool.category`"),
        ("caller.session.x", "`caller.session.x` does not exist: `caller.session` is one string"),
        ("caller.claims", "`caller.claims` needs the name of a claim after `caller.claims.`"),
        (
            "caller.name",
            "`caller.name` does not exist: the caller has `caller.principal`, `caller.session`, `caller.address`, "
            "`caller.scopes`, `caller.claims`",
        ),
    ],
)
def test_what_is_no_path_is_refused_in_one_line(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]+$") as caught:
        parse(text)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("state.refund.spent", ("refund", "spent")),
        ("state.a.b.spent", ("a.b", "spent")),
        ("state.get_*.n", ("get_*", "n")),
        ("state._global.calls", ("*", "calls")),
    ],
)
def test_a_state_path_names_entry_and_counter(text: str, expected: tuple[str, str]) -> None:
    assert parse_state(text) == expected


@pytest.mark.parametrize(
    "text", ["state.spent", "state..spent", "state.refund.", "args.refund.spent", "state.a.b c", ""]
)
def test_a_state_path_needs_both_parts(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no counter: write `state\.<tool>\.<counter>`"):
        parse_state(text)


@pytest.mark.parametrize(
    ("text", "same"),
    [('args["a"].b', "args.a.b"), ('args["\\u0061"][0]', "args.a[0]"), ('args["a.b"]', 'args["a.b"]')],
)
def test_paths_that_mean_the_same_are_rendered_the_same(text: str, same: str) -> None:
    assert render(parse(text)) == same


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=5) | st.integers(0, 999), min_size=1))
@settings(max_examples=100, deadline=None)
def test_a_rendered_path_parses_to_the_same_steps(steps: list[str | int]) -> None:
    path = parse("args.a")
    rendered = render(type(path)("args", tuple(steps), ""))
    assert parse(rendered).steps == tuple(steps)


@given(st.text(max_size=30))
@settings(max_examples=150, deadline=None)
def test_any_text_is_a_path_or_a_value_error(text: str) -> None:
    for candidate in (text, f"args.{text}", f"args[{text}", f"caller.{text}", f"state.{text}"):
        for read in (parse, parse_state):
            with suppress(ValueError):
                read(candidate)


@pytest.mark.parametrize(
    ("text", "root", "steps"),
    [
        ("text", "text", ()),
        ("json", "json", ()),
        ("json.error", "json", ("error",)),
        ("json[0].id", "json", (0, "id")),
        ('structured["odd.key"].x', "structured", ("odd.key", "x")),
    ],
)
def test_a_path_into_a_result_has_roots_of_its_own(text: str, root: str, steps: tuple[str | int, ...]) -> None:
    path = parse_result(text)
    assert (path.root, path.steps, path.text) == (root, steps, text)


@pytest.mark.parametrize(
    "text", ["", "args.a", "state.a.b", "texts", "text.a", "json.", "json a", "structuredContent.a"]
)
def test_what_is_no_path_into_a_result_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\A`.*\Z"):
        parse_result(text)
