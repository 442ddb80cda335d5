"""The tools of `orchestration`: what they are called, take and return, and what is said of them. No behaviour.

Above: `orchestration` and `orchestration_events`.
"""

from __future__ import annotations

__all__ = ["LISTED", "TOOLS", "TYPES"]

from mcp_types import Tool, ToolAnnotations

from intercept_py.model import Json, JsonObject

LISTED = 100
"""The most runs that `list_runs` returns."""

TYPES = (
    "run_started", "status_changed", "agent_message", "message_added", "reasoning",
    "command_started", "command_updated", "command_finished", "file_changed", "tool_started", "tool_finished",
    "artifact_added", "todo_updated", "input_required", "auth_required", "rejected", "run_completed", "run_failed",
)  # fmt: skip
"""What events are called."""

_BACKENDS = ["codex", "claude_code", "remote_a2a"]
_ROLES = ["planner", "worker", "reviewer"]
_STATUSES = ["queued", "running", "input_required", "auth_required", "completed", "failed", "cancelled", "rejected"]
_LARGEST = 2**53 - 1

_READS = ToolAnnotations(read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False)
_STARTS = ToolAnnotations(read_only_hint=False, destructive_hint=True, idempotent_hint=False, open_world_hint=True)
_STOPS = ToolAnnotations(read_only_hint=False, destructive_hint=True, idempotent_hint=False, open_world_hint=False)


def _text(description: str = "", least: int = 1) -> JsonObject:
    return {"type": "string", **({"minLength": least} if least else {}), **_described(description)}


def _whole(least: int, most: int = _LARGEST, default: Json = None, description: str = "") -> JsonObject:
    optional = {} if default is None else {"default": default}
    return {**optional, "type": "integer", "minimum": least, "maximum": most, **_described(description)}


def _one_of(values: list[str], description: str = "") -> JsonObject:
    return {"type": "string", "enum": values, **_described(description)}


def _record(description: str = "") -> JsonObject:
    return {
        "type": "object",
        "propertyNames": {"type": "string"},
        "additionalProperties": {},
        **_described(description),
    }


def _object(properties: JsonObject, optional: tuple[str, ...] = (), **more: Json) -> JsonObject:
    required = [name for name, schema in properties.items() if name not in optional and "default" not in schema]
    return {"type": "object", "properties": properties, **({"required": required} if required else {}), **more}


def _result(properties: JsonObject, optional: tuple[str, ...] = ()) -> JsonObject:
    return _object(properties, optional, additionalProperties=False)


def _described(text: str) -> JsonObject:
    return {"description": text} if text else {}


_RUN_ID = _text("The run_id that spawn_run returned, or one from list_runs.")
_PARTS: JsonObject = {
    "type": "array",
    "minItems": 1,
    "items": {
        "anyOf": [
            _object({"type": {"type": "string", "const": "text"}, "text": _text()}),
            _object({"type": {"type": "string", "const": "data"}, "data": _record()}),
            _object(
                {
                    "type": {"type": "string", "const": "file"},
                    "uri": _text(),
                    "bytes_base64": _text(),
                    "mime_type": _text(),
                    "name": _text(),
                },
                optional=("uri", "bytes_base64", "mime_type", "name"),
            ),
        ]
    },
}
_MESSAGE = _object(
    {"role": _one_of(["user", "agent", "system"]), "parts": _PARTS, "metadata": _record()},
    optional=("metadata",),
    description="A message in parts; the text of its text parts is what the run gets.",
)
_PLAIN = {"type": "string"}
_RUN = {
    "run_id": _PLAIN,
    "backend": _one_of(_BACKENDS),
    "role": _one_of(_ROLES),
    "session_id": _PLAIN,
    "status": _one_of(_STATUSES),
}
_SUMMARY = _result(
    {
        **_RUN,
        "started_at": _PLAIN,
        "updated_at": _PLAIN,
        "summary": _PLAIN,
        "last_seq": _whole(0),
        "cwd": _PLAIN,
        "metadata": _record(),
        "remote_ref": {"anyOf": [_record(), {"type": "null"}]},
    }
)
_EVENT = _result(
    {
        "seq": _whole(1),
        "ts": _PLAIN,
        "run_id": _PLAIN,
        "session_id": _PLAIN,
        "backend": _one_of(_BACKENDS),
        "type": _one_of(list(TYPES)),
        "data": _record(),
    }
)

