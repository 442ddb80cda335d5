"""The tools of `codex`: what they are called, take and return, and what is said of them. No behaviour.

Above: `codex`.
"""

from __future__ import annotations

__all__ = ["ASYNC_TOOLS", "MAX_WAIT", "POLICIES", "TOOLS"]

from mcp_types import Tool, ToolAnnotations

from intercept_py.model import Json, JsonObject

MAX_WAIT = 50
"""Seconds that a call may wait; clients give up after 60."""

POLICIES = ("suggest", "auto-edit", "full-auto")

_JOB_ID = "The job_id returned by codex_start."
_READS = ToolAnnotations(read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False)
_STARTS = ToolAnnotations(read_only_hint=False, destructive_hint=True, idempotent_hint=False, open_world_hint=True)
_STOPS = ToolAnnotations(read_only_hint=False, destructive_hint=True, idempotent_hint=True, open_world_hint=False)


def _property(name: str, kind: str, description: str, default: Json = None) -> JsonObject:
    optional = {} if default is None else {"default": default}
    return {**optional, "description": description, "title": name.replace("_", " ").title(), "type": kind}


def _tool(name: str, description: str, properties: dict[str, JsonObject], annotations: ToolAnnotations) -> Tool:
    required = [key for key, schema in properties.items() if "default" not in schema]
    schema: JsonObject = {"properties": properties, "title": f"{name}Arguments", "type": "object"}
    output: JsonObject = {"additionalProperties": True, "title": f"{name}DictOutput", "type": "object"}
    if name == "codex_list":
        jobs = {"items": {"additionalProperties": True, "type": "object"}, "title": "Result", "type": "array"}
        output = {"properties": {"result": jobs}, "required": ["result"], "title": f"{name}Output", "type": "object"}
    if required:
        schema["required"] = required
    return Tool(name=name, description=description, input_schema=schema, output_schema=output, annotations=annotations)


def _job_id() -> JsonObject:
    return _property("job_id", "string", _JOB_ID)


def _start(policy: str) -> Tool:
    return _tool(
        "codex_start",
        "Start a job in the background and return at once with its job_id, status and pid. The job is a real process "
        "that may change files under cwd; it runs until it ends, its time limit is reached or it is cancelled. With "
        'status "pending" it waits for its turn and has no pid yet. Follow it with codex_poll. Not for questions that '
        "need no job, and not to start the same work again while it runs.",
        {
            "prompt": _property(
                "prompt", "string", "What to do: a recipe such as `sleep 60` (a shell command if the server allows it)."
            ),
            "cwd": _property("cwd", "string", "Absolute path of an existing directory inside the server's root."),
            "approval_policy": _property(
                "approval_policy", "string", f"How much the job may do unasked: one of {', '.join(POLICIES)}.", policy
            ),
        },
        _STARTS,
    )


_POLL = _tool(
    "codex_poll",
    "Show a job's status, exit code, times and the end of its output (at most 8000 characters), also while it runs. "
    "Changes nothing. status is pending, running, done (exit 0), error (anything else) or cancelled; cancel_requested "
    "says that it is being stopped. An unknown job is answered with an `error` field.",
    {
        "job_id": _job_id(),
        "tail_lines": _property("tail_lines", "integer", "How many of the last lines to show, 1 or more.", 100),
    },
    _READS,
)
_LIST = _tool(
    "codex_list",
    "List jobs, newest first, with the beginning of their prompts. Changes nothing. Use it to find a job_id that was "
    "lost; use codex_poll for the output of a job.",
    {"limit": _property("limit", "integer", "How many jobs to list, 1 to 1000.", 20)},
    _READS,
)


def _cancel(name: str, pending: str) -> Tool:
    return _tool(
        name,
        "Stop a job and everything that it started: SIGTERM to all its processes, SIGKILL after a grace period. Cannot "
        'be undone; what the job changed stays. status "cancelled" with `killed` true is answered only when no process '
        f"of it is left; a job that waited for its turn is removed from the queue. A job that {pending} is left alone "
        "and its status told in the answer, and an unknown one is answered with an `error` field. Not for looking at a "
        "job: use codex_poll.",
        {"job_id": _job_id()},
        _STOPS,
    )


_WAIT = _tool(
    "codex_wait",
    "Wait until a job has ended and return what codex_poll returns. If it has not ended in time, status is "
    '"timeout" and output what it has printed so far; the job goes on, so call again. Changes nothing.',
    {
        "job_id": _job_id(),
        "timeout_seconds": _property(
            "timeout_seconds", "integer", f"How long to wait, at most {MAX_WAIT} (more is taken for that).", MAX_WAIT
        ),
    },
    _READS,
)
_QUEUE = _tool(
    "queue_status",
    "Show whether a job is running, which one, and how many wait behind it. Changes nothing. Jobs run one after "
    "another, in the order in which they were started.",
    {},
    _READS,
)

TOOLS = (_start("suggest"), _POLL, _LIST, _cancel("codex_cancel", "is not running"))
"""What is listed."""

ASYNC_TOOLS = (
    _start("full-auto"),
    *TOOLS[1:],
    _WAIT,
    _cancel("job_cancel", "is neither running nor pending"),
    _QUEUE,
)
"""What is listed with `--agent-async`."""
