"""`intercept-py audit verify`: whether audit files are what the proxy wrote, and where they are not."""

from __future__ import annotations

__all__ = ["Checked", "check", "lines", "main"]

import fcntl
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import BinaryIO

import msgspec

from intercept_py.audit.chain import HEAD_SIZE, Report, verify
from intercept_py.audit.log import head_path
from intercept_py.cli.arguments import FAILED, NO_INPUT, OK, Parser
from intercept_py.cli.text import printable

_MAX_LINE = 64 * 1024 * 1024


class Checked(msgspec.Struct, frozen=True):
    """One file and what it proves, or `problem`: why it could not be read."""

    file: str
    report: Report | None = None
    problem: str | None = None

    @property
    def code(self) -> int:
        """The exit code for this file."""
        if self.report is None:
            return NO_INPUT
        return FAILED if self.report.fault_count else OK


def main(argv: list[str]) -> int:
    """Verify the files. 0: all are sound, 1: one has faults, 66: one cannot be read and the others are sound."""
    parser = Parser("intercept-py audit", "Verify audit files: find every changed, removed, inserted or moved record.")
    parser.add_argument("command", choices=["verify"], help="what to do with the files")
    parser.add_argument("files", nargs="+", metavar="FILE", help="an audit file")
    parser.add_argument("--json", action="store_true", help="print a machine-readable report")
    options = parser.parse_args(argv)
    checked = [check(file) for file in options.files]
    if options.json:
        sys.stdout.write(_json(checked) + "\n")
    elif sys.stdout.isatty():
        # Only a terminal has a use for rich, which is slow to import.
        from intercept_py.cli import render_audit

        render_audit.print_checked(checked)
    else:
        sys.stdout.writelines(f"{line}\n" for one in checked for line in lines(one))
    codes = {one.code for one in checked}
    return FAILED if FAILED in codes else max(codes)


def lines(checked: Checked) -> list[str]:
    """What was found as lines of plain text: the verdict first, then every fault, `file:line: kind: message`."""
    file, report = printable(checked.file), checked.report
    if report is None:
        return [f"{file}: not verified: {checked.problem}"]
    found = [f"{file}:{fault.line}: {fault.kind}: {printable(fault.message)}" for fault in report.faults]
    if report.fault_count > len(report.faults):
        found.append(f"{file}: {report.fault_count - len(report.faults)} more faults are not listed")
    return [f"{file}: {verdict(report)}", *(f"  {line}" for line in facts(report)), *found]


def verdict(report: Report) -> str:
    """One line: sound or not."""
    if report.fault_count:
        return f"NOT SOUND: {_count(report.fault_count, 'fault')} in {_count(report.records, 'record')}"
    return f"ok: {_count(report.records, 'record')}, none changed, removed, inserted or moved"


def facts(report: Report) -> list[str]:
    """What a person wants to know about a file besides the verdict, safe for a terminal."""
    found = [f"decisions: {report.allowed} allowed, {report.denied} denied; outcomes: {report.outcomes}"]
    if report.first_ts is not None and report.last_ts is not None:
        found.append(f"from {printable(report.first_ts)} to {printable(report.last_ts)}")
    if report.first_hash is not None:
        found.append(f"first hash {report.first_hash}")
        found.append(f"last hash  {report.last_hash}")
    found += [f"goes on from the file that ends with hash {printable(hash_)}" for hash_ in report.continues]
    if report.head == "absent":
        found.append("no head file lies beside it: it could not be checked whether records are missing at the end")
    return found


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _json(checked: list[Checked]) -> str:
    document = {
        "ok": not any(one.code for one in checked),
        "files": [
            {"file": os.fsencode(one.file).decode("utf-8", "replace"), "ok": not one.code, "problem": one.problem}
            | (msgspec.to_builtins(one.report) if one.report is not None else {})
            for one in checked
        ],
    }
    return msgspec.json.format(msgspec.json.encode(document), indent=2).decode()


def check(file: str) -> Checked:
    """Verify one file."""
    try:
        # Not blocking: a FIFO would wait for a writer.
        with open(file, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as log:
            if not stat.S_ISREG(os.fstat(log.fileno()).st_mode):
                return Checked(file, problem="it is not a regular file")
            size, head = _snapshot(log, file)
            return Checked(file, verify(_lines(log, size), head))
    except OSError as exc:
        return Checked(file, problem=(exc.strerror or str(exc)).lower())


def _snapshot(log: BinaryIO, file: str) -> tuple[int, bytes | None]:
    """The size of a log and its head of the same moment, although a proxy may be writing them."""
    with suppress(OSError):  # not every file system can lock
        fcntl.flock(log.fileno(), fcntl.LOCK_SH)
    try:
        with suppress(FileNotFoundError), open(head_path(file), "rb") as head:
            return os.fstat(log.fileno()).st_size, head.read(HEAD_SIZE + 1)
        return os.fstat(log.fileno()).st_size, None
    finally:
        with suppress(OSError):
            fcntl.flock(log.fileno(), fcntl.LOCK_UN)


def _lines(log: BinaryIO, size: int) -> Iterator[bytes]:
    """The lines within the first `size` bytes. What is longer than any record comes in pieces, which are no records."""
    while size > 0 and (line := log.readline(min(size, _MAX_LINE))):
        size -= len(line)
        yield line
