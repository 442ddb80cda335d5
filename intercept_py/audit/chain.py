"""The hash chain of an audit file: how a record becomes a line, and what a file of lines proves. Pure.

A line is ASCII JSON, ends in one LF, and has exactly this form (`docs/audit.md` verifies it in ten lines of Python):

    {"seq":N,<the record's own members>,"prev":"<64 hex digits>","hash":"<64 hex digits>"}

- `hash` is the SHA-256 of the line's bytes before `,"hash":`. It covers the bytes themselves, not a re-encoding, so
  that no spelling of the same JSON (white space, escapes) is an edit that goes unnoticed.
- `prev` is the `hash` of the line before, 64 zeros on the first line. It lies inside what the next `hash` covers.
- `seq` counts lines from 1.

A chain without a key cannot tell that lines were cut off its end: a head (last `seq` and `hash`, kept beside the file)
can. Nor does it stop somebody who rewrites the whole file and the head: for that, keep a hash somewhere else.
"""

from __future__ import annotations

__all__ = [
    "GENESIS",
    "HEAD_SIZE",
    "MAX_FAULTS",
    "Fault",
    "Head",
    "Link",
    "Report",
    "encode",
    "encode_head",
    "link",
    "read_head",
    "read_line",
    "verify",
]

import re
from array import array
from bisect import bisect_right
from collections.abc import Iterable
from hashlib import sha256

import msgspec

from intercept_py.model import Json

GENESIS = "0" * 64
"""What `prev` says on the first line."""

MAX_FAULTS = 1000
"""More faults than this are counted, not described."""

_encode = msgspec.json.Encoder().encode
_DELETE, _LINE_FEED = b"\x7f\n"  # as integers, see `wire.codec`
_NOT_ASCII = re.compile("[^\x00-\x7e]+")
_LINE = re.compile(rb'\{"seq":([1-9][0-9]{0,17}),"[^\n]+,"prev":"([0-9a-f]{64})","hash":"([0-9a-f]{64})"\}\n')
_TAIL = len(b',"hash":"') + 64 + len(b'"}\n')
_HEAD = re.compile(rb"([0-9]{20}) ([0-9a-f]{64})\n")
HEAD_SIZE = 20 + 1 + 64 + 1
"""A head is as long as every other head, so that writing one over another is one small write."""


class Head(msgspec.Struct, frozen=True):
    """The last record of a chain. `Head(0, GENESIS)` is that of an empty one."""

    seq: int
    hash: str


class Link(msgspec.Struct, frozen=True):
    """What the chain sees of a line. It is genuine if `hash`, as the line states it, is the `digest` of its bytes."""

    seq: int
    prev: str
    hash: str
    digest: str


class Fault(msgspec.Struct, frozen=True):
    """What is wrong at a line (they count from 1).

    `kind` is `unreadable`, `changed`, `removed`, `inserted`, `reordered`, `duplicate` or `head`.
    """

    line: int
    kind: str
    message: str


class Report(msgspec.Struct, frozen=True):
    """What a file proves, and what its records say in sum. It is sound if `fault_count` is 0.

    `faults` holds the first `MAX_FAULTS` in the order of lines. `head`: `matches`, `differs` or `absent` (then nobody
    can say whether records are missing at the end). `continues` are the hashes of the chains that this one follows.
    """

    records: int
    allowed: int
    denied: int
    outcomes: int
    first_ts: str | None
    last_ts: str | None
    first_hash: str | None
    last_hash: str | None
    head: str
    continues: tuple[str, ...]
    faults: tuple[Fault, ...]
    fault_count: int


def encode(record: Json) -> bytes:
    """A record, or a part of one, as one line of ASCII JSON without the LF.

    Raises ValueError, TypeError or RecursionError for what is not JSON.
    """
    body = _encode(record)
    if not body.isascii() or _DELETE in body:
        body = _NOT_ASCII.sub(_escape, body.decode()).encode()
    if _LINE_FEED in body:
        raise ValueError("a raw JSON value may not contain a line feed")
    return body


def _escape(match: re.Match[str]) -> str:
    units = match[0].encode("utf-16-be").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))


