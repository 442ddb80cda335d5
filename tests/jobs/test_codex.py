"""codex-async-mcp's tools, over stdio, with real jobs: C1 to C9 are what a user of the original may rely on."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client

from intercept_py.jobs.dialects import Options, codex, codex_tools
from intercept_py.jobs.engine import Engine
from intercept_py.jobs.model import Order, Settings
from intercept_py.jobs.serving import build_server
from tests.support.jobs import (
    GRACE,
    Listening,
    alive,
    dialect,
    facts,
    gone,
    listening,
    processes_of,
    root_of,
    rows,
    text,
)

pytestmark = pytest.mark.anyio


async def start(client: Client, path: Path, prompt: str) -> dict[str, Any]:
    """Start a job and return what was answered."""
    return facts(await client.call_tool("codex_start", {"prompt": prompt, "cwd": str(root_of(path))}))


async def started(client: Client, path: Path, prompt: str) -> str:
    """The id of a job that was started."""
    return str((await start(client, path, prompt))["job_id"])


async def ask(client: Client, tool: str, job: str, **more: Any) -> dict[str, Any]:
    """What a tool answers about a job; never an error as MCP has it."""
    return facts(await client.call_tool(tool, {"job_id": job, **more}))


async def ended(client: Client, job: str) -> dict[str, Any]:
    """What is known of a job when it has ended."""
    while (known := await ask(client, "codex_poll", job))["status"] in ("running", "pending"):
        await anyio.sleep(0.02)
    return known


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listening]:
    """A server for tests that do not mind each other's jobs."""
    with listening("codex", tmp_path_factory.mktemp("shared")) as server:
        yield server


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listening]:
    """A server that runs shell commands."""
    with listening("codex", tmp_path_factory.mktemp("shell"), "--allow-shell") as server:
        yield server


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    """Where a job says that it is ready."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


async def test_the_tools_are_those_of_the_original(tmp_path: Path) -> None:
    async with dialect("codex", tmp_path) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    assert list(tools) == ["codex_start", "codex_poll", "codex_list", "codex_cancel"]
    assert tools["codex_cancel"].input_schema == {
        "properties": {
            "job_id": {"description": "The job_id returned by codex_start.", "title": "Job Id", "type": "string"}
        },
        "required": ["job_id"],
        "title": "codex_cancelArguments",
        "type": "object",
    }
    given = {name: tool.input_schema["properties"] for name, tool in tools.items()}
    assert {name: {key: schema.get("default") for key, schema in one.items()} for name, one in given.items()} == {
        "codex_start": {"prompt": None, "cwd": None, "approval_policy": "suggest"},
        "codex_poll": {"job_id": None, "tail_lines": 100},
        "codex_list": {"limit": 20},
        "codex_cancel": {"job_id": None},
    }
    assert [tool.annotations.read_only_hint for tool in tools.values() if tool.annotations] == [
        False,
        True,
        True,
        False,
    ]


async def test_c1_an_unknown_job_is_an_ordinary_answer_with_an_error(shared: Listening) -> None:
    async with Client(shared.url, mode="legacy") as client:
        for tool in ("codex_cancel", "codex_poll"):
            result = await client.call_tool(tool, {"job_id": "X"})
            assert result.is_error is False
            assert result.structured_content == {"error": "Job 'X' not found"}
            assert text(result) == '{\n  "error": "Job \'X\' not found"\n}'


async def test_c2_a_finished_job_is_not_running_and_stays_as_it_is(shared: Listening) -> None:
    async with Client(shared.url, mode="legacy") as client:
        for prompt, status, code in (("echo hi", "done", 0), ("fail 3", "error", 3)):
            job = await started(client, shared.path, prompt)
            before = await ended(client, job)
            assert (before["status"], before["exit_code"]) == (status, code)
            answer = await ask(client, "codex_cancel", job)
            assert answer == {"job_id": job, "status": status, "message": "Job is not running"}
            assert await ask(client, "codex_poll", job) == before


async def test_c3_a_running_job_is_cancelled_with_everything_that_it_started(shell: Listening, fifo: Path) -> None:
    async with Client(shell.url, mode="legacy") as client:
        answer = await start(client, shell.path, f"sleep 60 & setsid sleep 60 & echo $! > {fifo}; wait")
        daemon = int(await anyio.Path(fifo).read_text())
        job, pid = answer["job_id"], answer["pid"]
        assert answer["status"] == "running"
        assert alive(pid)
        assert alive(daemon)
        assert len(processes_of(shell.path, job)) >= 3
        assert await ask(client, "codex_cancel", job) == {"job_id": job, "status": "cancelled", "killed": True}
        assert processes_of(shell.path, job) == []
        assert not alive(pid)
        assert not alive(daemon)
        again = {"job_id": job, "status": "cancelled", "message": "Job is not running"}
        assert await ask(client, "codex_cancel", job) == again


async def test_c4_a_job_that_ignores_sigterm_ends_after_the_grace(shell: Listening, fifo: Path) -> None:
    async with Client(shell.url, mode="legacy") as client:
        job = await started(client, shell.path, f"trap '' TERM; echo ready > {fifo}; sleep 60")
        await anyio.Path(fifo).read_text()
        with anyio.fail_after(10):
            assert (await ask(client, "codex_cancel", job))["status"] == "cancelled"
        assert processes_of(shell.path, job) == []
        assert (await ask(client, "codex_poll", job))["exit_code"] == -signal.SIGKILL


async def test_c5_how_a_cancelled_job_ended_is_kept(shell: Listening, fifo: Path) -> None:
    async with Client(shell.url, mode="legacy") as client:
        by_signal = await started(client, shell.path, "sleep 60")
        by_itself = await started(client, shell.path, f"trap 'exit 7' TERM; echo ready > {fifo}; sleep 60 & wait")
        await anyio.Path(fifo).read_text()
        for job, code in ((by_signal, -signal.SIGTERM), (by_itself, 7)):
            await ask(client, "codex_cancel", job)
            known = await ask(client, "codex_poll", job)
            assert (known["status"], known["exit_code"]) == ("cancelled", code)
            assert known["finished_at"] > known["started_at"]
            assert known["finished_at"].endswith("+00:00")


@pytest.mark.parametrize("job", ["../evil", "../../state", "/etc", "..", "", "a\0b", "x" * 100_000, "%2e%2e/evil"])
async def test_c6_an_id_is_never_a_path(shared: Listening, job: str) -> None:
    evil = shared.path / "state" / "evil"
    evil.mkdir(exist_ok=True)
    (evil / "meta.json").write_text('{"status": "running", "pid": 1}')
    async with Client(shared.url, mode="legacy") as client:
        for tool in ("codex_poll", "codex_cancel"):
            assert await ask(client, tool, job) == {"error": f"Job '{job}' not found"}
    assert (evil / "meta.json").read_text() == '{"status": "running", "pid": 1}'


async def test_c7_a_job_that_finishes_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    async with dialect("codex", tmp_path, "--max-running", "8") as client:
        jobs = [await started(client, tmp_path, f"sleep {0.005 * number}") for number in range(16)]
        for job in jobs:
            answer = await ask(client, "codex_cancel", job)
            known = await ended(client, job)
            if "killed" in answer or answer.get("message") == "Removed from queue":
                assert known["status"] == "cancelled"
            else:
                assert answer == {"job_id": job, "status": "done", "message": "Job is not running"}
                assert (known["status"], known["exit_code"]) == ("done", 0)


async def test_c8_a_restarted_server_leaves_a_stranger_with_the_same_pid_alone(tmp_path: Path) -> None:
    with listening("codex", tmp_path) as server:
        async with Client(server.url, mode="legacy") as client:
            answer = await start(client, tmp_path, "sleep 60")
        server.kill()
    gone(answer["pid"])
    stranger = subprocess.Popen(["sleep", "60"])
    try:
        with closing(sqlite3.connect(tmp_path / "state" / "jobs.db", isolation_level=None)) as db:
            db.execute("UPDATE job SET pid = ? WHERE status = 'running'", (stranger.pid,))
        async with dialect("codex", tmp_path) as client:
            known = await ask(client, "codex_poll", answer["job_id"])
            assert (known["status"], known["exit_code"]) == ("error", -signal.SIGTERM)
            cancelled = await ask(client, "codex_cancel", answer["job_id"])
            assert cancelled == {"job_id": answer["job_id"], "status": "error", "message": "Job is not running"}
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


async def test_c9_ids_lists_and_outputs_have_the_form_of_the_original(tmp_path: Path) -> None:
    async with dialect("codex", tmp_path) as client:
        nothing = await client.call_tool("codex_list", {})
        assert (text(nothing), nothing.structured_content) == ("[]", {"result": []})
        prompts = ["echo one", f"echo {'x' * 90}", "count 5000", "flood 2"]
        jobs = [await started(client, tmp_path, prompt) for prompt in prompts]
        assert all(re.fullmatch("[0-9a-f]{8}", job) for job in jobs)
        known = [await ended(client, job) for job in jobs]
        listed = facts(await client.call_tool("codex_list", {}))["result"]
        assert [row["job_id"] for row in listed] == jobs[::-1]
        assert [row["prompt"] for row in listed][2:] == [f"echo {'x' * 75}...", "echo one"]
        assert set(listed[0]) == {"job_id", "status", "prompt", "cwd", "started_at", "finished_at"}
        assert facts(await client.call_tool("codex_list", {"limit": 2}))["result"] == listed[:2]
        assert known[0]["output"] == "one"
        assert known[2]["output"].split("\n") == [str(number) for number in range(4901, 5001)]
        assert (await ask(client, "codex_poll", jobs[2], tail_lines=2))["output"] == "4999\n5000"
        long = await ask(client, "codex_poll", jobs[3], tail_lines=10_000)
        assert len(long["output"]) == 8000
        assert long["output"].startswith("...(truncated)...\n")
        assert set(long) == {*("job_id", "status", "exit_code", "output", "started_at", "finished_at", "prompt", "cwd")}


@pytest.mark.parametrize(
    ("tool", "arguments", "words"),
    [
        ("codex_start", {"prompt": "dance", "cwd": "."}, "unknown recipe `dance`: use one of sleep, "),
        ("codex_start", {"prompt": "sleep -1", "cwd": "."}, "recipe `sleep` does not take `-1`"),
        ("codex_start", {"prompt": "sleep 1", "cwd": "."}, "must be an absolute path"),
        ("codex_start", {"prompt": "sleep 1", "cwd": "/nowhere"}, "no such file or directory"),
        ("codex_start", {"prompt": "sleep 1", "cwd": "/"}, "is outside of"),
        ("codex_start", {"prompt": "sleep 1", "cwd": "/", "approval_policy": "yolo"}, "unknown approval_policy `yolo`"),
        ("codex_start", {"prompt": f"echo {'x' * 2_000_000}", "cwd": "/"}, "the text is 2000005 bytes long"),
        ("codex_cancel", {}, "1 validation error for codex_cancelArguments\njob_id\n  Field required [type=missing, "),
        ("codex_cancel", {"job_id": 7}, "Input should be a valid string [type=string_type, input_value=7, "),
        ("codex_poll", {"job_id": "x", "tail_lines": "2"}, "Input should be a valid integer [type=int_type, "),
    ],
    ids=lambda value: str(value)[:30],
)
async def test_what_cannot_be_done_is_said_and_nothing_is_kept(
    shared: Listening, tool: str, arguments: dict[str, Any], words: str
) -> None:
    before = rows(shared.path)
    async with Client(shared.url, mode="legacy") as client:
        result = await client.call_tool(tool, arguments)
    assert result.is_error
    assert text(result).startswith(f"Error executing tool {tool}: ")
    assert words in text(result)
    assert rows(shared.path) == before


async def test_numbers_that_make_no_sense_are_answered(shared: Listening) -> None:
    async with Client(shared.url, mode="legacy") as client:
        job = await started(client, shared.path, "echo hi")
        for lines in (0, -1, -(10**30)):
            answer = await ask(client, "codex_poll", job, tail_lines=lines)
            assert answer == {"error": "tail_lines must be 1 or more"}
        assert (await ask(client, "codex_poll", job, tail_lines=10**30))["job_id"] == job
        for limit, length in ((0, 0), (-5, 0), (1, 1), (10**30, rows(shared.path))):
            assert len(facts(await client.call_tool("codex_list", {"limit": limit}))["result"]) == length


async def test_a_job_that_waits_for_room_is_removed_from_the_queue(tmp_path: Path) -> None:
    async with dialect("codex", tmp_path, "--max-running", "1") as client:
        await started(client, tmp_path, "sleep 60")
        answer = await start(client, tmp_path, "echo never")
        assert (answer["status"], answer["pid"]) == ("pending", None)
        removed = {"job_id": answer["job_id"], "status": "cancelled", "message": "Removed from queue"}
        assert await ask(client, "codex_cancel", answer["job_id"]) == removed
        known = await ask(client, "codex_poll", answer["job_id"])
        assert (known["status"], known["exit_code"], known["output"]) == ("cancelled", None, "")


async def test_with_agent_async_jobs_run_one_after_another_and_can_be_waited_for(tmp_path: Path) -> None:
    async with dialect("codex", tmp_path, "--agent-async") as client:
        tools = (await client.list_tools()).tools
        assert [tool.name for tool in tools] == [tool.name for tool in codex_tools.ASYNC_TOOLS]
        assert tools[0].input_schema["properties"]["approval_policy"]["default"] == "full-auto"
        idle = facts(await client.call_tool("queue_status", {}))
        assert idle == {"busy": False, "pending_count": 0}
        first, second, third = [await start(client, tmp_path, "sleep 60") for _ in range(3)]
        assert [job["status"] for job in (first, second, third)] == ["running", "pending", "pending"]
        busy = facts(await client.call_tool("queue_status", {}))
        assert busy == {"busy": True, "running_job_id": first["job_id"], "pending_count": 2}
        late = await ask(client, "codex_wait", first["job_id"], timeout_seconds=0)
        assert (late["status"], late["output"]) == ("timeout", "")
        assert await ask(client, "codex_wait", "X") == {"error": "Job 'X' not found"}
        await ask(client, "job_cancel", third["job_id"])
        woken = []

        async def wait() -> None:
            woken.append((await ask(client, "codex_wait", first["job_id"]))["status"])

        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(wait)
            await ask(client, "job_cancel", first["job_id"])
        assert woken == ["cancelled"] * 3
        message = (await ask(client, "job_cancel", first["job_id"]))["message"]
        assert message == "Job is not running or pending"
        assert (await ask(client, "codex_poll", second["job_id"]))["status"] == "running"


async def test_the_queue_is_this_servers_own_and_all_of_it(tmp_path: Path) -> None:
    async with dialect("codex", tmp_path, "--agent-async") as other:
        for _ in range(3):
            await start(other, tmp_path, "sleep 60")
        async with dialect("codex", tmp_path, "--agent-async") as client:
            assert facts(await client.call_tool("queue_status", {})) == {"busy": False, "pending_count": 0}
            for _ in range(2):
                await start(client, tmp_path, "sleep 60")
            mine = facts(await client.call_tool("queue_status", {}))
            assert (mine["busy"], mine["pending_count"]) == (True, 1)


async def test_a_long_queue_is_counted_to_its_end(tmp_path: Path) -> None:
    settings = Settings(state_dir=str(tmp_path / "state"), root=str(root_of(tmp_path)), grace=GRACE, queue=2000)
    engine = await Engine.open(settings)
    try:
        for number in range(1102):
            await engine.start(
                Order("codex", ("sleep", "60"), "sleep 60", settings.root, {}, after="agent"), f"{number:08x}"
            )
        service = codex.build(engine, Options(settings, agent_async=True))
        async with Client(build_server(service)) as client:
            assert facts(await client.call_tool("queue_status", {}))["pending_count"] == 1101
    finally:
        await engine.close()


async def test_answers_are_json_indented_by_two(shared: Listening) -> None:
    async with Client(shared.url, mode="legacy") as client:
        result = await client.call_tool("codex_start", {"prompt": "echo ü", "cwd": str(root_of(shared.path))})
        assert text(result) == json.dumps(result.structured_content, indent=2, ensure_ascii=False)
        assert (await ended(client, facts(result)["job_id"]))["output"] == "ü"
