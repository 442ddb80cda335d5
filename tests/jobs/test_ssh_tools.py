"""The list of ssh tools: shaped as the SDK generates it from functions, and documented for agents."""

from __future__ import annotations

import inspect
from typing import Any

import anyio
import pytest
from mcp.server.mcpserver import MCPServer
from mcp_types import Tool

from intercept_py.jobs.dialects import ssh_guides
from intercept_py.jobs.dialects.ssh_hosts import read
from intercept_py.jobs.dialects.ssh_tools import TOOLS

NAMES = [
    "ssh_ping",
    "ssh_list_hosts",
    "ssh_describe_host",
    "ssh_plan",
    "ssh_run",
    "ssh_run_on_tag",
    "ssh_cancel",
    "ssh_reload_config",
    "ssh_run_async",
    "ssh_get_task_status",
    "ssh_get_task_result",
    "ssh_get_task_output",
    "ssh_cancel_async_task",
]
PROMPTS = [
    "ssh_orchestrator_usage",
    "ssh_policy_denied_guidance",
    "ssh_network_denied_guidance",
    "ssh_missing_host_guidance",
    "ssh_missing_credentials_guidance",
    "ssh_config_change_workflow",
]
INVENTORY = read(b"hosts: {web1: {host: local, tags: [web]}, far: {host: 10.0.0.1}}", "servers.yml")


def generated(tool: Tool) -> Tool:
    """What the SDK makes of a function with the tool's arguments, `-> dict | str`."""

    def function(**arguments: Any) -> dict[str, Any] | str:
        raise NotImplementedError

    parameters = [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=rule["default"], annotation=type(rule["default"])
        )
        for name, rule in tool.input_schema["properties"].items()
    ]
    function.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        parameters, return_annotation=dict[str, Any] | str
    )
    function.__name__ = tool.name
    function.__annotations__ = {p.name: p.annotation for p in parameters} | {"return": dict[str, Any] | str}
    server: MCPServer[None] = MCPServer("generated")
    server.tool()(function)
    (made,) = anyio.run(server.list_tools)
    return made


def test_there_are_exactly_the_13_tools() -> None:
    assert [tool.name for tool in TOOLS] == NAMES


@pytest.mark.parametrize("tool", TOOLS, ids=NAMES)
def test_schemas_are_those_that_the_sdk_generates(tool: Tool) -> None:
    sdk = generated(tool)
    described = tool.input_schema["properties"]
    bare = {name: {k: v for k, v in rule.items() if k != "description"} for name, rule in described.items()}
    assert {**tool.input_schema, "properties": bare} == sdk.input_schema
    assert tool.output_schema == sdk.output_schema
    assert "required" not in tool.input_schema


@pytest.mark.parametrize("tool", TOOLS, ids=NAMES)
def test_every_tool_and_argument_is_described_and_annotated(tool: Tool) -> None:
    assert tool.description
    assert "return" in tool.description.lower() or "answer" in tool.description.lower()
    assert all(rule["description"] for rule in tool.input_schema["properties"].values())
    assert tool.annotations is not None
    runs = tool.name in ("ssh_run", "ssh_run_on_tag", "ssh_run_async")
    stops = tool.name in ("ssh_cancel", "ssh_cancel_async_task")
    assert tool.annotations.read_only_hint is not (runs or stops or tool.name == "ssh_reload_config")
    assert tool.annotations.destructive_hint is (runs or stops)


@pytest.mark.parametrize("name", ["ssh_cancel", "ssh_cancel_async_task"])
def test_a_tool_that_cancels_says_what_it_does_where_ids_come_from_and_which_is_the_other_one(name: str) -> None:
    (tool,) = (tool for tool in TOOLS if tool.name == name)
    assert tool.description is not None
    for fact in ("terminated", "not undone", "Task not found", "signaled"):
        assert fact in tool.description
    assert ({"ssh_cancel", "ssh_cancel_async_task"} - {name}).pop() in tool.description
    assert "ssh_run" in tool.input_schema["properties"]["task_id"]["description"]


def test_the_six_prompts_speak_of_what_they_are_named_after() -> None:
    assert list(ssh_guides.PROMPTS) == PROMPTS
    texts = {name: text for name, (_, text) in ssh_guides.PROMPTS.items()}
    assert all("ssh" in text.lower() for text in texts.values())
    for name, words in {
        "ssh_orchestrator_usage": ("SSH Orchestrator", "ssh_plan", "ssh_run"),
        "ssh_policy_denied_guidance": ("policy", "denied"),
        "ssh_network_denied_guidance": ("network", "policy"),
        "ssh_missing_host_guidance": ("servers.yml", "host"),
        "ssh_missing_credentials_guidance": ("credentials.yml", "username"),
        "ssh_config_change_workflow": ("servers.yml", "credentials.yml", "policy.yml"),
    }.items():
        assert [word for word in words if word not in texts[name]] == []


def test_resources_show_hosts_without_credentials() -> None:
    web1 = {"alias": "web1", "host": "local", "description": "", "tags": ["web"], "has_credentials_ref": False}
    hosts = ssh_guides.read("ssh://hosts", INVENTORY, {})
    assert hosts is not None
    assert (hosts["count"], hosts["hosts"][0]) == (2, web1)
    assert ssh_guides.read("ssh://host/web1", INVENTORY, {}) == web1
    assert ssh_guides.read("ssh://host/web1/tags", INVENTORY, {}) == {"alias": "web1", "tags": ["web"]}
    able = ssh_guides.read("ssh://host/far/capabilities", INVENTORY, {"max_seconds": 60})
    assert able is not None
    assert (able["limits"], able["features"]["runs_commands"]) == ({"max_seconds": 60}, False)


@pytest.mark.parametrize(
    ("uri", "error"),
    [
        ("ssh://host/", "alias is required"),
        ("ssh://host/a%20b/tags", "alias contains invalid characters"),
        ("ssh://host/nope", "Host alias not found: nope"),
    ],
)
def test_a_resource_of_no_host_says_why(uri: str, error: str) -> None:
    facts = ssh_guides.read(uri, INVENTORY, {})
    assert facts is not None
    assert facts["error"].startswith(error)


@pytest.mark.parametrize("uri", ["ssh://nope", "ssh://host/web1/nope", "file:///etc/passwd"])
def test_there_is_nothing_at_any_other_address(uri: str) -> None:
    assert ssh_guides.read(uri, INVENTORY, {}) is None
