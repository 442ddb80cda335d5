"""The `trigger` dialect: fourteen tools of Trigger.dev's MCP server, and its words, with runs that are processes here.

Without a projectRef the one local project is meant, whereas the original looks for a trigger.config.ts.

Below: `trigger_runs`, `trigger_texts`, `trigger_tools`, `trigger_fixtures`, `serving`. Above: `cli.jobs`.
"""

from __future__ import annotations

__all__ = ["build"]

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

import msgspec
from jsonschema import ValidationError
from mcp_types import CallToolResult, Tool

from intercept_py.jobs.dialects import Options, zod
from intercept_py.jobs.dialects import trigger_fixtures as fixtures
from intercept_py.jobs.dialects import trigger_texts as texts
from intercept_py.jobs.dialects.trigger_runs import ApiError, Runs
from intercept_py.jobs.dialects.trigger_tools import TOOLS
from intercept_py.jobs.engine import Engine
from intercept_py.jobs.model import JobError
from intercept_py.jobs.serving import Context, Service, text_result
from intercept_py.model import Json, JsonObject

_FILTERS = {
    "cursor": "page[after]",
    "limit": "page[size]",
    "status": "filter[status]",
    "taskIdentifier": "filter[taskIdentifier]",
    "version": "filter[version]",
    "tag": "filter[tag]",
    "from": "filter[createdAt][from]",
    "to": "filter[createdAt][to]",
    "period": "filter[createdAt][period]",
    "machine": "filter[machine]",
    "region": "filter[region]",
}
"""The arguments of `list_runs`, and how the API calls them."""

_DEFAULT_TTL = "10m"
_INSTRUCTIONS = (
    "A local job backend with tools of Trigger.dev's MCP server. Runs are processes on this machine: start them with "
    "trigger_task, stop them with cancel_run."
)

_Handler: TypeAlias = Callable[[JsonObject, Context], Awaitable[str]]


class _RefusedError(Exception):
    """A failure that the original reports without a name; the text is for the agent."""


def build(engine: Engine, options: Options) -> Service:
    """The tools over the engine's runs."""
    tools = _Tools(Runs(engine, options.settings.root))
    return Service(
        name="trigger",
        version="4.8.3",
        tools=TOOLS,
        call=tools.call,
        refuse=_refuse,
        unknown=zod.unknown,
        instructions=_INSTRUCTIONS,
    )