_SPAWN_RUN = Tool(
    name="spawn_run",
    description=(
        "Start a run in the background and return its run_id at once. The run is a real process that may change files "
        "under cwd, until it ends, its time limit is reached or it is cancelled. status is running, or queued if it "
        "has to wait for its turn. Follow it with poll_events. A run of a session that is busy waits until the "
        "session's other runs have ended. Nothing is started if the answer is an error. Not for telling something to "
        "a run that waits for input: use continue_run."
    ),
    input_schema=_object(
        {
            "backend": _one_of(_BACKENDS, "What executes the run. remote_a2a is not supported by this server."),
            "role": _one_of(_ROLES, "What the run is for; it is stored, not interpreted."),
            "prompt": _text("What to do: a recipe such as `sleep 60` (a shell command if the server allows it)."),
            "input_message": {**_MESSAGE, "description": "The same as a message in parts, if there is no prompt."},
            "cwd": _text("Absolute path of an existing directory inside the server's root."),
            "session_mode": _one_of(["new", "resume"], "`new` begins a session, `resume` goes on with session_id."),
            "session_id": _text("With `resume`: the session_id that spawn_run returned for the session's first run."),
            "profile": _text("Accepted and not used."),
            "output_schema": _record("Accepted and not used."),
            "metadata": _record("Anything of your own; stored and returned by get_run, not interpreted."),
            "backend_config": _record("Accepted and not used, but remote_a2a must have an agent_url."),
        },
        optional=(
            "prompt",
            "input_message",
            "session_id",
            "profile",
            "output_schema",
            "metadata",
            "backend_config",
        ),
    ),
    output_schema=_result(_RUN),
    annotations=_STARTS,
)
_GET_RUN = Tool(
    name="get_run",
    description=(
        "Show the state of one run: its status, a summary in words, when it started and the number of its last event. "
        "Changes nothing and does not wait; to wait for news use poll_events."
    ),
    input_schema=_object({"run_id": _RUN_ID}),
    output_schema=_SUMMARY,
    annotations=_READS,
)
_LIST_RUNS = Tool(
    name="list_runs",
    description=(
        f"List the newest {LISTED} runs that match, newest first, including those of earlier servers with the same "
        "state directory. Changes nothing. Filters may be combined."
    ),
    input_schema=_object(
        {
            "status": _one_of(_STATUSES, "Only runs with this status."),
            "backend": _one_of(_BACKENDS, "Only runs of this backend."),
            "cwd": _text("Only runs with exactly this working directory."),
        },
        optional=("status", "backend", "cwd"),
    ),
    output_schema=_result({"runs": {"type": "array", "items": _SUMMARY}}),
    annotations=_READS,
)
_POLL_EVENTS = Tool(
    name="poll_events",
    description=(
        "Return the events of a run after after_seq, oldest first. If there are none yet and the run goes on, wait up "
        "to wait_ms for one. Changes nothing. Call again with after_seq = next_after_seq; begin with 0. The run has "
        "ended when status is completed, failed, cancelled or rejected; read on until there are no more events: the "
        "last one carries the output. Fields that are too long are shortened, and data.artifact_refs says which: read "
        "them with get_event_artifact."
    ),
    input_schema=_object(
        {
            "run_id": _RUN_ID,
            "after_seq": _whole(0, description="next_after_seq of the last answer, 0 at first."),
            "limit": _whole(1, 1000, 100, "The most events to return; there may be fewer, to keep the answer small."),
            "wait_ms": _whole(0, 30_000, 20_000, "Milliseconds to wait for an event."),
        }
    ),
    output_schema=_result(
        {
            "run_id": _PLAIN,
            "status": _one_of(_STATUSES),
            "events": {"type": "array", "items": _EVENT},
            "next_after_seq": _whole(0),
        }
    ),
    annotations=_READS,
)
_CANCEL_RUN = Tool(
    name="cancel_run",
    description=(
        "Cancel a run that has not ended: everything that it started is ended too, first politely (SIGTERM), then by "
        "force. Cannot be undone; what the run changed stays. The answer comes when no process of the run is left, and "
        "cancelled_at is that time; a queued run is never started. It is an error to cancel a run that has ended, one "
        "that no longer belongs to this server, or an unknown one. Not for looking at a run: use get_run."
    ),
    input_schema=_object({"run_id": _RUN_ID}),
    output_schema=_result({"run_id": _PLAIN, "status": _one_of(_STATUSES), "cancelled_at": _PLAIN}),
    annotations=_STOPS,
)
_CONTINUE_RUN = Tool(
    name="continue_run",
    description=(
        "Give a run what it waits for: only while its status is input_required or auth_required, as its last event "
        "says. The text is written to the run as one line, and the run goes on. To do more in a session whose run has "
        "ended, use spawn_run with session_mode `resume`."
    ),
    input_schema=_object({"run_id": _RUN_ID, "input_message": _MESSAGE}),
    output_schema=_result({"run_id": _PLAIN, "status": _one_of(_STATUSES)}),
    annotations=_STARTS,
)
_GET_EVENT_ARTIFACT = Tool(
    name="get_event_artifact",
    description=(
        "Read the whole of a field that poll_events has shortened, in pieces. Changes nothing. field_path is a key "
        "of the event's data.artifact_refs. While has_more is true, call again with offset + returned_bytes."
    ),
    input_schema=_object(
        {
            "run_id": _RUN_ID,
            "seq": _whole(1, description="seq of the event."),
            "field_path": _text("A JSON pointer into the event's data, such as /output."),
            "offset": _whole(0, default=0, description="Where to begin, in bytes."),
            "limit": _whole(1, 262_144, 65_536, "The most bytes to return."),
        }
    ),
    output_schema=_result(
        {
            "run_id": _PLAIN,
            "seq": _whole(1),
            "field_path": _PLAIN,
            "mime": _PLAIN,
            "encoding": _PLAIN,
            "relpath": _PLAIN,
            "total_bytes": _whole(0),
            "offset": _whole(0),
            "returned_bytes": _whole(0),
            "has_more": {"type": "boolean"},
            "content": _PLAIN,
        }
    ),
    annotations=_READS,
)

TOOLS = (_SPAWN_RUN, _GET_RUN, _LIST_RUNS, _POLL_EVENTS, _CANCEL_RUN, _CONTINUE_RUN, _GET_EVENT_ARTIFACT)
"""What is listed."""
