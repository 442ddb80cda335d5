"""What a job printed, as text."""

from __future__ import annotations

import pytest

from intercept_py.jobs.dialects.output_text import text_of
from intercept_py.jobs.model import Output

EURO = "€".encode()


@pytest.mark.parametrize("cut", range(4))
def test_a_character_on_the_border_of_head_and_tail_is_whole(cut: int) -> None:
    assert text_of(Output(b"a" + EURO[:cut], EURO[cut:] + b"z")) == "a€z"


@pytest.mark.parametrize(("head", "tail"), [(EURO[:2], b""), (b"", EURO[1:]), (EURO[:1], EURO[2:])])
def test_what_is_left_of_a_character_is_not_shown(head: bytes, tail: bytes) -> None:
    assert text_of(Output(b"a" + head, tail + b"z", 7)) == "a\n[7 bytes were not kept]\nz"


def test_bytes_that_are_no_text_are_shown_as_such() -> None:
    assert text_of(Output(b"a\xff", b"\xfez", 7)) == "a\ufffd\n[7 bytes were not kept]\n\ufffdz"
    assert text_of(Output(b"a\xff")) == "a\ufffd"
    assert text_of(Output(b"")) == ""