def link(body: bytes, seq: int, previous: str) -> tuple[bytes, str]:
    """The line for an encoded record, and the line's hash.

    The record is an object that has members, but none called `seq`, `prev` or `hash`.
    """
    sealed = b'{"seq":%d,%b,"prev":"%b"' % (seq, body[1:-1], previous.encode())
    digest = sha256(sealed).hexdigest()
    return b'%b,"hash":"%b"}\n' % (sealed, digest.encode()), digest


def read_line(line: bytes) -> Link | None:
    """Take a line apart; None if it has not the form of a sealed record. Whether it is genuine is for the caller."""
    match = _LINE.fullmatch(line)
    if match is None or not line.isascii():
        return None
    seq, prev, stated = match.groups()
    return Link(int(seq), prev.decode(), stated.decode(), sha256(line[:-_TAIL]).hexdigest())


def encode_head(seq: int, digest: str) -> bytes:
    """`HEAD_SIZE` bytes: `<seq, 20 digits> <hash>` and a LF."""
    return b"%020d %b\n" % (seq, digest.encode())


def read_head(data: bytes) -> Head | None:
    """What `encode_head` wrote, or None if these bytes are something else."""
    match = _HEAD.fullmatch(data)
    return None if match is None else Head(int(match[1]), match[2].decode())


def verify(lines: Iterable[bytes], head: bytes | None = None) -> Report:
    """Check a file: its lines with their LF, and the bytes of its head file (None if there is none)."""
    walk = _Walk(None if head is None else read_head(head))
    for line in lines:
        walk.line(line)
    return walk.report(head)


class _Lost(msgspec.Struct, frozen=True):
    seq: int


class _Summary(msgspec.Struct, frozen=True):
    """The members of a record that `verify` reads; decoding it also proves that the whole line is JSON."""

    ts: str | None = None
    event: str | None = None
    effect: str | None = None
    continues: str | None = None
    lost: _Lost | None = None


_decode_summary = msgspec.json.Decoder(_Summary).decode


class _Gap(msgspec.Struct):
    """Numbers (`first` to `last`) that should have come before `line`; `instead`: unreadable lines in their place."""

    first: int
    last: int
    line: int
    instead: int


