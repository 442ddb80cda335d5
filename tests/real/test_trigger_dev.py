"""The genuine Trigger.dev MCP server behind the proxy, with the shipped policy and a stand-in of its REST API."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from mcp import Client, StdioServerParameters

from tests.support import npm
from tests.support.trigger_api import TriggerApi
from tests.support.wire import StartDirect, StartProxy, Wire, denial, proxy_command, text_of

pytestmark = pytest.mark.node

POLICY = Path(npm.ROOT, "policies", "trigger-dev.yaml")
HIDING = """
default: allow
hide: [deploy, "*_webhook_secret", switch_profile]
"""
HIDDEN = {"deploy", "generate_webhook_secret", "set_webhook_secret", "switch_profile"}


@pytest.fixture(scope="module")
def stand_in() -> Iterator[TriggerApi]:
    with TriggerApi() as api:
        yield api


@pytest.fixture
def api(stand_in: TriggerApi) -> TriggerApi:
    """The stand-in, which nobody has asked anything yet."""
    stand_in.requests.clear()
    stand_in.cancelled.clear()
    return stand_in


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where servers are started."""
    return tmp_path_factory.mktemp("trigger")


@pytest.fixture(scope="module")
def environment(stand_in: TriggerApi, folder: Path) -> dict[str, str]:
    """What the server finds in its environment: the stand-in, a token and an empty home."""
    home = folder / "home"
    home.mkdir()
    return {**stand_in.environment, "HOME": str(home)}


@pytest.fixture(scope="module")
def records(folder: Path) -> Path:
    """The audit file of `guarded`."""
    return folder / "audit.jsonl"


@pytest.fixture(scope="module")
def guarded(environment: dict[str, str], folder: Path, records: Path) -> Iterator[Wire]:
    """The server behind the shipped policy, after the handshake; to start one takes seconds."""
    options = ("--state", "memory://", "--audit", str(records))
    with Wire(proxy_command(POLICY, npm.trigger(), *options), env=environment, cwd=folder) as wire:
        wire.initialize()
        yield wire


@pytest.fixture
def fresh(proxy: StartProxy, environment: dict[str, str], folder: Path) -> Wire:
    """As `guarded`, and no limit is used."""
    wire = proxy(POLICY, npm.trigger(), env=environment, cwd=folder)
    wire.initialize()
    return wire


class Alone(NamedTuple):
    """What the server says without a proxy."""

    handshake: dict[str, Any]
    tools: list[dict[str, Any]]


@pytest.fixture(scope="module")
def alone(environment: dict[str, str], folder: Path) -> Alone:
    with Wire(npm.trigger(), env=environment, cwd=folder) as wire:
        return Alone(wire.initialize(), wire.list_tools())


def cancel(wire: Wire, run: str, **more: Any) -> dict[str, Any]:
    return wire.call("cancel_run", {"runId": run, "projectRef": "proj_abc", **more})


def test_the_list_through_the_proxy_is_the_servers_list(guarded: Wire, alone: Alone) -> None:
    assert len(alone.tools) == 54
    assert guarded.list_tools() == alone.tools


def test_the_list_lacks_hidden_tools_and_nothing_else(
    proxy: StartProxy, alone: Alone, environment: dict[str, str], folder: Path
) -> None:
    wire = proxy(HIDING, npm.trigger(), env=environment, cwd=folder)
    wire.initialize()
    assert wire.list_tools() == [tool for tool in alone.tools if tool["name"] not in HIDDEN]


def test_the_handshake_is_the_servers_own(guarded: Wire, alone: Alone) -> None:
    assert guarded.initialize() == alone.handshake


@pytest.mark.anyio
async def test_the_sdk_client_sees_the_same_tools_with_and_without_the_proxy(
    environment: dict[str, str], tmp_path: Path
) -> None:
    async def tools(command: list[str]) -> list[dict[str, Any]]:
        server = StdioServerParameters(
            command=command[0], args=command[1:], env={**os.environ, **environment}, cwd=tmp_path
        )
        async with Client(server) as client:
            assert client.protocol_version == "2025-11-25"
            return [tool.model_dump() for tool in (await client.list_tools()).tools]

    policy = tmp_path / "policy.yaml"
    policy.write_text(HIDING)
    proxied = await tools(proxy_command(policy, npm.trigger(), "--audit", str(tmp_path / "audit.jsonl")))
    assert proxied == [tool for tool in await tools(npm.trigger()) if tool["name"] not in HIDDEN]


