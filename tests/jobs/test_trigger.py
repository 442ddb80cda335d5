"""The `trigger` dialect over stdio, with real processes, and the pure parts that it is made of."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from mcp_types import CallToolResult

from intercept_py.jobs import recipes
from intercept_py.jobs.dialects import trigger_texts
from intercept_py.jobs.dialects.trigger_query import ApiError, duration, duration_text
from intercept_py.jobs.dialects.trigger_tasks import PARAMETERS, PayloadError, arguments, payload_schema
from tests.support.jobs import dialect, gone, processes_of, text
from tests.support.trigger_rest import printed

TOOLS = {
    "search_docs", "list_orgs", "list_projects", "get_current_worker", "list_runs", "get_run_details", "list_deploys",
    "list_preview_branches", "create_project_in_org", "initialize_project", "trigger_task", "wait_for_run_to_complete",
    "cancel_run", "deploy",
}  # fmt: skip
UNKNOWN = '{"error":{"name":"TriggerApiError","message":"Run not found"}}'


class Tools:
    """The tools, called by name: the text of an answer, which must be one or must be an error."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def __call__(self, name: str, /, **arguments: Any) -> str:
        result = await self.result(name, **arguments)
        assert not result.is_error, text(result)
        return text(result)

    async def error(self, name: str, /, **arguments: Any) -> str:
        result = await self.result(name, **arguments)
        assert result.is_error, text(result)
        return text(result)

    async def result(self, name: str, /, **arguments: Any) -> CallToolResult:
        result = await self.client.call_tool(name, arguments)
        assert result.structured_content is None
        return result

    async def trigger(self, task: str, payload: Any, **more: Any) -> str:
        answer = await self("trigger_task", taskId=task, payload=payload, **more)
        found = re.search(r"ID created: (run_[a-z0-9]{25})\.$", answer, re.MULTILINE)
        assert found, answer
        return found[1]


@asynccontextmanager
async def tools(path: Path, *options: str) -> AsyncIterator[Tools]:
    async with dialect("trigger", path, *options) as client:
        yield Tools(client)


pytestmark = pytest.mark.anyio


async def test_it_has_the_fourteen_tools_of_the_policy_page(tmp_path: Path) -> None:
    async with tools(tmp_path) as call:
        listed = {tool.name: tool for tool in (await call.client.list_tools()).tools}
    assert set(listed) == TOOLS
    for tool in listed.values():
        assert tool.output_schema is None
        assert tool.execution is not None
        assert tool.execution.task_support == "forbidden"
        assert tool.annotations is not None
        assert tool.annotations.read_only_hint is not tool.annotations.destructive_hint
    assert listed["cancel_run"].input_schema["required"] == ["runId"]


async def test_a_run_is_triggered_listed_waited_for_and_described(tmp_path: Path) -> None:
    async with tools(tmp_path) as call:
        run = await call.trigger("echo", {"text": "hello"}, options={"tags": ["a", "b", "c"]})
        waited = await call("wait_for_run_to_complete", runId=run)
        moment = r"[0-9-]{10} [0-9:]{8} UTC"
        assert re.fullmatch(
            rf'Run {run}\nTask: echo\nStatus: completed\nOutput: "hello\\n"\n'
            rf"Created at: {moment}\nFinished at: {moment}",
            waited,
        )
        listed = await call("list_runs")
        assert re.fullmatch(
            rf"Found 1 run\n\n1\. {run} \| echo \| completed \| env:dev \| finished {moment} \| took [0-9.]+m?s"
            r" \| tags:\[a, b\+1\] \| vlocal\.1\n",
            listed,
        )
        described = (await call("get_run_details", runId=run)).splitlines()
        assert described[:4] == ["## Run Details", f"Run {run}", "Task: echo", "Status: completed"]
        assert "TTL: 10m" in described
        assert described[-1] == f"[View in dashboard](http://localhost:3030/projects/v3/proj_local/runs/{run})"


