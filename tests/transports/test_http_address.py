"""URLs and header fields as people give them."""

from __future__ import annotations

import pytest

from intercept_py.errors import UpstreamError
from intercept_py.transports.http_address import Address, parse_fields, parse_url

PUNY = "xn--bc-xka.example"


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://example.com", Address("example.com", 80, False, "example.com", "/")),
        ("https://example.com/mcp", Address("example.com", 443, True, "example.com", "/mcp")),
        ("HTTPS://Example.com:443/mcp", Address("example.com", 443, True, "example.com", "/mcp")),
        ("http://127.0.0.1:8080/a/b?c=d", Address("127.0.0.1", 8080, False, "127.0.0.1:8080", "/a/b?c=d")),
        ("http://[::1]:8080/mcp", Address("::1", 8080, False, "[::1]:8080", "/mcp")),
        ("https://b\u00fcc.example/m\u00fc#part", Address(PUNY, 443, True, PUNY, "/m%C3%BC")),
        ("http://example.com/a%20b", Address("example.com", 80, False, "example.com", "/a%20b")),
    ],
)  # fmt: skip
def test_a_url_says_where_the_server_is(url: str, address: Address) -> None:
    assert parse_url(url) == address


@pytest.mark.parametrize(
    "url",
    [
        "", "example.com/mcp", "ftp://example.com", "file:///etc/passwd", "http://", "http:///mcp", "http://a:99999/",
        "http://a:b/", "http://[::1/", "http://a b/", "http://a/\r\nX: y", "http://a/ HTTP/1.1", "http://a\u2028b/",
        "http://" + "a" * 100 + "..example/",
    ],
)  # fmt: skip
def test_what_is_no_url_of_a_server_is_refused_in_one_line(url: str) -> None:
    with pytest.raises(UpstreamError) as caught:
        parse_url(url)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "url", ["https://user:hunter2@example.com/mcp", "https://hunter2@example.com", "http://:hunter2@a/"]
)
def test_credentials_in_a_url_are_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(UpstreamError, match="--header") as caught:
        parse_url(url)
    assert "hunter2" not in str(caught.value)


def test_fields_are_passed_on_as_they_are() -> None:
    fields = [("Authorization", "Bearer abc"), ("X-Team", " a b ")]
    assert parse_fields(fields) == [(b"Authorization", b"Bearer abc"), (b"X-Team", b"a b")]


@pytest.mark.parametrize(
    ("name", "value", "named"),
    [
        ("", "hunter2", False),
        ("A b", "hunter2", False),
        ("A\r\nB", "hunter2", False),
        ("X-Key", "hunter2\r\nX-Evil: 1", True),
        ("X-Key", "hunter2\u00e9", True),
        ("Host", "hunter2", True),
        ("content-length", "hunter2", True),
        ("Transfer-Encoding", "hunter2", True),
        ("Mcp-Session-Id", "hunter2", True),
        ("MCP-Protocol-Version", "hunter2", True),
        ("Accept-Encoding", "hunter2", True),
    ],
)
def test_fields_that_cannot_be_sent_or_are_the_proxys_own_are_refused(name: str, value: str, named: bool) -> None:
    with pytest.raises(UpstreamError) as caught:
        parse_fields([(name, value)])
    assert "hunter2" not in str(caught.value)
    assert (f"`{name}`" in str(caught.value)) == named
    assert str(caught.value).isprintable()
