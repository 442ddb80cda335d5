"""Folders of files with one mistake each: what they expect, what is reported, and whether they reach all that reports.

A file says what it expects in comments: `# expect: line:column: path: message`.
"""

from __future__ import annotations

__all__ = ["executed_lines", "expected", "pattern_of", "reported", "reporting_lines"]

import ast
import re
import sys
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from intercept_py.errors import PolicyError


def expected(file: Path) -> list[str]:
    """What a file says that it is told."""
    return re.findall("^# expect: (.*)$", file.read_text("utf-8"), re.MULTILINE)


def reported(file: Path, load: Callable[[bytes, str], object]) -> list[str]:
    """What it is told."""
    with pytest.raises(PolicyError) as caught:
        load(file.read_bytes(), "file.yaml")
    return [str(problem).removeprefix("file.yaml:") for problem in caught.value.problems]


def pattern_of(template: str) -> re.Pattern[str]:
    """Lines with the message of a template."""
    parts = re.split(r"(?<!\{)\{\w+\}", template)
    literals = [re.escape(text.replace("{{", "{").replace("}}", "}")) for text in parts]
    return re.compile(r"\d+:\d+: \$\S*(?: \S*)?: " + ".*".join(literals))


def reporting_lines(path: Path, names: Collection[str]) -> Iterator[int]:
    """Lines inside functions that name one of these messages, as `say.NAME`."""
    functions = [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.FunctionDef)]
    inner = [node for function in functions for node in ast.walk(function) if isinstance(node, ast.Attribute)]
    for node in inner:
        if isinstance(node.value, ast.Name) and node.value.id == "say" and node.attr in names:
            yield node.lineno


def executed_lines(run: Callable[[], object], files: Collection[Path]) -> set[tuple[Path, int]]:
    """Which lines of these files are executed."""
    known = {str(path): path for path in files}
    lines: set[tuple[Path, int]] = set()

    def trace(frame: FrameType, event: str, _argument: Any) -> Callable[..., Any] | None:
        path = known.get(frame.f_code.co_filename)
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
