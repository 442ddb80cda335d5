"""A server on the SDK that goes on only when its client says that it has seen what came before.

`python -m tests.support.stepping_server stdio` speaks over stdin and stdout, `... http` says on stderr where it is
`listening on`.
"""

from __future__ import annotations

import sys

import anyio
from mcp.server import MCPServer
from mcp.server.mcpserver import Context

server = MCPServer("stepping")
seen: dict[str, anyio.Event] = {}


@server.tool()
async def steps(name: str, count: int, size: int, ctx: Context) -> str:
    """Report progress, each with a text of `size`, and wait after each until `saw` says that it has arrived."""
    for step in range(1, count + 1):
        seen[name] = anyio.Event()
        await ctx.report_progress(step, count, "x" * size)
        await seen[name].wait()
    return "done"


@server.tool()
async def saw(name: str) -> str:
    """Say that the last event of these steps has arrived."""
    seen[name].set()
    return "go on"


if __name__ == "__main__":
    if sys.argv[1] == "http":
        from tests.support.serving import serve

        serve(server.streamable_http_app())
    else:
        server.run("stdio")
