"""The servers that the job engine can stand for, one module each.

A dialect's module has one public function for the command line:

    def build(engine: Engine, options: Options) -> serving.Service

A `Service` holds the tools (`mcp_types.Tool`: name, description, input_schema, output_schema, annotations), in the
order in which they are listed, and the coroutine `call(name, arguments, context) -> CallToolResult`. `serving` lists
the schemas as they are, checks arguments against them (`refuse` words what is wrong with them, see `zod` and
`pydantic_texts`), fills in the schema's defaults, and answers calls of other names with `unknown(name)`. So `call`
sees valid arguments only. It returns every failure as a result of its own wording; what it raises is a bug.
`context` can `log(level, data)` and report `progress(progress, total, message)`, and knows the `client`'s name. When
the client cancels a call (`notifications/cancelled`, or a dropped connection in the 2026-07-28 era over HTTP), the task
that runs `call` is cancelled: `except asyncio.CancelledError` may cancel a job (shielded) and must raise again.
Optional: `prompts` with `get_prompt`, `resources` and `resource_templates` with `read_resource`, `instructions`.

A dialect that is no MCP server (`asgi`) returns an ASGI application instead, and needs an address to listen on.

`build` raises `JobError` for options that it cannot use: one line, for the operator.

Below: `engine`, `recipes`, `serving`. Above: `cli.jobs`.
"""

from __future__ import annotations

__all__ = ["DIALECTS", "Dialect", "Options"]

import msgspec

from intercept_py.jobs.model import Settings


class Dialect(msgspec.Struct, frozen=True):
    """Where `build` is. `asgi`: it returns an ASGI application, not a `Service`."""

    module: str
    asgi: bool = False


class Options(msgspec.Struct, frozen=True):
    """What `build` gets besides the engine. `agent_async` is codex's, `servers` (a file) ssh's."""

    settings: Settings
    agent_async: bool = False
    servers: str | None = None


DIALECTS = {
    "orchestration": Dialect("intercept_py.jobs.dialects.orchestration"),
    "codex": Dialect("intercept_py.jobs.dialects.codex"),
    "trigger": Dialect("intercept_py.jobs.dialects.trigger"),
    "ssh": Dialect("intercept_py.jobs.dialects.ssh"),
    "trigger-rest": Dialect("intercept_py.jobs.dialects.rest_trigger", asgi=True),
}
