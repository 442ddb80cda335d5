"""policies/ssh.yaml and policies/codex-agent-async.yaml, exercised with the schemas of the job backend's tools."""

from __future__ import annotations

from pathlib import Path

import pytest

from intercept_py import policy_file
from intercept_py.jobs.dialects import codex_tools, ssh_tools
from intercept_py.model import Decision, Effect, JsonObject, Tool, ToolCall
from intercept_py.policy import pdp

ROOT = Path(__file__).resolve().parents[2]
TOOLS = {"codex-agent-async": codex_tools.ASYNC_TOOLS, "ssh": ssh_tools.TOOLS}
POLICIES = {name: policy_file.read(str(ROOT / f"policies/{name}.yaml")) for name in TOOLS}
JOB, TASK = {"job_id": "0a1b2c3d"}, {"task_id": "web1:0123456789abcdef:1763719200000000"}
START = {"prompt": "fix it", "cwd": "/home/me/project", "approval_policy": "suggest"}
COMMAND = {"alias": "web1", "command": "uptime"}

# policy, tool, arguments, and words of the refusal; None where the call passes
CASES: list[tuple[str, str, JsonObject, str | None]] = [
    *(("codex-agent-async", tool, JOB, None) for tool in ("codex_cancel", "job_cancel", "codex_poll", "codex_wait")),
    ("codex-agent-async", "job_cancel", {}, "job_id"),
    ("codex-agent-async", "codex_cancel", {"job_id": " "}, "job_id"),
    ("codex-agent-async", "codex_poll", {"job_id": "../evil"}, "codex_start"),
    ("codex-agent-async", "codex_wait", {"job_id": "../evil"}, "codex_start"),
    ("codex-agent-async", "codex_list", {}, None),
    ("codex-agent-async", "queue_status", {}, None),
    ("codex-agent-async", "codex_start", START, None),
    ("codex-agent-async", "codex_start", {**START, "approval_policy": "full-auto"}, "suggest or auto-edit"),
    ("codex-agent-async", "codex_start", {"prompt": "fix it", "cwd": "/home/me"}, "suggest or auto-edit"),
    ("codex-agent-async", "codex_start", {**START, "prompt": ""}, "prompt"),
    *(("ssh", tool, TASK, None) for tool in ("ssh_cancel", "ssh_cancel_async_task")),
    *(("ssh", f"ssh_get_task_{what}", TASK, None) for what in ("status", "result", "output")),
    ("ssh", "ssh_cancel", {}, "task_id"),
    ("ssh", "ssh_cancel_async_task", {"task_id": ""}, "task_id"),
    ("ssh", "ssh_cancel", {"task_id": "a" * 201}, "200"),
    ("ssh", "ssh_get_task_output", {"task_id": "../x"}, "letters"),
    ("ssh", "ssh_run", COMMAND, None),
    ("ssh", "ssh_run_async", COMMAND, None),
    ("ssh", "ssh_run", {"command": "uptime"}, "ssh_list_hosts"),
    ("ssh", "ssh_run_async", {**COMMAND, "alias": "web 1"}, "ssh_list_hosts"),
    ("ssh", "ssh_run_async", {"alias": "web1"}, "command"),
    ("ssh", "ssh_run", {**COMMAND, "command": "x" * 10_001}, "10000"),
    ("ssh", "ssh_run_on_tag", {"tag": "web", "command": "uptime"}, "approval"),
    ("ssh", "ssh_ping", {}, None),
    ("ssh", "ssh_list_hosts", {}, None),
    ("ssh", "ssh_describe_host", {"alias": "web1"}, None),
    ("ssh", "ssh_describe_host", {}, "alias"),
    ("ssh", "ssh_plan", COMMAND, None),
    ("ssh", "ssh_reload_config", {}, "a person"),
]


def decide(policy: str, name: str, arguments: JsonObject) -> Decision:
    (schema,) = (tool.input_schema for tool in TOOLS[policy] if tool.name == name)
    return pdp.decide(POLICIES[policy], ToolCall(name=name, arguments=arguments, tool=Tool(name, schema)))


@pytest.mark.parametrize(("policy", "name", "arguments", "words"), CASES)
def test_a_call_is_judged_as_the_policy_says(policy: str, name: str, arguments: JsonObject, words: str | None) -> None:
    decision = decide(policy, name, arguments)
    if words is None:
        assert decision.effect is Effect.ALLOW, decision.finding
        assert len(decision.charges) == 1
    else:
        assert decision.effect is Effect.DENY
        assert decision.finding is not None
        assert words in decision.finding.reason


@pytest.mark.parametrize("policy", TOOLS)
def test_every_tool_is_exercised(policy: str) -> None:
    assert {name for case, name, _, _ in CASES if case == policy} == {tool.name for tool in TOOLS[policy]}


@pytest.mark.parametrize(
    ("policy", "calls"),
    [
        ("codex-agent-async", [("codex_cancel", JOB), ("job_cancel", JOB)]),
        ("ssh", [("ssh_cancel", TASK), ("ssh_cancel_async_task", TASK)]),
        ("ssh", [("ssh_run", COMMAND), ("ssh_run_async", COMMAND)]),
    ],
)
def test_tools_that_do_the_same_share_a_limit_of_ten_a_minute(policy: str, calls: list[tuple[str, JsonObject]]) -> None:
    charges = [charge for call in calls for charge in decide(policy, *call).charges]
    assert [(charge.limit, charge.window.seconds) for charge in charges] == [(10, 60), (10, 60)]
    assert charges[0].key == charges[1].key
