"""Strict decoding and canonical encoding, against independent parsers."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from intercept_py.errors import ProtocolError
from intercept_py.wire import codec

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
KEYS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=8)
NUMBERS = st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False, allow_infinity=False)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=20,
)


def same(left: Any, right: Any) -> bool:
    """Equality with JSON's types: 1 is not true, and a float is told from an integer."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, float):
        return left == right and math.copysign(1, left) == math.copysign(1, right)
    return bool(left == right)


@given(VALUES)
@settings(max_examples=200)
def test_decoding_an_encoding_gives_the_value_back(value: Any) -> None:
    assert same(codec.decode(codec.encode(value)), value)


@given(VALUES)
@settings(max_examples=200)
def test_the_canonical_encoding_is_one_ascii_line_that_an_independent_parser_reads_alike(value: Any) -> None:
    line = codec.encode(value)
    assert line.isascii()
    assert not set(line) & set(b"\r\n\x7f")
    assert same(json.loads(line), value)


@given(VALUES, st.booleans(), st.integers(0, 4))
@settings(max_examples=150)
def test_every_spelling_of_a_value_is_encoded_in_one_way(value: Any, ascii_only: bool, indent: int) -> None:
    spelled = json.dumps(value, ensure_ascii=ascii_only, indent=indent or None).encode()
    assert codec.encode(codec.decode(spelled)) == codec.encode(value)


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) < len(pairs):
        raise ValueError("duplicate key")
    return dict(pairs)


def _strictly(data: bytes) -> Any:
    """The standard library's parser with its leniences taken away: an independent statement of what JSON is."""

    def no(_: str) -> Any:
        raise ValueError("not JSON")

    def number(text: str) -> float:
        value = float(text)
        return value if math.isfinite(value) else no(text)

    value = json.loads(data.decode("utf-8"), object_pairs_hook=_pairs, parse_constant=no, parse_float=number)
    json.dumps(value, ensure_ascii=False).encode("utf-8")  # lone surrogates
    return value


@given(VALUES, st.data())
@settings(max_examples=300)
def test_a_damaged_message_is_refused_or_read_as_a_strict_parser_reads_it(value: Any, data: st.DataObject) -> None:
    line = bytearray(json.dumps(value, ensure_ascii=data.draw(st.booleans())).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(line)))
        line[at : at + data.draw(st.integers(0, 2))] = data.draw(
            st.binary(max_size=2) | st.sampled_from([b",", b'"', b":"])
        )
    try:
        decoded = codec.decode(bytes(line))
    except ProtocolError:
        return
    assert same(decoded, _strictly(bytes(line)))


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"\xef\xbb\xbf{}", -32700),
        (b'{"a":"\xff"}', -32700),
        (b'{"a":"\xc0\x80"}', -32700),
        (b'{"a":"\xed\xa0\x80"}', -32700),
        (b'{"a":"\\ud800"}', -32700),
        (b'{"a":"\\ud83d\\u0041"}', -32700),
        (b'{"a":NaN}', -32700),
        (b'{"a":Infinity}', -32700),
        (b'{"a":1e400}', -32700),
        (b'{"a":-1e400}', -32700),
        (b'{"a":' + b"9" * 5000 + b"}", -32700),
        (b'{"a":1}{"b":2}', -32700),
        (b'{"a":1}\n{"b":2}', -32700),
        (b'{"a":1} x', -32700),
        (b'{"a":1,}', -32700),
        (b"{'a':1}", -32700),
        (b'{"a":01}', -32700),
        (b'{"a":1}\x00', -32700),
        (b"\xfe\xff\x00{\x00}", -32700),
        (b"", -32700),
        (b'{"a":1,"a":2}', -32600),
        (b'{"a":1,"\\u0061":2}', -32600),
        (b'{"x":{"a:b":1,"a\\u003ab":2}}', -32600),
        (b'[{"k":{"deep":1,"deep":1}}]', -32600),
        (b'{"a\\n":1}', -32600),
        (b'{"a\\u0085":1}', -32600),
        (b'{"a\x7f":1}', -32600),
        ('{"a\u0085":1}'.encode(), -32600),
        (b"[" * 65 + b"]" * 65, -32600),
        (b"[" * 200_000 + b"]" * 200_000, -32600),
    ],
)
def test_what_parsers_could_read_differently_is_refused(line: bytes, code: int) -> None:
    with pytest.raises(ProtocolError) as refused:
        codec.decode(line)
    assert refused.value.code == code
    assert "\n" not in str(refused.value)


def test_nesting_up_to_the_bound_is_read() -> None:
    assert codec.decode(b"[" * 64 + b"]" * 64) is not None


def test_colons_inside_strings_are_not_taken_for_keys() -> None:
    value = {"url": 'http://[::1]:80/\\":"', "list": ["a:b", ":"], ":": {":": ":"}}
    assert codec.decode(json.dumps(value).encode()) == value


@pytest.mark.parametrize(
    ("value", "large"),
    [
        (2**53 - 1, False),
        (-(2**53) + 1, False),
        (2**53, True),
        ([{"a": [-(2**53)]}], True),
        ({"a": True, "b": "9" * 40}, False),
    ],
)
def test_integers_beyond_what_a_double_holds_are_found(value: Any, large: bool) -> None:
    assert codec.decode_call(codec.encode(value)) == (value, large)


@pytest.mark.parametrize(
    ("one", "other"),
    [("name", "Name"), ("name", "ｎａｍｅ"), ("kind", "\u212aind"), ("straße", "STRASSE"), ("ﬁle", "file")],
)
def test_look_alike_keys_fold_to_one_spelling(one: str, other: str) -> None:
    assert codec.fold(one) == codec.fold(other)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b'{"jsonrpc":"2.0","id":7,"method":"x","params":{"a":1e400}}', 7),
        (b'{"jsonrpc":"2.0","id":"s","method":"x","params":{"a":1,"a":2}}', "s"),
        (b'{"id":1,"id":2,"method":"x"}', None),
        (b'{"id":1,"method":"x","params":{"id":1}}', None),
        (b'{"id":1,"result":{}}', None),
        (b'{"id":1.0,"method":"x"}', None),
        (b'{"id":null,"method":"x"}', None),
        (b"garbage", None),
    ],
)
def test_a_refused_request_is_answered_under_its_id_where_that_is_certain(line: bytes, expected: object) -> None:
    assert codec.peek_id(line) == expected


@pytest.mark.parametrize(
    ("edges", "expected"),
    [
        (b'{"jsonrpc":"2.0","id":17,"result":{"text":"...', 17),
        (b'{"result":{"text":"......"},"jsonrpc":"2.0","id":17}', 17),
        (b'{"result":{"a":{"id":17}', None),
        (b'{"result":{"id":17}}', None),
        (b'..."id":17}}', None),
        (b"noise", None),
    ],
)
def test_the_request_that_an_unreadable_answer_belongs_to_is_found_at_its_edges(edges: bytes, expected: object) -> None:
    assert codec.guess_id(edges) == expected


def test_an_envelope_keeps_the_payload_as_it_was() -> None:
    envelope = codec.decode_envelope(
        b'{"jsonrpc":"2.0","id":1,"result":{"n": 1e2, "big":123456789012345678901234567890}}'
    )
    assert bytes(envelope.result) == b'{"n": 1e2, "big":123456789012345678901234567890}'


@pytest.mark.parametrize(
    "line", [b"[]", b'{"id":true,"result":1}', b'{"id":1.0,"result":1}', b'{"id":1,"result":"\xff"}']
)
def test_an_envelope_that_is_none_is_refused(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        codec.decode_envelope(line)