class _Tools:
    def __init__(self, runs: Runs) -> None:
        self._runs = runs
        self._handlers: dict[str, _Handler] = {
            "search_docs": self._search_docs,
            "list_orgs": self._list_orgs,
            "list_projects": self._list_projects,
            "get_current_worker": self._get_current_worker,
            "list_runs": self._list_runs,
            "get_run_details": self._get_run_details,
            "list_deploys": self._list_deploys,
            "list_preview_branches": self._list_preview_branches,
            "create_project_in_org": self._create_project_in_org,
            "initialize_project": self._initialize_project,
            "trigger_task": self._trigger_task,
            "wait_for_run_to_complete": self._wait_for_run_to_complete,
            "cancel_run": self._cancel_run,
            "deploy": self._deploy,
        }

    async def call(self, name: str, arguments: JsonObject, context: Context) -> CallToolResult:
        """Answer with a text; failures are JSON in the original's form."""
        try:
            return text_result(await self._handlers[name](arguments, context))
        except (ApiError, JobError) as exc:
            return _failure({"name": "TriggerApiError", "message": str(exc)})
        except _RefusedError as exc:
            return _failure(str(exc))

    async def _trigger_task(self, arguments: JsonObject, _: Context) -> str:
        task, body = arguments["taskId"], {"payload": _parsed(arguments["payload"])}
        if "options" in arguments:
            body["options"] = {"ttl": _DEFAULT_TTL, **arguments["options"]}
        run = await self._runs.trigger(arguments["environment"], task, body)
        return texts.triggered(task, run["id"], _url(arguments, run["id"]))

    async def _list_runs(self, arguments: JsonObject, _: Context) -> str:
        given = {name: arguments[key] for key, name in _FILTERS.items() if arguments.get(key)}
        query = {name: value if isinstance(value, str) else texts.json_text(value) for name, value in given.items()}
        return texts.found(self._runs.list(arguments["environment"], query))

    async def _get_run_details(self, arguments: JsonObject, _: Context) -> str:
        environment, run_id = arguments["environment"], arguments["runId"]
        run = self._runs.retrieve(environment, run_id)
        trace = texts.trace_lines(self._runs.trace(environment, run_id)["trace"])
        most = max(1, int(arguments["maxTraceLines"]))
        return texts.details(run, trace, _line(arguments.get("cursor")), most, _url(arguments, run_id))

    async def _wait_for_run_to_complete(self, arguments: JsonObject, _: Context) -> str:
        seconds = max(0, arguments["timeoutInSeconds"])
        try:
            return texts.state(await self._runs.ended(arguments["environment"], arguments["runId"], seconds))
        except ApiError as exc:
            raise _RefusedError(str(exc)) from exc

    async def _cancel_run(self, arguments: JsonObject, context: Context) -> str:
        environment, run_id = arguments["environment"], arguments["runId"]
        await self._runs.cancel(environment, run_id, by=context.client)
        return texts.cancelled(self._runs.retrieve(environment, run_id), _url(arguments, run_id))

    async def _get_current_worker(self, arguments: JsonObject, _: Context) -> str:
        return texts.worker(self._runs.worker(fixtures.runs_url(_project(arguments))), arguments["environment"])

    async def _search_docs(self, arguments: JsonObject, _: Context) -> str:
        return fixtures.notes(arguments["query"])

    async def _list_orgs(self, _: JsonObject, __: Context) -> str:
        return texts.orgs(fixtures.ORGS)

    async def _list_projects(self, _: JsonObject, __: Context) -> str:
        return texts.projects(fixtures.PROJECTS)

    async def _list_deploys(self, _: JsonObject, __: Context) -> str:
        return "Found 0 deployments\n"

    async def _list_preview_branches(self, _: JsonObject, __: Context) -> str:
        return "No preview branches found."

    async def _initialize_project(self, arguments: JsonObject, _: Context) -> str:
        return fixtures.setup_guide(_project(arguments))

    async def _create_project_in_org(self, _: JsonObject, __: Context) -> str:
        raise _RefusedError(fixtures.refusal("has one project and creates none"))

    async def _deploy(self, _: JsonObject, __: Context) -> str:
        raise _RefusedError(fixtures.refusal("has nothing to deploy"))


def _refuse(tool: Tool, errors: Sequence[ValidationError], _: JsonObject) -> CallToolResult:
    """What zod would say; of a value that fits no member of a union it says no more than that."""
    found = []
    for error in errors:
        union = error.validator == "anyOf"
        found += [zod.Issue("Invalid input", tuple(error.absolute_path))] if union else zod.issues(tool, [error])
    order = list(tool.input_schema["properties"])
    return zod.invalid(tool.name, sorted(found, key=lambda issue: order.index(str(issue.path[0]))))


def _failure(error: Json) -> CallToolResult:
    return text_result(texts.json_text({"error": error}, indent=None), is_error=True)


def _project(arguments: JsonObject) -> str:
    return str(arguments.get("projectRef") or fixtures.PROJECT_REF)


def _url(arguments: JsonObject, run_id: str) -> str:
    return fixtures.run_url(_project(arguments), run_id)


def _line(cursor: str | None) -> int:
    """The number of the trace's line to begin with."""
    if not cursor:
        return 0
    if not cursor.isascii() or not cursor.isdigit() or len(cursor) > 9:
        raise ApiError(400, f"invalid cursor `{cursor[:40]}`: use the one of the page before")
    return int(cursor)


def _parsed(payload: Json) -> Json:
    """Agents write payloads as JSON texts although they are told not to."""
    try:
        return msgspec.json.decode(payload) if isinstance(payload, str) else payload
    except ValueError:
        return payload
    except RecursionError as exc:
        raise ApiError(400, "payload is nested too deeply") from exc
