"""The REST API of the `trigger-rest` dialect, over a socket and with real processes."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from intercept_py.jobs.dialects.rest_trigger import BODY_LIMIT
from tests.support.jobs import gone, listening, processes_of, row_of
from tests.support.trigger_rest import PERSON, Rest, printed


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the shared server keeps its state."""
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(scope="module")
def api(state: Path) -> Iterator[Rest]:
    """A server that the tests share, with room for all of their runs."""
    with listening("trigger-rest", state, "--max-running", "64") as server:
        yield Rest(server.url)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Rest]:
    """A server of the test's own that runs one job at a time."""
    with listening("trigger-rest", tmp_path, "--max-running", "1") as server:
        yield Rest(server.url)


def runs_of(api: Rest) -> set[str]:
    """Every run there is."""
    return {run["id"] for environment in ("dev", "prod") for run in api.list("?page[size]=100", environment)[1]["data"]}


def ended(api: Rest, run: str) -> dict[str, Any]:
    """The run once it has a finish time, which the realtime stream waits for."""
    offset = "-1"
    while "finishedAt" not in (found := api.run(run)):
        status, _ = api.news(run, f"offset={offset}&live=true")
        assert status == 200
        offset = api.headers["electric-offset"]
    return found


# -- who may do what ------------------------------------------------------------------------------------------------


def test_a_person_is_whoever_has_a_personal_token(api: Rest) -> None:
    status, body = api("GET", "/api/v2/whoami")
    assert status == 200
    assert body["email"] == "local@example.com"
    for token in ("", "tr_dev_abc", "tr_pat_", "tr_pat_a b"):
        assert api("GET", "/api/v2/whoami", token=token) == (401, {"error": "Invalid or Missing Access Token"})


def test_runs_need_the_token_of_an_environment(api: Rest) -> None:
    refused = (401, {"error": "Invalid or Missing API key"})
    good = api.token("read:runs")
    head, claims, _ = good.split(".")
    for token in ("", PERSON, "a.b.c", ".", "\xe9", good[:-2], f"{head}.{claims}.", good + "=", f"{head}.{claims}"):
        assert api("GET", "/api/v1/runs", token=token) == refused, token
    assert api("GET", "/api/v1/runs", token=good)[0] == 200


def test_a_token_reaches_what_it_was_made_for_and_nothing_else(api: Rest) -> None:
    before, run = runs_of(api), api.trigger("sleep", 60)
    token = api.token(f"read:runs:{run}", f"write:runs:{run}")
    assert api("GET", f"/api/v3/runs/{run}", token=token)[0] == 200
    assert api("GET", "/api/v3/runs/run_other", token=token) == (
        403,
        {"error": "this token does not reach `read:runs:run_other`"},
    )
    assert api("GET", "/api/v1/runs", token=token)[0] == 403
    assert api("POST", "/api/v1/tasks/sleep/trigger", {"payload": 1}, token=token)[0] == 403
    assert runs_of(api) == before | {run}


def test_there_are_four_environments(api: Rest) -> None:
    body: dict[str, Any] = {"claims": {"scopes": []}}
    assert api("POST", "/api/v1/projects/proj_x/moon/jwt", body) == (404, {"error": "Environment not found"})
    assert api("GET", "/api/v1/projects/proj_x/moon/workers/current")[0] == 404
    run = api.trigger("sleep", 60, environment="prod")
    assert api.cancel(run) == (404, {"error": "Run not found"})
    assert api.run(run, environment="prod")["status"] == "EXECUTING"
    assert run not in {found["id"] for found in api.list("?page[size]=100")[1]["data"]}


# -- triggering -----------------------------------------------------------------------------------------------------


