"""A server on the official SDK that uses what a proxy could break.

Structured output, progress, cancellation, questions to the client (server requests in the legacy era, `input_required`
results in the modern one) and subscriptions. It speaks over stdin and stdout; `python -m tests.support.sdk_server http`
speaks Streamable HTTP on a free loopback port.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from typing import Annotated

import anyio
from mcp.server.mcpserver import Context, Elicit, MCPServer, Resolve, Sample
from mcp_types import CreateMessageResult, SamplingMessage, TextContent
from pydantic import BaseModel

server = MCPServer("sdk-server", version="1.0.0", log_level="WARNING")
hanging: defaultdict[str, anyio.Event] = defaultdict(anyio.Event)
cancelled: defaultdict[str, anyio.Event] = defaultdict(anyio.Event)


class Sum(BaseModel):
    total: int


class Name(BaseModel):
    name: str


async def _ask_name() -> Elicit[Name]:
    return Elicit("who are you?", Name)


async def _ask_model() -> Sample:
    question = SamplingMessage(role="user", content=TextContent(type="text", text="what is the answer?"))
    return Sample([question], max_tokens=10)


@server.tool()
def add(a: int, b: int) -> Sum:
    """Add two numbers; has an output schema."""
    return Sum(total=a + b)


@server.tool()
def say(text: str) -> str:
    """Answer with the same text."""
    return text


@server.tool()
def break_it() -> str:
    """Fail as tools fail."""
    raise ValueError("the tool is broken")


@server.tool()
async def count(steps: int, ctx: Context) -> str:
    """Report progress for every step."""
    for step in range(1, steps + 1):
        await ctx.report_progress(step, steps, f"step {step}")
    return "counted"


@server.tool()
async def hang(name: str) -> None:
    """Never answer; `hanging` is set while it runs, `cancelled` once the client has cancelled it."""
    hanging[name].set()
    try:
        await anyio.sleep_forever()
    finally:
        cancelled[name].set()


@server.tool()
async def await_hanging(name: str) -> str:
    """Answer as soon as `hang` runs."""
    await hanging[name].wait()
    return "hanging"


@server.tool()
async def await_cancelled(name: str) -> str:
    """Answer as soon as `hang` was cancelled."""
    await cancelled[name].wait()
    return "cancelled"


@server.tool()
async def greet(person: Annotated[Name, Resolve(_ask_name)]) -> str:
    """Ask the user for a name."""
    return f"hello {person.name}"


@server.tool()
async def consult(reply: Annotated[CreateMessageResult, Resolve(_ask_model)]) -> str:
    """Ask the client's model."""
    assert isinstance(reply.content, TextContent)
    return f"the model says {reply.content.text}"


@server.tool()
async def change(ctx: Context) -> str:
    """Tell subscribers that the list of tools and one resource have changed."""
    await ctx.notify_tools_changed()
    await ctx.notify_resource_updated("note://one")
    return "changed"


@server.resource("note://one")
def note() -> str:
    """Give a text to read."""
    return "a note"


@server.prompt()
def review(code: str) -> str:
    """Give a prompt to fill."""
    return f"review {code}"


if __name__ == "__main__":
    if sys.argv[1:] == ["http"]:
        from tests.support.serving import serve  # over stdio this is also run where `tests` cannot be imported

        serve(server.streamable_http_app())
    else:
        server.run("stdio")
