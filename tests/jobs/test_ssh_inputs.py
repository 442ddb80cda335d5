"""What the ssh tools accept, at and beyond every bound, in the words that users of mcp-ssh-orchestrator know."""

from __future__ import annotations

import pytest

from intercept_py.jobs.dialects import ssh_inputs
from intercept_py.jobs.dialects.ssh_inputs import InputError

TASK_CHARACTERS = "task_id contains invalid characters (only alphanumeric, colon, dash, underscore allowed)"


@pytest.mark.parametrize("value", ["web1:abc123:1234567890", "prod-web_1:a:1", "nonexistent", "a" * 200])
def test_a_task_id_of_letters_digits_colons_dashes_and_underscores_is_accepted(value: str) -> None:
    assert ssh_inputs.task_id(f"  {value}\n") == value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("", "task_id is required"),
        (" \t\n ", "task_id is required"),
        ("a" * 201, "task_id too long (max 200 characters)"),
        *((f"web{character}1:abc:1", TASK_CHARACTERS) for character in "@#/ .\n\0é"),
    ],
)
def test_any_other_task_id_is_refused_with_the_documented_text(value: str, text: str) -> None:
    with pytest.raises(InputError) as refused:
        ssh_inputs.task_id(value)
    assert str(refused.value) == text


@pytest.mark.parametrize("value", ["web1", "prod-web-1", "db_server", "server.example.com", "a" * 100])
def test_an_alias_may_hold_dots(value: str) -> None:
    assert ssh_inputs.alias(value) == value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("", "alias is required"),
        ("  ", "alias is required"),
        ("a" * 101, "alias too long (max 100 characters)"),
        *(
            (f"web{c}1", "alias contains invalid characters (only alphanumeric, dash, underscore, dot allowed)")
            for c in "@#$/\\ ([{|&:"
        ),
    ],
)
def test_any_other_alias_is_refused(value: str, text: str) -> None:
    with pytest.raises(InputError) as refused:
        ssh_inputs.alias(value)
    assert str(refused.value) == text


def test_a_tag_has_at_most_50_characters() -> None:
    assert ssh_inputs.tag("t" * 50) == "t" * 50
    with pytest.raises(InputError, match=r"^tag too long \(max 50 characters\)$"):
        ssh_inputs.tag("t" * 51)
    with pytest.raises(InputError, match=r"^tag is required$"):
        ssh_inputs.tag("")
    with pytest.raises(InputError, match=r"^tag contains invalid characters"):
        ssh_inputs.tag("web/1")


@pytest.mark.parametrize("value", ["uptime", "echo 'a'\necho 'b'", "a\tb", "a\rb", "é", "c" * 10_000])
def test_a_command_may_hold_line_ends_and_tabs(value: str) -> None:
    assert ssh_inputs.command(value) == value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("", "command is required"),
        ("  ", "command is required"),
        ("c" * 10_001, "command too long (max 10000 characters)"),
        ("echo\0hello", "command contains invalid characters (null bytes not allowed)"),
        *((f"echo{c}hello", "command contains invalid control characters") for c in "\x01\x02\x07\x08\x0b\x0c\x1b\x1f"),
    ],
)
def test_any_other_command_is_refused(value: str, text: str) -> None:
    with pytest.raises(InputError) as refused:
        ssh_inputs.command(value)
    assert str(refused.value) == text


@pytest.mark.parametrize(("value", "fine"), [(0, False), (1, True), (1000, True), (1001, False), (-1, False)])
def test_between_1_and_1000_lines_are_returned(value: int, fine: bool) -> None:
    if fine:
        assert ssh_inputs.lines(value) == value
    else:
        with pytest.raises(InputError, match=r"^max_lines must be between 1 and 1000$"):
            ssh_inputs.lines(value)
