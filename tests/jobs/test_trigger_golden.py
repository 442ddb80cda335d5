"""The words of the `trigger` dialect are those of Trigger.dev's own server, for the same runs of the same engine.

The genuine server talks to the REST API, ours to the engine; both must answer every call alike, to the letter.
"""

from __future__ import annotations

import os
import re
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, StdioServerParameters
from mcp_types import Tool

from intercept_py.jobs import serving
from intercept_py.jobs.dialects import Options, rest_trigger, trigger
from intercept_py.jobs.engine import Engine
from intercept_py.jobs.model import Settings
from tests.support import npm
from tests.support.jobs import processes_of, text
from tests.support.trigger_rest import PERSON, printed

pytestmark = [pytest.mark.node, pytest.mark.anyio]

RUN = re.compile(r"run_[a-z0-9]{25}")
PROJECT = {"projectRef": "proj_local"}  # the genuine server looks for a trigger.config.ts without it

CALLS: list[tuple[str, dict[str, Any]]] = [
    ("cancel_run", {"runId": "run_nope"}),
    ("cancel_run", {"runId": ""}),
    ("cancel_run", {}),
    ("cancel_run", {"runId": 7}),
    ("cancel_run", {"runId": None}),
    ("cancel_run", {"runId": "run_nope", "environment": "moon"}),
    ("cancel_run", {"runId": "run_nope", "environment": "prod"}),
    ("cancel_run", {"environment": "moon"}),
    ("cancel_run", {"runId": "run_nope", "force": True}),
    ("cancel_run", {"runId": "run_nope", "projectRef": 7, "branch": []}),
    ("get_run_details", {}),
    ("get_run_details", {"runId": ""}),
    ("get_run_details", {"runId": "run_nope"}),
    ("get_run_details", {"runId": "run_nope", "maxTraceLines": 1.5}),
    ("wait_for_run_to_complete", {}),
    ("wait_for_run_to_complete", {"runId": "", "timeoutInSeconds": 0.3}),
    ("wait_for_run_to_complete", {"runId": "run_nope", "timeoutInSeconds": 0.3}),
    ("list_runs", {}),
    ("list_runs", {"status": "GONE", "limit": "many"}),
    ("list_runs", {"limit": 101}),
    ("list_runs", {"limit": 5.0}),
    ("list_runs", {"period": "1x"}),
    ("list_runs", {"cursor": "run_nope"}),
    ("trigger_task", {"taskId": "nope", "payload": {}}),
    ("trigger_task", {"taskId": "sleep", "payload": {"minutes": 1}}),
    ("trigger_task", {"taskId": "sleep", "payload": 1, "options": {"delay": "1h"}}),
    ("trigger_task", {"taskId": "sleep", "payload": 1, "options": {"ttl": "soon"}}),
    ("trigger_task", {"taskId": "sleep", "payload": 1, "options": {"maxDuration": 1e9}}),
    ("trigger_task", {"taskId": 7, "payload": 1, "options": {"delay": 3, "machine": "big", "tags": "x"}}),
    ("trigger_task", {"payload": 1, "options": {"maxAttempts": 1.5, "ttl": {}, "queue": {}}}),
    ("get_current_worker", {}),
    ("get_current_worker", {"environment": "preview", "branch": "x"}),
    ("list_orgs", {}),
    ("list_projects", {}),
    ("list_deploys", {}),
    ("list_preview_branches", {}),
    ("nope", {}),
]


