"""What the ready-made policies do to real jobs: P1 to P8, each through the real proxy to the real server."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import anyio
import pytest
from mcp import Client
from mcp_types import Tool

from intercept_py import policy_file
from intercept_py.cli import audit
from intercept_py.jobs.dialects import DIALECTS, Options
from intercept_py.jobs.engine import Engine
from intercept_py.jobs.model import Settings
from intercept_py.jobs.serving import build_server
from intercept_py.policy import pdp
from intercept_py.policy.rules import Policy
from tests.support.governed import (
    CODEX,
    CODEX_QUEUE,
    ORCHESTRATION,
    ROOT,
    SEEDS,
    SSH,
    SSH_ASYNC,
    SSH_BLOCKING,
    TRIGGER,
    Session,
    System,
    decision,
    governed,
)
from tests.support.jobs import facts, rows, text
from tests.support.wire import DENIED

pytestmark = pytest.mark.anyio

TRIGGER_WHOLE = replace(TRIGGER, policy="trigger-dev")
SEEDWISE = pytest.mark.parametrize("system", SEEDS, ids=lambda system: system.policy)
ROOMY = ("--max-running", "12")
ELSEWHERE = {
    "seeds/orchestration": {"list_agents", "fetch_agent_messages", "send_agent_message"},  # of its later versions
    "trigger-dev": {
        tool["name"] for tool in json.loads((ROOT / "tests/data/trigger-dev-4.8.3-tools.json").read_text())
    },
}
"""Tools of the original servers that the dialects do not have."""
TRIGGER_RULE = """\
  cancel_run:
    rules:
      - action: allow
        rate_limit:
          max: 10
          window: 60
        validate:
          required_args: true
"""


def with_room(system: System) -> str:
    """The system's policy, but for starting a few more jobs than may be cancelled."""
    text, changed = re.subn(rf"(\n  {system.start}:\n.*?max: )10", r"\g<1>12", system.source, count=1, flags=re.DOTALL)
    assert changed
    return text


def sound(session: Session) -> bool:
    """Whether nothing in the audit file was changed, as `audit verify` sees it."""
    return audit.main(["verify", str(session.audit)]) == 0


# -- what is governed --------------------------------------------------------------------------------------------------


def arguments_read(policy: Policy, tool: str) -> set[str]:
    """The arguments of a tool that rules look at, but for those of `*`, which ask first whether there is one."""
    entries = [entry for entry in pdp.match(policy, tool).entries if entry.pattern != "*"]
    rules = [rule for entry in entries for rule in entry.rules]
    paths = [condition.path for rule in rules for condition in (*rule.when, *rule.conditions)]
    required = [rule.validate.required for rule in rules if rule.validate]
    names = {name for listed in required if isinstance(listed, tuple) for name in listed}
    return names | {str(path.steps[0]) for path in paths if path.root == "args"}


async def tools_of(name: str, agent_async: bool, path: Path) -> dict[str, Tool]:
    """What a dialect's server lists, without a process for it."""
    settings = Settings(state_dir=str(path), root=str(path))
    engine = await Engine.open(settings)
    try:
        service = import_module(DIALECTS[name].module).build(engine, Options(settings, agent_async))
        async with Client(build_server(service), mode="legacy") as client:
            return {tool.name: tool for tool in (await client.list_tools()).tools}
    finally:
        await engine.close()


@pytest.mark.parametrize(
    ("name", "agent_async", "policies"),
    [
        ("orchestration", False, ["seeds/orchestration"]),
        ("codex", False, ["seeds/codex"]),
        ("codex", True, ["codex-agent-async"]),
        ("trigger", False, ["seeds/trigger-dev", "trigger-dev"]),
        ("ssh", False, ["seeds/ssh-cancel-async-task", "seeds/ssh-cancel", "ssh"]),
    ],
)
async def test_a_policy_governs_exactly_the_tools_that_its_server_lists(
    name: str, agent_async: bool, policies: list[str], tmp_path: Path
) -> None:
    tools = await tools_of(name, agent_async, tmp_path)
    for file in policies:
        policy = policy_file.read(str(ROOT / "policies" / f"{file}.yaml"))
        used = {"*"}
        for tool in tools.values():
            matched = pdp.match(policy, tool.name)
            assert matched.listed, f"{tool.name} is not governed"
            assert matched.category
            assert any(entry.rules for entry in matched.entries if entry.pattern != "*")
            assert arguments_read(policy, tool.name) <= set(tool.input_schema["properties"])
            used |= {entry.pattern for entry in matched.entries}
        elsewhere = {entry.pattern for entry in policy.entries} - used
        assert elsewhere == ELSEWHERE.get(file, set()) - set(tools)
        assert not policy.default_allow


