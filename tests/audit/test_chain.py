from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from intercept_py.audit.chain import (
    GENESIS,
    HEAD_SIZE,
    MAX_FAULTS,
    Head,
    encode,
    encode_head,
    link,
    read_head,
    read_line,
    verify,
)
from intercept_py.wire import codec

DOCS = Path(__file__).parents[2] / "docs" / "audit.md"


def chain(number: int, note: str = "") -> list[bytes]:
    lines, previous = [], GENESIS
    for seq in range(1, number + 1):
        effect = "deny" if seq % 3 == 0 else "allow"
        record = {"ts": f"2026-01-01T00:00:{seq:02}.000000Z", "event": "decision", "effect": effect, "note": note}
        line, previous = link(encode(record), seq, previous)
        lines.append(line)
    return lines


def split_at_feeds(data: bytes) -> list[bytes]:
    parts = data.split(b"\n")
    return [part + b"\n" for part in parts[:-1]] + [part for part in parts[-1:] if part]


def head_of(lines: list[bytes]) -> bytes:
    last = read_line(lines[-1])
    assert last is not None
    return encode_head(last.seq, last.hash)


def faults(lines: list[bytes], head: bytes | None = None) -> list[tuple[int, str]]:
    return [(fault.line, fault.kind) for fault in verify(lines, head).faults]


LINES = chain(6)


def test_a_line_is_ascii_json_with_the_record_between_its_number_and_its_hashes() -> None:
    line, digest = link(encode({"event": "stop", "reason": "é\u2028\x7f😀"}), 1, GENESIS)
    assert line.isascii()
    assert line.endswith(b"\n")
    assert list(json.loads(line)) == ["seq", "event", "reason", "prev", "hash"]
    assert json.loads(line) == {"seq": 1, "event": "stop", "reason": "é\u2028\x7f😀", "prev": GENESIS, "hash": digest}


def test_the_encoding_is_the_canonical_one_of_the_wire() -> None:
    value = {"a": [1, 2.5, None, True], "é\x7f": "\u2028\ud7ff\U0010ffff\n"}
    assert encode(value) == codec.encode(value)


@pytest.mark.parametrize("value", ["\ud800", msgspec.Raw(b"[1,\n2]"), msgspec.Raw(b'"\xff"'), object()])
def test_what_is_not_one_line_of_json_is_not_encoded(value: object) -> None:
    with pytest.raises((ValueError, TypeError)):
        encode({"x": value})


def test_a_sound_file_reports_what_it_holds() -> None:
    report = verify(LINES, head_of(LINES))
    first, last = read_line(LINES[0]), read_line(LINES[-1])
    assert first is not None
    assert last is not None
    assert (report.records, report.allowed, report.denied, report.fault_count) == (6, 4, 2, 0)
    assert (report.first_ts, report.last_ts) == ("2026-01-01T00:00:01.000000Z", "2026-01-01T00:00:06.000000Z")
    assert (report.first_hash, report.last_hash, report.head) == (first.hash, last.hash, "matches")


def test_a_file_of_one_record_spans_one_moment() -> None:
    report = verify(LINES[:1])
    assert report.first_ts == report.last_ts == "2026-01-01T00:00:01.000000Z"


def test_an_empty_file_is_sound() -> None:
    report = verify([], encode_head(0, GENESIS))
    assert (report.records, report.fault_count, report.head) == (0, 0, "matches")


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda a: [*a[:2], *a[3:]], [(3, "removed")]),
        (lambda a: a[1:], [(1, "removed")]),
        (lambda a: a[3:], [(1, "removed")]),
        (lambda a: [a[0], a[2], a[1], *a[3:]], [(3, "reordered")]),
        (lambda a: [*a[:3], a[1], *a[3:]], [(4, "duplicate")]),
        (lambda a: [*a[:3], a[2], *a[3:]], [(4, "duplicate")]),
        (lambda a: [*a[:2], a[2].replace(b"deny", b"allow"), *a[3:]], [(3, "changed")]),
        (lambda a: [*a[:2], b"hello\n", *a[3:]], [(3, "unreadable")]),
        (lambda a: [*a[:2], b"hello\n", *a[2:]], [(3, "unreadable")]),
        (lambda a: [*a[:2], b"\n", *a[2:]], [(3, "unreadable")]),
        (lambda a: [*a[:2], a[2][:-1] + b" " + a[3], *a[4:]], [(3, "changed"), (4, "removed")]),
        (lambda a: [*a[:-1], a[-1][:-1]], [(6, "unreadable")]),
        (lambda a: [*a[:2], a[2].replace(b":", b": ", 1), *a[3:]], [(3, "unreadable")]),
        (lambda a: a[::-1], [(2, "reordered"), (3, "reordered"), (4, "reordered"), (5, "reordered"), (6, "reordered")]),
    ],
)
def test_a_fault_is_named_with_its_line(
    change: Callable[[list[bytes]], list[bytes]], found: list[tuple[int, str]]
) -> None:
    assert faults(change(list(LINES))) == found


def test_a_forged_record_that_is_sealed_itself_is_found_by_the_one_after_it() -> None:
    second = read_line(LINES[1])
    assert second is not None
    forged, _ = link(encode({"ts": "x", "event": "decision", "effect": "allow"}), 3, second.hash)
    assert faults([*LINES[:2], forged, *LINES[3:]]) == [(4, "changed")]
    assert faults([*LINES[:2], forged, *LINES[2:]])[0] == (4, "inserted")


