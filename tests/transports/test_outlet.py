"""Writing without waiting: what does not fit is kept, in order; what nobody reads is dropped."""

from __future__ import annotations

import os

from hypothesis import given, settings
from hypothesis import strategies as st

from intercept_py.transports.outlet import Outlet
from intercept_py.wire.commands import ToClient


def pipe() -> tuple[int, Outlet]:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    return reader, Outlet(writer)


def read(reader: int, size: int = 1 << 20) -> bytes:
    try:
        return os.read(reader, size)
    except BlockingIOError:
        return b""


@given(st.lists(st.integers(0, 200_000), max_size=6), st.integers(1, 100_000))
@settings(max_examples=40, deadline=None)
def test_everything_arrives_in_order_whenever_the_reader_reads(sizes: list[int], step: int) -> None:
    reader, outlet = pipe()
    lines = [bytes([65 + number]) * size for number, size in enumerate(sizes)]
    got = b""
    for line in lines:
        outlet.send([ToClient(line)])
        got += read(reader, step)
    while outlet.buffer:
        got += read(reader)
        outlet.flush()
    got += read(reader)
    os.close(reader)
    os.close(outlet.fd)
    assert got == b"".join(line + b"\n" for line in lines)


def test_lines_of_one_send_are_one_write() -> None:
    reader, outlet = pipe()
    outlet.send([ToClient(b"a"), ToClient(b"b")])
    assert read(reader) == b"a\nb\n"


def test_a_reader_that_is_gone_breaks_the_outlet_and_nothing_is_kept() -> None:
    reader, outlet = pipe()
    while not outlet.buffer:
        outlet.send([ToClient(b"x" * 60_000)])
    os.close(reader)
    outlet.flush()
    assert outlet.broken
    assert not outlet.buffer
    outlet.send([ToClient(b"more")])
    assert not outlet.buffer
