"""The Orchestration MCP's tools, over stdio, with real runs: O1 to O12 are what a user of the original may rely on."""

from __future__ import annotations

import base64
import json
import os
import signal
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import anyio
import jsonschema
import pytest
from mcp import Client

from intercept_py.jobs.dialects import Options, orchestration
from intercept_py.jobs.dialects.orchestration_tools import LISTED, TOOLS
from intercept_py.jobs.engine import Engine
from intercept_py.jobs.launch import Launcher, LocalLauncher, Process, Work
from intercept_py.jobs.model import JobError, Settings
from intercept_py.jobs.serving import build_server
from tests.support.jobs import GRACE, Listening, dialect, gone, listening, processes_of, root_of, row_of, rows, text

pytestmark = pytest.mark.anyio

SHELL = "--allow-shell"
SEED_TOOLS = Path(__file__).resolve().parents[1] / "data" / "seed-tools.json"
OUTPUTS = {tool.name: tool.output_schema or {} for tool in TOOLS}


async def call(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    """The facts that a tool answers with, as its output schema promises them, and nothing else."""
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, text(result)
    found = result.structured_content
    jsonschema.validate(found, OUTPUTS[tool])
    assert text(result) == json.dumps(found, indent=2, ensure_ascii=False)
    assert isinstance(found, dict)
    return found


async def error(client: Client, tool: str, **arguments: Any) -> str:
    """The text that a tool fails with."""
    result = await client.call_tool(tool, arguments)
    assert result.is_error
    assert result.structured_content is None
    return text(result)


def order(path: Path, prompt: str, /, **more: Any) -> dict[str, Any]:
    """What `spawn_run` is asked for."""
    usual = {"backend": "codex", "role": "worker", "cwd": str(root_of(path)), "session_mode": "new"}
    return {**usual, "prompt": prompt, **more}


async def spawn(client: Client, path: Path, prompt: str, **more: Any) -> str:
    """The id of a new run."""
    return str((await call(client, "spawn_run", **order(path, prompt, **more)))["run_id"])


async def ended(client: Client, run: str) -> list[dict[str, Any]]:
    """All events of a run, when it has ended."""
    events: list[dict[str, Any]] = []
    status, more = "queued", True
    while more or status in ("queued", "running", "input_required"):
        after = events[-1]["seq"] if events else 0
        news = await call(client, "poll_events", run_id=run, after_seq=after, wait_ms=10_000)
        events += news["events"]
        assert news["next_after_seq"] == (events[-1]["seq"] if events else 0)
        status, more = news["status"], bool(news["events"])
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert (await call(client, "get_run", run_id=run))["last_seq"] == len(events)
    return events


async def event_of(client: Client, run: str, kind: str) -> dict[str, Any]:
    """The first event of this type, when it has happened."""
    after = 0
    while True:
        news = await call(client, "poll_events", run_id=run, after_seq=after, wait_ms=10_000)
        for event in news["events"]:
            if event["type"] == kind:
                return dict(event)
        after = news["next_after_seq"]


def message(*texts: str) -> dict[str, Any]:
    """A message of text parts."""
    return {"role": "user", "parts": [{"type": "text", "text": text} for text in texts]}


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    """Where a run says that it is ready."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listening]:
    """A server that runs shell commands."""
    with listening("orchestration", tmp_path_factory.mktemp("shell"), "--allow-shell") as server:
        yield server


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listening]:
    """A server for tests that do not mind each other's runs."""
    with listening("orchestration", tmp_path_factory.mktemp("shared")) as server:
        yield server


class NoLauncher(LocalLauncher):
    """A machine that starts nothing."""

    async def launch(self, work: Work) -> Process:
        raise JobError("spawn", "cannot start `codex`: no such command")


@asynccontextmanager
async def in_process(path: Path, launcher: Launcher | None = None) -> AsyncIterator[tuple[Engine, Client]]:
    """An engine that the test can reach, and a client of the tools in front of it."""
    settings = Settings(state_dir=str(path / "state"), root=str(root_of(path)), grace=GRACE)
    engine = await Engine.open(settings, launcher)
    try:
        async with Client(build_server(orchestration.build(engine, Options(settings))), cache=None) as client:
            yield engine, client
    finally:
        await engine.close()


async def test_o1_a_cancelled_run_has_ended_and_its_last_event_says_so(tmp_path: Path) -> None:
    async with dialect("orchestration", tmp_path) as client:
        run = await spawn(client, tmp_path, "count 100000 0.01")
        await event_of(client, run, "command_updated")
        assert processes_of(tmp_path, run)
        cancelled = await call(client, "cancel_run", run_id=run)
        assert processes_of(tmp_path, run) == []
        events = await ended(client, run)
        assert (events[0]["type"], events[-1]["type"]) == ("run_started", "status_changed")
        assert events[-1]["data"]["status"] == "cancelled"
        assert events[-1]["data"]["signal"] == signal.SIGTERM
        known = await call(client, "get_run", run_id=run)
        assert cancelled == {"run_id": run, "status": "cancelled", "cancelled_at": events[-1]["ts"]}
        assert (known["status"], known["last_seq"]) == ("cancelled", len(events))


async def test_o2_a_second_cancel_is_an_error(shared: Listening) -> None:
    async with Client(shared.url, mode="legacy") as client:
        run = await spawn(client, shared.path, "sleep 60")
        await call(client, "cancel_run", run_id=run)
        assert await error(client, "cancel_run", run_id=run) == "Error: run is already terminal: cancelled"
        for prompt, status in (("echo hi", "completed"), ("fail 3", "failed")):
            run = await spawn(client, shared.path, prompt)
            events = await ended(client, run)
            assert await error(client, "cancel_run", run_id=run) == f"Error: run is already terminal: {status}"
            assert await ended(client, run) == events


@pytest.mark.parametrize(
    "run", ["nope", "../evil", "/etc/passwd", "a\0b", "x" * 100_000, "0b5c8f0e-2f4b-4f4e-9d55-6f1f8a5e7c11"]
)
async def test_o3_an_unknown_run_is_an_error_and_an_id_is_never_a_path(shared: Listening, run: str) -> None:
    async with Client(shared.url, mode="legacy") as client:
        for tool, more in (("cancel_run", {}), ("get_run", {}), ("poll_events", {"after_seq": 0})):
            assert await error(client, tool, run_id=run, **more) == f"Error: Unknown run_id: {run}"
        continued = await error(client, "continue_run", run_id=run, input_message=message("hi"))
        assert continued == f"Error: run is not active in this process: {run}"


async def test_o4_a_run_of_another_server_cannot_be_cancelled(tmp_path: Path) -> None:
    async with dialect("orchestration", tmp_path) as owner, dialect("orchestration", tmp_path) as stranger:
        run = await spawn(owner, tmp_path, "sleep 60")
        refused = await error(stranger, "cancel_run", run_id=run)
        assert refused == "Error: run is not active in this process: running"
        assert (await call(stranger, "get_run", run_id=run))["status"] == "running"
        assert processes_of(tmp_path, run)
        await call(owner, "cancel_run", run_id=run)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"run_id": ""}, "Too small: expected string to have >=1 characters at run_id"),
        ({}, "Invalid input: expected string, received undefined at run_id"),
        ({"run_id": 7}, "Invalid input: expected string, received number at run_id"),
    ],
)
async def test_o5_a_bad_run_id_is_refused_in_the_words_of_the_original(
    shared: Listening, arguments: dict[str, Any], words: str
) -> None:
    prefix = "MCP error -32602: Input validation error: Invalid arguments for tool cancel_run: "
    async with Client(shared.url, mode="legacy") as client:
        assert await error(client, "cancel_run", **arguments) == prefix + words