@pytest.mark.parametrize("member", [b'"x":[', '"x":"é"'.encode(), b'"ts":1'])
def test_a_genuine_hash_over_what_we_never_write_makes_no_record(member: bytes) -> None:
    body = b'{"seq":1,' + member + b',"prev":"' + GENESIS.encode() + b'"'
    line = body + b',"hash":"' + hashlib.sha256(body).hexdigest().encode() + b'"}\n'
    assert faults([line]) == [(1, "unreadable")]


def test_records_cut_off_the_end_are_found_by_the_head_alone() -> None:
    assert faults(LINES[:4]) == []
    report = verify(LINES[:4], head_of(LINES))
    assert [str(fault.message) for fault in report.faults] == ["2 records were removed from the end: the last was 6"]
    assert report.head == "differs"


def test_a_log_that_goes_on_after_its_head_is_sound() -> None:
    report = verify(LINES, head_of(LINES[:4]))
    assert (report.fault_count, report.head) == (0, "matches")


def test_a_history_rewritten_behind_the_head_is_found() -> None:
    assert faults(chain(6, note="rewritten"), head_of(LINES)) == [(6, "head")]
    assert faults(chain(8, note="rewritten"), head_of(LINES)) == [(8, "head")]


@pytest.mark.parametrize("head", [b"", b"x" * HEAD_SIZE, head_of(LINES)[:-1], head_of(LINES) + b"\n"])
def test_a_damaged_head_is_a_fault(head: bytes) -> None:
    assert faults(LINES, head) == [(6, "head")]


def test_without_a_head_nobody_claims_to_have_checked_the_end() -> None:
    assert verify(LINES).head == "absent"


def test_a_head_reads_back_and_has_one_length() -> None:
    assert read_head(encode_head(7, "a" * 64)) == Head(7, "a" * 64)
    assert {len(encode_head(seq, "0" * 64)) for seq in (0, 1, 10**18)} == {HEAD_SIZE}


def test_faults_beyond_the_most_are_counted() -> None:
    report = verify([b"x\n"] * (MAX_FAULTS + 5))
    assert (len(report.faults), report.fault_count) == (MAX_FAULTS, MAX_FAULTS + 5)


def test_many_records_out_of_order_are_counted() -> None:
    lines = chain(3 * MAX_FAULTS)
    report = verify(lines[::-1])
    assert report.fault_count > 2 * MAX_FAULTS
    assert len(report.faults) == MAX_FAULTS


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_any_one_byte_edit_of_an_audit_file_is_found(data: st.DataObject) -> None:
    text = b"".join(LINES)
    at = data.draw(st.integers(0, len(text) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda value: value != text[at]))
    changed = text[:at] + bytes([byte]) + text[at + 1 :]
    assert verify(split_at_feeds(changed)).fault_count


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_any_byte_inserted_or_deleted_is_found(data: st.DataObject) -> None:
    text = b"".join(LINES)
    at = data.draw(st.integers(0, len(text)))
    inserted = text[:at] + bytes([data.draw(st.integers(0, 255))]) + text[at:]
    assert verify(split_at_feeds(inserted)).fault_count
    at = data.draw(st.integers(0, len(text) - 1))
    assert verify(split_at_feeds(text[:at] + text[at + 1 :])).fault_count


@given(st.lists(st.sampled_from(LINES), max_size=8))
@settings(max_examples=150, deadline=None)
def test_any_choice_of_lines_but_a_beginning_is_found_and_with_a_head_that_too(lines: list[bytes]) -> None:
    assert (verify(lines).fault_count == 0) == (lines == LINES[: len(lines)])
    assert (verify(lines, head_of(LINES)).fault_count == 0) == (lines == LINES)


@given(st.permutations(range(6)))
@settings(max_examples=100, deadline=None)
def test_any_other_order_of_the_lines_is_found(order: list[int]) -> None:
    assert (verify([LINES[at] for at in order]).fault_count == 0) == (order == sorted(order))


@given(st.binary(max_size=200))
@settings(max_examples=100, deadline=None)
def test_any_bytes_can_be_verified(data: bytes) -> None:
    report = verify(split_at_feeds(data))
    assert bool(report.fault_count) == bool(data)


@pytest.mark.parametrize(
    ("change", "sound"),
    [
        (lambda text: text, True),
        (lambda text: text.replace(b"deny", b"Deny", 1), False),
        (lambda text: b"".join(text.splitlines(keepends=True)[1:]), False),
        (lambda text: text[:-1], False),
    ],
)
def test_the_program_in_the_documentation_finds_what_we_find(
    tmp_path: Path, change: Callable[[bytes], bytes], sound: bool
) -> None:
    program = DOCS.read_text().partition("```python\n")[2].partition("```")[0]
    log = tmp_path / "audit.jsonl"
    log.write_bytes(change(b"".join(LINES)))
    run = subprocess.run([sys.executable, "-c", program, log], capture_output=True, text=True, check=False)
    assert (run.returncode == 0) is sound
    report = verify(split_at_feeds(log.read_bytes()))
    assert (report.fault_count == 0) is sound
    if sound:
        assert run.stdout.split() == ["6", report.last_hash]
