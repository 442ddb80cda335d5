"""How dialects are served: both transports and eras, refusals, notifications, cancellation, and how a server ends."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client, MCPError, StdioServerParameters
from mcp_types import (
    CallToolResult,
    GetPromptResult,
    LoggingMessageNotificationParams,
    Prompt,
    PromptMessage,
    ReadResourceResult,
    Resource,
    ResourceTemplate,
    TextContent,
    TextResourceContents,
    Tool,
)

from intercept_py.jobs.dialects import pydantic_texts
from intercept_py.jobs.gate import BODY_LIMIT
from intercept_py.jobs.serving import Context, Service, build_server, mcp_app, over_http, text_result
from intercept_py.model import JsonObject
from tests.support import web
from tests.support.jobs import Listening, alive, command, dialect, facts, gone, listening, processes_of, root_of, text

pytestmark = pytest.mark.anyio

MODES = ("legacy", "2026-07-28")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listening]:
    """A server for several tests."""
    with listening("codex", tmp_path_factory.mktemp("shared")) as server:
        yield server


class Talker:
    """A dialect with one tool that says what it is told to, and one that hangs."""

    def __init__(self) -> None:
        self.hanging = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.context: Context | None = None

    async def call(self, name: str, arguments: JsonObject, context: Context) -> CallToolResult:
        if name == "hang":
            self.hanging.set()
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
        self.context = context
        await context.log("info", {"said": arguments["word"]})
        await context.progress(50, 100, "half")
        return text_result(f"{context.client}: {arguments['word']} {arguments['times']}")

    def service(self) -> Service:
        say = {
            "type": "object",
            "properties": {"word": {"type": "string"}, "times": {"type": "integer", "default": 3}},
            "required": ["word"],
        }
        prompt, resource = Prompt(name="greet"), Resource(name="note", uri="note://one")
        return Service(
            name="talker",
            version="1",
            tools=(Tool(name="say", input_schema=say), Tool(name="hang", input_schema={"type": "object"})),
            call=self.call,
            refuse=pydantic_texts.refuse,
            unknown=pydantic_texts.unknown,
            prompts=(prompt,),
            get_prompt=_greet,
            resources=(resource,),
            resource_templates=(ResourceTemplate(name="notes", uri_template="note://{name}"),),
            read_resource=_read,
        )


async def _greet(name: str, arguments: Any) -> GetPromptResult:
    if name != "greet":
        raise MCPError(code=-32602, message=f"Unknown prompt: {name}")
    content = TextContent(type="text", text=f"hello {arguments.get('name')}")
    return GetPromptResult(messages=[PromptMessage(role="user", content=content)])


async def _read(uri: str) -> ReadResourceResult:
    return ReadResourceResult(contents=[TextResourceContents(uri=uri, text="a note")])


@asynccontextmanager
async def over_the_wire(talker: Talker, mode: str, **client: Any) -> AsyncIterator[Client]:
    """The talker over HTTP, with a client."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/mcp"
        served = over_http(mcp_app(talker.service(), "127.0.0.1"), listener)
        async with served, Client(url, mode=mode, cache=None, **client) as connected:
            yield connected


@pytest.mark.parametrize("mode", MODES)
async def test_a_call_can_log_and_report_progress_while_it_is_answered(mode: str) -> None:
    logged, reported = [], []

    async def log(params: LoggingMessageNotificationParams) -> None:
        logged.append(params.data)

    async def report(progress: float, total: float | None, message: str | None) -> None:
        reported.append((progress, total, message))

    talker = Talker()
    async with over_the_wire(talker, mode, logging_callback=log, log_level="info") as client:
        result = await client.call_tool("say", {"word": "hi"}, progress_callback=report)
        assert text(result) == "mcp: hi 3"
        assert (logged, reported) == ([{"said": "hi"}], [(50, 100, "half")])
        await client.call_tool("say", {"word": "quiet"})
        assert len(reported) == 1
        assert talker.context is not None
        await talker.context.progress(100)
        await talker.context.log("info", "later")
        await client.call_tool("say", {"word": "end"})
    assert ("later" in logged) == (mode == "legacy")
    assert len(reported) == 1


@pytest.mark.parametrize("mode", MODES)
async def test_cancelling_a_call_cancels_what_answers_it(mode: str) -> None:
    talker = Talker()
    with anyio.fail_after(20):
        async with over_the_wire(talker, mode) as client:
            async with anyio.create_task_group() as group:
                group.start_soon(client.call_tool, "hang", {})
                await talker.hanging.wait()
                group.cancel_scope.cancel()
            await talker.cancelled.wait()


async def test_prompts_and_resources_are_served_where_a_dialect_has_them() -> None:
    async with Client(build_server(Talker().service())) as client:
        assert [prompt.name for prompt in (await client.list_prompts()).prompts] == ["greet"]
        (greeting,) = (await client.get_prompt("greet", {"name": "Ada"})).messages
        assert isinstance(greeting.content, TextContent)
        assert greeting.content.text == "hello Ada"
        with pytest.raises(MCPError, match="Unknown prompt: nope"):
            await client.get_prompt("nope")
        assert [str(resource.uri) for resource in (await client.list_resources()).resources] == ["note://one"]
        templates = (await client.list_resource_templates()).resource_templates
        assert [template.uri_template for template in templates] == ["note://{name}"]
        (note,) = (await client.read_resource("note://two")).contents
        assert isinstance(note, TextResourceContents)
        assert (str(note.uri), note.text) == ("note://two", "a note")


