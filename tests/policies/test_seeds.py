"""The policies of the five seed systems, exercised with their tools' schemas."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from intercept_py import policy_file
from intercept_py.model import Effect, JsonObject, Tool, ToolCall
from intercept_py.policy import pdp

ROOT = Path(__file__).resolve().parents[2]
SYSTEMS: dict[str, list[JsonObject]] = json.loads((ROOT / "tests/data/seed-tools.json").read_text())
POLICIES = {system: policy_file.read(str(ROOT / f"policies/seeds/{system}.yaml")) for system in SYSTEMS}
UUID = "3f2a91c0-7b1d-4e55-9c3a-0d6f1b2a4c8e"
TASK = "web-1:0123456789abcdef:1763719200000000"
SPAWN = {"backend": "codex", "role": "worker", "prompt": "fix it", "cwd": "/home/me/project", "session_mode": "new"}
START = {"prompt": "fix it", "cwd": "/home/me/project"}
COMMAND = {"alias": "web-1.example", "command": "uptime"}

# system, tool, arguments, and words of the refusal; None where the call passes
CASES: list[tuple[str, str, JsonObject, str | None]] = [
    ("orchestration", "cancel_run", {"run_id": UUID}, None),
    ("orchestration", "cancel_run", {"run_id": "nope"}, "UUID"),
    ("orchestration", "cancel_run", {"run_id": f"../{UUID}"}, "UUID"),
    ("orchestration", "cancel_run", {"run_id": " "}, ""),
    ("orchestration", "cancel_run", {}, "run_id"),
    ("orchestration", "cancel_run", {"agent_name": "worker-1"}, "run_id"),
    ("orchestration", "spawn_run", SPAWN, None),
    ("orchestration", "spawn_run", {**SPAWN, "backend": "remote_a2a"}, "codex or claude_code"),
    ("orchestration", "spawn_run", {**SPAWN, "cwd": "project"}, "absolute"),
    ("orchestration", "spawn_run", {**SPAWN, "cwd": "/home/me/../root"}, "absolute"),
    ("orchestration", "spawn_run", {"backend": "codex", "cwd": "/home/me/project"}, ""),
    ("orchestration", "continue_run", {"run_id": UUID, "input_message": {"role": "user"}}, None),
    ("orchestration", "continue_run", {"run_id": UUID}, "input_message"),
    ("orchestration", "get_run", {"run_id": UUID}, None),
    ("orchestration", "get_run", {"run_id": "1"}, "UUID"),
    ("orchestration", "list_runs", {"status": "running"}, None),
    ("orchestration", "poll_events", {"run_id": UUID, "after_seq": 0}, None),
    ("orchestration", "poll_events", {"run_id": UUID}, "after_seq"),
    ("orchestration", "get_event_artifact", {"run_id": UUID, "seq": 1, "field_path": "/text"}, None),
    ("orchestration", "get_event_artifact", {"run_id": "../x", "seq": 1, "field_path": "/text"}, "UUID"),
    ("orchestration", "list_agents", {}, None),
    ("orchestration", "fetch_agent_messages", {"agent_name": "worker-1"}, None),
    ("orchestration", "fetch_agent_messages", {}, "agent_name"),
    ("orchestration", "send_agent_message", {"to_agent_name": "worker-1", "message": "stop"}, None),
    ("orchestration", "send_agent_message", {"to_agent_name": "worker-1", "message": ""}, "message"),
    ("codex", "codex_cancel", {"job_id": "0a1b2c3d"}, None),
    ("codex", "codex_cancel", {"job_id": "../evil"}, "codex_start"),
    ("codex", "codex_cancel", {"job_id": "0a1b2c3d\n"}, "codex_start"),
    ("codex", "codex_cancel", {}, "job_id"),
    ("codex", "codex_start", START, None),
    ("codex", "codex_start", {**START, "approval_policy": "auto-edit"}, None),
    ("codex", "codex_start", {**START, "approval_policy": "full-auto"}, "suggest or auto-edit"),
    ("codex", "codex_start", {**START, "approval_policy": "whatever"}, "suggest or auto-edit"),
    ("codex", "codex_start", {"prompt": "fix it"}, "cwd"),
    ("codex", "codex_poll", {"job_id": "0a1b2c3d", "tail_lines": 10}, None),
    ("codex", "codex_poll", {"job_id": "../evil"}, "codex_start"),
    ("codex", "codex_list", {}, None),
    ("trigger-dev", "cancel_run", {"runId": "run_abc"}, None),
    ("trigger-dev", "cancel_run", {}, "runId"),
    ("trigger-dev", "cancel_run", {"runId": ""}, "runId"),
    ("trigger-dev", "trigger_task", {"taskId": "sleep", "payload": {}}, None),
    ("trigger-dev", "trigger_task", {"taskId": "sleep"}, "payload"),
    ("trigger-dev", "wait_for_run_to_complete", {"runId": "run_abc"}, None),
    ("trigger-dev", "wait_for_run_to_complete", {}, "runId"),
    ("trigger-dev", "deploy", {"environment": "staging"}, None),
    ("trigger-dev", "deploy", {}, "environment"),
    ("trigger-dev", "create_project_in_org", {"orgParam": "acme", "name": "Billing"}, None),
    ("trigger-dev", "initialize_project", {"orgParam": "acme", "projectName": "Billing"}, None),
    ("trigger-dev", "search_docs", {"query": "cancel"}, None),
    ("trigger-dev", "list_orgs", {}, None),
    ("trigger-dev", "list_projects", {}, None),
    ("trigger-dev", "get_current_worker", {}, None),
    ("trigger-dev", "list_runs", {}, None),
    ("trigger-dev", "get_run_details", {"runId": "run_abc"}, None),
    ("trigger-dev", "list_deploys", {}, None),
    ("trigger-dev", "list_preview_branches", {}, None),
    ("ssh-cancel-async-task", "ssh_cancel_async_task", {"task_id": TASK}, None),
    ("ssh-cancel-async-task", "ssh_cancel_async_task", {"task_id": "invalid:task:id"}, None),
    ("ssh-cancel-async-task", "ssh_cancel_async_task", {"task_id": "a" * 200}, None),
    ("ssh-cancel-async-task", "ssh_cancel_async_task", {"task_id": "a" * 201}, "200"),
    ("ssh-cancel-async-task", "ssh_cancel_async_task", {"task_id": "a/b"}, "letters"),
    ("ssh-cancel-async-task", "ssh_cancel_async_task", {"task_id": ""}, "task_id"),
    ("ssh-cancel-async-task", "ssh_cancel_async_task", {}, "task_id"),
    ("ssh-cancel-async-task", "ssh_run_async", COMMAND, None),
    ("ssh-cancel-async-task", "ssh_run_async", {"alias": "web-1"}, "command"),
    ("ssh-cancel-async-task", "ssh_run_async", {"alias": "-oProxyCommand=x", "command": "uptime"}, "ssh_list_hosts"),
    ("ssh-cancel-async-task", "ssh_run_async", {"alias": "web-1", "command": "x" * 10_001}, "10000"),
    ("ssh-cancel-async-task", "ssh_get_task_status", {"task_id": TASK}, None),
    ("ssh-cancel-async-task", "ssh_get_task_status", {"task_id": "a b"}, "letters"),
    ("ssh-cancel-async-task", "ssh_get_task_result", {"task_id": TASK}, None),
    ("ssh-cancel-async-task", "ssh_get_task_result", {}, "task_id"),
    ("ssh-cancel-async-task", "ssh_get_task_output", {"task_id": TASK, "max_lines": 10}, None),
    ("ssh-cancel-async-task", "ssh_get_task_output", {"task_id": "#"}, "letters"),
    ("ssh-cancel-async-task", "ssh_ping", {}, None),
    ("ssh-cancel-async-task", "ssh_list_hosts", {}, None),
    ("ssh-cancel-async-task", "ssh_describe_host", {"alias": "web-1"}, None),
    ("ssh-cancel-async-task", "ssh_describe_host", {}, "alias"),
    ("ssh-cancel-async-task", "ssh_plan", COMMAND, None),
    ("ssh-cancel-async-task", "ssh_run", COMMAND, "ssh_run_async"),
    ("ssh-cancel-async-task", "ssh_run_on_tag", {"tag": "web", "command": "uptime"}, "ssh_run_async"),
    ("ssh-cancel-async-task", "ssh_cancel", {"task_id": TASK}, "ssh_cancel_async_task"),
    ("ssh-cancel-async-task", "ssh_reload_config", {}, "a person"),
    ("ssh-cancel", "ssh_cancel", {"task_id": TASK}, None),
    ("ssh-cancel", "ssh_cancel", {"task_id": "nonexistent"}, None),
    ("ssh-cancel", "ssh_cancel", {"task_id": "a" * 201}, "200"),
    ("ssh-cancel", "ssh_cancel", {"task_id": "a@b"}, "letters"),
    ("ssh-cancel", "ssh_cancel", {"task_id": "  "}, "task_id"),
    ("ssh-cancel", "ssh_cancel", {}, "task_id"),
    ("ssh-cancel", "ssh_run", COMMAND, None),
    ("ssh-cancel", "ssh_run", {"alias": "web-1", "command": ""}, "command"),
    ("ssh-cancel", "ssh_run", {"alias": "web 1", "command": "uptime"}, "ssh_list_hosts"),
    ("ssh-cancel", "ssh_run_on_tag", {"tag": "web", "command": "uptime"}, "approval"),
    ("ssh-cancel", "ssh_ping", {}, None),
    ("ssh-cancel", "ssh_list_hosts", {}, None),
    ("ssh-cancel", "ssh_describe_host", {"alias": "web-1"}, None),
    ("ssh-cancel", "ssh_plan", COMMAND, None),
    ("ssh-cancel", "ssh_plan", {"alias": "web-1"}, "command"),
    ("ssh-cancel", "ssh_run_async", COMMAND, "use ssh_run"),
    ("ssh-cancel", "ssh_cancel_async_task", {"task_id": TASK}, "ssh_cancel"),
    ("ssh-cancel", "ssh_get_task_status", {"task_id": TASK}, "ssh_run"),
    ("ssh-cancel", "ssh_get_task_result", {"task_id": TASK}, "ssh_run"),
    ("ssh-cancel", "ssh_get_task_output", {"task_id": TASK}, "ssh_run"),
    ("ssh-cancel", "ssh_reload_config", {}, "a person"),
]
CANCEL = {
    "orchestration": "cancel_run",
    "codex": "codex_cancel",
    "trigger-dev": "cancel_run",
    "ssh-cancel-async-task": "ssh_cancel_async_task",
    "ssh-cancel": "ssh_cancel",
}


def tool(system: str, name: str) -> Tool:
    (schema,) = (listed["inputSchema"] for listed in SYSTEMS[system] if listed["name"] == name)
    return Tool(name, schema)


@pytest.mark.parametrize(("system", "name", "arguments", "words"), CASES)
def test_a_call_is_judged_as_the_policy_says(system: str, name: str, arguments: JsonObject, words: str | None) -> None:
    decision = pdp.decide(POLICIES[system], ToolCall(name=name, arguments=arguments, tool=tool(system, name)))
    if words is None:
        assert decision.effect is Effect.ALLOW, decision.finding
        assert decision.charges
    else:
        assert decision.effect is Effect.DENY
        assert decision.finding is not None
        assert words in decision.finding.reason


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_tool_of_the_system_is_exercised_and_governed(system: str) -> None:
    names = {listed["name"] for listed in SYSTEMS[system]}
    assert {name for case_system, name, _, _ in CASES if case_system == system} == names
    for name in names:
        matched = pdp.match(POLICIES[system], name)
        assert matched.listed
        assert matched.category
        assert any(entry.rules for entry in matched.entries)


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_entry_names_a_tool_of_the_system(system: str) -> None:
    names = [listed["name"] for listed in SYSTEMS[system]]
    used = {entry.pattern for name in names for entry in pdp.match(POLICIES[system], name).entries}
    assert used == {entry.pattern for entry in POLICIES[system].entries}


@pytest.mark.parametrize(("system", "name"), CANCEL.items())
def test_cancelling_is_limited_to_ten_a_minute_and_session(system: str, name: str) -> None:
    entries = pdp.match(POLICIES[system], name).entries
    (rate,) = (rule.rate_limit for entry in entries for rule in entry.rules if rule.rate_limit)
    assert (rate.max, rate.window.seconds, rate.per) == (10, 60, ("session",))


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_tool_that_is_not_listed_is_denied(system: str) -> None:
    other = Tool("delete_everything", {"type": "object"})
    assert pdp.decide(POLICIES[system], ToolCall(name=other.name, arguments={}, tool=other)).effect is Effect.DENY
