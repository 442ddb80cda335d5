"""The reference servers from npm behind the proxy: everything they offer is the same, but what a policy refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support import npm
from tests.support.wire import StartDirect, StartProxy, Wire, denial, text_of

pytestmark = pytest.mark.node

FILES = """
default: deny
tools:
  read_text_file:
    rules:
      - name: only public files
        action: allow
        conditions: [{{path: args.path, op: path_under, value: "{public}"}}]
        reason: only files in the public folder may be read
      - {{action: allow, validate: {{schema: true, unknown_args: deny}}}}
  list_directory: {{}}
"""


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A directory with a public and a private file."""
    for name in ("public", "private"):
        (tmp_path / "files" / name).mkdir(parents=True)
        (tmp_path / "files" / name / "note.txt").write_text(f"a {name} note")
    return tmp_path / "files"


@pytest.fixture
def guarded_files(proxy: StartProxy, files: Path) -> Wire:
    wire = proxy(FILES.format(public=files / "public"), npm.filesystem(files))
    wire.initialize()
    return wire


def both(
    proxy: StartProxy, direct: StartDirect, command: list[str], policy: str, capabilities: dict[str, Any] | None = None
) -> tuple[Wire, Wire]:
    """The server behind the proxy and the server alone, both after the same handshake."""
    proxied, alone = proxy(policy, command), direct(command)
    assert proxied.initialize(capabilities=capabilities) == alone.initialize(capabilities=capabilities)
    return proxied, alone


@pytest.mark.parametrize("capabilities", [{}, {"sampling": {}, "elicitation": {}, "roots": {"listChanged": True}}])
def test_everything_lists_the_same_tools_through_the_proxy(
    proxy: StartProxy, direct: StartDirect, capabilities: dict[str, Any]
) -> None:
    proxied, alone = both(proxy, direct, npm.everything(), "default: allow\n", capabilities)
    listed = alone.list_tools()
    assert len(listed) >= 13
    assert proxied.list_tools() == listed


def test_everything_lacks_hidden_tools_and_nothing_else(proxy: StartProxy, direct: StartDirect) -> None:
    proxied, alone = both(proxy, direct, npm.everything(), 'default: allow\nhide: [get-env, "*-image"]\n')
    kept = [tool for tool in alone.list_tools() if tool["name"] not in ("get-env", "get-tiny-image")]
    assert proxied.list_tools() == kept


REQUESTS: list[tuple[str, dict[str, Any]]] = [
    ("prompts/list", {}),
    ("prompts/get", {"name": "simple-prompt"}),
    ("resources/list", {}),
    ("resources/templates/list", {}),
    ("resources/read", {"uri": "demo://resource/dynamic/nothing"}),
    ("ping", {}),
    ("logging/setLevel", {"level": "debug"}),
    ("tools/call", {"name": "get-sum", "arguments": {"a": 2, "b": 0.5}}),
    ("tools/call", {"name": "get-tiny-image", "arguments": {}}),
    ("tools/call", {"name": "get-structured-content", "arguments": {"location": "Chicago"}}),
    ("tools/call", {"name": "get-resource-links", "arguments": {"count": 3}}),
    ("tools/call", {"name": "no-such-tool", "arguments": {}}),
    ("tools/call", {"name": "get-sum", "arguments": {"a": "two"}}),
    ("no/such/method", {}),
]


def test_everything_answers_every_kind_of_request_the_same_through_the_proxy(
    proxy: StartProxy, direct: StartDirect
) -> None:
    proxied, alone = both(proxy, direct, npm.everything(), "default: allow\n")
    for method, params in REQUESTS:
        assert proxied.request(method, params) == alone.request(method, params), (method, params)


def test_progress_of_a_long_running_operation_reaches_the_client(proxy: StartProxy) -> None:
    wire = proxy("default: allow\n", npm.everything())
    wire.initialize()
    arguments = {"duration": 0.01, "steps": 3}
    params = {"name": "trigger-long-running-operation", "arguments": arguments, "_meta": {"progressToken": "mine"}}
    ident = wire.start("tools/call", params)
    sent = [wire.other("notifications/progress")["params"] for _ in range(3)]
    assert [progress["progress"] for progress in sent] == [1, 2, 3]
    assert {progress["progressToken"] for progress in sent} == {"mine"}
    assert "completed" in text_of(wire.answer_to(ident))


def test_a_denied_tool_with_an_output_schema_is_denied_as_text(proxy: StartProxy) -> None:
    policy = "tools: {get-structured-content: {rules: [{name: no weather, action: deny, reason: not today}]}}\n"
    wire = proxy(policy, npm.everything())
    wire.initialize()
    assert denial(wire.call("get-structured-content", {"location": "Chicago"})) == "not today; rule `no weather`"


def test_the_filesystem_server_lists_the_same_tools_through_the_proxy(
    proxy: StartProxy, direct: StartDirect, files: Path
) -> None:
    proxied, alone = both(proxy, direct, npm.filesystem(files), "default: allow\n")
    assert proxied.list_tools() == alone.list_tools()


def test_a_file_in_the_public_folder_is_read(guarded_files: Wire, files: Path) -> None:
    answer = guarded_files.call("read_text_file", {"path": str(files / "public" / "note.txt")})
    assert text_of(answer) == "a public note"


def test_a_file_outside_the_public_folder_is_not_read(guarded_files: Wire, files: Path) -> None:
    for path in ("private/note.txt", "public/../private/note.txt", "public/./../private/note.txt"):
        reason = denial(guarded_files.call("read_text_file", {"path": f"{files}/{path}"}))
        assert reason == "only files in the public folder may be read; rule `only public files`"


def test_a_file_is_not_written_where_the_policy_lists_no_writing(guarded_files: Wire, files: Path) -> None:
    target = files / "public" / "new.txt"
    denial(guarded_files.call("write_file", {"path": str(target), "content": "x"}))
    assert not target.exists()


def test_arguments_that_the_servers_own_schema_refuses_are_denied(guarded_files: Wire, files: Path) -> None:
    path = str(files / "public" / "note.txt")
    assert "head" in denial(guarded_files.call("read_text_file", {"path": path, "head": "many"}))
    assert "heads" in denial(guarded_files.call("read_text_file", {"path": path, "heads": 1}))


@pytest.mark.parametrize("command", ["everything", "filesystem"])
def test_the_server_ends_with_the_proxy(proxy: StartProxy, files: Path, command: str) -> None:
    wire = proxy("default: allow\n", npm.everything() if command == "everything" else npm.filesystem(files))
    wire.initialize()
    assert wire.finish() == 0
