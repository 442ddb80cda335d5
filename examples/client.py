"""What an agent sees: three runs are started and cancelled through the proxy, and the third cancel is denied.

python examples/client.py [AUDIT-FILE]
"""

from __future__ import annotations

import asyncio
import json
import os
import sys

from mcp import Client, StdioServerParameters
from mcp_types import TextContent

POLICY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "jobs-policy.yaml")


async def main(audit: list[str]) -> None:
    """Start the proxy as any client does: the server's own command stands behind `--`."""
    options = ["-c", POLICY, *(["--audit", *audit] if audit else [])]
    server = [sys.executable, "-m", "intercept_py.jobs.demo_server"]
    proxy = StdioServerParameters(
        command=sys.executable, args=["-m", "intercept_py", "run", *options, "--", *server], env=dict(os.environ)
    )
    async with Client(proxy) as client:
        print("tools:", ", ".join(tool.name for tool in (await client.list_tools()).tools))
        for task in ("first", "second", "third"):
            run = (await client.call_tool("spawn_run", {"task": task})).structured_content or {}
            answer = await client.call_tool("cancel_run", {"run_id": run["run_id"]})
            text = next(block.text for block in answer.content if isinstance(block, TextContent))
            print(f"{task}:", text if answer.is_error else json.loads(text)["status"])


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:2]))