class Both:
    """Two clients, of the genuine server and of ours."""

    def __init__(self, genuine: Client, ours: Client) -> None:
        self.genuine = genuine
        self.ours = ours

    async def same(self, name: str, /, **arguments: Any) -> str:
        """What both answer, which must be the same."""
        expected, answer = await self._ask(name, arguments, arguments)
        assert answer == expected
        return answer

    async def twins(self, name: str, /, **arguments: tuple[Any, Any]) -> str:
        """What both answer, which must be the same apart from the ids of runs.

        Of each pair the genuine server gets the first, ours the second.
        """
        first, second = ({key: pair[place] for key, pair in arguments.items()} for place in (0, 1))
        expected, answer = await self._ask(name, first, second)
        assert RUN.sub("run_", answer) == RUN.sub("run_", expected)
        return answer

    async def _ask(self, name: str, genuine: dict[str, Any], ours: dict[str, Any]) -> tuple[str, str]:
        expected = await self.genuine.call_tool(name, {**PROJECT, **genuine})
        answer = await self.ours.call_tool(name, {**PROJECT, **ours})
        assert bool(answer.is_error) == bool(expected.is_error)
        assert (answer.structured_content, expected.structured_content) == (None, None)
        return text(expected), text(answer)

    async def trigger(self, task: str, payload: Any, **more: Any) -> str:
        answer = text(await self.ours.call_tool("trigger_task", {"taskId": task, "payload": payload, **more}))
        found = RUN.search(answer)
        assert found, answer
        return found[0]


@asynccontextmanager
async def both(path: Path, max_running: int = 8, grace: float = 2.0) -> AsyncIterator[Both]:
    """One engine behind the REST API with the genuine server in front of it, and behind our tools."""
    for name in ("root", "home"):
        (path / name).mkdir()
    settings = Settings(str(path / "state"), str(path / "root"), max_running=max_running, grace=grace)
    options = Options(settings)
    engine = await Engine.open(settings)
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    # The genuine server writes traces to files, and prints dates as the clocks here show them.
    own = {"HOME": str(path / "home"), "TMPDIR": str(path), "TZ": "UTC"}
    environment = {**os.environ, "TRIGGER_ACCESS_TOKEN": PERSON, "TRIGGER_API_URL": url, **own}
    command, *arguments = npm.trigger()
    server = StdioServerParameters(command=command, args=arguments, env=environment, cwd=path)
    try:
        async with serving.over_http(rest_trigger.build(engine, options), listener):
            ours = serving.build_server(trigger.build(engine, options))
            async with Client(server, mode="legacy", cache=None) as genuine, Client(ours, mode="legacy") as client:
                yield Both(genuine, client)
            await engine.close()
    finally:
        await engine.close()
        listener.close()


async def test_the_schemas_titles_and_hints_are_the_same(tmp_path: Path) -> None:
    async with both(tmp_path) as pair:
        genuine = {tool.name: described(tool) for tool in (await pair.genuine.list_tools()).tools}
        ours = {tool.name: described(tool) for tool in (await pair.ours.list_tools()).tools}
        assert ours == {name: genuine[name] for name in ours}
        assert pair.ours.server_info == pair.genuine.server_info


async def test_g1_a_run_is_told_in_the_same_words_from_its_start_to_its_end(tmp_path: Path) -> None:
    async with both(tmp_path) as pair:
        given: dict[str, Any] = {"taskId": "sleep", "payload": [60], "options": {"tags": ["a", "b", "c"]}}
        for value in ({}, {"environment": "prod"}):
            twice = {key: (value, value) for key, value in {**given, **value}.items()}
            assert "ID created: run_" in await pair.twins("trigger_task", **twice)
        run = await pair.trigger("sleep", "60", options={"ttl": 90, "tags": ["night"]})
        assert "Status: executing" in await pair.same("get_run_details", runId=run)
        assert "Status: executing" in await pair.same("wait_for_run_to_complete", runId=run, timeoutInSeconds=0.3)
        assert "| executing |" in await pair.same("list_runs", status="EXECUTING")

        done = await pair.trigger("count", {"n": 3}, options={"tags": ["a", "b", "c"], "idempotencyKey": "x"})
        assert "Status: completed" in await pair.same("wait_for_run_to_complete", runId=done)
        assert "Output: " in await pair.same("get_run_details", runId=done)
        assert "cursor:" in await pair.same("get_run_details", runId=done, maxTraceLines=4)
        assert "cursor:" in await pair.same("get_run_details", runId=done, maxTraceLines=4, cursor="4")
        failed = await pair.trigger("fail", 3)
        assert "Error: Error: exit code 3" in await pair.same("wait_for_run_to_complete", runId=failed)
        assert "[ERROR]" in await pair.same("get_run_details", runId=failed)
        late = await pair.trigger("sleep", 60, options={"maxDuration": 0.1})
        assert "Status: timed out" in await pair.same("wait_for_run_to_complete", runId=late)
        assert "Found 6 runs" in await pair.same("list_runs")
        assert "Found 2 runs" in await pair.same("list_runs", environment="prod")
        assert "Next cursor: run_" in await pair.same("list_runs", limit=2)
        assert "[TEST]" not in await pair.same("list_runs", limit=2, cursor=done)


