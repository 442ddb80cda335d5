"""Clients that others wrote, through every pairing of the proxy: the TypeScript SDK (1.x and 2.x), the Inspector.

What the Python SDK's client can do is tried in more depth in `test_sdk_client`.
"""

from __future__ import annotations

import json
import os
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.pairings import EVERYTHING, PAIRINGS, Proxies, Server, listening
from tests.support import npm
from tests.support.wire import DECISION_KEY, DENIED

pytestmark = pytest.mark.node

POLICY = """
hide: [delete_everything]
tools:
  add:
    rules: [{name: small, action: allow, conditions: [{path: args.a, op: lte, value: 100}], reason: at most 100}]
  test_simple_text:
    rules: [{name: twice, action: allow, rate_limit: {max: 2, window: 60, per: args.who}}]
"""
# Version of the SDK, what it is told to negotiate, and what it negotiates with a server that speaks both eras.
SDKS: dict[str, tuple[int, Any, str | None]] = {
    "sdk-1": (1, None, None),
    "sdk-2-legacy": (2, "legacy", "2025-11-25"),
    "sdk-2-auto": (2, "auto", "2026-07-28"),
    "sdk-2-pinned": (2, {"pin": "2026-07-28"}, "2026-07-28"),
}

Result = dict[str, Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clients")
    (folder / "policy.yaml").write_text(POLICY)
    return folder


@pytest.fixture(scope="module", params=PAIRINGS)
def server(request: pytest.FixtureRequest, folder: Path) -> Iterator[Server]:
    """What a client connects to: a pairing of the proxy in front of the everything server."""
    proxies = Proxies(folder / "policy.yaml", folder)
    with ExitStack() as stack:
        alone: Server = [*EVERYTHING, "stdio"]
        if request.param.endswith("http"):
            alone = stack.enter_context(listening([*EVERYTHING, "http"], proxies.log))
        yield stack.enter_context(proxies.pairing(request.param, alone))


def typescript(kind: str, server: Server, *calls: tuple[str, Result]) -> dict[str, Any]:
    """What a client on the TypeScript SDK gets: the `version` negotiated, the names of `tools`, and `results`."""
    sdk, mode, _ = SDKS[kind]
    task = json.dumps({"sdk": sdk, "mode": mode, "server": server, "calls": calls})
    with Path(npm.ROOT, "tests", "support", "typescript_client.mjs").open() as script:
        command = ["node", "--input-type=module", "-", task]
        # In .npm, where the script's imports are found; what a client starts finds our modules by PYTHONPATH.
        done = subprocess.run(
            command,
            stdin=script,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            cwd=os.path.dirname(npm.MODULES),
            env={**os.environ, "PYTHONPATH": npm.ROOT},
        )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def inspect(folder: Path, server: Server, *arguments: str, era: str, status: int = 0) -> dict[str, Any]:
    """The result that the Inspector prints; `status` is the exit status that it must have (5: the tool failed)."""
    configuration = folder / f"{uuid.uuid4().hex}.json"
    entry: dict[str, Any] = {"type": "streamable-http", "url": server}
    if not isinstance(server, str):
        entry = {"command": server[0], "args": server[1:], "env": {"PYTHONPATH": npm.ROOT}}
    configuration.write_text(json.dumps({"mcpServers": {"guarded": entry}}))
    chosen = ("--config", str(configuration), "--server", "guarded", "--protocol-era", era, "--format", "json", "-q")
    done = subprocess.run(
        npm.inspector_2(*chosen, "--method", *arguments),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "HOME": str(folder)},
    )
    assert done.returncode == status, done.stderr + done.stdout
    printed: dict[str, Any] = json.loads(done.stdout)["result"]
    return printed


def text(result: Result) -> str:
    return str(result["content"][0]["text"])


@pytest.fixture(params=SDKS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_typescript_client_gets_results_and_understands_denials(kind: str, server: Server) -> None:
    who = {"who": uuid.uuid4().hex}
    calls: list[tuple[str, Result]] = [
        ("add", {"a": 1, "b": 2}),
        ("add", {"a": 101, "b": 2}),
        *[("test_simple_text", who)] * 3,
        ("delete_everything", {}),
        ("no_such_tool", {}),
        ("test_image_content", {}),
    ]
    answer = typescript(kind, server, *calls)
    allowed, denied, first, second, third, hidden, unknown, image = answer["results"]
    assert answer.get("version") == SDKS[kind][2]
    assert "add" in answer["tools"]
    assert "delete_everything" not in answer["tools"]
    assert allowed["structuredContent"] == {"total": 3}
    assert denied["isError"] is True
    assert text(denied) == f"{DENIED}at most 100; rule `small`"
    assert denied["_meta"][DECISION_KEY]["rule"] == "small"
    assert text(first) == text(second) == "This is a simple text response for testing."
    assert third["isError"] is True
    assert text(third).startswith(DENIED)
    assert "retry in" in text(third)
    assert hidden["isError"] is True
    assert text(hidden).replace("delete_everything", "X") == text(unknown).replace("no_such_tool", "X")
    assert image["content"][0]["type"] == "image"


@pytest.fixture(params=["legacy", "modern"])
def era(request: pytest.FixtureRequest) -> str:
    """The Inspector needs a newer Node.js than the SDKs."""
    if reason := npm.node_22_missing():
        pytest.skip(reason)
    return str(request.param)


def test_the_inspector_gets_results_and_understands_denials(server: Server, era: str, folder: Path) -> None:
    add = ("tools/call", "--tool-name", "add", "--tool-args-json")
    allowed = inspect(folder, server, *add, '{"a": 1, "b": 2}', era=era)
    assert allowed["structuredContent"] == {"total": 3}
    denied = inspect(folder, server, *add, '{"a": 101, "b": 2}', era=era, status=5)
    assert text(denied) == f"{DENIED}at most 100; rule `small`"


def test_the_inspectors_load_test_gets_an_answer_to_every_call(server: Server, era: str, folder: Path) -> None:
    load = ("--load", "--load-requests", "100", "--load-concurrency", "8")
    arguments = ("tools/call", "--tool-name", "add", "--tool-args-json", '{"a": 1, "b": 2}')
    summary = inspect(folder, server, *arguments, *load, era=era)
    assert (summary["requests"], summary["ok"], summary["toolErrors"], summary["errors"]) == (100, 100, 0, 0)
