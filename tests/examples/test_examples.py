"""Every example is run, as far as it can be without an account: only the server behind `--` is replaced."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest
from mcp import Client, StdioServerParameters
from mcp_types import TextContent

from intercept_py import policy_file
from intercept_py.model import Effect, JsonObject, Tool, ToolCall
from intercept_py.policy import pdp
from tests.support import npm
from tests.support.commands import echo_server
from tests.support.wire import StartProxy, denial, text_of

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
FILES = policy_file.read(str(EXAMPLES / "first-policy.yaml"))
PATH = {"path": {"type": "string"}}
WRITE = {"type": "object", "properties": {**PATH, "content": {"type": "string"}}, "required": ["path", "content"]}
NOTE = {"path": "/project/notes/plan.md", "content": "# Plan"}


def test_every_example_is_known_to_these_tests() -> None:
    found = {path.relative_to(EXAMPLES).as_posix() for path in EXAMPLES.rglob("*") if path.is_file()}
    assert {name for name in found if "__pycache__" not in name} == {
        "asgi.py",
        "client.py",
        "first-policy.yaml",
        "gateway/gateway.yaml",
        "gateway/github.yaml",
        "gateway/intercept-gateway.service",
        "jobs-policy.yaml",
        "mcp/claude.json",
        "mcp/cursor.json",
        "mcp/vscode.json",
        "servers.yml",
    }


def test_the_client_is_told_why_its_third_cancel_is_denied(tmp_path: Path) -> None:
    audit = tmp_path / "audit.jsonl"
    command = [sys.executable, str(EXAMPLES / "client.py"), str(audit)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    tools, first, second, third = result.stdout.splitlines()
    assert tools == "tools: spawn_run, list_runs, cancel_run"
    assert (first, second) == ("first: cancelled", "second: cancelled")
    assert third.startswith("third: [INTERCEPT POLICY DENIED] two cancels a minute are enough; ask a person")
    assert audit.stat().st_size


def test_the_proxy_serves_inside_another_application(tmp_path: Path) -> None:
    paths = {"JOBS": str(tmp_path / "jobs"), "AUDIT": str(tmp_path / "audit.jsonl")}
    command = [sys.executable, "-m", "uvicorn", "--app-dir", str(EXAMPLES), "--port", "0", "asgi:app"]
    with uvicorn(command, tmp_path, paths) as url:
        assert urllib.request.urlopen(f"{url}/", timeout=20).read() == b"tools are at /tools/mcp"

        async def use() -> list[str]:
            async with Client(f"{url}/tools/mcp") as client:
                return [tool.name for tool in (await client.list_tools()).tools]

        assert anyio.run(use) == ["spawn_run", "list_runs", "cancel_run"]
    events = [json.loads(line).get("event") for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert events[-1] == "stop"


@contextmanager
def uvicorn(command: list[str], folder: Path, environment: dict[str, str]) -> Iterator[str]:
    """The URL of what the command serves. SIGTERM ends it."""
    quiet = [*command, "--no-access-log"]  # nobody reads what it says later
    process = subprocess.Popen(quiet, env=os.environ | environment, stderr=subprocess.PIPE, cwd=folder, text=True)
    try:
        assert process.stderr is not None
        found = next(filter(None, map(re.compile(r"running on (\S+)").search, process.stderr)), None)
        assert found is not None, "it ended"
        yield found[1]
        process.terminate()
        _, said = process.communicate(timeout=30)
        assert process.returncode in (0, -signal.SIGTERM), said  # uvicorn raises it again when all is done
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("tool", "arguments", "words"),
    [
        ("read_text_file", {"path": "/project/a.py"}, None),
        ("list_directory", {"path": "/project"}, None),
        ("write_file", NOTE, None),
        ("write_file", {**NOTE, "path": "/project/main.py"}, "only Markdown files"),
        ("write_file", {**NOTE, "path": "/project/notes.md/../main.py"}, "only Markdown files"),
        ("write_file", {**NOTE, "content": "x" * 20_001}, "only Markdown files"),
        ("write_file", {"path": "/project/notes/plan.md"}, "content"),
        ("edit_file", {"path": "/project/main.py"}, "write a new file"),
        ("move_file", {"path": "/project/main.py"}, ""),
        ("create_directory", {"path": "/project/new"}, ""),
    ],
)
def test_the_first_policy_decides_as_its_comments_say(tool: str, arguments: JsonObject, words: str | None) -> None:
    schema = WRITE if tool == "write_file" else {"type": "object", "properties": PATH}
    decision = pdp.decide(FILES, ToolCall(name=tool, arguments=arguments, tool=Tool(tool, schema)))
    if words is None:
        assert decision.effect is Effect.ALLOW, decision.finding
    else:
        assert decision.effect is Effect.DENY
        assert decision.finding is not None
        assert words in decision.finding.reason


@pytest.mark.node
def test_the_first_policy_governs_the_real_file_system_server(proxy: StartProxy, tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    wire = proxy(EXAMPLES / "first-policy.yaml", npm.filesystem(tmp_path / "project"))
    wire.initialize()
    assert "move_file" not in {tool["name"] for tool in wire.list_tools()}
    note = str(tmp_path / "project/plan.md")
    wire.call("write_file", {"path": note, "content": "# Plan"})
    assert text_of(wire.call("read_text_file", {"path": note})) == "# Plan"
    script = {"path": str(tmp_path / "project/main.py"), "content": "print()"}
    assert "only Markdown files" in denial(wire.call("write_file", script))
    assert not (tmp_path / "project/main.py").exists()


@pytest.mark.anyio
@pytest.mark.parametrize("client", ["claude", "cursor", "vscode"])
async def test_a_clients_configuration_starts_the_proxy_in_front_of_the_server(client: str, tmp_path: Path) -> None:
    document = json.loads((EXAMPLES / f"mcp/{client}.json").read_text())
    ((name, server),) = (document.get("mcpServers") or document["servers"]).items()
    assert name == "trigger"
    assert server["command"] == "intercept-py"
    options, upstream = split([expanded(argument, tmp_path) for argument in server["args"]])
    assert upstream == ["npx", "-y", "trigger.dev@4.8.3", "mcp"]
    replaced = echo_server("--tools", str(ROOT / "tests/data/trigger-dev-4.8.3-tools.json"))
    parameters = StdioServerParameters(
        command=sys.executable,
        args=["-m", "intercept_py", *options, "--", *replaced],
        env={**os.environ, **server["env"]},
        cwd=ROOT,
    )
    async with Client(parameters) as agent:
        assert len((await agent.list_tools()).tools) == 54
        assert not (await agent.call_tool("cancel_run", {"runId": "run_abc"})).is_error
        answer = await agent.call_tool("cancel_run", {"runId": "../../v1/whoami?x="})
        assert isinstance(answer.content[0], TextContent)
        assert answer.content[0].text.startswith("[INTERCEPT POLICY DENIED] runId must be a run id")
    assert (tmp_path / ".intercept/trigger.jsonl").stat().st_mode & 0o777 == 0o600


def expanded(argument: str, home: Path) -> str:
    """What the client makes of its variables."""
    values = {"${HOME}": str(home), "${userHome}": str(home), "${workspaceFolder}": str(ROOT)}
    for variable, value in values.items():
        argument = argument.replace(variable, value)
    assert "${" not in argument
    return argument


def split(arguments: list[str]) -> tuple[list[str], list[str]]:
    """The proxy's own arguments, and the server's command."""
    end = arguments.index("--")
    return arguments[:end], arguments[end + 1 :]
