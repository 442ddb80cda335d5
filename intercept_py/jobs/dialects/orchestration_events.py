"""What happened to a run, as Orchestration tells it: its events, and the artifacts that hold what is too long for one.

Nothing is stored twice: an artifact is a long field of an event, cut out whenever the event is read.

Below: `orchestration_tools`, `output_text`. Above: `orchestration`.
"""

from __future__ import annotations

__all__ = ["STATUS", "Artifact", "hidden", "iso", "relpath", "shown", "status_of", "summary_of"]

import json
from datetime import UTC, datetime

import msgspec

from intercept_py.jobs.dialects.orchestration_tools import TYPES
from intercept_py.jobs.dialects.output_text import text_of
from intercept_py.jobs.model import TERMINAL, Event, Job, Output, Status
from intercept_py.model import Json, JsonObject

STATUS: dict[Status, str] = {
    "queued": "queued",
    "running": "running",
    "waiting": "input_required",
    "cancelling": "running",
    "succeeded": "completed",
    "failed": "failed",
    "cancelled": "cancelled",
    "timed_out": "failed",
    "expired": "failed",
    "lost": "failed",
    "rejected": "rejected",
}

_ENDINGS = {"completed": "run_completed", "failed": "run_failed", "rejected": "rejected"}
_HOST_STOPPED = "orchestrator host stopped before the run completed"
_SUMMARIES: dict[Status, str] = {
    "queued": "Queued",
    "running": "Running",
    "waiting": "Waiting for input",
    "cancelling": "Cancelling",
    "succeeded": "Completed",
    "cancelled": "Cancelled",
    "timed_out": "timed out",
    "expired": _HOST_STOPPED,
    "lost": _HOST_STOPPED,
}
_BEHIND = "Run queued behind active session run"
_PAUSED = "Queued by a server that has stopped: cancel it or start another run"

_REPORTED = frozenset(TYPES) - {"run_started", "status_changed", "run_completed", "run_failed", "rejected"}
"""Types of events that a job may use for its own."""

_FIRST = 1
"""Events of the engine before a run's first."""
_KEY = 100
_LONG_TEXT = 4000
_LONG_DATA = 4096
_PIECE = 64 * 1024
_CUT = "\n...[truncated, see artifact_refs]"


class Artifact(msgspec.Struct, frozen=True):
    """A field that is too long for an event: its name in the event's data, and what it holds, in UTF-8."""

    name: str
    mime: str
    content: bytes

    @property
    def field_path(self) -> str:
        """The JSON pointer to it."""
        return "/" + self.name.replace("~", "~0").replace("/", "~1")


def iso(seconds: float) -> str:
    """A time as JavaScript writes it: UTC, milliseconds, `Z`."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def status_of(job: Job) -> str:
    """The run's status."""
    return "auth_required" if job.status == "waiting" and job.waiting_for == "auth" else STATUS[job.status]


def summary_of(job: Job) -> str:
    """The run's state in words."""
    if job.status == "queued" and (job.paused or job.meta["behind"]):
        return _PAUSED if job.paused else _BEHIND
    if job.status in _SUMMARIES:
        return _SUMMARIES[job.status]
    return job.error or _exit_of(job)


def _exit_of(job: Job) -> str:
    return f"exit code {job.exit_code}" if job.term_signal is None else f"ended by signal {job.term_signal}"


def hidden(seq: int) -> int:
    """The engine's number of a run's event: that a job was queued is the engine's first and no event of a run."""
    return seq + _FIRST


def shown(job: Job, event: Event, output: Output) -> tuple[JsonObject, list[Artifact]]:
    """An event of the engine as one of the run, and what had to be cut out of it.

    `output` is the run's, which the event that ends it carries.
    """
    kind, data = _translated(job, event, output)
    seq = event.seq - _FIRST
    cut = [found for name, value in data.items() if (found := _too_long(name, value))]
    if cut:
        previews = {found.name: _preview(data[found.name]) for found in cut}
        data = {**data, **previews, "artifact_refs": {found.field_path: _reference(found, seq, kind) for found in cut}}
    return {
        "seq": seq,
        "ts": iso(event.ts),
        "run_id": job.id,
        "session_id": job.meta["session_id"],
        "backend": job.meta["backend"],
        "type": kind,
        "data": data,
    }, cut


def relpath(seq: int, kind: str) -> str:
    """A name for an event's artifacts. There is no such file."""
    return f"artifacts/{seq:06}-{kind}/manifest.json"


def _translated(job: Job, event: Event, output: Output) -> tuple[str, JsonObject]:
    if event.type == "late_output":
        return _type(event.data["type"]), {**event.data["data"], "late": True}
    if event.type != "status":
        return _type(event.type), event.data
    status: Status = event.data["status"]
    told = STATUS[status]
    if status in TERMINAL:
        return _ENDINGS.get(told, "status_changed"), _ending(job, told, output)
    if event.seq == _FIRST + 1:
        return "run_started", {"status": told}
    return "status_changed", {"status": told, "summary": _SUMMARIES[status]}


def _type(name: str) -> str:
    """What an event that a job reports is called: none of those by which the engine tells what became of the run."""
    return name if name in _REPORTED else "command_updated"


def _ending(job: Job, status: str, output: Output) -> JsonObject:
    """The data of a run's last event: how it ended, and all that it printed."""
    optional = {"reason": job.cancel_reason, "exit_code": job.exit_code, "signal": job.term_signal}
    return {
        "status": status,
        "summary": summary_of(job),
        **{name: value for name, value in optional.items() if value not in (None, "")},
        "killed": job.killed,
        "output": text_of(output),
    }


def _too_long(name: str, value: Json) -> Artifact | None:
    if isinstance(value, str):
        return Artifact(name, "text/plain", value.encode()) if len(value) > _LONG_TEXT else None
    if isinstance(value, (dict, list)):
        content = json.dumps(value, ensure_ascii=False).encode()
        return Artifact(name, "application/json", content) if len(content) > _LONG_DATA else None
    return None


def _preview(value: Json) -> Json:
    """What stands in the event for a field that was cut out."""
    if isinstance(value, str):
        return value[:_LONG_TEXT] + _CUT
    if isinstance(value, list):
        return {"artifact_summary": {"original_type": "array", "item_count": len(value)}}
    keys = [key[:_KEY] for key in list(value)[:8]]
    return {"artifact_summary": {"original_type": "object", "key_count": len(value), "preview_keys": keys}}


def _reference(cut: Artifact, seq: int, kind: str) -> JsonObject:
    size = len(cut.content)
    return {
        "field_path": cut.field_path,
        "relpath": relpath(seq, kind),
        "mime": cut.mime,
        "encoding": "utf-8",
        "total_bytes": size,
        "total_chars": len(cut.content.decode()),
        "chunk_count": -(-size // _PIECE),
        "truncated": True,
    }
