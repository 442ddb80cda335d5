"""Every mistake a policy author can make has a small file in `tests/mistakes` that states its exact problems."""

from __future__ import annotations

from pathlib import Path

import pytest

import intercept_py.policy
from intercept_py.errors import PolicyError
from intercept_py.policy import messages
from intercept_py.policy.loader import load
from tests.support.mistakes import executed_lines, expected, pattern_of, reported, reporting_lines

MISTAKES = sorted((Path(__file__).parents[1] / "mistakes").glob("*.yaml"))
PACKAGE = Path(intercept_py.policy.__path__[0])
MODULES = ("source", "scalars", "section", "loader", "compile", "requirements", "limits_syntax")
REPORTING = tuple(PACKAGE / f"{name}.py" for name in MODULES)
TEMPLATES = {name: text for name, text in vars(messages).items() if name.isupper()}

ABOUT_BYTES = frozenset(("TOO_LARGE", "BYTE_ORDER_MARK", "BINARY", "NOT_UTF8", "LEFT_OUT"))
"""Not in a file that an editor could keep: `test_source` makes those."""


@pytest.mark.parametrize("file", MISTAKES, ids=lambda file: file.stem)
def test_a_mistake_is_reported_exactly_as_its_file_says(file: Path) -> None:
    assert reported(file, load) == expected(file) != []


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
    pattern = pattern_of(TEMPLATES[name])
    assert any(pattern.fullmatch(line) for file in MISTAKES for line in expected(file))


def test_every_place_that_reports_a_problem_is_reached_by_a_file() -> None:
    """A template may be used in several places, so the places are counted too."""
    reached = executed_lines(lambda: [reported(file, load) for file in MISTAKES], REPORTING)
    places = {(path, line) for path in REPORTING for line in reporting_lines(path, TEMPLATES.keys() - ABOUT_BYTES)}
    assert len(places) > 70
    assert places <= reached
