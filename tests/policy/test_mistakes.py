"""Every mistake a policy author can make has a small file in `tests/mistakes` that states its exact problems."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import intercept_py.policy
from intercept_py.errors import PolicyError
from intercept_py.policy import messages
from intercept_py.policy.loader import load

MISTAKES = sorted((Path(__file__).parents[1] / "mistakes").glob("*.yaml"))
PACKAGE = Path(intercept_py.policy.__path__[0])
MODULES = ("source", "scalars", "section", "loader", "compile", "requirements", "limits_syntax")
REPORTING = tuple(PACKAGE / f"{name}.py" for name in MODULES)
TEMPLATES = {name: text for name, text in vars(messages).items() if name.isupper()}

ABOUT_BYTES = frozenset(("TOO_LARGE", "BYTE_ORDER_MARK", "BINARY", "NOT_UTF8", "LEFT_OUT"))
"""Not in a file that an editor could keep: `test_source` makes those."""


def expected(file: Path) -> list[str]:
    return re.findall("^# expect: (.*)$", file.read_text("utf-8"), re.MULTILINE)


def reported(file: Path) -> list[str]:
    with pytest.raises(PolicyError) as caught:
        load(file.read_bytes(), "policy.yaml")
    return [str(problem).removeprefix("policy.yaml:") for problem in caught.value.problems]


@pytest.mark.parametrize("file", MISTAKES, ids=lambda file: file.stem)
def test_a_mistake_is_reported_exactly_as_its_file_says(file: Path) -> None:
    assert reported(file) == expected(file) != []


def test_problems_are_sorted_by_position_and_told_once() -> None:
    for file in MISTAKES:
        with pytest.raises(PolicyError) as caught:
            load(file.read_bytes(), "policy.yaml")
        assert list(caught.value.problems) == sorted(set(caught.value.problems))


def test_every_problem_is_one_line_that_starts_in_lower_case_or_with_what_the_author_wrote() -> None:
    for file in MISTAKES:
        for line in expected(file):
            message = line.split(": ", 2)[2]
            assert line.isprintable()
            assert message[0] in '`"' or message[0].islower(), line


@pytest.mark.parametrize("name", sorted(TEMPLATES.keys() - ABOUT_BYTES))
def test_every_message_is_shown_by_a_file(name: str) -> None:
    literals = [
        re.escape(text.replace("{{", "{").replace("}}", "}")) for text in re.split(r"(?<!\{)\{\w+\}", TEMPLATES[name])
    ]
    pattern = re.compile(r"\d+:\d+: \$\S*(?: \S*)?: " + ".*".join(literals))
    assert any(pattern.fullmatch(line) for file in MISTAKES for line in expected(file))


def test_every_place_that_reports_a_problem_is_reached_by_a_file() -> None:
    """A template may be used in several places, so the places are counted too."""
    reached = executed_lines(lambda: [reported(file) for file in MISTAKES])
    places = {(path, line) for path in REPORTING for line in reporting_lines(path)}
    assert len(places) > 70
    assert places <= reached


def reporting_lines(path: Path) -> Iterator[int]:
    """Lines inside functions that name a message, but for those about bytes."""
    functions = [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.FunctionDef)]
    for node in (inner for function in functions for inner in ast.walk(function)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "say":
            assert node.attr in TEMPLATES
            if node.attr not in ABOUT_BYTES:
                yield node.lineno


def executed_lines(run: Callable[[], object]) -> set[tuple[Path, int]]:
    names = {str(path): path for path in REPORTING}
    lines: set[tuple[Path, int]] = set()

    def trace(frame: FrameType, event: str, _argument: Any) -> Callable[..., Any] | None:
        path = names.get(frame.f_code.co_filename)
        if path is None:
            return None
        if event == "line":
            lines.add((path, frame.f_lineno))
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        run()
    finally:
        sys.settrace(before)
    return lines