async def test_payloads_are_shown_alike(tmp_path: Path) -> None:
    payloads: list[Any] = [{"text": 'é \u2028 "\\'}, {"args": ["x"]}, ["y"], '{"text": "z"}', "plain", "7", 1.0]
    async with both(tmp_path) as pair:
        for payload in payloads:
            run = await pair.trigger("echo", payload)
            await pair.same("wait_for_run_to_complete", runId=run)
            assert "Payload: " in await pair.same("get_run_details", runId=run)


async def test_cancel_run_says_the_same_of_every_kind_of_run(tmp_path: Path) -> None:
    async with both(tmp_path, max_running=2) as pair:
        done = await pair.trigger("echo", "x")
        await pair.same("wait_for_run_to_complete", runId=done)
        assert "canceled.\nStatus: COMPLETED" in await pair.same("cancel_run", runId=done)

        running = await pair.trigger("sleep", 60), await pair.trigger("sleep", 60)
        queued = await pair.trigger("sleep", 60), await pair.trigger("sleep", 60)
        assert "Status: queued" in await pair.same("get_run_details", runId=queued[0])
        assert "| queued | env:dev | created " in await pair.same("list_runs")
        assert "Status: CANCELED" in await pair.twins("cancel_run", runId=queued)
        assert "Status: CANCELED" in await pair.twins("cancel_run", runId=running)
        for run in (*queued, *running):
            assert "Finished at: " in await pair.same("wait_for_run_to_complete", runId=run)
            assert "Status: CANCELED" in await pair.same("cancel_run", runId=run)
            assert "[CANCELLED]" in await pair.same("get_run_details", runId=run)


async def test_a_run_that_is_being_cancelled_is_told_alike(tmp_path: Path) -> None:
    async with both(tmp_path, grace=20) as pair:
        run = await pair.trigger("stubborn", 60)
        printed(tmp_path, 1, "ready")
        assert "Status: CANCELED" in await pair.same("cancel_run", runId=run)
        assert "Status: CANCELED" in await pair.same("cancel_run", runId=run)
        for answer in (
            await pair.same("get_run_details", runId=run),
            await pair.same("list_runs"),
            await pair.same("wait_for_run_to_complete", runId=run, timeoutInSeconds=0.3),
        ):
            assert "canceled" in answer
            assert "inished" not in answer
        for pid in processes_of(tmp_path, run):
            os.kill(pid, signal.SIGKILL)
        assert "Finished at: " in await pair.same("wait_for_run_to_complete", runId=run)


async def test_everything_else_is_answered_and_refused_alike(tmp_path: Path) -> None:
    async with both(tmp_path) as pair:
        for name, arguments in CALLS:
            await pair.same(name, **arguments)


def described(tool: Tool) -> dict[str, Any]:
    """All that a tool's listing says, but for the description of the tool itself, which is ours."""
    return {**tool.model_dump(exclude={"description"}), "input_schema": constraints(tool.input_schema)}


def constraints(schema: Any) -> Any:
    """A schema without what depends on the version of zod that npm chose: descriptions, and whole numbers as such."""
    if isinstance(schema, list):
        return [constraints(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    left_out = {"minimum", "maximum"} if schema.get("type") == "integer" else set()
    kept = {key: constraints(value) for key, value in schema.items() if key not in left_out}
    if isinstance(kept.get("description"), str):
        del kept["description"]
    return kept | ({"type": "number"} if kept.get("type") == "integer" else {})
