"""What an agent sees: three runs are started and cancelled through the proxy, and the third cancel is denied.

python examples/client.py [AUDIT-FILE]
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile

from mcp import Client, StdioServerParameters
from mcp_types import TextContent

POLICY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "jobs-policy.yaml")
INTERCEPT = [sys.executable, "-m", "intercept_py"]


async def main(directory: str, audit: list[str]) -> None:
    """Start the proxy as any client does: the server's own command stands behind `--`."""
    server = [*INTERCEPT, "jobs", "serve", "--dialect", "orchestration", "--state-dir", directory, "--root", directory]
    options = ["-c", POLICY, *(["--audit", *audit] if audit else [])]
    command, *arguments = [*INTERCEPT, "run", *options, "--", *server]
    proxy = StdioServerParameters(command=command, args=arguments, env=dict(os.environ))
    async with Client(proxy) as client:
        print("tools:", ", ".join(tool.name for tool in (await client.list_tools()).tools))
        for name in ("first", "second", "third"):
            work = {"backend": "codex", "role": "worker", "session_mode": "new", "prompt": "sleep 60", "cwd": directory}
            run = (await client.call_tool("spawn_run", work)).structured_content or {}
            answer = await client.call_tool("cancel_run", {"run_id": run["run_id"]})
            text = next(block.text for block in answer.content if isinstance(block, TextContent))
            print(f"{name}:", text if answer.is_error else json.loads(text)["status"])


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        asyncio.run(main(os.path.realpath(made), sys.argv[1:2]))