def test_a_run_is_the_object_that_the_api_documents(api: Rest) -> None:
    run = ended(api, api.trigger("echo", {"text": "hello"}, tags=["a", "b"], ttl="1h30m"))
    assert run["id"].startswith("run_")
    assert len(run["id"]) == 29
    assert run["id"][4:].isalnum()
    assert run["id"] == run["id"].lower()
    assert run["status"] == "COMPLETED"
    assert run["taskIdentifier"] == "echo"
    assert run["payload"] == {"text": "hello"}
    assert run["output"] == "hello\n"
    assert run["tags"] == ["a", "b"]
    assert run["ttl"] == "1h30m"
    assert run["attemptCount"] == 1
    assert run["isCompleted"] is run["isSuccess"] is True
    assert None not in run.values(), "clients refuse null"
    assert run["createdAt"] <= run["startedAt"] <= run["finishedAt"]


def test_a_run_that_fails_says_how(api: Rest) -> None:
    run = ended(api, api.trigger("fail", {"code": 3}))
    assert run["status"] == "FAILED"
    assert run["error"] == {"name": "Error", "message": "exit code 3"}
    assert run["output"] == "failing with 3\n"


def test_a_run_waits_for_room_and_expires_if_it_gets_none(small: Rest) -> None:
    small.trigger("sleep", 60)
    waiting = small.trigger("sleep", 60)
    run = small.run(waiting)
    assert run["status"] == "QUEUED"
    assert not {"startedAt", "version"} & set(run)
    late = ended(small, small.trigger("sleep", 60, ttl=1))
    assert late["status"] == "EXPIRED"
    assert late["error"]["message"] == "it was not started in time"
    assert small.run(waiting)["status"] == "QUEUED"


def test_a_run_ends_at_its_maximum_duration(api: Rest) -> None:
    run = ended(api, api.trigger("sleep", 60, maxDuration=0.2))
    assert run["status"] == "TIMED_OUT"
    assert run["error"]["message"] == "it ran for longer than it may"


def test_the_same_idempotency_key_is_the_same_run(api: Rest) -> None:
    before, token = runs_of(api), api.token("write:tasks")
    body = {"payload": 60, "options": {"idempotencyKey": "nightly"}}
    path = "/api/v1/tasks/sleep/trigger"
    _, first = api("POST", path, body, token=token)
    assert api("POST", path, body, token=token) == (200, {"id": first["id"], "isCached": True})
    assert first["isCached"] is False
    other = api.trigger("stubborn", 60, idempotencyKey="nightly")
    assert other != first["id"]
    assert runs_of(api) == before | {first["id"], other}


def test_an_unknown_task_does_not_exist(api: Rest) -> None:
    token = api.token("write:tasks")
    status, body = api("POST", "/api/v1/tasks/nope/trigger", {"payload": 1}, token=token)
    assert status == 404
    assert body["error"].startswith("task `nope` not found: use one of sleep, ")


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (422, {"payload": {"minutes": 3}}),
        (422, {"payload": "soon"}),
        (422, {"payload": None}),
        (422, {"payload": [True]}),
        (422, {"payload": 1, "options": {"delay": "1h"}}),
        (400, {"payload": 1, "options": {"ttl": "soon"}}),
        (400, {"payload": 1, "options": {"ttl": -1}}),
        (400, {"payload": 1, "options": {"tags": ["x" * 129]}}),
        (400, {"payload": 1, "options": {"tags": [7]}}),
        (400, {"payload": 1, "options": []}),
        (400, [1]),
    ],
)
def test_what_cannot_be_triggered_says_why_and_starts_nothing(api: Rest, status: int, body: Any) -> None:
    before = runs_of(api)
    answer = api("POST", "/api/v1/tasks/sleep/trigger", body, token=api.token("write:tasks"))
    assert answer[0] == status, answer
    assert answer[1]["error"].count("\n") == 0
    assert runs_of(api) == before


