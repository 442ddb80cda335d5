"""What Trigger.dev's MCP server (4.8.3) says about runs: objects of its API to the text that agents read. Pure.

Below: nothing. Above: `trigger`.
"""

from __future__ import annotations

__all__ = [
    "cancelled",
    "details",
    "found",
    "json_text",
    "orgs",
    "projects",
    "state",
    "trace_lines",
    "triggered",
    "worker",
]

import json
from collections.abc import Iterator
from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal

from intercept_py.model import Json, JsonObject

WAIT_ADVICE = (
    "The run is now executing in the background. Do not wait for it to complete unless the user asked you to. If they "
    "did, use the wait_for_run_to_complete tool. Otherwise, use the get_run_details tool to check on it when needed."
)


def triggered(task: str, run_id: str, url: str) -> str:
    """The answer of `trigger_task`; `url` shows the run in the dashboard."""
    return (
        f"Task {task} triggered and run with ID created: {run_id}.\nView the run in the dashboard: {url}\n{WAIT_ADVICE}"
    )


def cancelled(run: JsonObject, url: str) -> str:
    """The answer of `cancel_run`.

    The first line is the original's, and says "canceled" of finished runs too: only `Status:` tells what is true.
    """
    lines = [f"Run {run['id']} canceled.", f"Status: {run['status']}", f"Task: {run['taskIdentifier']}"]
    return "\n".join([*lines, f"[View in dashboard]({url})"])


def state(run: JsonObject) -> str:
    """The answer of `wait_for_run_to_complete`; nothing but the status tells whether the run has ended."""
    lines = [f"Run {run['id']}", f"Task: {run['taskIdentifier']}", f"Status: {_status(run)}"]
    if _truthy(run.get("output")):
        lines.append(f"Output: {json_text(run['output'])}")
    lines += _error(run)
    lines.append(f"Created at: {_moment(run['createdAt'])}")
    if "finishedAt" in run:
        lines.append(f"Finished at: {_moment(run['finishedAt'])}")
    return "\n".join(lines)


def found(page: JsonObject) -> str:
    """The answer of `list_runs`."""
    runs = page["data"]
    lines = [f"Found {len(runs)} run{'' if len(runs) == 1 else 's'}", ""]
    if not runs:
        return "\n".join([*lines, "No runs found."])
    lines += [f"{number}. {_summary(run)}" for number, run in enumerate(runs, 1)]
    lines.append("")
    if after := page["pagination"].get("next"):
        lines += ["Pagination: Next page available →", f"Next cursor: {after}"]
    return "\n".join(lines)


def worker(body: JsonObject, environment: str) -> str:
    """The answer of `get_current_worker`."""
    facts = body["worker"]
    lines = [f"Current worker for {environment} is {facts['version']} using {facts['sdkVersion']} of the SDK."]
    lines.append(f"The worker has {len(facts['tasks'])} tasks registered:")
    lines += [f"- {task['slug']} in {task['filePath']}" for task in facts["tasks"]]
    lines += ["", "Use the `get_task_schema` tool with a task slug to get its payload schema.", "\n"]
    lines += ["URLs:", f"- Runs: {body['urls']['runs']}", "\n"]
    advice = (
        f"You can use the list_runs tool with the version {facts['version']} to get the list of runs for this worker."
    )
    return "\n".join([*lines, advice])


def orgs(found: list[JsonObject]) -> str:
    """The answer of `list_orgs`."""
    return "\n".join(
        f"- {org['title']} (id={org['id']}) (slug={org['slug']}) (createdAt={_date(org['createdAt'])})" for org in found
    )


def projects(found: list[JsonObject]) -> str:
    """The answer of `list_projects`, for projects of one organization."""
    org = found[0]["organization"]
    lines = [f"## Organization {org['title']} (id={org['id']}) (slug={org['slug']}) projects:"]
    for project in found:
        ident = f"(projectRef={project['externalRef']}) (slug={project['slug']})"
        lines.append(f"- {project['name']} {ident} (createdAt={_date(project['createdAt'])})")
    return "\n".join(lines)


def details(run: JsonObject, trace: list[str], first: int, most: int, url: str) -> str:
    """The answer of `get_run_details`: `most` lines of the trace from line `first` (0 is the first) on.

    The run itself is told on the first page only.
    """
    page, total = trace[first : first + most], len(trace)
    lines = [] if first else ["## Run Details", *_described(run), ""]
    lines.append(f"## Run Trace (lines {first + 1}-{first + len(page)} of {total})")
    lines.append("\n".join(page))
    if first + most < total:
        call = f'Call `get_run_details` again with `cursor: "{first + most}"` and `runId: "{run["id"]}"`'
        lines += ["", f"**More trace available.** {call} to see the next page."]
    if not first:
        lines += ["", f"[View in dashboard]({url})"]
    return "\n".join(lines)


def trace_lines(trace: JsonObject) -> list[str]:
    """The whole trace as lines, for `details` to page through."""
    text = "\n".join([f"Trace ID: {trace['traceId']}", "", *_span(trace["rootSpan"], 0)])
    return text.split("\n")


