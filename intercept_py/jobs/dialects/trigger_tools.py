"""The tools of the `trigger` dialect: schemas, titles and hints as Trigger.dev's MCP server 4.8.3 lists them. Pure.

The descriptions of the tools are ours. They say what a call changes, where its ids come from and what its answer means.

Above: `trigger`.
"""

from __future__ import annotations

__all__ = ["TOOLS"]

from mcp_types import Tool, ToolAnnotations, ToolExecution

from intercept_py.model import JsonObject

_SAFE = 9_007_199_254_740_991
_DATE = (
    r"(?:(?:\d\d[2468][048]|\d\d[13579][26]|\d\d0[48]|[02468][048]00|[13579][26]00)-02-29|\d{4}-(?:(?:0[13578]|1[02])-"
    r"(?:0[1-9]|[12]\d|3[01])|(?:0[469]|11)-(?:0[1-9]|[12]\d|30)|(?:02)-(?:0[1-9]|1\d|2[0-8])))"
)
_DATE_TIME = rf"^{_DATE}T(?:(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d+)?(?:Z))$"
_MACHINES = ["micro", "small-1x", "small-2x", "medium-1x", "medium-2x", "large-1x", "large-2x"]
_RUN_STATUSES = [
    "PENDING_VERSION", "QUEUED", "DEQUEUED", "EXECUTING", "WAITING", "COMPLETED", "CANCELED", "FAILED", "CRASHED",
    "SYSTEM_FAILURE", "DELAYED", "EXPIRED", "TIMED_OUT",
]  # fmt: skip
_DEPLOY_STATUSES = ["PENDING", "BUILDING", "DEPLOYING", "DEPLOYED", "FAILED", "CANCELED", "TIMED_OUT"]


def _text(description: str | None = None, **more: object) -> JsonObject:
    return {"type": "string", **more, **({} if description is None else {"description": description})}


def _integer(description: str, **more: object) -> JsonObject:
    return {**more, "type": "integer", "minimum": -_SAFE, "maximum": _SAFE, "description": description}


def _texts(description: str) -> JsonObject:
    return {"type": "array", "items": {"type": "string"}, "description": description}


def _moment(description: str) -> JsonObject:
    either = [{"type": "string"}, {"type": "string", "format": "date-time", "pattern": _DATE_TIME}]
    return {"anyOf": either, "description": description}


def _lifetime(description: str, **more: object) -> JsonObject:
    integer = {"type": "integer", "minimum": -_SAFE, "maximum": _SAFE}
    return {**more, "anyOf": [{"type": "string"}, integer], "description": description}


def _tool(name: str, title: str, description: str, schema: JsonObject, writes: bool = False) -> Tool:
    return Tool(
        name=name,
        description=description,
        input_schema={"$schema": "http://json-schema.org/draft-07/schema#", "type": "object", **schema},
        annotations=ToolAnnotations(title=title, read_only_hint=not writes, destructive_hint=writes),
        execution=ToolExecution(task_support="forbidden"),
    )


def _takes(*required: str, **properties: JsonObject) -> JsonObject:
    return {"properties": properties, **({"required": list(required)} if required else {})}


_ORG = _text(
    "The organization to create the project in, can either be the organization slug or the ID. Use the list_orgs tool "
    "to get a list of organizations and ask the user to select one."
)
_PROJECT = _text(
    "The trigger.dev project ref, starts with proj_. We will attempt to automatically detect the project ref if "
    "running inside a directory that includes a trigger.config.ts file, or if you pass the --project-ref option to "
    "the MCP server."
)
_CONFIG = _text(
    "The path to the trigger.config.ts file. Only used when the trigger.config.ts file is not at the root dir (like "
    "in a monorepo setup). If not provided, we will try to find the config file in the current working directory"
)
_BRANCH = _text(
    "The branch to get tasks for, only used for preview environments and branchable development environments"
)
_ENVIRONMENT = {
    "default": "dev",
    **_text("The environment to get tasks for", enum=["dev", "staging", "prod", "preview"]),
}
_COMMON = {"projectRef": _PROJECT, "configPath": _CONFIG, "environment": _ENVIRONMENT, "branch": _BRANCH}
_RUN = {**_COMMON, "runId": _text("The ID of the run to get the details of, starts with run_")}
_DEPLOY = {"projectRef": _PROJECT, "configPath": _CONFIG, "branch": _BRANCH}