def test_bodies_are_bounded_and_must_be_json(api: Rest) -> None:
    token, path = api.token("write:tasks"), "/api/v1/tasks/echo/trigger"
    fits = json.dumps({"payload": "x" * 60_000}).encode()
    assert api("POST", path, raw=fits, token=token)[0] == 200
    assert api("POST", path, raw=b"{" + b" " * BODY_LIMIT + b"}", token=token)[0] == 413
    for raw in (b"{", b"\xff", b'{"payload": NaN}', b'{"payload": "\\ud800"}', b"[" * 100_000):
        status, told = api("POST", path, raw=raw, token=token)
        assert (status, told["error"].startswith("request body: message is ")) == (400, True), raw[:20]


def test_a_deep_payload_is_refused(api: Rest) -> None:
    token, deep = api.token("write:tasks"), "[" * 5000 + "]" * 5000
    for payload, options, words in (
        (deep, {"payloadType": "application/super+json"}, "payload is nested too deeply"),
        ([[["x"]]], {}, "may hold texts and numbers only"),
    ):
        body = {"payload": payload, "options": options}
        status, told = api("POST", "/api/v1/tasks/echo/trigger", body, token=token)
        assert (status in (400, 422), words in told["error"]) == (True, True)


def test_a_page_of_another_host_cannot_call(api: Rest) -> None:
    body = b'{"payload": 30}'
    for name, value, status in (("Origin", "http://evil.example", 403), ("Host", "evil.example", 421)):
        connection = HTTPConnection(api.url.removeprefix("http://"), timeout=20)
        with closing(connection):
            connection.request("POST", "/api/v1/tasks/sleep/trigger", body, {name: value})
            assert connection.getresponse().status == status


# -- cancelling -----------------------------------------------------------------------------------------------------


def test_cancelling_answers_at_once_and_ends_every_process_of_the_run(api: Rest, state: Path) -> None:
    run = api.trigger("forker", 60)
    printed(state, row_of(state, run)["row"], "daemon")
    pids = processes_of(state, run)
    assert len(pids) > 3, "supervisor, recipe, child and daemon"
    assert api.cancel(run) == (200, {"id": run})
    for pid in pids:
        gone(pid)
    assert ended(api, run)["status"] == "CANCELED"
    assert processes_of(state, run) == []


def test_g5_a_run_that_is_being_cancelled_is_canceled_without_a_finish_time(tmp_path: Path) -> None:
    with listening("trigger-rest", tmp_path, "--grace", "20") as server:
        api = Rest(server.url)
        run = api.trigger("stubborn", 60)
        printed(tmp_path, 1, "ready")
        assert api.cancel(run) == (200, {"id": run})
        stopping = api.run(run)
        assert stopping["status"] == "CANCELED"
        assert "finishedAt" not in stopping
        assert api.cancel(run) == (200, {"id": run}), "cancelling again is no error"
        pids = processes_of(tmp_path, run)
        assert pids, "it does not listen to SIGTERM, and its grace is not over"
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        stopped = ended(api, run)
        assert stopped["status"] == "CANCELED"
        assert processes_of(tmp_path, run) == []


def test_a_queued_run_never_starts_once_it_is_cancelled(small: Rest) -> None:
    small.trigger("sleep", 60)
    run = small.trigger("sleep", 60)
    assert small.cancel(run) == (200, {"id": run})
    found = small.run(run)
    assert (found["status"], "startedAt" in found, "finishedAt" in found) == ("CANCELED", False, True)


def test_g2_a_finished_run_is_not_changed_by_cancelling(api: Rest) -> None:
    before = ended(api, api.trigger("echo", "done"))
    assert api.cancel(before["id"]) == (200, {"id": before["id"]})
    assert api.run(before["id"]) == before


