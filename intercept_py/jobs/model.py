"""What the job engine and its dialects talk about: frozen values and one kind of error. No I/O.

Above: everything else in `jobs`.
"""

from __future__ import annotations

__all__ = [
    "OWN_EVENTS",
    "TERMINAL",
    "Cancel",
    "CancelResult",
    "EndedBy",
    "Event",
    "Job",
    "JobError",
    "Order",
    "Output",
    "Settings",
    "Status",
]

from typing import Literal, TypeAlias

import msgspec

from intercept_py.model import JsonObject

Status: TypeAlias = Literal[
    "queued", "running", "waiting", "cancelling",
    "succeeded", "failed", "cancelled", "timed_out", "expired", "lost", "rejected",
]  # fmt: skip
"""`waiting`: for input; `cancelling`: asked to stop, not gone yet; `expired`: never started in time; `lost`: its server
died."""

TERMINAL: frozenset[Status] = frozenset(
    ("succeeded", "failed", "cancelled", "timed_out", "expired", "lost", "rejected")
)
"""Written once, and only when no process of the job exists any more."""

EndedBy: TypeAlias = Literal[
    "exit",
    "cancel",
    "timeout",
    "server_shutdown",
    "server_died",
    "supervisor_died",
    "server_fault",
    "spawn_error",
    "ttl",
]

CancelResult: TypeAlias = Literal[
    "cancelled",
    "already_cancelling",
    "already_terminal",
    "finished_first",
    "still_stopping",
    "unknown",
    "not_owned",
]
"""`cancelled`: no process is left. `finished_first`: it ended by itself meanwhile. `still_stopping`: asked, and not
gone within the wait. `not_owned`: another server's job."""


OWN_EVENTS = frozenset(("queued", "status", "late_output"))
"""Types of events that only the engine writes; all others are a job's or a dialect's own."""


class JobError(Exception):
    """A request that cannot be met; nothing was changed. `code` is for programs, the text is one line for people."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


class Settings(msgspec.Struct, frozen=True):
    """How one server runs jobs. Times are seconds, sizes bytes.

    `keep` finished jobs are kept, each for `keep_seconds`; an output is kept as its first `output_head` bytes and its
    last `output_tail`.
    """

    state_dir: str
    root: str
    allow_shell: bool = False
    max_running: int = 4
    queue: int = 1000
    grace: float = 2.0
    timeout: float | None = 1800.0
    output_head: int = 1024 * 1024
    output_tail: int = 64 * 1024
    keep: int = 20_000
    keep_seconds: float = 7 * 86_400.0


class Order(msgspec.Struct, frozen=True):
    """What a client wants to run. `kind` names the dialect, whose ids are its own.

    `text` is what the client wrote, `argv` what it means. `timeout` bounds the run, `ttl` the time in the queue. Jobs
    of one kind with the same `after` run one after another.
    """

    kind: str
    argv: tuple[str, ...]
    text: str
    cwd: str
    meta: JsonObject
    timeout: float | None = None
    ttl: float | None = None
    after: str | None = None


class Job(msgspec.Struct, frozen=True):
    """A job as the store knows it. Times are seconds since the epoch.

    `term_signal` ended its first process, `killed` says that SIGKILL was needed, `mine` that this server runs it.
    `paused`: queued by a server that died, and never started by another one on its own. `row` is its number in the
    store.
    """

    id: str
    kind: str
    argv: tuple[str, ...]
    text: str
    cwd: str
    meta: JsonObject
    status: Status
    created_at: float
    updated_at: float
    started_at: float | None = None
    finished_at: float | None = None
    pid: int | None = None
    exit_code: int | None = None
    term_signal: int | None = None
    killed: bool = False
    ended_by: EndedBy | None = None
    cancel_requested_at: float | None = None
    cancel_by: str | None = None
    cancel_reason: str | None = None
    last_seq: int = 0
    waiting_for: str | None = None
    error: str | None = None
    mine: bool = False
    paused: bool = False
    row: int = 0


class Event(msgspec.Struct, frozen=True):
    """One thing that happened to a job; `seq` counts from 1 without a gap."""

    seq: int
    ts: float
    type: str
    data: JsonObject


class Cancel(msgspec.Struct, frozen=True):
    """What a request to cancel came to, and the job after it (None if there is none)."""

    result: CancelResult
    job: Job | None


class Output(msgspec.Struct, frozen=True):
    """What a job printed. `dropped` bytes between `head` and `tail` were not kept."""

    head: bytes
    tail: bytes = b""
    dropped: int = 0