def test_the_published_rule_for_cancel_run_is_there_word_for_word() -> None:
    assert TRIGGER_RULE in TRIGGER.source
    assert TRIGGER_RULE in TRIGGER_WHOLE.source


# -- P1, P2: limits ----------------------------------------------------------------------------------------------------


@SEEDWISE
async def test_p1_ten_cancels_pass_and_the_eleventh_job_runs_on(system: System, tmp_path: Path) -> None:
    async with governed(system, tmp_path, *ROOMY, policy=with_room(system)) as session:
        *jobs, last = await session.start_many(11)
        processes = [session.processes(job) for job in jobs]
        assert all(processes)
        for job in jobs:
            assert not (await session.cancel(job)).is_error
        refused = await session.cancel(last)
        for pids in processes:
            await session.ended(pids)
        assert session.processes(last)
    told = decision(refused)
    assert told["code"] == "limit_reached"
    assert 0 < told["retry_after"] <= 60
    rule = re.escape(told["rule"])
    words = rf"{re.escape(DENIED)}rate limit of 10 per 60 s reached; rule `{rule}`; retry in \d+ s"
    assert re.fullmatch(words, text(refused))
    assert [name for name, _ in session.received()].count(system.cancel) == 10
    assert session.outcomes(system.cancel) == [("ok", None)] * 10


async def test_p1_after_the_window_a_cancel_passes_again(tmp_path: Path) -> None:
    policy = "tools: {cancel_run: {rules: [{action: allow, rate_limit: {max: 2, window: 2}}]}}\n"
    refused: dict[str, float] = {}
    async with governed(TRIGGER, tmp_path, policy=policy) as session:
        jobs = await session.start_many(3)

        async def cancel(job: str) -> None:
            result = await session.cancel(job)
            if result.is_error:
                refused[job] = decision(result)["retry_after"]

        async with anyio.create_task_group() as group:
            for job in jobs:
                group.start_soon(cancel, job)
        ((job, seconds),) = refused.items()
        processes = session.processes(job)
        assert processes
        await anyio.sleep(seconds)
        assert not (await session.cancel(job)).is_error
        await session.ended(processes)


@pytest.mark.parametrize(
    ("system", "tools"),
    [(CODEX_QUEUE, ("codex_cancel", "job_cancel")), (SSH, ("ssh_cancel", "ssh_cancel_async_task"))],
    ids=["codex-agent-async", "ssh"],
)
async def test_p1_two_tools_that_cancel_share_one_limit(system: System, tools: tuple[str, str], tmp_path: Path) -> None:
    async with governed(system, tmp_path) as session:
        for _ in range(5):
            for tool in tools:
                assert not (await session.call(tool, **{system.id: system.unknown})).is_error
        job = await session.start()
        for tool in tools:
            assert decision(await session.call(tool, **{system.id: job}))["code"] == "limit_reached"
        assert session.processes(job)


async def test_p2_another_session_has_its_own_budget(tmp_path: Path) -> None:
    async with governed(TRIGGER, tmp_path / "one") as one, governed(TRIGGER, tmp_path / "two") as two:
        for _ in range(10):
            assert not text(await one.cancel("run_nope")).startswith(DENIED)
        assert decision(await one.cancel("run_nope"))["code"] == "limit_reached"
        job = await two.start()
        processes = two.processes(job)
        assert not (await two.cancel(job)).is_error
        await two.ended(processes)
        assert decision(await one.cancel("run_nope"))["code"] == "limit_reached"


# -- P3, P4: arguments -------------------------------------------------------------------------------------------------


@SEEDWISE
async def test_p3_a_cancel_without_an_id_never_reaches_the_server(system: System, tmp_path: Path) -> None:
    missing = [{}, *({system.id: value} for value in ("", "   ", "\n\t", "\u00a0"))]
    async with governed(system, tmp_path) as session:
        refused = [await session.call(system.cancel, **arguments) for arguments in missing]
        assert not (await session.call(system.lists)).is_error
    assert {decision(result)["code"] for result in refused} == {"missing_argument"}
    assert all(f"`{system.id}` must be given and not be blank" in text(result) for result in refused)
    assert session.received() == [(system.lists, {})]
    assert rows(tmp_path) == 0