def json_text(value: Json, indent: int | None = 2) -> str:
    """JSON as JavaScript writes it: whole numbers without a fraction, and keys that look like indexes first."""
    separators = (",", ": ") if indent else (",", ":")
    return json.dumps(_ordered(value), indent=indent, separators=separators, ensure_ascii=False)


def _described(run: JsonObject) -> Iterator[str]:
    yield f"Run {run['id']}"
    yield f"Task: {run['taskIdentifier']}"
    yield f"Status: {_status(run)}"
    yield f"Timing: {', '.join(_timing(run))}"
    if run["durationMs"] > 0:
        yield f"Duration: {_duration(run['durationMs'])}"
    if run.get("version"):
        yield f"Version: {run['version']}"
    if run["tags"]:
        yield f"Tags: {', '.join(run['tags'])}"
    yield from _error(run)
    if run.get("ttl"):
        yield f"TTL: {run['ttl']}"
    for name in ("payload", "output"):
        if _truthy(run.get(name)):
            yield f"{name.capitalize()}: {json_text(run[name])}"


def _timing(run: JsonObject) -> Iterator[str]:
    for name in ("created", "started", "finished"):
        if f"{name}At" in run:
            yield f"{name} {_moment(run[f'{name}At'])}"


def _summary(run: JsonObject) -> str:
    when = next(name for name in ("finished", "started", "created") if f"{name}At" in run)
    parts = [run["id"], run["taskIdentifier"], _status(run), f"env:{run['env']['name']}"]
    parts.append(f"{when} {_moment(run[f'{when}At'])}")
    if run["durationMs"] > 0:
        parts.append(f"took {_duration(run['durationMs'])}")
    if tags := run["tags"]:
        parts.append(f"tags:[{', '.join(tags[:2])}{f'+{len(tags) - 2}' if len(tags) > 2 else ''}]")
    if run.get("version"):
        parts.append(f"v{run['version']}")
    return " | ".join(parts)


def _span(span: JsonObject, depth: int) -> Iterator[str]:
    indent, data = "  " * depth, span["data"]
    yield f"{indent}{'├─' if depth else '└─'} [{span['id']}] {data['message']} {_flag(data)}"
    yield f"{indent}   Duration: {_duration(data['duration'] / 1_000_000)}"
    yield f"{indent}   Started: {_moment(data['startTime'])}"
    if "taskSlug" in data:
        yield f"{indent}   Task: {data['taskSlug']}"
    if data.get("properties"):
        text = json_text(data["properties"]).replace("\n", f"\n{indent}     ")
        yield f"{indent}   Properties: {text}"
    for child in span["children"]:
        yield ""
        yield from _span(child, depth + 1)


def _flag(data: JsonObject) -> str:
    flags = {"isCancelled": "[CANCELLED]", "isError": "[ERROR]", "isPartial": "[PARTIAL]"}
    return next((text for name, text in flags.items() if data[name]), "[COMPLETED]")


def _error(run: JsonObject) -> list[str]:
    return [f"Error: {run['error']['name']}: {run['error']['message']}"] if "error" in run else []


def _status(run: JsonObject) -> str:
    return str(run["status"]).lower().replace("_", " ")


def _moment(iso: str) -> str:
    """`2026-11-21 08:45:42 UTC` for `2026-11-21T08:45:42.123Z`."""
    return f"{iso[:10]} {iso[11:19]} UTC"


def _date(iso: str) -> str:
    """A date as JavaScript prints one where the clocks show UTC."""
    return f"{datetime.fromisoformat(iso):%a %b %d %Y %H:%M:%S} GMT+0000 (Coordinated Universal Time)"


def _duration(milliseconds: float) -> str:
    if milliseconds < 1000:
        return f"{json_text(milliseconds)}ms"
    for unit, size, bound in (("s", 1000, 60_000), ("m", 60_000, 3_600_000)):
        if milliseconds < bound:
            return f"{_one_decimal(milliseconds / size)}{unit}"
    return f"{_one_decimal(milliseconds / 3_600_000)}h"


def _one_decimal(number: float) -> str:
    """JavaScript rounds a half up, Python's formats to the even digit."""
    return str(Decimal(number).quantize(Decimal("0.1"), ROUND_HALF_UP))


def _truthy(value: Json) -> bool:
    """JavaScript's idea of it: an empty list or object is true."""
    return isinstance(value, list | dict) or bool(value)


def _ordered(value: Json) -> Json:
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, list):
        return [_ordered(item) for item in value]
    if isinstance(value, dict):
        indexes = sorted((key for key in value if _is_index(key)), key=int)
        names = (key for key in value if not _is_index(key))
        return {key: _ordered(value[key]) for key in (*indexes, *names)}
    return value


def _is_index(key: str) -> bool:
    return key.isascii() and key.isdigit() and str(int(key)) == key and int(key) < 2**32 - 1
