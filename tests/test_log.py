"""What the proxy says on stderr, and that saying it never hurts."""

from __future__ import annotations

import os
import select

import pytest

from intercept_py.log import Log, printable


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("plain é 😀", "plain é 😀"),
        ("a\x1b[31mred", "a\\x1b[31mred"),
        ("two\nlines\r\n", "two\\nlines\\r\\n"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("zero\u200bwidth\u2028", "zero\\u200bwidth\\u2028"),
        ("c1\x9b31m", "c1\\x9b31m"),
        ("\U000e0041", "\\U000e0041"),
        ("\ud800", "\\ud800"),
    ],
)
def test_strangers_text_cannot_move_the_cursor_or_end_the_line(text: str, escaped: str) -> None:
    assert printable(text) == escaped


def read_all(fd: int) -> str:
    os.set_blocking(fd, False)
    try:
        return os.read(fd, 1_000_000).decode()
    except BlockingIOError:
        return ""


def test_lines_below_the_level_are_not_written() -> None:
    reader, writer = os.pipe()
    log = Log("warn", writer)
    log("info", "no")
    log("error", "yes")
    assert read_all(reader) == "intercept-py: error: yes\n"


def test_a_full_stderr_loses_lines_instead_of_blocking() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    while select.select([], [writer], [], 0)[1]:
        os.write(writer, b"x" * 4096)
    os.set_blocking(writer, True)
    Log("info", writer)("info", "this must come back")
    assert "come back" not in read_all(reader)


def test_a_flood_of_lines_is_cut_short() -> None:
    reader, writer = os.pipe()
    log = Log("info", writer)
    for number in range(Log.BURST * 10):
        log("warn", f"line {number}")
    assert read_all(reader).count("\n") <= Log.BURST * 2  # the burst may have begun at the end of a second


def test_a_very_long_line_is_cut() -> None:
    reader, writer = os.pipe()
    Log("info", writer)("info", "é" * 100_000)
    assert len(read_all(reader).encode()) < 4096