def test_cancel_run_reaches_the_api(guarded: Wire, api: TriggerApi) -> None:
    answer = cancel(guarded, "run_abc")
    assert text_of(answer).startswith("Run run_abc canceled.\nStatus: CANCELED")
    assert "isError" not in answer["result"]
    assert api.cancelled == ["run_abc"]


def test_a_run_id_that_would_reach_another_route_of_the_api_does_not(guarded: Wire, api: TriggerApi) -> None:
    reason = denial(cancel(guarded, "../../v1/whoami?x="))
    assert "runId must be a run id" in reason
    assert "only real run ids" in reason
    assert api.requests == []


def test_without_the_proxy_that_run_id_reaches_it(
    direct: StartDirect, api: TriggerApi, environment: dict[str, str], folder: Path
) -> None:
    """The attack that the policy stops is real: this fails when the server learns to escape, and the rule can go."""
    alone = direct(npm.trigger(), env=environment, cwd=folder)
    alone.initialize()
    cancel(alone, "../../v1/whoami?x=")
    assert "/api/v1/whoami?x=/cancel" in [request.path for request in api.requests]


def test_what_is_no_run_id_never_reaches_the_api(guarded: Wire, api: TriggerApi) -> None:
    for run in ("", " ", None, 7, ["run_abc"], "run_abc\n", "run_ABC", "run_١٢"):
        denial(guarded.call("cancel_run", {"runId": run, "projectRef": "proj_abc"}))
    assert api.requests == []


def test_a_call_without_a_run_id_never_reaches_the_api(guarded: Wire, api: TriggerApi) -> None:
    assert "runId" in denial(guarded.call("cancel_run", {"projectRef": "proj_abc"}))
    assert api.requests == []


def test_the_eleventh_cancel_in_a_minute_does_not_reach_the_api(fresh: Wire, api: TriggerApi) -> None:
    for number in range(10):
        assert "isError" not in cancel(fresh, f"run_{number}")["result"]
    reason = denial(cancel(fresh, "run_11"))
    assert "retry in" in reason
    assert api.cancelled == [f"run_{number}" for number in range(10)]


def test_refused_calls_do_not_use_up_the_limit(fresh: Wire, api: TriggerApi) -> None:
    for _ in range(11):
        denial(cancel(fresh, "../x"))
    assert "isError" not in cancel(fresh, "run_1")["result"]


def test_a_tool_that_the_policy_does_not_list_is_denied(
    proxy: StartProxy, api: TriggerApi, environment: dict[str, str], folder: Path
) -> None:
    policy = "default: deny\ntools: {cancel_run: {}}\n"
    wire = proxy(policy, npm.trigger(), env=environment, cwd=folder)
    wire.initialize()
    denial(wire.call("trigger_task", {"taskId": "x", "payload": {}, "projectRef": "proj_abc"}))
    assert api.requests == []


def test_every_decision_is_in_the_audit_file_and_no_argument_is(guarded: Wire, records: Path) -> None:
    before = records.read_text().count('"tool":"cancel_run"')
    cancel(guarded, "run_zz9")
    cancel(guarded, "../../v1/whoami?x=")
    text = records.read_text()
    assert "run_zz9" not in text
    assert "whoami" not in text
    assert "tr_pat_" not in text
    assert text.count('"tool":"cancel_run"') == before + 2


@pytest.mark.parametrize("ending", ["end of input", "SIGTERM"])
def test_nothing_of_npx_its_shell_and_its_server_outlives_the_proxy(
    proxy: StartProxy, environment: dict[str, str], ending: str
) -> None:
    wire = proxy(POLICY, npm.npx_trigger(), env=environment, cwd=Path(npm.ROOT, ".npm"))
    wire.initialize()
    assert len(wire.survivors()) > 2, "npx is expected to start a chain of processes"
    if ending == "SIGTERM":
        wire.signal(signal.SIGTERM)
        wire.wait()
    else:
        assert wire.finish() == 0
    wire.assert_no_survivors()


def test_the_interpreter_of_the_proxy_is_the_one_of_the_tests(guarded: Wire) -> None:
    """Guards the tests above: what they talk to is the proxy and not the server."""
    assert any(sys.executable in command and "intercept_py" in command for command in guarded.survivors().values())