@pytest.mark.parametrize(
    "run",
    [
        "run_nope",
        "",
        "run_",
        "../run_x",
        "../../v1/tasks/sleep/trigger?x=",
        "/etc/passwd",
        "x" * 5000,
        "run_1/../run_1",
    ],
)
def test_unknown_ids_are_unknown_runs_and_reach_nothing_else(api: Rest, run: str) -> None:
    before, everything = runs_of(api), api.token("read:runs", "write:runs", "write:tasks")
    for method, path in (
        ("POST", "/api/v2/runs/{}/cancel"),
        ("GET", "/api/v3/runs/{}"),
        ("GET", "/realtime/v1/runs/{}"),
    ):
        status, body = api(method, path.format(run), token=everything)
        assert status == 404, (method, body)
        assert set(body) == {"error"}
    assert runs_of(api) == before


@pytest.mark.parametrize("spelling", ["run_%{:02x}{}", "%2e%2e%2f%{:02x}{}", "./%{:02x}{}"])
def test_no_run_has_a_second_name(api: Rest, spelling: str) -> None:
    run = api.trigger("sleep", 60)
    name = spelling.format(ord(run[4]), run[5:])
    assert api.cancel(name) == (404, {"error": "Not found"})
    assert api.run(run)["status"] == "EXECUTING"


def test_paths_that_are_no_route_do_not_exist(api: Rest) -> None:
    assert api("GET", "/") == (404, {"error": "Not Found"})
    assert api("GET", "/api/v2/whoami/") == (404, {"error": "Not Found"})
    assert api("DELETE", "/api/v2/whoami") == (405, {"error": "Method Not Allowed"})


def test_when_the_store_fails_the_client_is_told_not_to_try_again(small: Rest, tmp_path: Path) -> None:
    run, token = small.trigger("sleep", 60), small.token("write:tasks")
    pids = processes_of(tmp_path, run)
    assert pids
    with closing(sqlite3.connect(tmp_path / "state" / "jobs.db")) as db:
        db.execute("ALTER TABLE event RENAME TO gone")
        status, body = small("POST", "/api/v1/tasks/sleep/trigger", {"payload": 60}, token=token)
        assert (status, body["error"].count("\n")) == (503, 0)
        assert small.headers["x-should-retry"] == "false"
        assert small.cancel(run) == (200, {"id": run})
        for pid in pids:
            gone(pid)
        db.execute("ALTER TABLE gone RENAME TO event")
    assert ended(small, run)["status"] == "CANCELED"


# -- looking ---------------------------------------------------------------------------------------------------------


def test_runs_are_listed_newest_first_in_pages(api: Rest) -> None:
    runs = [api.trigger("echo", str(number), tags="paged") for number in range(5)][::-1]
    pages, after = [], ""
    while True:
        status, page = api.list(f"?page[size]=2&filter[tag]=paged{after}")
        assert status == 200
        pages.append([run["id"] for run in page["data"]])
        if "next" not in page["pagination"]:
            break
        after = f"&page[after]={page['pagination']['next']}"
    assert pages == [runs[:2], runs[2:4], runs[4:]]
    assert page["data"][0]["env"] == {"id": "env_dev", "name": "dev"}


def test_runs_are_filtered(api: Rest) -> None:
    sleeping = api.trigger("sleep", 60, tags=["night", "filtered"])
    done = ended(api, api.trigger("echo", "x", tags=["day", "filtered"]))
    for query, wanted in {
        "filter[status]=EXECUTING": {sleeping},
        "filter[status]=COMPLETED,EXECUTING": {sleeping, done["id"]},
        "filter[status]=DELAYED": set(),
        "filter[taskIdentifier]=echo": {done["id"]},
        "filter[tag]=day": {done["id"]},
        "filter[tag]=day,night": {sleeping, done["id"]},
        "filter[version]=local.1": {sleeping, done["id"]},
        "filter[version]=2": set(),
        "filter[machine]=micro": set(),
        "filter[createdAt][period]=1h": {sleeping, done["id"]},
        "filter[createdAt][from]=2000-01-01": {sleeping, done["id"]},
        "filter[createdAt][from]=4102444800000": set(),
        "filter[createdAt][to]=2000-01-01T00:00:00Z": set(),
    }.items():
        status, page = api.list(f"?page[size]=100&{query}")
        assert status == 200, page
        mine = {run["id"] for run in page["data"] if "filtered" in run["tags"]}
        assert mine == wanted, query


