"""What texts mean, and that every recipe's program does what its name says."""

from __future__ import annotations

import sys

import pytest

from intercept_py.jobs import recipes
from intercept_py.jobs.recipes import RecipeError


def words(text: str, allow_shell: bool = False) -> tuple[str, ...]:
    """The command of a recipe without the part that all have."""
    command = recipes.parse(text, allow_shell)
    assert command[:3] == (sys.executable, "-I", "-S")
    return command[4:]


@pytest.mark.parametrize(
    ("text", "command"),
    [
        ("sleep 10", ("sleep", "10")),
        ("  sleep   0.5 ", ("sleep", "0.5")),
        ("count 3", ("count", "3")),
        ("count 3 0.1", ("count", "3", "0.1")),
        ("flood 2", ("flood", "2")),
        ("fail 3", ("fail", "3")),
        ("stubborn 1", ("stubborn", "1")),
        ("forker 1", ("forker", "1")),
        ("ask which  one? ", ("ask", "which  one?")),
        ("echo $HOME; rm -rf /", ("echo", "$HOME; rm -rf /")),
        ("echo", ("echo", "")),
    ],
)
def test_a_text_becomes_a_command(text: str, command: tuple[str, ...]) -> None:
    assert words(text) == command


def test_every_name_can_be_built_from_arguments() -> None:
    for name in recipes.NAMES:
        assert recipes.build(name, ["1"])[-2:] == (name, "1")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "foo bar",
            "unknown recipe `foo`: use one of sleep, count, flood, fail, stubborn, forker, ask, echo "
            "(or start the server with --allow-shell)",
        ),
        ("", "unknown recipe ``: use one of"),
        ("Sleep 1", "unknown recipe `Sleep`"),
        ("x\ny" * 1000, "unknown recipe `x yx yx"),
        ("sleep", "recipe `sleep` does not take ``: use `sleep SECONDS (0 to 86400)`"),
        ("sleep -1", "recipe `sleep` does not take `-1`"),
        ("sleep nan", "recipe `sleep` does not take `nan`"),
        ("sleep inf", "recipe `sleep` does not take `inf`"),
        ("sleep 1e99", "recipe `sleep` does not take `1e99`"),
        ("sleep ٣", "recipe `sleep` does not take `٣`"),
        ("sleep 1 2", "recipe `sleep` does not take `1 2`"),
        ("sleep 1; reboot", "recipe `sleep` does not take `1; reboot`"),
        ("count 1.5", "recipe `count` does not take `1.5`: use `count N (1 to 1000000) [SECONDS (0 to 86400)]`"),
        ("count 0", "recipe `count` does not take `0`"),
        ("flood 99999", "recipe `flood` does not take `99999`"),
        ("fail 0", "recipe `fail` does not take `0`"),
        ("fail 256", "recipe `fail` does not take `256`"),
        ("echo a\0b", "recipe `echo` does not take"),
        ("ask " + "é" * 1025, f"recipe `ask` does not take `{'é' * 60}...`: use `ask QUESTION (up to 2048 bytes)`"),
    ],
)
def test_what_is_no_recipe_is_refused_in_one_line_with_the_remedy(text: str, said: str) -> None:
    with pytest.raises(RecipeError) as refused:
        recipes.parse(text, False)
    assert str(refused.value).startswith(said)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 250
    assert refused.value.code == "unknown_recipe"


def test_with_a_shell_any_other_text_is_for_the_shell() -> None:
    assert recipes.parse("sleep 1; reboot", True) == ("/bin/sh", "-c", "sleep 1; reboot")
    assert recipes.parse("ls", True) == ("/bin/sh", "-c", "ls")
    assert words("sleep 1", allow_shell=True) == ("sleep", "1")


@pytest.mark.parametrize("text", ["", "  \n", "ls \0"])
def test_with_a_shell_nothing_is_still_no_command(text: str) -> None:
    with pytest.raises(RecipeError):
        recipes.parse(text, True)