IDS = [
    (
        TRIGGER_WHOLE,
        ["../../v1/whoami?x=", "{}/../../v1/whoami?x=", "..%2f{}", " {}", "{}\n", "x{}", "{}?x=", "run_", "RUN_ABC"],
        "runId must be a run id such as run_abc123",
    ),
    (ORCHESTRATION, ["../{}", "{}/..", "nope", "{}\n"], "run_id must be the UUID"),
    (CODEX_QUEUE, ["../evil", "../{}", "{}0", "{}\n"], "job_id must be the 8 digits that codex_start returned"),
    (SSH, ["../{}", "{} ", "{};id", "a" * 201], "task_id must be one that the server told"),
]


@pytest.mark.parametrize(("system", "ids", "words"), IDS, ids=[system.policy for system, *_ in IDS])
async def test_p4_an_id_of_another_form_never_reaches_the_server(
    system: System, ids: list[str], words: str, tmp_path: Path
) -> None:
    async with governed(system, tmp_path) as session:
        job = await session.start()
        processes = session.processes(job)
        for form in ids:
            refused = await session.cancel(form.format(job))
            assert decision(refused)["code"] == "condition_failed"
            assert text(refused).startswith(DENIED + words)
        assert session.untouched(job, processes)
        assert not (await session.cancel(job)).is_error
        await session.ended(processes)
    assert [name for name, _ in session.received()] == [system.start, system.cancel]


# -- P5, P6: denials ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("system", [ORCHESTRATION, CODEX, TRIGGER, SSH_BLOCKING], ids=lambda system: system.dialect)
async def test_p5_a_denied_tool_tells_the_agent_why_and_the_job_runs_on(system: System, tmp_path: Path) -> None:
    rule = {"name": "people only", "action": "deny", "reason": "a person cancels jobs: ask the one on duty"}
    policy = {"default": "deny", "tools": {system.start: {}, system.cancel: {"rules": [rule]}}}
    async with governed(system, tmp_path, policy=json.dumps(policy)) as session:
        job = await session.start()
        processes = session.processes(job)
        refused = await session.cancel(job)
        assert session.untouched(job, processes)
    assert text(refused) == f"{DENIED}a person cancels jobs: ask the one on duty; rule `people only`"
    assert decision(refused)["code"] == "denied_by_rule"
    assert [name for name, _ in session.received()] == [system.start]


@pytest.mark.parametrize("default", ["deny", "allow"])
async def test_p6_the_default_decides_on_a_tool_that_a_later_server_adds(default: str, tmp_path: Path) -> None:
    """The policy is the one for the server without a queue, which has no `job_cancel`."""
    later = replace(CODEX, cancel="job_cancel", options=("--agent-async",))
    policy = CODEX.source.replace("default: deny", f"default: {default}")
    async with governed(later, tmp_path, policy=policy) as session:
        job = await session.start()
        processes = session.processes(job)
        result = await session.cancel(job)
        if default == "allow":
            assert facts(result)["killed"] is True
            assert session.processes(job) == []
        else:
            assert decision(result)["code"] == "unknown_tool"
            assert session.untouched(job, processes)
    assert [name for name, _ in session.received()] == ["codex_start", "job_cancel"][: 1 + (default == "allow")]


# -- P7: two spellings (all sequences: tests/policies/test_spellings.py) -----------------------------------------------

SEEDS_SPELLING = """
default: deny
tools:
  trigger_task: {}
  list_runs: {}
  cancel_run:
    rules:
      - {name: limited, action: allow, rate_limit: {max: 3, window: 3600}, validate: {required_args: true},
         reason: three cancels an hour}
  deploy:
    rules:
      - {name: people, action: deny, reason: people deploy}
"""
PUBLISHED_SPELLING = r"""
version: "1"
default: "deny"
tools:
  trigger_task:
    rules: []
  list_runs:
    rules: []
  cancel_run:
    rules:
      - name: "limited"
        action: "evaluate"
        conditions:
          - {path: "args.runId", op: "regex", value: "\\S"}
        rate_limit: 3/hour
        on_deny: "three cancels an hour"
  deploy:
    rules:
      - {name: "people", action: "deny", on_deny: "people deploy"}
"""


@pytest.mark.parametrize("policy", [SEEDS_SPELLING, PUBLISHED_SPELLING], ids=["seeds", "published"])
async def test_p7_both_spellings_decide_alike(policy: str, tmp_path: Path) -> None:
    async with governed(TRIGGER, tmp_path, policy=policy) as session:
        *jobs, last = await session.start_many(4)
        for run in (" ", "", None):
            assert text(await session.call("cancel_run", runId=run)).startswith(DENIED)
        for run in jobs:
            assert not (await session.cancel(run)).is_error
        assert text(await session.cancel(last)).startswith(f"{DENIED}three cancels an hour; rule `limited`; retry in")
        assert text(await session.call("deploy")) == f"{DENIED}people deploy; rule `people`"
        assert decision(await session.call("list_orgs"))["code"] == "unknown_tool"
        assert not (await session.call("list_runs")).is_error
        assert session.processes(last)
    assert [name for name, _ in session.received()] == [*["trigger_task"] * 4, *["cancel_run"] * 3, "list_runs"]


