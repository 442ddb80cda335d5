"""What the ssh tools answer when nobody interferes: results, denials, hosts, prompts, resources. Real processes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from mcp import MCPError
from mcp_types import TextContent, TextResourceContents

from intercept_py.jobs.dialects import Options, ssh
from intercept_py.jobs.dialects.ssh_tasks import Limits
from intercept_py.jobs.engine import Engine
from intercept_py.jobs.model import JobError, Settings
from tests.support.jobs import root_of, text
from tests.support.ssh import Session, in_process

pytestmark = pytest.mark.anyio


@pytest.fixture
async def session(tmp_path: Path) -> AsyncIterator[Session]:
    async with in_process(tmp_path) as session:
        yield session


async def test_ssh_run_returns_what_the_command_printed_and_how_it_ended(session: Session) -> None:
    result = await session.call("ssh_run", alias="web1", command="echo hello")
    task_id = await session.announced("web1")
    assert session.logged[0].startswith('{"event":"ssh_run_task_created"')
    assert result.pop("duration_ms") >= 0
    assert result == {
        "task_id": task_id,
        "alias": "web1",
        "hash": task_id.split(":")[1],
        "exit_code": 0,
        "cancelled": False,
        "timeout": False,
        "target_ip": "127.0.0.1",
        "output": "hello\n",
    }
    failed = await session.call("ssh_run", alias="web1", command="fail 3")
    assert (failed["exit_code"], failed["output"]) == (3, "failing with 3\n")


async def test_ssh_run_on_tag_runs_on_every_host_of_the_tag(session: Session) -> None:
    answer = await session.call("ssh_run_on_tag", tag="web", command="echo hello")
    assert answer["tag"] == "web"
    assert [(result["alias"], result["output"]) for result in answer["results"]] == [
        ("web1", "hello\n"),
        ("web2.example.com", "hello\n"),
    ]
    far = (await session.call("ssh_run_on_tag", tag="far", command="echo hello"))["results"]
    assert [(result["alias"], result["exit_code"]) for result in far] == [("web2.example.com", 0), ("remote", -1)]
    assert (far[1]["status"], far[1]["reason"]) == ("denied", "network")
    nobody = await session.call("ssh_run_on_tag", tag="nobody", command="echo hello")
    assert nobody == {"tag": "nobody", "results": [], "note": "No hosts matched."}
    assert await session.call("ssh_run_on_tag", tag="", command="x") == "Error: tag is required"


@pytest.mark.parametrize("tool", ["ssh_run", "ssh_run_async"])
async def test_a_denied_command_starts_nothing_and_is_json_text(session: Session, tool: str) -> None:
    policy = json.loads(await session.call(tool, alias="web1", command="rm -rf build"))
    assert policy.pop("hint")
    assert policy.pop("hash")
    assert policy == {"status": "denied", "reason": "policy", "alias": "web1", "command": "rm -rf build"}
    network = json.loads(await session.call(tool, alias="remote", command="echo hello"))
    assert (network["status"], network["reason"], network["alias"]) == ("denied", "network", "remote")
    assert "10.0.0.9" not in json.dumps(network)


async def test_ssh_plan_tells_beforehand(session: Session) -> None:
    limits = {
        "max_seconds": 60,
        "max_output_bytes": 1048576,
        "host_key_auto_add": False,
        "require_known_host": True,
    }
    plan = await session.call("ssh_plan", alias="web1", command="echo hello")
    assert plan == {
        "alias": "web1",
        "command": "echo hello",
        "hash": plan["hash"],
        "allowed": True,
        "limits": limits,
    }
    for alias, command in (("web1", "uptime"), ("remote", "echo hello")):
        plan = await session.call("ssh_plan", alias=alias, command=command)
        assert (plan["allowed"], plan["limits"], plan["denied_command"]) == (False, limits, command)
        assert plan["why"]
        assert plan["hint"]


@pytest.mark.parametrize("tool", ["ssh_describe_host", "ssh_plan", "ssh_run", "ssh_run_async"])
async def test_a_host_must_be_named_and_known(session: Session, tool: str) -> None:
    command = {} if tool == "ssh_describe_host" else {"command": "echo hello"}
    assert await session.call(tool, **command) == "Error: alias is required"
    assert await session.call(tool, alias="nope", **command) == "Error: Host alias not found: nope"
    odd = await session.call(tool, alias="a b", **command)
    assert odd == "Error: alias contains invalid characters (only alphanumeric, dash, underscore, dot allowed)"
    if command:
        assert await session.call(tool, alias="web1") == "Error: command is required"
        nul = await session.call(tool, alias="web1", command="echo\0hello")
        assert nul == "Error: command contains invalid characters (null bytes not allowed)"


async def test_hosts_are_listed_described_and_reloaded(session: Session, tmp_path: Path) -> None:
    assert await session.call("ssh_ping") == {"status": "pong"}
    assert await session.call("ssh_list_hosts") == {"hosts": ["web1", "web2.example.com", "remote"]}
    assert await session.call("ssh_describe_host", alias="web1") == {
        "alias": "web1",
        "host": "local",
        "description": "first",
        "tags": ["web"],
        "has_credentials_ref": False,
    }
    servers = tmp_path / "servers.yml"
    servers.write_text("hosts:\n  new: {hots: local}\n")
    broken = await session.call("ssh_reload_config")
    assert broken["status"] == "error"
    assert broken["error"].startswith("servers.yml:2:")
    assert str(tmp_path) not in broken["error"]
    assert len((await session.call("ssh_list_hosts"))["hosts"]) == 3
    servers.write_text("hosts:\n  new: {host: local}\n")
    assert await session.call("ssh_reload_config") == {"status": "reloaded"}
    assert await session.call("ssh_list_hosts") == {"hosts": ["new"]}


async def test_prompts_and_resources_can_be_read(session: Session) -> None:
    client = session.client
    prompts = (await client.list_prompts()).prompts
    assert len(prompts) == 6
    message = (await client.get_prompt(prompts[0].name)).messages[0]
    assert isinstance(message.content, TextContent)
    assert "ssh_plan" in message.content.text
    assert [str(resource.uri) for resource in (await client.list_resources()).resources] == ["ssh://hosts"]
    assert [template.uri_template for template in (await client.list_resource_templates()).resource_templates] == [
        "ssh://host/{alias}",
        "ssh://host/{alias}/tags",
        "ssh://host/{alias}/capabilities",
    ]
    (content,) = (await client.read_resource("ssh://host/web1/capabilities")).contents
    assert isinstance(content, TextResourceContents)
    assert json.loads(content.text)["limits"]["max_seconds"] == 60
    with pytest.raises(MCPError, match="Unknown resource"):
        await client.read_resource("ssh://nope")
    with pytest.raises(MCPError, match="Unknown prompt"):
        await client.get_prompt("nope")


async def test_arguments_of_another_type_and_other_tools_are_errors_as_the_sdk_words_them(session: Session) -> None:
    odd = await session.client.call_tool("ssh_cancel", {"task_id": 5})
    assert odd.is_error
    assert text(odd).startswith(
        "Error executing tool ssh_cancel: 1 validation error for ssh_cancelArguments\ntask_id\n"
    )
    unknown = await session.client.call_tool("ssh_nope", {})
    assert unknown.is_error
    assert text(unknown) == "Unknown tool: ssh_nope"


async def test_a_bad_servers_file_is_told_in_one_line_and_nothing_is_served(tmp_path: Path) -> None:
    settings = Settings(state_dir=str(tmp_path / "state"), root=str(root_of(tmp_path)))
    servers = tmp_path / "servers.yml"
    servers.write_text("hosts:\n  a: {}\n  b: {host: 1}\n")
    engine = await Engine.open(settings)
    try:
        with pytest.raises(JobError) as refused:
            ssh.build(engine, Options(settings, servers=str(servers)))
        assert "\n" not in str(refused.value)
        assert "servers.yml:2:6: $.hosts.a" in str(refused.value)
    finally:
        await engine.close()


async def test_a_command_that_takes_too_long_is_stopped_and_says_so(tmp_path: Path) -> None:
    async with in_process(tmp_path, Limits(max_seconds=1)) as session:
        result = await session.call("ssh_run", alias="web1", command="sleep 30")
        assert (result["timeout"], result["cancelled"], result["exit_code"]) == (True, False, -1)
