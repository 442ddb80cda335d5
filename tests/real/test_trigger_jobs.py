"""The genuine Trigger.dev MCP server behind the proxy, and real processes behind its API."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import npm
from tests.support.jobs import gone, listening, processes_of
from tests.support.trigger_rest import PERSON, Rest
from tests.support.wire import StartProxy, Wire, denial, text_of

pytestmark = pytest.mark.node

POLICY = Path(npm.ROOT, "policies", "trigger-dev.yaml")
UNGOVERNED = "default: allow\ntools: {cancel_run: {rules: [{action: deny, reason: nobody cancels}]}}\n"


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Rest]:
    with listening("trigger-rest", tmp_path, "--max-running", "16") as server:
        yield Rest(server.url)


@pytest.fixture
def environment(api: Rest, tmp_path: Path) -> dict[str, str]:
    """What the server finds in its environment: the API, a token and directories of its own."""
    home = tmp_path / "home"
    home.mkdir()
    own = {"HOME": str(home), "TMPDIR": str(home)}
    return {"TRIGGER_ACCESS_TOKEN": PERSON, "TRIGGER_API_URL": api.url, **own}


@pytest.fixture
def guarded(proxy: StartProxy, environment: dict[str, str], tmp_path: Path) -> Wire:
    """The server behind the shipped policy, after the handshake."""
    wire = proxy(POLICY, npm.trigger(), env=environment, cwd=tmp_path)
    wire.initialize()
    return wire


def call(wire: Wire, tool: str, **arguments: Any) -> dict[str, Any]:
    return wire.call(tool, {"projectRef": "proj_local", **arguments})


def test_g6_cancel_run_kills_the_process_of_the_run(guarded: Wire, api: Rest, tmp_path: Path) -> None:
    answer = text_of(call(guarded, "trigger_task", taskId="forker", payload={"seconds": 60}))
    run = answer.split("ID created: ")[1].split(".")[0]
    pids = processes_of(tmp_path, run)
    assert pids
    assert "Status: executing" in text_of(call(guarded, "get_run_details", runId=run))
    assert text_of(call(guarded, "cancel_run", runId=run)).startswith(f"Run {run} canceled.\nStatus: CANCELED\n")
    for pid in pids:
        gone(pid)
    assert "Finished at: " in text_of(call(guarded, "wait_for_run_to_complete", runId=run, timeoutInSeconds=20))
    assert processes_of(tmp_path, run) == []
    assert api.run(run)["finishedAt"]


def test_g6_the_eleventh_cancel_in_a_minute_is_denied_and_its_run_lives(
    guarded: Wire, api: Rest, tmp_path: Path
) -> None:
    runs = [api.trigger("sleep", 60) for _ in range(11)]
    for run in runs[:10]:
        assert "Status: CANCELED" in text_of(call(guarded, "cancel_run", runId=run))
    assert "retry in" in denial(call(guarded, "cancel_run", runId=runs[10]))
    for run in runs[:10]:
        for pid in processes_of(tmp_path, run):
            gone(pid)
    assert api.run(runs[10])["status"] == "EXECUTING"
    assert processes_of(tmp_path, runs[10])


def test_a_run_id_that_names_another_route_is_stopped_by_the_policy_and_else_by_its_token(
    guarded: Wire, proxy: StartProxy, api: Rest, environment: dict[str, str], tmp_path: Path
) -> None:
    elsewhere = "../../v1/tasks/sleep/trigger?x="
    assert "runId must be a run id" in denial(call(guarded, "cancel_run", runId=elsewhere))
    open_door = proxy("default: allow\ntools: {}\n", npm.trigger(), env=environment, cwd=tmp_path)
    open_door.initialize()
    assert "does not reach `write:tasks:sleep`" in text_of(call(open_door, "cancel_run", runId=elsewhere))
    assert api.list()[1]["data"] == []


def test_a_policy_that_does_not_name_replay_run_leaves_it_open(
    proxy: StartProxy, api: Rest, environment: dict[str, str], tmp_path: Path
) -> None:
    wire = proxy(UNGOVERNED, npm.trigger(), env=environment, cwd=tmp_path)
    wire.initialize()
    run = api.trigger("sleep", 60)
    assert "nobody cancels" in denial(call(wire, "cancel_run", runId=run))
    answer = text_of(call(wire, "replay_run", runId=run))
    copy = answer.removeprefix(f"Run {run} replayed as ").split(".")[0]
    assert api.run(copy)["status"] == "EXECUTING"
    assert processes_of(tmp_path, copy)