@pytest.mark.parametrize(
    "query",
    ["page[size]=0", "page[size]=101", "page[size]=x", "filter[status]=GONE", "filter[createdAt][from]=NaN",
     "filter[createdAt][period]=1x"],
)  # fmt: skip
def test_a_query_that_cannot_be_understood_is_refused(api: Rest, query: str) -> None:
    status, body = api.list(f"?{query}")
    assert status == 400
    assert body["error"].startswith("invalid ")


def test_the_trace_has_a_span_for_each_event(api: Rest) -> None:
    run = ended(api, api.trigger("count", {"n": 3}))
    status, body = api("GET", f"/api/v1/runs/{run['id']}/trace", token=api.token("read:runs"))
    assert status == 200
    root = body["trace"]["rootSpan"]
    assert (root["data"]["message"], root["data"]["isPartial"]) == ("count", False)
    messages = [span["data"]["message"] for span in root["children"]]
    assert "progress" in messages
    assert messages.count("status") >= 2


def test_long_outputs_are_shown_from_both_ends(api: Rest) -> None:
    run = ended(api, api.trigger("count", {"n": 5000}))
    assert run["output"].startswith("1\n2\n")
    assert run["output"].endswith("\n4999\n5000\n")
    assert "\n[...]\n" in run["output"]
    assert len(run["output"]) < 8_100


def test_a_replay_is_a_new_run_of_the_same(api: Rest) -> None:
    run = ended(api, api.trigger("echo", {"text": "again"}, tags=["first"]))
    path, token = f"/api/v1/runs/{run['id']}/replay", api.token(f"write:runs:{run['id']}")
    status, answer = api("POST", path, token=token)
    assert status == 200
    copy = ended(api, answer["id"])
    assert copy["id"] != run["id"]
    assert (copy["output"], copy["tags"]) == ("again\n", ["first"])
    changed = {"payload": '{"json":{"text":"other"}}', "payloadType": "application/super+json", "tags": ["second"]}
    other = ended(api, api("POST", path, changed, token=token)[1]["id"])
    assert (other["output"], other["tags"], other["payload"]) == ("other\n", ["second"], {"text": "other"})
    assert api("POST", path, {**changed, "payload": 7}, token=token)[0] == 400


# -- the realtime stream ----------------------------------------------------------------------------------------------


def test_the_stream_begins_with_the_run_and_goes_on_with_what_changes(api: Rest) -> None:
    run = api.trigger("sleep", 60)
    status, messages = api.news(run, "offset=-1")
    assert status == 200
    assert [message["headers"] for message in messages] == [{"operation": "insert"}, {"control": "up-to-date"}]
    row = messages[0]["value"]
    assert (row["friendlyId"], row["status"], row["completedAt"]) == (run, "EXECUTING", None)
    assert not row["createdAt"].endswith("Z")
    offset = api.headers["electric-offset"]
    assert api.headers["electric-handle"] == run
    assert set(json.loads(api.headers["electric-schema"])) < set(row)

    assert [message["headers"] for message in api.news(run, f"offset={offset}")[1]] == [{"control": "up-to-date"}]
    api.cancel(run)
    ended(api, run)
    _, messages = api.news(run, f"offset={offset}&live=true")
    assert messages[0]["headers"] == {"operation": "update"}
    assert messages[0]["value"]["status"] == "CANCELED"
    assert messages[0]["value"]["completedAt"]


def test_a_stream_from_nowhere_is_refused(api: Rest) -> None:
    run = api.trigger("sleep", 60)
    for offset in ("x", "-2", "1" * 30, "%C2%B2"):
        assert api.news(run, f"offset={offset}") == (400, {"error": "invalid offset"}), offset
