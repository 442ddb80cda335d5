"""The strict reader: what is refused before anything is understood, and that every value keeps its position."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from intercept_py.policy.scalars import MAX_INTEGER, resolve
from intercept_py.policy.source import MAX_BYTES, MAX_DEPTH, MAX_EXPANSION, read
from intercept_py.policy.tree import MAX_PROBLEMS, Array, Broken, Node, Object, Scalar, is_sound, plain, shown


def told(text: bytes) -> list[str]:
    return [str(problem) for problem in read(text, "p.yaml")[1].sorted()]


def tree(text: str) -> Node:
    node, problems = read(text.encode(), "p.yaml")
    assert node is not None
    assert problems.sorted() == ()
    return node


def value(text: str) -> Any:
    return plain(tree(text))


BYTES = {
    "too large": (
        b"a: " + b"x" * MAX_BYTES,
        f"1:1: $: the file has {MAX_BYTES + 3} bytes, a policy at most {MAX_BYTES}: "
        "split it, or check that this is the right file",
    ),
    "utf-8 mark": (
        b"\xef\xbb\xbftools: {}\n",
        "1:1: $: the file starts with a byte order mark: save it as UTF-8 without one",
    ),
    "utf-16": (
        "tools: {}\n".encode("utf-16"),
        "1:1: $: the file starts with a byte order mark: save it as UTF-8 without one",
    ),
    "utf-16 without a mark": (
        "tools: {}\n".encode("utf-16-le"),
        "1:2: $: the file holds a NUL byte, so it is not text: give a YAML file in UTF-8",
    ),
    "binary": (
        b"\x7fELF\x02\x01\n\xff\0",
        "2:2: $: the file holds a NUL byte, so it is not text: give a YAML file in UTF-8",
    ),
    "latin-1": (
        "tools: {}\n# gr\xfc\xdfe\n".encode("latin-1"),
        "2:5: $: byte `0xfc` is not valid UTF-8: save the file as UTF-8",
    ),
    "encoded surrogate": (b"a: \xed\xa0\x80", "1:4: $: byte `0xed` is not valid UTF-8: save the file as UTF-8"),
    "lone carriage return": (
        b"# comment\rdefault: allow\n",
        "1:10: $: character U+000D is invisible or changes how text is read: "
        "remove it, or write `\\u000d` in double quotes",
    ),
    "mark in the middle": (
        "a: \ufeffb\n".encode(),
        "1:4: $: character U+FEFF is invisible or changes how text is read: "
        "remove it, or write `\\ufeff` in double quotes",
    ),
    "invisible tag characters": (
        "a: b\U000e0041\n".encode(),
        "1:5: $: character U+E0041 is invisible or changes how text is read: "
        "remove it, or write `\\U000e0041` in double quotes",
    ),
    "only a comment": (b"# nothing\n", "1:1: $: the file holds no policy: start with `tools:`"),
}


@pytest.mark.parametrize("name", BYTES)
def test_what_is_no_text_is_told_in_one_line(name: str) -> None:
    text, problem = BYTES[name]
    assert told(text) == [f"p.yaml:{problem}"]


def test_a_file_of_the_largest_size_is_read() -> None:
    assert value("a: " + "x" * (MAX_BYTES - 3)) == {"a": "x" * (MAX_BYTES - 3)}


def test_windows_line_ends_count_as_one_line() -> None:
    node = tree("a: 1\r\nb:\r\n  - c\r\n")
    assert isinstance(node, Object)
    found = node.members["b"].node
    assert isinstance(found, Array)
    assert (found.items[0].line, found.items[0].column) == (3, 5)


def test_every_value_and_key_has_its_position() -> None:
    node = tree('tools:\n  "ü": {rules: [deny]}\n')
    assert isinstance(node, Object)
    tools = node.members["tools"].node
    assert isinstance(tools, Object)
    entry = tools.members["ü"]
    assert (entry.key.line, entry.key.column) == (2, 3)
    assert isinstance(entry.node, Object)
    rules = entry.node.members["rules"].node
    assert isinstance(rules, Array)
    assert rules.items == (Scalar(2, 17, "deny", "deny"),)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("true", True),
        ("false", False),
        ("null", None),
        ("0", 0),
        ("-7", -7),
        (str(MAX_INTEGER), MAX_INTEGER),
        ("0.1", 0.1),
        ("-12.50", -12.5),
        *((word, word) for word in ("y", "n", "5/hour", "90s", "1.2.3", "10.0.0.0/8", "-", "+", ".", "args.a", "v1")),
        ("2026-11", "2026-11"),
        ("10.0.0.1", "10.0.0.1"),
        ("..", ".."),
        ("e3", "e3"),
        ("١٢", "١٢"),
    ],
)
def test_plain_scalars_that_everybody_reads_alike_have_a_value(text: str, expected: object) -> None:
    found, problem = resolve(text)
    assert (found, problem) == (expected, None)
    assert type(found) is type(expected)


REFUSED_WORDS = ["Yes", "NO", "off", "TRUE", "~", "NULL", "=", "<<", "+.inf", ".NaN"]
REFUSED_NUMBERS = [
    "010",
    "+1",
    "1_0",
    "0x1f",
    "0o7",
    "0b1",
    "1:30",
    "1:2:3.5",
    ".5",
    "5.",
    "1e3",
    "-.5",
    "1.5e+3",
    "9007199254740992",
    "0.12345678901234567890",
]
REFUSED_DATES = ["2026-1-1", "2026-11-21 10:00:00"]
REFUSED_LENGTHS = ["1" * 5000, "1" * 400 + ".5", "0." + "1" * 5000, "1" * 350 + ".5"]


@pytest.mark.parametrize("text", [*REFUSED_WORDS, *REFUSED_NUMBERS, *REFUSED_DATES, *REFUSED_LENGTHS])
def test_plain_scalars_that_readers_disagree_about_are_refused(text: str) -> None:
    assert resolve(text)[0] is None
    assert resolve(text)[1] is not None


@pytest.mark.parametrize("text", ["no", "010", "1:30", "2026-11-21", ".inf", "<<", "~", "1e3"])
def test_quoting_makes_text_of_anything(text: str) -> None:
    assert value(f"a: '{text}'\n{json.dumps(text)}: b") == {"a": text, text: "b"}


def test_a_character_that_may_not_stand_in_the_file_can_be_written_as_an_escape() -> None:
    assert value(r'a: "x\u202ey\u2028z\0"') == {"a": "x\u202ey\u2028z\0"}


def test_an_alias_stands_for_the_whole_value() -> None:
    assert value("a: &x {b: [1, 2]}\nc: *x\nd: [*x, *x]\n")["d"] == [{"b": [1, 2]}, {"b": [1, 2]}]


def test_aliases_may_stand_for_as_many_values_as_the_bound_says() -> None:
    ten = "&x [" + ", ".join("1" * 9) + "]"
    repeat = MAX_EXPANSION // 10
    assert len(value(f"a: {ten}\nb: [{', '.join(['*x'] * repeat)}]")["b"]) == repeat
    assert "stand for more than" in told(f"a: {ten}\nb: [{', '.join(['*x'] * (repeat + 1))}]".encode())[0]


def test_nesting_may_be_as_deep_as_the_bound_says() -> None:
    assert is_sound(tree("[" * MAX_DEPTH + "]" * MAX_DEPTH))
    assert "nested deeper" in told(b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1))[0]


@pytest.mark.parametrize("text", [b"[" * 500_000, b"{a: " * 200_000, b"- " * 400_000, b"? " * 300_000])
def test_deep_nesting_costs_neither_stack_nor_time(text: bytes) -> None:
    assert "nested deeper" in "".join(told(text))


def test_the_first_of_two_equal_keys_stays_and_the_rest_of_the_file_is_read_on() -> None:
    node, problems = read(b"a: 1\na: 2\nb: no\n", "p.yaml")
    assert isinstance(node, Object)
    assert node.members["a"].node == Scalar(1, 4, 1, "1")
    assert node.members["b"].node == Broken(3, 4)
    assert [problem.line for problem in problems.sorted()] == [2, 3]
    assert not is_sound(node)
    assert plain(node) == {"a": 1, "b": None}


def test_a_file_with_very_many_mistakes_lists_the_first_ones() -> None:
    problems = told(b"a:\n" * 50_000)
    assert len(problems) == MAX_PROBLEMS + 1
    assert problems[-1] == "p.yaml:1001:1: $.a: 48999 more problems are not listed: correct these first"


def test_what_a_stranger_wrote_is_shown_on_one_short_line() -> None:
    assert shown("a\nb\x1b[31m\u202e") == "a\\nb\\x1b[31m\\u202e"
    assert len(shown("x" * 5000)) == 400


printable = st.text(st.characters(min_codepoint=32, max_codepoint=0x24F, exclude_categories=("Cc", "Cf")), max_size=20)
numbers = st.integers(-MAX_INTEGER, MAX_INTEGER) | st.decimals(-9999, 9999, places=3).map(float)
values = st.recursive(
    st.none() | st.booleans() | numbers | printable,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(printable, inner, max_size=4),
    max_leaves=20,
)


@given(values)
@settings(max_examples=150, deadline=None)
def test_json_is_read_as_json(original: Any) -> None:
    assert value(json.dumps({"a": original}, ensure_ascii=False)) == {"a": original}


@given(st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass")))
@settings(max_examples=200, deadline=None)
def test_reading_anything_gives_a_tree_or_a_problem(text: bytes) -> None:
    node, problems = read(text, "p.yaml")
    assert node is not None or problems.sorted() != ()


SIGNS = [*"{}[],:-?&*!|>'\"%@`#~ \n\ta1", "<<", "*a", "&a ", "---\n", "...\n", "\r\n", "no"]


@given(st.lists(st.sampled_from(SIGNS)))
@settings(max_examples=200, deadline=None)
def test_any_mix_of_signs_gives_a_tree_or_a_problem(signs: list[str]) -> None:
    node, problems = read("".join(signs).encode(), "p.yaml")
    assert node is not None or problems.sorted() != ()