async def test_o6_what_comes_late_does_not_change_that_a_run_was_cancelled(tmp_path: Path) -> None:
    async with in_process(tmp_path) as (engine, client):
        run = await spawn(client, tmp_path, "sleep 60")
        await call(client, "cancel_run", run_id=run)
        engine.note("orchestration", run, "command_started", {"command": "rm -rf build"})
        engine.note("orchestration", run, "run_completed", {"status": "completed"})
        *_, cancelled, command, completed = await ended(client, run)
        assert cancelled["data"]["status"] == "cancelled"
        assert command["data"] == {"command": "rm -rf build", "late": True}
        assert completed["data"]["late"] is True
        assert (await call(client, "get_run", run_id=run))["status"] == "cancelled"


async def test_a_run_cannot_say_of_itself_that_it_has_ended(shell: Listening) -> None:
    made_up = ("run_started", "status_changed", "run_completed", "run_failed", "rejected")
    said = " ".join(f'{{"type":"{name}","status":"completed"}}' for name in made_up).replace("} {", "}\n{")
    prompt = f"printf '%s\n' '{said}' >&3; echo '{{\"type\":\"reasoning\"}}' >&3; sleep 60"
    async with Client(shell.url, mode="legacy") as client:
        run = await spawn(client, shell.path, prompt)
        await event_of(client, run, "reasoning")
        events = (await call(client, "poll_events", run_id=run, after_seq=0))["events"]
        assert [event["type"] for event in events] == ["run_started", *["command_updated"] * len(made_up), "reasoning"]
        await call(client, "cancel_run", run_id=run)
        assert [event["type"] for event in (await ended(client, run))[-2:]] == ["status_changed"] * 2


