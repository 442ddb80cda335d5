"""The MCP Inspector's command line as a client of the proxy.

It takes the first `--` of a command for itself, so the proxy is started without one: its options end where the command
begins.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support import npm
from tests.support.wire import DENIED

pytestmark = pytest.mark.node

POLICY = """
hide: [get-env]
tools:
  get-sum:
    rules: [{name: small numbers, action: allow, conditions: [{path: args.a, op: lt, value: 100}]}]
"""


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY)
    return policy


def inspect(*arguments: str) -> dict[str, Any]:
    """What the Inspector prints for this command line."""
    done = subprocess.run(npm.inspector(*arguments), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def guarded(policy: Path) -> list[str]:
    return [sys.executable, "-m", "intercept_py", "-c", str(policy), *npm.everything()]


def call(policy: Path, tool: str, *arguments: str) -> dict[str, Any]:
    given = [word for argument in arguments for word in ("--tool-arg", argument)]
    return inspect(*guarded(policy), "--method", "tools/call", "--tool-name", tool, *given)


def test_the_inspector_lists_the_tools_that_are_not_hidden(policy: Path) -> None:
    listed = inspect(*npm.everything(), "--method", "tools/list")["tools"]
    kept = [tool for tool in listed if tool["name"] != "get-env"]
    assert len(kept) == len(listed) - 1
    assert inspect(*guarded(policy), "--method", "tools/list")["tools"] == kept


def test_the_inspector_prints_the_result_of_an_allowed_call(policy: Path) -> None:
    assert call(policy, "get-sum", "a=2", "b=3")["content"][0]["text"] == "The sum of 2 and 3 is 5."


def test_the_inspector_prints_the_reason_of_a_denial(policy: Path) -> None:
    result = call(policy, "get-sum", "a=200", "b=3")
    assert result["isError"] is True
    assert result["content"][0]["text"].startswith(DENIED)
    assert "rule `small numbers`" in result["content"][0]["text"]


def test_the_inspector_starts_the_proxy_from_a_configuration_file(policy: Path, tmp_path: Path) -> None:
    command, *arguments = guarded(policy)
    servers = {"mcpServers": {"guarded": {"command": command, "args": arguments, "env": {"SECRET": "x"}}}}
    config = tmp_path / "mcp.json"
    config.write_text(json.dumps(servers))
    chosen = ("--config", str(config), "--server", "guarded")
    result = inspect(*chosen, "--method", "tools/call", "--tool-name", "get-env")
    assert result["isError"] is True
    assert result["content"][0]["text"].startswith(DENIED)