async def test_waiting_ends_with_the_time_and_leaves_the_run_alone(tmp_path: Path) -> None:
    async with tools(tmp_path) as call:
        run = await call.trigger("sleep", 60)
        answer = await call("wait_for_run_to_complete", runId=run, timeoutInSeconds=0.1)
        assert "Status: executing" in answer
        assert "Finished at" not in answer
        assert await call("wait_for_run_to_complete", runId=run, timeoutInSeconds=-1) == answer
        assert await call.error("wait_for_run_to_complete", runId="run_nope") == '{"error":"Run not found"}'


async def test_cancelling_a_run_ends_all_its_processes(tmp_path: Path) -> None:
    async with tools(tmp_path) as call:
        run = await call.trigger("forker", {"seconds": 60})
        printed(tmp_path, 1, "daemon")
        pids = processes_of(tmp_path, run)
        assert await call("cancel_run", runId=run) == (
            f"Run {run} canceled.\nStatus: CANCELED\nTask: forker\n"
            f"[View in dashboard](http://localhost:3030/projects/v3/proj_local/runs/{run})"
        )
        for pid in pids:
            gone(pid)
        assert "Status: canceled\n" in await call("wait_for_run_to_complete", runId=run)


async def test_g2_cancelling_a_finished_run_says_canceled_and_leaves_it_completed(tmp_path: Path) -> None:
    async with tools(tmp_path) as call:
        run = await call.trigger("echo", "done")
        before = await call("wait_for_run_to_complete", runId=run)
        answer = await call("cancel_run", runId=run, projectRef="proj_abc")
        assert answer.splitlines()[:2] == [f"Run {run} canceled.", "Status: COMPLETED"]
        assert await call("wait_for_run_to_complete", runId=run) == before


async def test_g3_an_unknown_run_is_an_error_of_the_api(tmp_path: Path) -> None:
    async with tools(tmp_path) as call:
        run = await call.trigger("sleep", 60)
        for ident in (
            "run_nope",
            "",
            " ",
            run + " ",
            run.upper(),
            "../" + run,
            "%72un_" + run[4:],
            "run_\0",
            "x" * 9000,
        ):
            assert await call.error("cancel_run", runId=ident) == UNKNOWN, ident
            assert await call.error("get_run_details", runId=ident) == UNKNOWN, ident
        assert await call.error("cancel_run", runId=run, environment="prod") == UNKNOWN
        assert processes_of(tmp_path, run)


async def test_g4_cancelling_again_says_the_same(tmp_path: Path) -> None:
    async with tools(tmp_path) as call:
        run = await call.trigger("sleep", 60)
        first = await call("cancel_run", runId=run)
        assert await call("cancel_run", runId=run) == first
        await call("wait_for_run_to_complete", runId=run)
        assert await call("cancel_run", runId=run) == first


async def test_g5_a_run_that_is_being_cancelled_is_canceled_without_a_finish_time(tmp_path: Path) -> None:
    async with tools(tmp_path, "--grace", "20") as call:
        run = await call.trigger("stubborn", 60)
        printed(tmp_path, 1, "ready")
        await call("cancel_run", runId=run)
        for answer in (
            await call("get_run_details", runId=run),
            await call("list_runs", status="CANCELED"),
            await call("wait_for_run_to_complete", runId=run, timeoutInSeconds=0),
        ):
            assert "canceled" in answer
            assert "inished" not in answer
        pids = processes_of(tmp_path, run)
        assert pids, "it does not listen to SIGTERM, and its grace is not over"
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        assert "Finished at" in await call("wait_for_run_to_complete", runId=run)
        assert processes_of(tmp_path, run) == []
        assert "stubborn [CANCELLED]" in await call("get_run_details", runId=run)


async def test_what_cannot_be_called_is_refused_as_zod_does(tmp_path: Path) -> None:
    async with tools(tmp_path) as call:
        prefix = "MCP error -32602: Input validation error: Invalid arguments for tool cancel_run: "
        assert await call.error("cancel_run") == (
            prefix + "Invalid input: expected string, received undefined at runId"
        )
        assert (
            await call.error("cancel_run", runId=7)
            == prefix + "Invalid input: expected string, received number at runId"
        )
        environment = 'Invalid option: expected one of "dev"|"staging"|"prod"|"preview" at environment'
        assert await call.error("cancel_run", runId="run_x", environment="moon") == prefix + environment
        assert await call.error("replay_run", runId="run_x") == "MCP error -32602: Tool replay_run not found"
        answer = await call.error("trigger_task", payload=1, options={"delay": {}, "ttl": []})
        assert answer.endswith(
            "trigger_task: Invalid input: expected string, received undefined at taskId\n"
            "Invalid input at options.delay\nInvalid input at options.ttl"
        )
        assert await call("list_runs") == "Found 0 runs\n\nNo runs found."


