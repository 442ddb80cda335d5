"""What a supervisor leaves in a job's directory: the output, and the record of how it ended; and what that means.

Below: `model`. Above: `launch`, `recovery`, the engine.
"""

from __future__ import annotations

__all__ = ["Conclusion", "Exit", "conclude", "decode_exit", "read_exit", "read_output", "unheard"]

import os
import signal
from typing import Literal

import msgspec

from intercept_py.jobs.model import EndedBy, JobError, Output, Status
from intercept_py.model import JsonObject


class Exit(msgspec.Struct, frozen=True):
    """How a job ended: with `code` or by `signal` (neither if nobody saw it), and why. No process of it is left.

    `asked`: a cancel came in before the end. `killed`: something had to be. `ended_by` `exit` means that its first
    process ended by itself.
    """

    code: int | None
    signal: int | None
    asked: bool
    killed: bool
    ended_by: Literal["exit", "cancel", "timeout", "server_died", "supervisor_died"]
    events_dropped: int = 0


class Conclusion(msgspec.Struct, frozen=True):
    """What a job's row says about its end; the fields are columns."""

    status: Status
    ended_by: EndedBy
    exit_code: int | None = None
    term_signal: int | None = None
    killed: bool = False
    error: str | None = None

    def data(self) -> JsonObject:
        """The same for the event, without what there is nothing to say about."""
        return {name: value for name, value in msgspec.structs.asdict(self).items() if value is not None}


def conclude(end: Exit, asked: EndedBy | None) -> Conclusion:
    """The conclusion from a record. `asked`: why we asked the job to end, if we did.

    It counts as cancelled if we asked before its first process ended by itself.
    """
    status: Status
    ended_by: EndedBy = end.ended_by
    error = None
    if end.ended_by == "exit":
        status = "succeeded" if end.code == 0 else "failed"
        error = None if status == "succeeded" else _fault(end)
    elif end.ended_by == "timeout":
        status, error = "timed_out", "it ran for longer than it may"
    elif asked is not None:
        status, ended_by = "cancelled", asked
    else:
        who = "supervisor" if end.ended_by == "supervisor_died" else "server"
        status, error = "lost", f"its {who} died while it ran"
    return Conclusion(status, ended_by, end.code, end.signal, end.killed, error)


def unheard(ended_by: EndedBy, asked: EndedBy | None) -> Conclusion:
    """The conclusion where nothing is left and nobody said how that came."""
    if asked is not None:
        return Conclusion("cancelled", asked)
    return Conclusion("lost", ended_by, error="nobody said how it ended")


def _fault(end: Exit) -> str:
    if end.signal is None:
        return f"exit code {end.code}"
    try:
        return f"ended by signal {end.signal} ({signal.Signals(end.signal).name})"
    except ValueError:
        return f"ended by signal {end.signal}"


def decode_exit(data: bytes) -> Exit | None:
    """A record; None if it is none."""
    try:
        return msgspec.json.decode(data, type=Exit)
    except msgspec.DecodeError:
        return None


def read_exit(directory: str) -> Exit | None:
    """The record in a job's directory; None if there is none. Raises `OSError` if that cannot be told."""
    return decode_exit(_read(f"{directory}/exit.json"))


def read_output(directory: str) -> Output:
    """What the job has printed so far; the tail may be a tenth of a second behind. Raises `JobError` (`store`)."""
    try:
        dropped, _, tail = _read(f"{directory}/tail").partition(b"\n")
        return Output(_read(f"{directory}/head"), tail, int(dropped or 0))
    except OSError as exc:
        raise JobError("store", f"cannot read output in `{directory}`: {os.strerror(exc.errno or 0).lower()}") from None


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return b""