async def test_o7_a_stubborn_run_is_cancelled_when_it_was_killed(shell: Listening, fifo: Path) -> None:
    async with Client(shell.url, mode="legacy") as client:
        run = await spawn(client, shell.path, f"trap '' TERM; echo ready > {fifo}; sleep 60")
        await anyio.Path(fifo).read_text()
        started = time.monotonic()
        assert (await call(client, "cancel_run", run_id=run))["status"] == "cancelled"
        assert time.monotonic() - started >= GRACE
        assert processes_of(shell.path, run) == []
        data = (await ended(client, run))[-1]["data"]
        assert (data["killed"], data["signal"]) == (True, signal.SIGKILL)
        assert row_of(shell.path, run)["killed"] == 1


async def test_o8_many_cancels_at_once_are_one_cancel(shared: Listening) -> None:
    async with Client(shared.url, mode="legacy") as client:
        run = await spawn(client, shared.path, "sleep 60")
        answers = []

        async def cancel() -> None:
            answers.append(await client.call_tool("cancel_run", {"run_id": run}))

        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(cancel)
        assert (
            {"cancelled"}
            <= {"cancelled" if not answer.is_error else text(answer) for answer in answers}
            <= {"cancelled", "Error: run is already terminal: cancelled"}
        )
        statuses = [event["data"].get("status") for event in await ended(client, run)]
        assert statuses == ["running", "running", "cancelled"]


async def test_o9_a_queued_run_that_is_cancelled_never_starts(tmp_path: Path) -> None:
    async with dialect("orchestration", tmp_path, SHELL, "--max-running", "1") as client:
        first = await spawn(client, tmp_path, "sleep 60")
        second = await call(client, "spawn_run", **order(tmp_path, "touch started"))
        assert second["status"] == "queued"
        run = second["run_id"]
        assert (await call(client, "cancel_run", run_id=run))["status"] == "cancelled"
        await call(client, "cancel_run", run_id=first)
        (only,) = await ended(client, run)
        assert (only["type"], only["data"]["status"]) == ("status_changed", "cancelled")
        third = await spawn(client, tmp_path, "echo hi")
        assert (await ended(client, third))[-1]["type"] == "run_completed"
        assert os.listdir(root_of(tmp_path)) == []


