"""What clients may run: a text such as `sleep 10` becomes the command of a small program that comes with this package.

Below: `model`; `recipe_programs`, the programs. Above: the dialects.
"""

from __future__ import annotations

__all__ = ["NAMES", "RecipeError", "build", "parse"]

import os
import sys
from collections.abc import Callable

from intercept_py.jobs import recipe_programs
from intercept_py.jobs.model import JobError

_QUESTION = 2048
"""As JSON it is six times as long at most, and must fit into an event."""


class RecipeError(JobError):
    """A text that is no recipe; `code` is `unknown_recipe`."""

    def __init__(self, text: str) -> None:
        super().__init__("unknown_recipe", text)


def _number(least: float, most: float, kind: type[int] | type[float]) -> Callable[[str], bool]:
    def fits(text: str) -> bool:
        try:
            return text.isascii() and least <= kind(text) <= most  # false for NaN
        except ValueError:
            return False

    return fits


def _anything(text: str) -> bool:
    return "\0" not in text


def _question(text: str) -> bool:
    return _anything(text) and len(os.fsencode(text)) <= _QUESTION


_SECONDS = ("SECONDS (0 to 86400)", _number(0, 86_400, float))
_QUESTION_TEXT = (f"QUESTION (up to {_QUESTION} bytes)", _question)
_TEXT = ("TEXT", _anything)

# Name to its arguments: how to say them, and what they may be. How many are required follows.
_RECIPES: dict[str, tuple[tuple[tuple[str, Callable[[str], bool]], ...], int]] = {
    "sleep": ((_SECONDS,), 1),
    "count": ((("N (1 to 1000000)", _number(1, 1_000_000, int)), _SECONDS), 1),
    "flood": ((("MB (1 to 1024)", _number(1, 1024, int)),), 1),
    "fail": ((("CODE (1 to 255)", _number(1, 255, int)),), 1),
    "stubborn": ((_SECONDS,), 1),
    "forker": ((_SECONDS,), 1),
    "ask": ((_QUESTION_TEXT,), 1),
    "echo": ((_TEXT,), 1),
}

NAMES = tuple(_RECIPES)


def parse(text: str, allow_shell: bool) -> tuple[str, ...]:
    """The command that a client's text means. With `allow_shell` any other text is a shell command.

    Raises `RecipeError`.
    """
    name, _, rest = text.strip().partition(" ")
    arguments = [rest.strip()] if name in ("ask", "echo") else rest.split()
    try:
        return build(name, arguments)
    except RecipeError:
        if allow_shell and _anything(text) and text.strip():
            return ("/bin/sh", "-c", text)
        raise


def build(name: str, arguments: list[str]) -> tuple[str, ...]:
    """The command of a recipe with these arguments. Raises `RecipeError`."""
    if name not in _RECIPES:
        names = ", ".join(NAMES)
        raise RecipeError(
            f"unknown recipe `{_short(name)}`: use one of {names} (or start the server with --allow-shell)"
        )
    parameters, required = _RECIPES[name]
    given = zip(parameters, arguments, strict=False)
    if not required <= len(arguments) <= len(parameters) or not all(fits(word) for (_, fits), word in given):
        usage = " ".join(says if place < required else f"[{says}]" for place, (says, _) in enumerate(parameters))
        raise RecipeError(f"recipe `{name}` does not take `{_short(' '.join(arguments))}`: use `{name} {usage}`")
    return (sys.executable, "-I", "-S", recipe_programs.__file__, name, *arguments)


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 60 else f"{text[:60]}..."