# -- P8: the audit -----------------------------------------------------------------------------------------------------

FAILURES: list[tuple[System, list[tuple[str, str, str, str | None]]]] = [
    # `{}` is a job that was cancelled. Without words of a condition, the server itself says that the call failed.
    (
        ORCHESTRATION,
        [
            ("cancel_run", ORCHESTRATION.unknown, "Error: Unknown run_id", None),
            ("cancel_run", "{}", "Error: run is already terminal: cancelled", None),
        ],
    ),
    (
        CODEX,
        [
            ("codex_cancel", CODEX.unknown, "error", "json.error exists"),
            ("codex_cancel", "{}", "Job is not running", "json.message neq"),
            ("codex_poll", CODEX.unknown, "error", "json.error exists"),
        ],
    ),
    (
        CODEX_QUEUE,
        [
            ("job_cancel", CODEX.unknown, "error", "json.error exists"),
            ("job_cancel", "{}", "Job is not running or pending", "json.message neq"),
            ("codex_wait", CODEX.unknown, "error", "json.error exists"),
        ],
    ),
    (
        SSH_ASYNC,
        [
            ("ssh_cancel_async_task", SSH.unknown, "not cancellable", "json.cancelled neq"),
            ("ssh_get_task_result", SSH.unknown, "Error: Task not found", "text starts_with"),
        ],
    ),
    (
        SSH_BLOCKING,
        [
            ("ssh_cancel", SSH.unknown, "Task not found", "json.cancelled neq"),
            ("ssh_cancel", "invalid:task:id", "Task not found", "json.cancelled neq"),
        ],
    ),
    (
        SSH,
        [
            ("ssh_cancel", SSH.unknown, "Task not found", "json.cancelled neq"),
            ("ssh_cancel_async_task", SSH.unknown, "not cancellable", "json.cancelled neq"),
            ("ssh_get_task_status", SSH.unknown, "Error: Task not found", "text starts_with"),
        ],
    ),
]


@pytest.mark.parametrize(("system", "failures"), FAILURES, ids=[system.policy for system, _ in FAILURES])
async def test_p8_the_audit_calls_a_failure_by_its_name_and_the_client_gets_it_as_it_is(
    system: System, failures: list[tuple[str, str, str, str | None]], tmp_path: Path
) -> None:
    async with governed(system, tmp_path) as session:
        job = await session.start()
        results = [await session.cancel(job)]
        for tool, ident, words, matched in failures:
            results.append(await session.call(tool, **{system.id: ident.format(job)}))
            assert words in text(results[-1])
            assert results[-1].is_error is (matched is None)
    answered = session.answered()
    assert all(result in answered for result in results)
    for tool in {tool for tool, *_ in failures}:
        succeeded = [("ok", None)] if tool == system.cancel else []
        failed = [("tool_error", matched) for name, _, _, matched in failures if name == tool]
        assert session.outcomes(tool) == [*succeeded, *failed]
    assert sound(session)


@pytest.mark.parametrize("system", [CODEX, CODEX_QUEUE], ids=lambda system: system.policy)
async def test_p8_a_cancel_that_another_server_would_have_to_do_is_a_failure(system: System, tmp_path: Path) -> None:
    """Both servers keep their jobs in one directory."""
    shared = ("--state-dir", str(tmp_path / "state"))
    async with governed(system, tmp_path) as owner, governed(system, tmp_path / "other", *shared) as stranger:
        job = await owner.start()
        assert "Job belongs to another server" in text(await stranger.cancel(job))
        assert owner.processes(job)
    assert stranger.outcomes(system.cancel) == [("tool_error", "json.message neq")]


async def test_p8_cancelling_a_finished_run_is_a_failure_although_trigger_says_canceled(tmp_path: Path) -> None:
    async with governed(TRIGGER, tmp_path) as session:
        running, run = await session.start(), await session.start("echo done")
        assert not (await session.cancel(running)).is_error
        assert (await session.cancel(TRIGGER.unknown)).is_error
        assert "Status: completed" in text(await session.call("wait_for_run_to_complete", runId=run))
        result = await session.cancel(run)
    assert not result.is_error
    assert text(result).startswith(f"Run {run} canceled.\nStatus: COMPLETED\n")
    assert result in session.answered()
    assert session.outcomes("cancel_run") == [("ok", None), ("tool_error", None), ("tool_error", "text not_regex")]
    assert sound(session)