async def test_o10_a_run_whose_server_was_killed_has_failed_and_is_gone(tmp_path: Path) -> None:
    with listening("orchestration", tmp_path, "--max-running", "1") as server:
        async with Client(server.url, mode="legacy") as client:
            run = await spawn(client, tmp_path, "stubborn 60")
            queued = await spawn(client, tmp_path, "echo hi")
            pids = processes_of(tmp_path, run)
        server.kill()
    assert pids
    for pid in pids:
        gone(pid)
    async with dialect("orchestration", tmp_path) as client:
        known = await call(client, "get_run", run_id=run)
        assert known["status"] == "failed"
        assert known["summary"] == "orchestrator host stopped before the run completed"
        assert (await ended(client, run))[-1]["type"] == "run_failed"
        assert await error(client, "cancel_run", run_id=run) == "Error: run is already terminal: failed"
        paused = await call(client, "get_run", run_id=queued)
        assert paused["status"] == "queued"
        assert paused["summary"] == "Queued by a server that has stopped: cancel it or start another run"
        await call(client, "cancel_run", run_id=queued)
        assert (await call(client, "get_run", run_id=queued))["summary"] == "Cancelled"
    assert processes_of(tmp_path, run) == []


async def test_a_server_that_ends_cancels_its_runs_and_says_why(tmp_path: Path) -> None:
    async with dialect("orchestration", tmp_path) as client:
        run = await spawn(client, tmp_path, "sleep 60")
    async with dialect("orchestration", tmp_path) as client:
        last = (await ended(client, run))[-1]
    assert (last["data"]["status"], last["data"]["reason"]) == ("cancelled", "shutdown")


async def test_o11_a_run_that_cannot_be_started_leaves_nothing(tmp_path: Path) -> None:
    async with in_process(tmp_path, NoLauncher()) as (_, client):
        said = await error(client, "spawn_run", **order(tmp_path, "sleep 60"))
        assert said == "Error: cannot start `codex`: no such command"
        assert (await call(client, "list_runs"))["runs"] == []
    assert rows(tmp_path) == 0
    assert os.listdir(tmp_path / "state" / "jobs") == []


async def test_o12_all_answers_fit_the_output_schemas_in_both_eras(tmp_path: Path) -> None:
    async with dialect("orchestration", tmp_path, mode="2026-07-28") as client:
        listed = (await client.list_tools()).tools
        assert [tool.name for tool in listed] == [
            *("spawn_run", "get_run", "list_runs", "poll_events", "cancel_run", "continue_run", "get_event_artifact")
        ]
        for tool in listed:
            jsonschema.Draft202012Validator.check_schema(tool.input_schema)
            assert tool.output_schema == OUTPUTS[tool.name]
            assert tool.output_schema["additionalProperties"] is False
        run = await spawn(client, tmp_path, "ask who?", metadata={"step": 1})
        question = await event_of(client, run, "input_required")
        assert question["data"] == {"prompt": "who?"}
        waiting = await call(client, "get_run", run_id=run)
        assert (waiting["status"], waiting["metadata"]) == ("input_required", {"step": 1})
        assert (await call(client, "list_runs", status="input_required"))["runs"] == [waiting]
        assert await call(client, "continue_run", run_id=run, input_message=message("it's", "me\nagain")) == {
            "run_id": run,
            "status": "running",
        }
        events = await ended(client, run)
        assert [event["type"] for event in events] == [
            *("run_started", "input_required", "message_added", "status_changed", "run_completed")
        ]
        assert events[-1]["data"] == {
            "status": "completed",
            "summary": "Completed",
            "exit_code": 0,
            "killed": False,
            "output": "it's me again\n",
        }
        flood = await spawn(client, tmp_path, "flood 1")
        last = (await ended(client, flood))[-1]
        await call(client, "get_event_artifact", run_id=flood, seq=last["seq"], field_path="/output")
        await call(client, "cancel_run", run_id=await spawn(client, tmp_path, "sleep 60"))


def test_the_arguments_are_those_of_the_original() -> None:
    original = {tool["name"]: tool["inputSchema"] for tool in json.loads(SEED_TOOLS.read_text())["orchestration"]}
    for tool in TOOLS:
        theirs = original[tool.name]
        assert set(tool.input_schema["properties"]) == set(theirs["properties"]) - {"nickname"}, tool.name
        assert tool.input_schema.get("required", []) == theirs.get("required", []), tool.name
        assert tool.annotations is not None
        assert tool.annotations.read_only_hint == (tool.name not in ("spawn_run", "cancel_run", "continue_run"))


