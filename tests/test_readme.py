"""The README says what the code does: its table of fields, its policy, its options and its commands."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from intercept_py.__main__ import COMMANDS
from intercept_py.cli import run
from intercept_py.policy import loader, schema

README = (Path(__file__).resolve().parent.parent / "README.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    """The fenced code blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_the_table_of_fields_is_the_one_that_the_loader_reads() -> None:
    start, end = README.index("<!-- fields"), README.index("<!-- end of fields")
    rows = README[start:end].splitlines()[3:]
    expected = [
        "| " + " | ".join([field.where, f"`{field.name}`", field.values, field.default, field.meaning]) + " |"
        for field in schema.FIELDS
    ]
    assert rows == expected


@pytest.mark.parametrize("text", blocks("yaml"))
def test_every_policy_shown_loads(text: str) -> None:
    assert loader.load(text.encode(), "README.md").entries


@pytest.mark.parametrize("text", blocks("json"))
def test_every_json_shown_is_json(text: str) -> None:
    json.loads(text)


def test_every_option_of_run_is_listed_and_every_listed_one_exists(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run.main(["--help"])
    offered = set(re.findall(r"--[a-z][a-z-]+", capsys.readouterr().out)) - {"--help"}
    section = README.partition("## Options of `run`")[2].partition("\n## ")[0]
    assert set(re.findall(r"--[a-z][a-z-]+", section)) == offered


def test_every_command_shown_exists() -> None:
    shown = set(re.findall(r"^intercept-py (\w+)", "\n".join(blocks("sh")), re.MULTILINE))
    assert shown
    assert shown <= set(COMMANDS)


def test_every_file_named_exists() -> None:
    for target in re.findall(r"\]\(([\w./-]+)\)", README):
        assert (Path(__file__).resolve().parent.parent / target).exists(), target