async def test_unknown_arguments_are_dropped(tmp_path: Path) -> None:
    async with tools(tmp_path) as call:
        assert await call.error("cancel_run", runId="run_nope", force=True) == UNKNOWN


async def test_what_cannot_be_triggered_is_an_error_and_starts_nothing(tmp_path: Path) -> None:
    async with tools(tmp_path) as call:
        for task, payload, options, message in (
            ("nope", 1, {}, "task `nope` not found"),
            ("sleep", {"minutes": 1}, {}, "payload of `sleep` has no `minutes`"),
            ("sleep", "soon", {}, "recipe `sleep` does not take `soon`"),
            ("sleep", 1, {"delay": "1h"}, "`delay` is not supported"),
            ("sleep", 1, {"ttl": "soon"}, "invalid ttl `soon`"),
            ("sleep", "[" * 5000 + "]" * 5000, {}, "payload is nested too deeply"),
        ):
            answer = json.loads(await call.error("trigger_task", taskId=task, payload=payload, options=options))
            assert answer["error"]["name"] == "TriggerApiError"
            assert answer["error"]["message"].startswith(message)
        assert await call("list_runs") == "Found 0 runs\n\nNo runs found."


async def test_runs_come_in_pages_and_can_be_filtered(tmp_path: Path) -> None:
    async with tools(tmp_path, "--max-running", "1") as call:
        first = await call.trigger("sleep", 60)
        second = await call.trigger("echo", "x", options={"tags": ["t"]})
        third = await call.trigger("sleep", 60)
        page = await call("list_runs", limit=2)
        assert [line[:32] for line in page.splitlines()[2:4]] == [f"1. {third}", f"2. {second}"]
        assert page.endswith(f"Pagination: Next page available →\nNext cursor: {second}")
        rest = await call("list_runs", limit=2, cursor=second)
        assert rest.startswith(f"Found 1 run\n\n1. {first} | sleep | executing")
        for filters, found in (
            ({"status": "EXECUTING"}, 1),
            ({"status": "QUEUED"}, 2),
            ({"status": "DELAYED"}, 0),
            ({"taskIdentifier": "sleep"}, 2),
            ({"tag": "t"}, 1),
            ({"machine": "micro"}, 0),
            ({"from": "2000-01-01"}, 3),
            ({"to": "2000-01-01"}, 0),
            ({"period": "1h"}, 3),
            ({"environment": "prod"}, 0),
            ({"limit": 0}, 3),
        ):
            assert (await call("list_runs", **filters)).startswith(f"Found {found} run"), filters
        assert "invalid time `someday`" in await call.error("list_runs", **{"from": "someday"})


async def test_a_long_trace_comes_in_pages(tmp_path: Path) -> None:
    async with tools(tmp_path) as call:
        run = await call.trigger("count", [3])
        await call("wait_for_run_to_complete", runId=run)
        whole = (await call("get_run_details", runId=run)).splitlines()
        lines: list[str] = []
        cursor, first = "0", True
        while cursor:
            page = await call("get_run_details", runId=run, maxTraceLines=5, **({} if first else {"cursor": cursor}))
            assert page.startswith("## Run Details") is first
            assert ("[View in dashboard]" in page) is first
            body = re.search(r"^## Run Trace \(lines [0-9]+-[0-9]+ of [0-9]+\)\n((?:.*\n?){,5})", page, re.MULTILINE)
            assert body
            lines += body[1].removesuffix("\n").split("\n")[:5]
            more = re.search(r'with `cursor: "([0-9]+)"`', page)
            cursor, first = (more[1] if more else ""), False
        trace = whole[next(i for i, line in enumerate(whole) if line.startswith("## Run Trace")) + 1 : -2]
        assert lines == trace
        assert "invalid cursor `x`" in await call.error("get_run_details", runId=run, cursor="x")