async def test_what_is_too_long_for_an_event_is_read_in_pieces(shell: Listening) -> None:
    async with Client(shell.url, mode="legacy") as client:
        run = await spawn(client, shell.path, "for i in 1 2 3 4 5 6 7 8 9; do seq 1000; echo äöü; done")
        last = (await ended(client, run))[-1]
        (reference,) = last["data"]["artifact_refs"].values()
        whole = ("".join(f"{number}\n" for number in range(1, 1001)) + "äöü\n") * 9
        assert last["data"]["output"] == whole[:4000] + "\n...[truncated, see artifact_refs]"
        assert reference == {
            "field_path": "/output",
            "relpath": f"artifacts/{last['seq']:06}-run_completed/manifest.json",
            "mime": "text/plain",
            "encoding": "utf-8",
            "total_bytes": len(whole.encode()),
            "total_chars": len(whole),
            "chunk_count": 1,
            "truncated": True,
        }
        where = {"run_id": run, "seq": last["seq"], "field_path": "/output"}
        read, offset, more = b"", 0, True
        while more:
            piece = await call(client, "get_event_artifact", **where, offset=offset, limit=1234)
            read += piece["content"].encode()
            offset, more = offset + piece["returned_bytes"], piece["has_more"]
        assert read.decode() == whole
        inside = whole.encode().index("ä".encode()) + 1
        half = await call(client, "get_event_artifact", **where, offset=inside, limit=1)
        assert (half["encoding"], half["content"]) == ("base64", base64.b64encode("ä".encode()[1:]).decode())
        beyond = await call(client, "get_event_artifact", **where, offset=10**9)
        assert (beyond["returned_bytes"], beyond["has_more"], beyond["content"]) == (0, False, "")


async def test_long_structures_become_artifacts_and_answers_stay_short(tmp_path: Path) -> None:
    long = {"changes": [{"path": "x" * 50}] * 100, "result": {f"key {number}": "y" * 50 for number in range(100)}}
    async with in_process(tmp_path) as (engine, client):
        run = await spawn(client, tmp_path, "sleep 60")
        engine.note("orchestration", run, "file_changed", long)
        changed = await event_of(client, run, "file_changed")
        assert changed["data"]["changes"] == {"artifact_summary": {"original_type": "array", "item_count": 100}}
        keys = [f"key {number}" for number in range(8)]
        summary = {"original_type": "object", "key_count": 100, "preview_keys": keys}
        assert changed["data"]["result"] == {"artifact_summary": summary}
        for path, value in (("/changes", long["changes"]), ("/result", long["result"])):
            where = {"run_id": run, "seq": changed["seq"], "field_path": path}
            whole = await call(client, "get_event_artifact", **where)
            assert (whole["mime"], json.loads(whole["content"])) == ("application/json", value)
        for _ in range(200):
            engine.note("orchestration", run, "agent_message", {letter: letter * 3900 for letter in "abcd"})
        news = await call(client, "poll_events", run_id=run, after_seq=0, limit=1000)
        assert 1 < len(news["events"]) < 100
        await call(client, "cancel_run", run_id=run)
        assert len(await ended(client, run)) > 200


async def test_artifacts_that_do_not_exist_are_named_with_those_that_do(shared: Listening) -> None:
    async with Client(shared.url, mode="legacy") as client:
        run = await spawn(client, shared.path, "flood 1")
        last = (await ended(client, run))[-1]["seq"]
        for seq, path, available in ((1, "/x", "(none)"), (99, "/x", "(none)"), (last, "/../x", "/output")):
            said = await error(client, "get_event_artifact", run_id=run, seq=seq, field_path=path)
            assert said == f"Error: No artifact for field_path {path}. Available field paths: {available}"