class _Walk:
    """Walks the lines once. `tip` is the genuine record with the highest number so far: the next one must follow it.

    A line that is not genuine says nothing that can be relied on, not even its number: it stands for an unknown record.
    """

    def __init__(self, head: Head | None) -> None:
        self._head = head
        self._head_found = False
        self._line = 0
        self._tip = Head(0, GENESIS)
        self._unknown = 0
        self._gaps: list[_Gap] = []
        self._digests: array[int] = array("Q")
        self._faults: list[Fault] = []
        self._fault_count = 0
        self._events = {"allow": 0, "deny": 0, "outcome": 0}
        self._span: list[str] = []
        self._hashes: list[str] = []
        self._continues: list[str] = []

    def line(self, line: bytes) -> None:
        """Take the next line."""
        self._line += 1
        read = read_line(line)
        self._digests.append(int(read.digest[:16], 16) if read else 0)
        if read is None:
            self._unknown += 1
            kind = "is incomplete" if not line.endswith(b"\n") else "is not a record of an audit log"
            self._fault("unreadable", kind)
        elif read.hash != read.digest:
            self._unknown += 1
            self._fault("changed", "was changed: its hash does not match its content")
        else:
            self._genuine(read, line)

    def _genuine(self, read: Link, line: bytes) -> None:
        if not self._hashes:
            self._hashes = [read.hash, read.hash]
        self._place(read)
        try:
            self._sum(_decode_summary(line))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            self._fault("unreadable", "is not a record of an audit log")

    def _place(self, read: Link) -> None:
        """Compare a record's place with the one its number claims."""
        if self._head is not None and read.seq == self._head.seq and read.hash == self._head.hash:
            self._head_found = True
        if read.seq <= self._tip.seq:
            self._out_of_order(read)
            return
        missing = read.seq - self._tip.seq - 1
        if missing > self._unknown:
            self._gaps.append(_Gap(self._tip.seq + 1, read.seq - 1, self._line, self._unknown))
        elif not missing and read.prev != self._tip.hash:
            self._fault("changed", f"does not follow record {self._tip.seq}: one of the two was replaced")
        self._tip = Head(read.seq, read.hash)
        self._hashes[1] = read.hash
        self._unknown = 0

    def _out_of_order(self, read: Link) -> None:
        if self._fault_count >= MAX_FAULTS:
            self._fault("reordered", "")
        elif self._fill_gap(read.seq):
            self._fault("reordered", f"record {read.seq} is not in its place")
        elif (copy := self._digests.index(self._digests[-1]) + 1) < self._line:
            self._fault("duplicate", f"repeats record {read.seq} of line {copy}")
        else:
            self._fault("inserted", f"is a second record {read.seq}: it was inserted")

    def _fill_gap(self, seq: int) -> bool:
        """Take a number out of the gap it is missing in; False if it is not missing."""
        at = bisect_right(self._gaps, seq, key=lambda gap: gap.first) - 1
        if at < 0 or seq > self._gaps[at].last:
            return False
        gap = self._gaps.pop(at)
        parts = (_Gap(gap.first, seq - 1, gap.line, gap.instead), _Gap(seq + 1, gap.last, gap.line, gap.instead))
        self._gaps[at:at] = [part for part in parts if part.first <= part.last]
        return True

    def _sum(self, summary: _Summary) -> None:
        if summary.ts is not None:
            self._span[1:] = [summary.ts]
            if len(self._span) == 1:
                self._span.append(summary.ts)
        key = summary.effect if summary.event == "decision" else summary.event
        if key in self._events:
            self._events[key] += 1
        if summary.continues is not None:
            self._continues.append(summary.continues)
        if summary.lost is not None:
            lost = f"everything up to record {summary.lost.seq} that is not above it was lost"
            self._fault("removed", f"notes that {lost} before the log was opened again")

    def report(self, head: bytes | None) -> Report:
        """Close the walk: what is still missing was removed."""
        for gap in self._gaps:
            self._missing(gap)
        state = "absent" if head is None else self._check_head()
        return Report(
            records=self._line,
            allowed=self._events["allow"],
            denied=self._events["deny"],
            outcomes=self._events["outcome"],
            first_ts=self._span[0] if self._span else None,
            last_ts=self._span[-1] if self._span else None,
            first_hash=self._hashes[0] if self._hashes else None,
            last_hash=self._hashes[1] if self._hashes else None,
            head=state,
            continues=tuple(self._continues),
            faults=tuple(sorted(self._faults, key=lambda fault: fault.line)),
            fault_count=self._fault_count,
        )

    def _missing(self, gap: _Gap) -> None:
        number = gap.last - gap.first + 1
        which = f"record {gap.first} is" if number == 1 else f"{number} records ({gap.first} to {gap.last}) are"
        instead = f"; unreadable lines in their place: {gap.instead}" if gap.instead else ""
        self._fault("removed", f"{which} missing before this line{instead}", gap.line)

    def _check_head(self) -> str:
        """Compare the end with the head. A log that goes on after its head is sound: they are two writes."""
        if self._head is None:
            self._fault("head", "the head file is damaged, so the end of the log cannot be checked", self._line)
        elif self._head.seq > self._tip.seq + self._unknown:
            number = self._head.seq - self._tip.seq - self._unknown
            which = "1 record was" if number == 1 else f"{number} records were"
            self._fault("removed", f"{which} removed from the end: the last was {self._head.seq}", self._line + 1)
        elif self._head.seq and not self._head_found:
            if not self._fault_count:  # else the faults at hand explain it
                known = self._head.seq
                self._fault("head", f"the head file knows another record {known}: the log was rewritten", self._line)
        else:
            return "matches"
        return "differs"

    def _fault(self, kind: str, message: str, line: int | None = None) -> None:
        self._fault_count += 1
        if len(self._faults) < MAX_FAULTS:
            self._faults.append(Fault(line or self._line, kind, message))
