"""Server-sent events, against the rules of WHATWG HTML and against what the SDK's server and client make of them."""

from __future__ import annotations

import json

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sse_starlette import ServerSentEvent as StarletteEvent

from intercept_py.wire.sse import EventReader, ServerEvent, encode_event


def read(stream: bytes, limit: int = 1000) -> list[ServerEvent]:
    return EventReader(limit).feed(stream)


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_an_event_ends_with_a_blank_line_whatever_ends_lines(end: bytes) -> None:
    lines = [b"event: message", b"id: 7", b"retry: 250", b'data: {"a":1}', b"", b""]
    assert read(end.join(lines)) == [ServerEvent(b'{"a":1}', "message", "7", 250)]


@given(st.data())
def test_it_does_not_matter_how_a_stream_is_cut_into_chunks(data: st.DataObject) -> None:
    stream = b"\xef\xbb\xbf: hello\r\rid: 1\r\ndata: a\rdata: b\r\n\r\nevent: x\ndata: c\n\n"
    stream += b"\r\nretry: 5\r\n\r\nid:2\ndata\n\n"
    cuts = sorted(data.draw(st.sets(st.integers(0, len(stream)))))
    reader, events = EventReader(1000), list[ServerEvent]()
    for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        events += reader.feed(stream[start:stop])
    assert events == [
        ServerEvent(b"a\nb", "message", "1"),
        ServerEvent(b"c", "x"),
        ServerEvent(None, retry=5),
        ServerEvent(b"", id="2"),
    ]
    assert not reader.too_long


def test_only_one_blank_behind_the_colon_is_no_part_of_the_value() -> None:
    assert read(b"data:  a \n\n") == [ServerEvent(b" a ")]


def test_an_event_without_an_end_is_none() -> None:
    assert read(b"data: a\n") == []


def test_comments_unknown_fields_and_empty_events_say_nothing() -> None:
    assert read(b": still here\n\nnonsense\nfoo: bar\n\n\n\nevent: x\n\n") == []


@pytest.mark.parametrize(
    "field", [b"id: a\0b", b"id: " + b"x" * 1025, b"retry: 1s", b"retry: -1", b"retry: " + b"9" * 10]
)
def test_an_id_or_a_time_that_is_none_is_left_out(field: bytes) -> None:
    assert read(field + b"\ndata: a\n\n", limit=10_000) == [ServerEvent(b"a")]


def test_an_empty_id_takes_the_last_one_back() -> None:
    assert read(b"id\ndata: a\n\n") == [ServerEvent(b"a", id="")]


@pytest.mark.parametrize(
    "stream", [b"data: 12345678901\n\n", b"data: 123456\ndata: 12345\n\n", b"data: 12345678901", b": 01234567890123456"]
)
def test_what_is_longer_than_the_limit_ends_the_stream(stream: bytes) -> None:
    reader = EventReader(10)
    assert reader.feed(b"data: ok\n\n") == [ServerEvent(b"ok")]
    for part in (stream, b"\n\ndata: a\n\n"):
        assert reader.feed(part) == []
    assert reader.too_long


def test_events_before_one_that_is_too_long_still_come() -> None:
    reader = EventReader(10)
    assert reader.feed(b"data: ok\n\ndata: 12345678901\n\ndata: late\n\n") == [ServerEvent(b"ok")]
    assert reader.too_long


def test_an_event_may_be_as_long_as_the_limit_in_many_chunks() -> None:
    size = 3_000_000
    reader = EventReader(size)
    stream = b"data: " + b"x" * size + b"\n\n"
    events = [event for start in range(0, len(stream), 65536) for event in reader.feed(stream[start : start + 65536])]
    assert [len(event.data or b"") for event in events] == [size]


@given(st.text(), st.one_of(st.none(), st.integers(0, 99999)))
def test_what_another_library_writes_is_read(text: str, retry: int | None) -> None:
    message = json.dumps({"text": text})
    written = StarletteEvent(message, event="message", id="e1", retry=retry).encode()
    assert read(written, limit=100_000) == [ServerEvent(message.encode(), "message", "e1", retry)]


@pytest.mark.parametrize("data", [b'{"jsonrpc":"2.0"}', None])
@pytest.mark.parametrize("marks", [(None, None), ("e1", None), (None, 500), ("e1", 500)])
def test_what_is_written_is_read_again(data: bytes | None, marks: tuple[str | None, int | None]) -> None:
    stream = encode_event(data, *marks)
    assert read(stream) == [ServerEvent(data or b"", "message", *marks)]


def test_what_is_written_is_read_by_the_library_of_the_sdk() -> None:
    stream = encode_event(None, "e1", 500) + encode_event(b'{"a":1}', "e2")
    request = httpx2.Request("GET", "http://localhost")
    response = httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=stream, request=request)
    first, second = httpx2.EventSource(response)
    assert (first.data, first.id, first.retry) == ("", "e1", 500)
    assert (second.data, second.id, second.event) == ('{"a":1}', "e2", "message")