async def test_a_resumed_session_runs_one_after_another(shared: Listening) -> None:
    async with Client(shared.url, mode="legacy") as client:
        first = await call(client, "spawn_run", **order(shared.path, "sleep 60"))
        resume = {"session_mode": "resume", "session_id": first["session_id"]}
        second = await call(client, "spawn_run", **order(shared.path, "echo two", **resume))
        assert (second["status"], second["session_id"]) == ("queued", first["session_id"])
        waiting = await call(client, "get_run", run_id=second["run_id"])
        assert (waiting["summary"], waiting["last_seq"]) == ("Run queued behind active session run", 0)
        await call(client, "cancel_run", run_id=first["run_id"])
        assert (await ended(client, second["run_id"]))[-1]["data"]["output"] == "two\n"
        third = await call(client, "spawn_run", **order(shared.path, "echo three", **resume))
        assert third["status"] == "running"
        bound = await error(client, "spawn_run", **order(shared.path, "echo", **resume, backend="claude_code"))
        assert bound == f"Error: Session {first['session_id']} is bound to backend codex, not claude_code"


async def test_a_session_that_never_began_cannot_be_resumed(tmp_path: Path) -> None:
    async with dialect("orchestration", tmp_path, "--max-running", "1") as client:
        await spawn(client, tmp_path, "sleep 60")
        queued = await call(client, "spawn_run", **order(tmp_path, "echo"))
        await call(client, "cancel_run", run_id=queued["run_id"])
        for session, words in (
            ("nope", "Unknown session_id: nope"),
            (queued["session_id"], f"Session {queued['session_id']} has no backend session id yet"),
        ):
            resume = {"session_mode": "resume", "session_id": session}
            assert await error(client, "spawn_run", **order(tmp_path, "echo", **resume)) == f"Error: {words}"


async def test_only_a_run_that_waits_can_be_continued(shared: Listening) -> None:
    async with Client(shared.url, mode="legacy") as client:
        running = await spawn(client, shared.path, "sleep 60")
        said = await error(client, "continue_run", run_id=running, input_message=message("x"))
        assert said == "Error: run is not awaiting additional input: running"
        await call(client, "cancel_run", run_id=running)
        said = await error(client, "continue_run", run_id=running, input_message=message("x"))
        assert said == "Error: run is already terminal: cancelled"
        said = await error(client, "continue_run", run_id=running, input_message=message("x" * 100_000))
        assert said == "Error: input_message is too large: at most 65536 bytes"


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (
            {"prompt": "dance"},
            "Error: unknown recipe `dance`: use one of sleep, count, flood, fail, stubborn, forker, ",
        ),
        ({"prompt": "sleep -5"}, "Error: recipe `sleep` does not take `-5`"),
        ({"prompt": f"echo {'x' * 2_000_000}"}, "Error: the text is 2000005 bytes long: 1048576 are allowed"),
        ({"metadata": {"x": "y" * 2_000_000}}, "Error: what is to be kept with the job is "),
        ({"cwd": "here"}, "Error: cwd must be an absolute path: here"),
        ({"cwd": "/nowhere"}, "Error: ENOENT: no such file or directory, stat '/nowhere'"),
        ({"cwd": "/"}, "Error: cwd `/` is outside of"),
        ({"backend": "remote_a2a", "backend_config": {"agent_url": "x"}}, "Error: Unsupported backend: remote_a2a"),
        (
            {"backend": "remote_a2a", "session_mode": "resume"},
            "MCP error -32602: Input validation error: Invalid arguments for tool spawn_run: "
            "session_id is required when session_mode is resume at session_id\n"
            "backend_config.agent_url is required when backend is remote_a2a at backend_config.agent_url",
        ),
        (
            {"prompt": None},
            "Invalid arguments for tool spawn_run: Invalid input: expected string, received null at prom",
        ),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_what_cannot_be_run_is_said_and_nothing_is_kept(
    shared: Listening, changed: dict[str, Any], words: str
) -> None:
    before = rows(shared.path)
    async with Client(shared.url, mode="legacy") as client:
        said = await error(client, "spawn_run", **order(shared.path, "sleep 60", **changed))
    assert words in said
    assert rows(shared.path) == before