async def test_what_is_refused_is_a_result_in_the_words_of_the_dialect() -> None:
    async with Client(build_server(Talker().service())) as client:
        unknown = await client.call_tool("nope", {})
        assert (unknown.is_error, text(unknown)) == (True, "Unknown tool: nope")
        missing = await client.call_tool("say", {})
        assert missing.is_error
        assert text(missing).startswith("Error executing tool say: 1 validation error for sayArguments\nword\n")
        several = await client.call_tool("say", {"word": 1, "times": "many"})
        assert text(several).count("\n  Input should be a valid ") == 2


@pytest.mark.parametrize(("times", "told"), [(5.0, "5"), (-0.0, "0"), (1e3, "1000"), (7, "7")])
async def test_an_integer_may_be_written_with_a_fraction_of_nothing(times: float, told: str) -> None:
    """To JSON Schema `5.0` is an integer; to what counts with it, it must be one too."""
    async with Client(build_server(Talker().service())) as client:
        result = await client.call_tool("say", {"word": "hi", "times": times})
        assert text(result) == f"mcp: hi {told}"
        assert (await client.call_tool("say", {"word": "hi", "times": 5.5})).is_error


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_a_dialect_is_served_over_http_in_both_eras(shared: Listening, mode: str) -> None:
    async with Client(shared.url, mode=mode) as client:
        job = facts(await client.call_tool("codex_start", {"prompt": "sleep 60", "cwd": str(root_of(shared.path))}))
        assert facts(await client.call_tool("codex_cancel", {"job_id": job["job_id"]}))["killed"] is True
    async with Client(shared.url, mode=mode) as another:
        newest = facts(await another.call_tool("codex_list", {}))["result"][0]
        assert (newest["job_id"], newest["status"]) == (job["job_id"], "cancelled")


async def test_over_http_strangers_and_giants_are_refused(shared: Listening) -> None:
    async with web.client() as http:
        rebound = await http.post(shared.url, json={}, headers={"Host": "evil.example"})
        assert rebound.status_code == 421
        foreign = await http.post(shared.url, json={}, headers={"Origin": "http://evil.example"})
        assert foreign.status_code == 403
        giant = await http.post(shared.url, content=b" " * (BODY_LIMIT + 1))
        assert giant.status_code == 413
        lost = await http.post(shared.url.removesuffix("/mcp"), json={})
        assert lost.status_code == 404


async def test_lines_that_are_no_messages_do_not_disturb_a_client(tmp_path: Path) -> None:
    path = tmp_path / "noisy.sh"
    noise = "import os; os.write(1, b'nonsense\\n\\xff\\n{}\\n' + b'x' * (17 << 20) + b'\\n')"
    path.write_text(f'{{ {sys.executable} -c "{noise}"; exec cat; }} | exec {" ".join(command("codex", tmp_path))}\n')
    server = StdioServerParameters(command="sh", args=[str(path)], env=dict(os.environ))
    with anyio.fail_after(30):
        async with Client(server, mode="legacy") as client:
            assert facts(await client.call_tool("codex_list", {})) == {"result": []}


async def test_when_its_client_hangs_up_the_server_and_its_jobs_end(tmp_path: Path) -> None:
    async with dialect("codex", tmp_path) as client:
        job = facts(await client.call_tool("codex_start", {"prompt": "stubborn 60", "cwd": str(root_of(tmp_path))}))
        assert alive(job["pid"])
    gone(job["pid"])
    assert processes_of(tmp_path, job["job_id"]) == []
    async with dialect("codex", tmp_path) as client:
        known = facts(await client.call_tool("codex_poll", {"job_id": job["job_id"]}))
        assert known["status"] == "cancelled"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (None, 0)])
async def test_a_server_ends_with_the_status_of_a_shell(
    tmp_path: Path, number: signal.Signals | None, status: int
) -> None:
    process = subprocess.Popen(
        command("codex", tmp_path), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b'{"jsonrpc":"2.0","id":1,"method":"ping"}\n')
        process.stdin.flush()
        assert b'"id":1' in process.stdout.readline()
        if number is None:
            process.stdin.close()
        else:
            process.send_signal(number)
        assert process.wait(20) == status
        assert process.stderr is not None
        assert process.stderr.read() == b""


async def test_a_call_that_waits_is_answered_when_the_server_is_told_to_end(tmp_path: Path) -> None:
    with listening("codex", tmp_path, "--agent-async") as server:
        async with Client(server.url, mode="legacy") as client:
            arguments = {"prompt": "ask who?", "cwd": str(root_of(tmp_path))}
            job = facts(await client.call_tool("codex_start", arguments))["job_id"]
            answers: list[dict[str, Any]] = []

            async def wait() -> None:
                answers.append(facts(await client.call_tool("codex_wait", {"job_id": job})))

            async with anyio.create_task_group() as group:
                group.start_soon(wait)
                await client.call_tool("queue_status", {})  # answered after the other one has begun
                server.process.terminate()
            assert answers[0]["status"] == "cancelled"
            assert server.process.wait(20) == 143
            assert server.process.stderr is not None
            assert server.process.stderr.read() == ""  # though the client still listens for messages
