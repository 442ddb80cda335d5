"""What is kept of bodies that are arriving, counted for all clients together."""

from __future__ import annotations

from intercept_py.log import Log
from intercept_py.transports.http_arrivals import Arrivals
from intercept_py.transports.http_heads import Heads
from intercept_py.transports.http_messages import crowded
from intercept_py.transports.http_reader import RequestReader
from tests.transports.test_http_heads import Site

BEGUN = b"POST /mcp HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


class Client:
    """One whose bodies are counted."""

    def __init__(self) -> None:
        self.refused = 0

    def give_way(self) -> None:
        self.refused += 1


def test_whose_body_is_the_longest_on_its_way_gives_way() -> None:
    arrivals = Arrivals(100, Log("error"))
    slow, next_one, fast = clients = [Client(), Client(), Client()]
    arrivals.keep(slow, 10)
    arrivals.keep(next_one, 80)
    arrivals.keep(slow, 20)
    assert [client.refused for client in clients] == [0, 0, 0]
    arrivals.keep(fast, 1)
    assert [client.refused for client in clients] == [1, 0, 0]
    arrivals.keep(fast, 100)
    assert [client.refused for client in clients] == [1, 1, 0]
    arrivals.release(fast)
    arrivals.keep(slow, 100)
    assert [client.refused for client in clients] == [1, 1, 0]


def test_a_body_that_is_refused_is_kept_by_nobody() -> None:
    reader = RequestReader("there", Heads(), (site := Site()).read, site.admit, 1000, lambda request: None)
    reader.feed(BEGUN + b"5\r\nhello\r\n")
    request = reader.request
    assert request is not None
    assert reader.kept() == 5
    reader.refuse(crowded())
    assert (reader.kept(), request.body) == (0, [])


def test_small_pieces_of_a_body_do_not_take_much_more_room_than_it_has_bytes() -> None:
    reader = RequestReader("there", Heads(), (site := Site()).read, site.admit, 100_000, lambda request: None)
    reader.feed(BEGUN)
    for _ in range(100):
        reader.feed(b"2\r\nab\r\n" * 500)
        reader.kept()
    request = reader.request
    assert request is not None
    assert len(request.body) < 2000
    assert b"".join(request.body) == b"ab" * 50_000