async def test_the_other_tools_say_that_they_are_local(tmp_path: Path) -> None:
    async with tools(tmp_path) as call:
        worker = await call("get_current_worker", environment="prod")
        assert worker.startswith("Current worker for prod is local.1 using 4.8.3 of the SDK.\n")
        assert "\n- sleep in intercept_py/jobs/recipes.py\n" in worker
        assert "(id=org_local)" in await call("list_orgs")
        assert "(projectRef=proj_local)" in await call("list_projects")
        assert await call("list_deploys") == "Found 0 deployments\n"
        assert await call("list_preview_branches") == "No preview branches found."
        assert "cancel_run stops a run" in await call("search_docs", query="CANCEL finish")
        assert (await call("search_docs", query="kubernetes")).startswith("Nothing found.")
        assert "nothing needs to be set up" in await call("initialize_project", orgParam="local", projectName="x")
        for name, given in (
            ("deploy", {"environment": "prod"}),
            ("create_project_in_org", {"orgParam": "x", "name": "y"}),
        ):
            answer = await call.error(name, **given)
            assert "Nothing was changed." in answer


async def test_when_the_store_fails_the_agent_is_told(tmp_path: Path) -> None:
    async with tools(tmp_path) as call:
        with closing(sqlite3.connect(tmp_path / "state" / "jobs.db")) as db:
            db.execute("ALTER TABLE event RENAME TO gone")
            answer = json.loads(await call.error("trigger_task", taskId="sleep", payload=60))
            db.execute("ALTER TABLE gone RENAME TO event")
        assert answer["error"]["name"] == "TriggerApiError"
        assert await call("list_runs") == "Found 0 runs\n\nNo runs found."


# -- pure parts ------------------------------------------------------------------------------------------------------


async def test_every_recipe_is_a_task() -> None:
    assert tuple(PARAMETERS) == recipes.NAMES
    for task in PARAMETERS:
        assert set(payload_schema(task)["properties"]) == set(PARAMETERS[task])


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        ({"args": ["3", 0.5]}, ["3", "0.5"]),
        ({"args": 3}, ["3"]),
        ({"n": 3, "seconds": 0.5}, ["3", "0.5"]),
        ({"seconds": 0.5, "n": 3.0}, ["3", "0.5"]),
        ({"n": 3}, ["3"]),
        ([3, "0.5"], ["3", "0.5"]),
        (3, ["3"]),
        ("3", ["3"]),
        (None, []),
        ({}, []),
        ([], []),
    ],
)
async def test_a_payload_can_be_written_in_many_ways(payload: Any, words: list[str]) -> None:
    assert arguments("count", payload) == words


@pytest.mark.parametrize("payload", [True, [None], {"args": {}}, {"seconds": 1}, {"n": 1, "x": 2}, {"n": [1]}, [[1]]])
async def test_other_payloads_are_refused(payload: Any) -> None:
    with pytest.raises(PayloadError, match=r"^payload of `count` .*: use \{\"n\": \.\.\., \"seconds\""):
        arguments("count", payload)


@pytest.mark.parametrize(
    ("text", "seconds"), [("10m", 600), ("1h30m", 5400), ("1w2d", 777_600), ("90s", 90), ("2hr", 7200)]
)
async def test_durations(text: str, seconds: float) -> None:
    assert duration(text, "ttl") == seconds
    assert duration(duration_text(seconds), "ttl") == seconds


@pytest.mark.parametrize("text", ["", "10", "m", "10 m", "1.5h", "-1h", "10M", "١m", "9" * 10 + "w"])
async def test_other_durations_are_refused(text: str) -> None:
    with pytest.raises(ApiError, match=r"^invalid ttl"):
        duration(text, "ttl")


async def test_json_is_written_as_javascript_does() -> None:
    value = {"b": [1.0, -2.5, [], {}], "10": "é\u2028", "9": None, "01": True}
    assert trigger_texts.json_text(value, indent=None) == '{"9":null,"10":"é\u2028","b":[1,-2.5,[],{}],"01":true}'
    assert trigger_texts.json_text({"a": [1]}) == '{\n  "a": [\n    1\n  ]\n}'