_OPTIONS: JsonObject = {
    "type": "object",
    "properties": {
        "queue": {
            "type": "object",
            "properties": {
                "name": _text(
                    "The name of the queue to trigger the task in, by default will use the queue configured in the task"
                )
            },
            "required": ["name"],
        },
        "delay": _moment("The delay before the task run is executed"),
        "idempotencyKey": _text("The idempotency key to use for the task run"),
        "machine": _text("The machine preset to use for the task run", enum=_MACHINES),
        "maxAttempts": _integer("The maximum number of attempts to retry the task run"),
        "maxDuration": {"type": "number", "description": "The maximum duration in seconds of the task run"},
        "region": _text(
            "The region to run the task in, overriding the default region set for the project. Available regions are "
            "listed on the Regions page in the dashboard, and this has no effect in the dev environment"
        ),
        "tags": _texts("Tags to add to the task run. Must be less than 128 characters and cannot have more than 5"),
        "ttl": _lifetime(
            "The time to live of the task run. If the run doesn't start executing within this time, it will be "
            "automatically cancelled.",
            default="10m",
        ),
    },
}

TOOLS = (
    _tool(
        "search_docs",
        "Search Docs",
        "Search this server's notes on how to use it. Reads only; the documentation of Trigger.dev is not here. "
        "Answers with the notes that contain all words of the query.",
        _takes("query", query=_text()),
    ),
    _tool(
        "list_orgs",
        "List Organizations",
        "List the organizations: this local server has one. Reads only. Its id and slug are what create_project_in_org "
        "and initialize_project take as orgParam.",
        _takes(),
    ),
    _tool(
        "list_projects",
        "List Projects",
        "List the projects: this local server has one, and all runs are in it. Reads only. The projectRef in the "
        "answer is what other tools take; they use it when they get none.",
        _takes(),
    ),
    _tool(
        "get_current_worker",
        "Get Current Worker",
        "List the tasks that can be triggered. Reads only. The names in the answer are the taskId of trigger_task.",
        _takes(**_COMMON),
    ),
    _tool(
        "list_runs",
        "List Runs",
        "List the runs of one environment, newest first, with status and times; dev unless environment says otherwise. "
        "Reads only. The ids in the answer, run_..., are what the other run tools take as runId; 25 runs to a page.",
        _takes(
            **_COMMON,
            cursor=_text("The cursor to use for pagination, starts with run_"),
            limit=_integer("The number of runs to list in a single page. Up to 100"),
            status=_text("Filter for runs with this run status", enum=_RUN_STATUSES),
            taskIdentifier=_text("Filter for runs that match this task identifier"),
            version=_text("Filter for runs that match this version, e.g. 20250808.3"),
            tag=_text("Filter for runs that include this tag"),
            **{"from": _text("Filter for runs created after this ISO 8601 timestamp")},
            to=_text("Filter for runs created before this ISO 8601 timestamp"),
            period=_text("Filter for runs created in the last N time period. e.g. 7d, 30d, 365d"),
            machine=_text("Filter for runs that match this machine preset", enum=_MACHINES),
            region=_text(
                "Filter for runs that executed in this region (the worker instance group masterQueue identifier, e.g. "
                "'us-east-1' or 'main')"
            ),
        ),
    ),
    _tool(
        "get_run_details",
        "Get Run Details",
        "Show one run: status, times, payload, output, error, and a trace of what happened. Reads only. runId comes "
        "from trigger_task or list_runs. A run that is canceled but has no finish time is still being stopped. Long "
        "traces come in pages: pass the cursor of one answer to get the next.",
        _takes(
            "runId",
            **_RUN,
            maxTraceLines=_integer(
                "The maximum number of trace lines per page. Defaults to 200. Use the `cursor` parameter to fetch "
                "subsequent pages.",
                default=200,
            ),
            cursor=_text(
                "Pagination cursor returned from a previous get_run_details call. Pass this to fetch the next page of "
                "trace events."
            ),
        ),
    ),
    _tool(
        "list_deploys",
        "List Deploys",
        "List deployments. Reads only. This local server cannot deploy, so there are none.",
        _takes(
            **_DEPLOY,
            environment={
                "default": "prod",
                **_text("The environment to list deploys for", enum=["staging", "prod", "preview"]),
            },
            **{"from": _text("The date to start the search from, in ISO 8601 format")},
            to=_text("The date to end the search, in ISO 8601 format"),
            period=_text("The period to search within (e.g. 1d, 7d, 3h, etc.)"),
            status=_text("Filter deployments that are in this status", enum=_DEPLOY_STATUSES),
            cursor=_text("The deployment ID to start the search from, to get the next page"),
            limit={
                "type": "number",
                "minimum": 1,
                "maximum": 100,
                "description": "The number of deployments to return, defaults to 20 (max 100)",
            },
        ),
    ),
    _tool(
        "list_preview_branches",
        "List Preview Branches",
        "List preview branches. Reads only. This local server has none.",
        _takes(projectRef=_PROJECT, configPath=_CONFIG),
    ),
    _tool(
        "create_project_in_org",
        "Create Project in Organization",
        "Refused by this local server, which has one project and creates none. Changes nothing; use list_projects to "
        "get the projectRef that exists.",
        _takes("orgParam", "name", orgParam=_ORG, name=_text("The name of the project to create.")),
        writes=True,
    ),
    _tool(
        "initialize_project",
        "Initialize Project",
        "Tell how to use this local server's project. Changes nothing: it writes no file and creates no project.",
        _takes(
            "orgParam",
            "projectName",
            orgParam=_ORG,
            projectRef=_PROJECT,
            projectName=_text(
                "The name of the project to create. If projectRef is not provided, we will use this name to create a "
                "new project in the organization you select."
            ),
            cwd=_text("The current working directory of the project"),
        ),
        writes=True,
    ),
    _tool(
        "trigger_task",
        "Trigger Task",
        "Start a run of a task: a real process on this machine, in the background. taskId comes from "
        "get_current_worker. Answers at once with the id of the run, which cancel_run, get_run_details and "
        "wait_for_run_to_complete take. Every call starts another run, unless options.idempotencyKey is the same.",
        _takes(
            "taskId",
            "payload",
            **_COMMON,
            taskId=_text(
                "The ID/slug of the task to trigger. Use the get_tasks tool to get a list of tasks and ask the user to "
                "select one if it's not clear which one to use."
            ),
            payload={
                "description": "The payload to trigger the task with. Should match the task's payload schema. Not a "
                "JSON string, but the actual payload object"
            },
            options=_OPTIONS,
        ),
        writes=True,
    ),
    _tool(
        "wait_for_run_to_complete",
        "Wait for Run to Complete",
        "Wait until a run has ended, 60 seconds unless timeoutInSeconds says otherwise, and show it. Changes nothing: "
        "a run that is not waited for goes on. runId comes from trigger_task or list_runs. The run has ended if the "
        "answer has a finish time; otherwise the time was over first.",
        _takes(
            "runId",
            **_RUN,
            timeoutInSeconds={
                "default": 60,
                "type": "number",
                "description": "The maximum time in seconds to wait for the run to complete. If the run doesn't "
                "complete within this time, the current state of the run will be returned. Defaults to 60 seconds.",
            },
        ),
    ),
    _tool(
        "cancel_run",
        "Cancel Run",
        "Stop a run and every process that it started; this cannot be undone. runId comes from trigger_task or "
        "list_runs. Answers at once, while the processes are still being stopped: the run has stopped when "
        "get_run_details shows a finish time. A run that has ended is not changed, and the answer's first line says "
        "canceled even so: what became of it is in the line Status.",
        _takes("runId", **_RUN),
        writes=True,
    ),
    _tool(
        "deploy",
        "Deploy",
        "Refused by this local server, which has nothing to deploy. Changes nothing.",
        _takes(
            "environment",
            **_DEPLOY,
            environment=_text(
                "The environment to deploy to. There is no default: if the user hasn't said which environment, ask "
                "them. Deploying to prod changes the version that live runs use.",
                enum=["staging", "prod", "preview"],
            ),
            **{
                name: {"type": "boolean", "description": description}
                for name, description in (
                    ("skipPromotion", "Skip promoting the deployment to the current deployment for the environment"),
                    ("skipSyncEnvVars", "Skip syncing environment variables when using the syncEnvVars extension"),
                    ("skipUpdateCheck", "Skip checking for @trigger.dev package updates"),
                )
            },
        ),
        writes=True,
    ),
)
