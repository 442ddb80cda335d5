"""Lines out of a stream, however it is cut."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from intercept_py.transports.lines import LineReader, TooLong

BYTES = st.binary(max_size=12).map(lambda data: data.replace(b"\n", b"n"))


@given(st.lists(BYTES, max_size=8), st.data())
def test_lines_do_not_depend_on_how_the_stream_is_cut(lines: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(line + b"\n" for line in lines)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    reader, got = LineReader(100), []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        got += reader.feed(stream[start:end])
    assert got == [line for line in lines if line not in (b"", b"\r")]


@given(st.integers(1, 40), st.integers(1, 9))
def test_a_line_over_the_bound_is_skipped_whole_and_the_next_one_is_read(excess: int, chunk: int) -> None:
    reader = LineReader(20)
    stream = b"x" * (20 + excess) + b"\nnext\n"
    got = [line for at in range(0, len(stream), chunk) for line in reader.feed(stream[at : at + chunk])]
    assert [type(line) for line in got] == [TooLong, bytes]
    assert got[1] == b"next"


def test_memory_stays_bounded_while_a_long_line_goes_by() -> None:
    reader = LineReader(1000)
    for _ in range(10_000):
        assert reader.feed(b"y" * 1000) == []
    assert sum(map(len, reader._parts)) <= 2000
    (line,) = reader.feed(b',"id":7}\n')
    assert isinstance(line, TooLong)
    assert line.edges.endswith(b',"id":7}')
    assert len(line.edges) < 2000
