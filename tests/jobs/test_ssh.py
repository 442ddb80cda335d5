"""The ssh dialect on the wire: a real server over stdio, real processes, notifications, cancelling."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp_types import LoggingLevel

from intercept_py.jobs.dialects.ssh_commands import Commands
from intercept_py.jobs.dialects.ssh_hosts import LOCAL, Host
from intercept_py.jobs.dialects.ssh_tasks import ASYNC, BLOCKING, Limits
from intercept_py.jobs.engine import Engine
from intercept_py.jobs.model import Settings
from intercept_py.jobs.serving import Context
from intercept_py.model import Json
from tests.support.jobs import GRACE, alive, gone, processes_of, root_of
from tests.support.ssh import TERMINAL, Session, in_process, over_stdio

pytestmark = pytest.mark.anyio


@pytest.fixture
async def session(tmp_path: Path) -> AsyncIterator[Session]:
    async with over_stdio(tmp_path) as session:
        yield session


def check_gone(pids: list[int]) -> None:
    assert pids
    for pid in pids:
        gone(pid)
        assert not alive(pid)


async def test_s1_cancelling_an_unknown_blocking_task_is_an_answer_and_no_error(session: Session) -> None:
    assert await session.call("ssh_cancel", task_id="nonexistent") == {
        "task_id": "nonexistent",
        "cancelled": False,
        "message": "Task not found",
    }


async def test_s2_a_blank_task_id_is_a_text_and_no_error(session: Session) -> None:
    for tool in ("ssh_cancel", "ssh_cancel_async_task", "ssh_get_task_status", "ssh_get_task_result"):
        for arguments in ({}, {"task_id": ""}, {"task_id": " \t"}):
            assert await session.call(tool, **arguments) == "Error: task_id is required"


async def test_s3_a_task_id_has_at_most_200_documented_characters(session: Session) -> None:
    for tool in ("ssh_cancel", "ssh_cancel_async_task"):
        too_long = await session.call(tool, task_id="a" * 201)
        assert too_long == "Error: task_id too long (max 200 characters)"
        odd = await session.call(tool, task_id="a b")
        assert odd == (
            "Error: task_id contains invalid characters (only alphanumeric, colon, dash, underscore allowed)"
        )
        assert (await session.call(tool, task_id=f" {'a' * 200} "))["task_id"] == "a" * 200


async def test_s4_cancelling_an_unknown_asynchronous_task_says_so(session: Session) -> None:
    assert await session.call("ssh_cancel_async_task", task_id="invalid:task:id") == {
        "task_id": "invalid:task:id",
        "cancelled": False,
        "message": "Task not found or not cancellable",
    }


async def test_s5_a_cancelled_asynchronous_task_stops_with_all_it_started_and_stays_cancelled(session: Session) -> None:
    task_id = await session.started("forker 30")
    (line,) = await session.printed(task_id, 1)
    pids = [int(word) for word in line.split() if word.isdigit()]
    assert len(pids) == 2
    assert await session.call("ssh_cancel_async_task", task_id=task_id) == {
        "task_id": task_id,
        "cancelled": True,
        "message": "Cancellation signaled",
    }
    status = await session.until(task_id, *TERMINAL)
    assert status["status"] == "cancelled"
    check_gone(pids)
    again = await session.call("ssh_cancel_async_task", task_id=task_id)
    assert (again["cancelled"], again["message"]) == (False, "Task not found or not cancellable")
    result = await session.call("ssh_get_task_result", task_id=task_id)
    assert (result["status"], result["cancelled"], result["timeout"]) == ("cancelled", True, False)
    assert (await session.call("ssh_get_task_status", task_id=task_id)) == status
    await session.heard(lambda message: message.startswith(f"task {task_id} cancelled "))
    await session.call("ssh_ping")
    assert session.endings(task_id) == ["cancelled"]


async def test_s6_a_pending_task_that_is_cancelled_never_starts(tmp_path: Path) -> None:
    async with over_stdio(tmp_path, "--max-running", "1") as session:
        first, second = await session.started("sleep 30"), await session.started("echo never")
        assert (await session.call("ssh_get_task_status", task_id=second))["status"] == "pending"
        assert (await session.call("ssh_cancel_async_task", task_id=second))["cancelled"] is True
        assert (await session.call("ssh_get_task_status", task_id=second))["status"] == "cancelled"
        await session.call("ssh_cancel_async_task", task_id=first)
        await session.until(first, "cancelled")
        result = await session.call("ssh_get_task_result", task_id=second)
        assert (result["status"], result["output"], result["exit_code"]) == ("cancelled", "", -1)
        await session.heard(lambda message: message.startswith(f"task {second} cancelled "))
        assert session.endings(second) == ["cancelled"]


@pytest.mark.parametrize("command", ["sleep 30", "stubborn 30", "forker 30"])
async def test_s7_ssh_cancel_answers_at_once_while_ssh_run_blocks(
    session: Session, tmp_path: Path, command: str
) -> None:
    answers: list[Any] = []

    async def run() -> None:
        answers.append(await session.call("ssh_run", alias="web1", command=command))

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        task_id = await session.announced()
        pids = processes_of(tmp_path, task_id)
        begun = time.monotonic()
        cancelled = await session.call("ssh_cancel", task_id=task_id)
        assert time.monotonic() - begun < 0.5
        assert cancelled == {"task_id": task_id, "cancelled": True, "message": "Cancellation signaled"}
    (result,) = answers
    assert (result["task_id"], result["cancelled"], result["timeout"]) == (task_id, True, False)
    check_gone(pids)
    late = await session.call("ssh_cancel", task_id=task_id)
    assert (late["cancelled"], late["message"]) == (False, "Task not found")


async def test_s8_a_task_on_a_host_with_dots_in_its_alias_can_be_cancelled(session: Session) -> None:
    task_id = await session.started("sleep 30", "web2.example.com")
    assert task_id.startswith("web2_example_com:")
    assert (await session.call("ssh_cancel_async_task", task_id=task_id))["cancelled"] is True
    assert (await session.until(task_id, *TERMINAL))["status"] == "cancelled"


async def test_s9_the_ids_of_one_kind_are_unknown_to_the_tools_of_the_other(session: Session) -> None:
    task_id = await session.started("sleep 30")
    assert (await session.call("ssh_cancel", task_id=task_id))["message"] == "Task not found"
    assert (await session.call("ssh_get_task_status", task_id=task_id))["status"] in ("pending", "running")
    async with anyio.create_task_group() as group:
        group.start_soon(partial(session.call, "ssh_run", alias="web1", command="sleep 30"))
        blocking = await session.announced()
        wrong = await session.call("ssh_cancel_async_task", task_id=blocking)
        assert wrong["message"] == "Task not found or not cancellable"
        unknown = await session.call("ssh_get_task_status", task_id=blocking)
        assert unknown == f"Error: Task not found: {blocking}"
        assert (await session.call("ssh_cancel", task_id=blocking))["cancelled"] is True


async def test_s10_output_can_be_read_while_the_task_runs(session: Session) -> None:
    task_id = await session.started("count 1000 0.05")
    assert (await session.printed(task_id, 3))[:3] == ["1", "2", "3"]
    output = await session.call("ssh_get_task_output", task_id=task_id, max_lines=2)
    total = output["total_lines"]
    assert output == {
        "task_id": task_id,
        "output_lines": [str(total - 1), str(total)],
        "total_lines": total,
        "has_more": True,
    }
    status = await session.call("ssh_get_task_status", task_id=task_id)
    assert status["status"] == "running"
    assert status["output_lines_available"] >= total
    assert 0 <= status["progress_percent"] < 100
    for number in (0, 1001):
        refused = await session.call("ssh_get_task_output", task_id=task_id, max_lines=number)
        assert refused == "Error: max_lines must be between 1 and 1000"
    early = await session.call("ssh_get_task_result", task_id=task_id)
    assert early == f"Error: Task not found or expired: {task_id}"


async def test_s11_a_task_id_is_alias_digest_and_microseconds(session: Session) -> None:
    answer = await session.call("ssh_run_async", alias=" web1 ", command="echo hello")
    assert re.fullmatch(r"web1:[0-9a-f]{16}:\d{16}", answer.pop("task_id"))
    digest = answer.pop("hash")
    assert answer == {
        "status": "pending",
        "keepAlive": 300,
        "pollFrequency": 5,
        "alias": "web1",
        "command": "echo hello",
    }
    assert (await session.call("ssh_plan", alias="web1", command="echo hello"))["hash"] == digest


@pytest.mark.parametrize(("ttl", "kept"), [(300.0, True), (0.0, False)])
async def test_s12_a_result_expires(tmp_path: Path, ttl: float, kept: bool) -> None:
    async with in_process(tmp_path, Limits(task_result_ttl=ttl)) as session:
        task_id = await session.started("echo hello")
        await session.heard(lambda message: message.startswith(f"task {task_id} completed "))
        for tool, error in {
            "ssh_get_task_result": f"Error: Task not found or expired: {task_id}",
            "ssh_get_task_status": f"Error: Task not found: {task_id}",
            "ssh_get_task_output": f"Error: Task not found or no output available: {task_id}",
        }.items():
            assert (await session.call(tool, task_id=task_id) != error) is kept


async def test_ssh_run_reports_progress_that_only_grows(session: Session) -> None:
    seen: list[tuple[float, float | None]] = []

    async def note(progress: float, total: float | None, message: str | None) -> None:
        assert message is not None
        assert re.match(r"task web1:\S+ progress \{", message)
        seen.append((progress, total))

    await session.client.call_tool("ssh_run", {"alias": "web1", "command": "count 4 0.1"}, progress_callback=note)
    assert seen
    assert seen == sorted(set(seen))
    assert {total for _, total in seen} == {100}


@pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
async def test_a_client_that_cancels_its_blocked_request_stops_the_command(tmp_path: Path, mode: str) -> None:
    async with over_stdio(tmp_path, "--allow-shell", mode=mode) as session:
        pid_file = root_of(tmp_path) / "pid"
        command = "printf $$ > new && mv new pid && sleep 30"
        async with anyio.create_task_group() as group:
            group.start_soon(partial(session.call, "ssh_run", alias="web1", command=command))
            while not pid_file.exists():
                await anyio.sleep(0.02)
            pid = int(pid_file.read_text())
            assert alive(pid)
            group.cancel_scope.cancel()
        check_gone([pid])
        assert await session.call("ssh_ping") == {"status": "pong"}


@pytest.mark.parametrize("event", ['{"type":"progress"}', '{"type":"progress","done":1,"total":0}'])
async def test_progress_that_a_command_makes_up_breaks_nothing(tmp_path: Path, event: str) -> None:
    async with over_stdio(tmp_path, "--allow-shell") as session:
        command = f"printf '%s\\n' '{event}' >&3; echo said; read line < wait"
        os.mkfifo(root_of(tmp_path) / "wait")
        task_id = await session.started(command)
        await session.printed(task_id, 1)
        assert (await session.until(task_id, "running"))["progress_percent"] < 99
        result: list[Any] = []

        async def run() -> None:
            result.append(await session.call("ssh_run", alias="web1", command=command))

        async with anyio.create_task_group() as group:
            group.start_soon(run)
            blocking = await session.announced()
            assert (await session.call("ssh_cancel", task_id=blocking))["cancelled"] is True
        assert result[0]["cancelled"] is True
        assert result[0]["output"] in ("", "said\n")


class Deaf(Context):
    """A client to whom nothing can be said."""

    def __init__(self) -> None:
        pass

    async def log(self, level: LoggingLevel, data: Json, logger: str | None = None) -> None:
        raise RuntimeError("the client is deaf")


@pytest.mark.parametrize("kind", [BLOCKING, ASYNC])
async def test_a_command_whose_call_fails_is_stopped(tmp_path: Path, kind: str) -> None:
    settings = Settings(state_dir=str(tmp_path / "state"), root=str(root_of(tmp_path)), grace=GRACE)
    engine = await Engine.open(settings)
    try:
        commands, host = Commands(engine, settings, Limits()), Host(alias="web1", host=LOCAL)
        begin = commands.start if kind == ASYNC else partial(commands.run, announcement="created")
        with pytest.raises(RuntimeError, match="deaf"):
            await begin(host, "sleep 60", Deaf())
        (job,) = engine.list(kind)
        ended = await engine.wait(kind, job.id, 20)
        assert (ended.status, ended.cancel_reason) == ("cancelled", "request_failed")
    finally:
        await engine.close()


async def test_a_task_tells_that_it_was_created_and_once_how_it_ended(session: Session) -> None:
    for command, word in (("echo hello", "completed"), ("fail 2", "failed")):
        task_id = await session.started(command)
        created = next(message for message in session.logged if message.startswith(f"task {task_id} "))
        facts = {"alias": "web1", "command": command, "status": "pending"}
        assert created == f"task {task_id} created {json.dumps(facts, separators=(',', ':'))}"
        await session.until(task_id, word)
        await session.heard(partial(re.match, f"task {task_id} {word} "))
        await session.call("ssh_ping")
        assert session.endings(task_id) == [word]


async def test_what_ssh_run_on_tag_waits_for_can_be_cancelled_host_by_host(session: Session) -> None:
    answers: list[Any] = []

    async def run() -> None:
        answers.append(await session.call("ssh_run_on_tag", tag="web", command="sleep 30"))

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        for alias in ("web1", "web2.example.com"):
            cancelled = await session.call("ssh_cancel", task_id=await session.announced(alias))
            assert cancelled["cancelled"] is True
    assert [result["cancelled"] for result in answers[0]["results"]] == [True, True]