async def test_a_run_needs_a_directory(shared: Listening) -> None:
    file = root_of(shared.path) / "file"
    file.touch()
    async with Client(shared.url, mode="legacy") as client:
        said = await error(client, "spawn_run", **order(shared.path, "sleep 60", cwd=str(file)))
    assert said == f"Error: cwd is not a directory: {file}"


async def test_a_run_needs_a_prompt_or_a_message(shared: Listening) -> None:
    async with Client(shared.url, mode="legacy") as client:
        arguments = order(shared.path, "")
        del arguments["prompt"]
        said = await error(client, "spawn_run", **arguments)
        assert said.endswith(
            "Invalid arguments for tool spawn_run: Either prompt or input_message is required at prompt"
        )
        said = await error(client, "spawn_run", **arguments, input_message=message("dan", "ce"))
        assert said.startswith("Error: unknown recipe `dan`: ")
        unknown = await client.call_tool("nope", {})
        assert (unknown.is_error, text(unknown)) == (True, "MCP error -32602: Tool nope not found")


async def test_runs_are_listed_newest_first_and_can_be_filtered(tmp_path: Path) -> None:
    async with dialect("orchestration", tmp_path) as client:
        inner = root_of(tmp_path) / "inner"
        inner.mkdir()
        codex = await spawn(client, tmp_path, "echo one")
        claude = await spawn(client, tmp_path, "fail 3", backend="claude_code", cwd=str(inner))
        for run in (codex, claude):
            await ended(client, run)

        async def listed(**filters: str) -> list[str]:
            return [run["run_id"] for run in (await call(client, "list_runs", **filters))["runs"]]

        assert await listed() == [claude, codex]
        assert await listed(backend="codex") == [codex]
        assert await listed(status="failed") == [claude]
        assert await listed(status="auth_required") == []
        assert await listed(cwd=str(inner)) == [claude]
        assert await listed(cwd=str(inner), status="completed") == []
        failed = await call(client, "get_run", run_id=claude)
        assert failed["summary"] == "exit code 3"


async def test_a_list_stays_short_and_fast_however_many_runs_there_were(tmp_path: Path) -> None:
    async with in_process(tmp_path) as (_, client):
        run = await spawn(client, tmp_path, "echo one")
        await ended(client, run)
        _multiply(tmp_path, 10_000)
        started = time.monotonic()
        runs = (await call(client, "list_runs"))["runs"]
        assert time.monotonic() - started < 1
        assert len(runs) == LISTED
        assert runs[0]["started_at"] > runs[-1]["started_at"]


def _multiply(path: Path, count: int) -> None:
    """Give the store that many copies of its only job."""
    with closing(sqlite3.connect(path / "state" / "jobs.db")) as db:
        names = [
            name for _, name, *_ in db.execute("PRAGMA table_info(job)") if name not in ("row", "id", "created_at")
        ]
        columns = ", ".join(names)
        db.execute(
            f"WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < ?) "
            f"INSERT INTO job (id, created_at, {columns}) SELECT id || x, created_at + x / 1e3, {columns} FROM job, n",
            (count,),
        )
        db.commit()


async def test_a_poll_waits_for_news_and_no_longer_than_it_was_told(shared: Listening) -> None:
    async with Client(shared.url, mode="legacy") as client:
        run = await spawn(client, shared.path, "sleep 60")
        nothing = await call(client, "poll_events", run_id=run, after_seq=1, wait_ms=50)
        assert nothing == {"run_id": run, "status": "running", "events": [], "next_after_seq": 1}
        with anyio.fail_after(10):
            async with anyio.create_task_group() as group:
                group.start_soon(lambda: call(client, "cancel_run", run_id=run))
                news = await call(client, "poll_events", run_id=run, after_seq=1, wait_ms=30_000)
        assert news["events"][0]["data"]["summary"] == "Cancelling"
        late = await call(client, "poll_events", run_id=run, after_seq=2**53 - 1)
        assert (late["events"], late["next_after_seq"]) == ([], 2**53 - 1)
        one = await call(client, "poll_events", run_id=run, after_seq=0, limit=1)
        assert one["next_after_seq"] == 1
