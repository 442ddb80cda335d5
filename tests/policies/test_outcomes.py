"""Failures that the seed systems report as ordinary results, and what the audit says of them (P8)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from intercept_py.model import Json, JsonObject
from tests.conversation import Conversation, call

ROOT = Path(__file__).resolve().parents[2]
SEEDS: dict[str, list[JsonObject]] = json.loads((ROOT / "tests/data/seed-tools.json").read_text())
REAL: list[JsonObject] = json.loads((ROOT / "tests/data/trigger-dev-4.8.3-tools.json").read_text())
TOOLS = {**{f"seeds/{system}": tools for system, tools in SEEDS.items()}, "trigger-dev": REAL}

JOB: JsonObject = {"job_id": "0a1b2c3d"}
FINISHED: JsonObject = {"run_id": "3f2a91c0-7b1d-4e55-9c3a-0d6f1b2a4c8e"}
TASK: JsonObject = {"task_id": "web-1:0123456789abcdef:1763719200000000"}
COMMAND: JsonObject = {"alias": "web-1", "command": "uptime"}
RUN: JsonObject = {"runId": "run_abc"}
ASYNC, SYNC = "seeds/ssh-cancel-async-task", "seeds/ssh-cancel"


def as_json(value: Json) -> Json:
    """How codex answers: JSON in a text."""
    return {"content": [{"type": "text", "text": json.dumps(value)}], "isError": False}


def as_union(value: Json) -> Json:
    """How mcp-ssh-orchestrator answers: an object as JSON, a string as it is, and either as structured content."""
    text = value if isinstance(value, str) else json.dumps(value)
    return {"content": [{"type": "text", "text": text}], "structuredContent": {"result": value}, "isError": False}


def as_lines(*lines: str) -> Json:
    """How Trigger.dev answers."""
    return {"content": [{"type": "text", "text": "\n".join(lines)}]}


DENIED = json.dumps({"status": "denied", "reason": "policy", "hint": "ask"})
# policy, tool, arguments, result, and what its record says in place of success
CASES: list[tuple[str, str, JsonObject, Json, str | None]] = [
    ("seeds/codex", "codex_cancel", JOB, as_json({"error": "Job 'x' not found"}), "json.error exists"),
    (
        "seeds/codex", "codex_cancel", JOB,
        as_json({**JOB, "status": "done", "message": "Job is not running"}), "json.message neq",
    ),
    (
        "seeds/codex", "codex_cancel", JOB,
        as_json({**JOB, "status": "done", "message": "Job is not running or pending"}), "json.message neq",
    ),
    ("seeds/codex", "codex_cancel", JOB, as_json({**JOB, "status": "cancelled", "killed": True}), None),
    ("seeds/codex", "codex_cancel", JOB, as_json({**JOB, "status": "cancelled", "killed": False}), "json.killed eq"),
    (
        "seeds/codex", "codex_cancel", JOB,
        as_json({**JOB, "status": "running", "message": "Job belongs to another server"}), "json.message neq",
    ),
    (
        "seeds/codex", "codex_cancel", JOB,
        as_json({**JOB, "status": "running", "message": "Job did not stop within 4 s"}), "json.message neq",
    ),
    ("seeds/codex", "codex_cancel", JOB, as_json({**JOB, "status": "running"}), "json.status neq"),
    ("seeds/orchestration", "cancel_run", FINISHED, as_json({**FINISHED, "status": "completed"}), "json.status neq"),
    ("seeds/orchestration", "cancel_run", FINISHED, as_json({**FINISHED, "status": "cancelled"}), None),
    (
        "seeds/codex", "codex_cancel", JOB,
        as_json({**JOB, "status": "cancelled", "message": "Removed from queue"}), None,
    ),
    ("seeds/codex", "codex_poll", JOB, as_json({"error": "Job 'x' not found"}), "json.error exists"),
    ("seeds/codex", "codex_poll", JOB, as_json({**JOB, "status": "error", "exit_code": 1, "output": "Error: x"}), None),
    (ASYNC, "ssh_cancel_async_task", TASK, as_union("Error: task_id is required"), "json.cancelled exists"),
    (ASYNC, "ssh_cancel_async_task", TASK, as_union("Cancel error: lost"), "json.cancelled exists"),
    (
        ASYNC, "ssh_cancel_async_task", TASK,
        as_union({**TASK, "cancelled": False, "message": "Task not found or not cancellable"}), "json.cancelled neq",
    ),
    (
        ASYNC, "ssh_cancel_async_task", TASK,
        as_union({**TASK, "cancelled": True, "message": "Cancellation signaled"}), None,
    ),
    (ASYNC, "ssh_run_async", COMMAND, as_union(DENIED), "json.status eq"),
    (ASYNC, "ssh_run_async", COMMAND, as_union("Async run error: no route"), "text starts_with"),
    (ASYNC, "ssh_run_async", COMMAND, as_union({**TASK, "status": "pending"}), None),
    (ASYNC, "ssh_get_task_result", TASK, as_union("Error: Task not found or expired: x"), "text starts_with"),
    (ASYNC, "ssh_get_task_result", TASK, as_union({**TASK, "cancelled": False, "output": "Error: x"}), None),
    (ASYNC, "ssh_ping", {}, as_union({"status": "pong"}), None),
    (
        SYNC, "ssh_cancel", TASK,
        as_union({**TASK, "cancelled": False, "message": "Task not found"}), "json.cancelled neq",
    ),
    (SYNC, "ssh_cancel", TASK, as_union("Error: task_id is required"), "json.cancelled exists"),
    (SYNC, "ssh_cancel", TASK, as_union({**TASK, "cancelled": True, "message": "Cancellation signaled"}), None),
    (SYNC, "ssh_run", COMMAND, as_union(DENIED), "json.status eq"),
    (SYNC, "ssh_run", COMMAND, as_union("Run error: no route"), "text starts_with"),
    (SYNC, "ssh_run", COMMAND, as_union({**TASK, "exit_code": 1, "cancelled": False, "output": "Run error: x"}), None),
    (SYNC, "ssh_describe_host", {"alias": "web-1"}, as_union("Error: Host alias not found: web-1"), "text starts_with"),
    *(
        (policy, "cancel_run", RUN, as_lines("Run run_abc canceled.", f"Status: {status}", "Task: sleep"), matched)
        for policy in ("trigger-dev", "seeds/trigger-dev")
        for status, matched in (("CANCELED", None), ("COMPLETED", "text not_regex"), ("FAILED", "text not_regex"))
    ),
    ("trigger-dev", "list_runs", {}, as_lines("Found 1 run", "1. run_abc | sleep | executing"), None),
]  # fmt: skip


def record_of(policy: str, tool: str, arguments: JsonObject, result: Json, folder: Path) -> Json:
    """What the audit says about how the call ended; the client gets the very result."""
    talk = Conversation((ROOT / f"policies/{policy}.yaml").read_text(), folder)
    talk.say(call(1, tool, arguments))
    if talk.upstream[0]["method"] == "tools/list":
        talk.answer(talk.upstream.pop(), {"tools": TOOLS[policy]})
    (forwarded,) = talk.calls()
    talk.answer(forwarded, result)
    assert talk.answers(1)[0]["result"] == result
    talk.session.rest()
    return talk.records()[-1]


@pytest.mark.parametrize(("policy", "tool", "arguments", "result", "matched"), CASES)
def test_a_failure_reported_as_a_result_is_no_success_in_the_audit(
    policy: str, tool: str, arguments: JsonObject, result: Json, matched: str | None, tmp_path: Path
) -> None:
    record = record_of(policy, tool, arguments, result, tmp_path)
    assert record["outcome"] == ("ok" if matched is None else "tool_error")
    assert record.get("matched") == matched


def test_orchestration_reports_failures_itself(tmp_path: Path) -> None:
    result = {"content": [{"type": "text", "text": "Error: Unknown run_id: nope"}], "isError": True}
    arguments = {"run_id": "3f2a91c0-7b1d-4e55-9c3a-0d6f1b2a4c8e"}
    record = record_of("seeds/orchestration", "cancel_run", arguments, result, tmp_path)
    assert record["outcome"] == "tool_error"
    assert "matched" not in record
