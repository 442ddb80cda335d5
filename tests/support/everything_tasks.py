"""The tasks of the everything server: the extension `io.modelcontextprotocol/tasks` (SEP-2663), which the SDK lacks.

Nothing runs in the background: a task knows when it is due, and what it is then is worked out when somebody asks. The
suite looks at no clock, so a second of its tools is a tenth of one here.

Below: everything_parts, everything_questions. Above: everything_server.
"""

from __future__ import annotations

__all__ = ["EXTENSION", "HANDLERS", "TASK_TOOLS", "TaskParams"]

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import anyio
import mcp_types as types
from mcp import MCPError
from mcp.server.context import ServerRequestContext

from tests.support.everything_parts import Call, Context, Handler, Result, form, text
from tests.support.everything_questions import ASKED

EXTENSION = "io.modelcontextprotocol/tasks"
SECOND = 0.1

Json = dict[str, Any]


def _moment() -> str:
    return datetime.now(UTC).isoformat()


@dataclass
class Task:
    """What a tool has started: `outcome` (a `result` or an `error`) counts once it is due and nothing is pending."""

    outcome: Json
    due: float
    pending: types.InputRequests = field(default_factory=dict)
    cancelled: bool = False
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    created: str = field(default_factory=_moment)

    def status(self) -> str:
        """What SEP-2663 calls it."""
        if self.cancelled:
            return "cancelled"
        if self.pending:
            return "input_required"
        if anyio.current_time() < self.due:
            return "working"
        return "failed" if "error" in self.outcome else "completed"

    def described(self) -> Json:
        """The fields that every answer about it has."""
        times = {"createdAt": self.created, "lastUpdatedAt": _moment(), "ttlMs": 60000, "pollIntervalMs": 100}
        return {"taskId": self.id, "status": self.status(), **times}

    def detailed(self) -> Json:
        """All that is known of it."""
        known = self.described()
        if known["status"] == "input_required":
            asked = {key: it.model_dump(by_alias=True, exclude_none=True) for key, it in self.pending.items()}
            return {**known, "inputRequests": asked}
        return {**known, **self.outcome} if known["status"] in ("completed", "failed") else known


TASKS: dict[str, Task] = {}


def _declared(context: ServerRequestContext) -> bool:
    capabilities = context.session.client_capabilities
    return capabilities is not None and EXTENSION in (capabilities.extensions or {})


def _demand(context: ServerRequestContext) -> None:
    if not _declared(context):
        needed: Json = {"requiredCapabilities": {"extensions": {EXTENSION: {}}}}
        raise MCPError(types.MISSING_REQUIRED_CLIENT_CAPABILITY, f"{EXTENSION} is needed", needed)


# -- methods -----------------------------------------------------------------------------------------------------------


class TaskParams(types.RequestParams):
    task_id: str
    input_responses: dict[str, Any] | None = None


def _found(context: Context, params: TaskParams) -> Task:
    _demand(context)
    if context.request is not None and context.request.headers.get("mcp-name") != params.task_id:
        raise MCPError(types.HEADER_MISMATCH, "the Mcp-Name header is not the task's id")
    if params.task_id not in TASKS:
        raise MCPError(types.INVALID_PARAMS, f"unknown task: {params.task_id}")
    return TASKS[params.task_id]


async def get(context: Context, params: TaskParams) -> Json:
    return _found(context, params).detailed()


async def update(context: Context, params: TaskParams) -> Json:
    task = _found(context, params)
    task.pending = {key: asked for key, asked in task.pending.items() if key not in (params.input_responses or {})}
    return {}


async def cancel(context: Context, params: TaskParams) -> Json:
    task = _found(context, params)
    task.cancelled = task.cancelled or task.status() in ("working", "input_required")
    return {}


HANDLERS = {"tasks/get": get, "tasks/update": update, "tasks/cancel": cancel}

# -- tools -------------------------------------------------------------------------------------------------------------


def _result(value: str, *, is_error: bool = False) -> Json:
    result = types.CallToolResult(content=[text(value)], is_error=is_error)
    return {"result": {"resultType": "complete", **result.model_dump(by_alias=True, exclude_none=True)}}


def _create(task: Task) -> Result:
    TASKS[task.id] = task
    return {"resultType": "task", **task.described()}


def _starts(make: Callable[[Call], Task]) -> Handler:
    """A tool that works as a task only."""

    async def tool(context: Context, call: Call) -> Result:
        _demand(context)
        return _create(make(call))

    return tool


def _after(seconds: float, outcome: Json, **pending: types.ElicitRequest) -> Task:
    return Task(outcome, anyio.current_time() + seconds * SECOND, dict(pending))


async def slow_compute(context: Context, call: Call) -> Result:
    """Works as a task if the client knows what that is, else like any other tool."""
    seconds = float((call.arguments or {}).get("seconds", 0))
    if _declared(context):
        return _create(_after(seconds, _result("computed")))
    await anyio.sleep(seconds * SECOND)
    return "computed"


async def asks_then_starts(context: Context, call: Call) -> Result:
    """Ask as a tool may that is none yet, then go on as a task."""
    _demand(context)
    answer = (call.input_responses or {}).get("user_name")
    if not isinstance(answer, types.ElicitResult):
        return types.InputRequiredResult(input_requests=ASKED)
    return _create(_after(0, _result(f"Hello, {(answer.content or {}).get('name')}!")))


async def greet(context: Context, call: Call) -> Result:
    return f"Hello, {(call.arguments or {}).get('name')}!"


_CONFIRM = {"confirm": {"type": "boolean"}}

TASK_TOOLS: dict[str, Handler] = {
    "greet": greet,
    "slow_compute": slow_compute,
    "failing_job": _starts(lambda call: _after(1, _result("the job has failed", is_error=True))),
    "protocol_error_job": _starts(
        lambda call: _after(1, {"error": {"code": types.INTERNAL_ERROR, "message": "the server has failed"}})
    ),
    "confirm_delete": _starts(lambda call: _after(0, _result("deleted"), delete=form("Delete it?", **_CONFIRM))),
    "multi_input": _starts(
        lambda call: _after(0, _result("done"), one=form("One?", **_CONFIRM), two=form("Two?", **_CONFIRM))
    ),
    "test_tool_with_task": asks_then_starts,
}
