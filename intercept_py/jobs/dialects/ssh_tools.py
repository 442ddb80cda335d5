"""The ssh tools as a client lists them: names, descriptions, schemas, annotations. Data.

Above: `ssh`. Every argument has a default and none is required, and a result is an object or a text: so
mcp-ssh-orchestrator has it, in the schemas that its SDK generates from `-> dict | str`.
"""

from __future__ import annotations

__all__ = ["TOOLS"]

from typing import Final

from mcp_types import Tool, ToolAnnotations

from intercept_py.model import JsonObject

_ALIAS = "A host's alias, as ssh_list_hosts returns it: up to 100 letters, digits, dots, dashes or underscores."
_COMMAND = "What to run, up to 10000 characters; ssh_plan tells whether it is allowed."
_TAG = "A tag of servers.yml (see ssh_describe_host): up to 50 letters, digits, dots, dashes or underscores."
_TASK = "The task_id that ssh_run_async returned."
_RUN = "The task_id of a blocking command: in the log message ssh_run_task_created, sent before the command ends."
_LINES = "How many lines to return at most, 1 to 1000."

_READS = ToolAnnotations(read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False)
_RUNS = ToolAnnotations(read_only_hint=False, destructive_hint=True, idempotent_hint=False, open_world_hint=True)
_STOPS = ToolAnnotations(read_only_hint=False, destructive_hint=True, idempotent_hint=True, open_world_hint=False)
_RELOADS = ToolAnnotations(read_only_hint=False, destructive_hint=False, idempotent_hint=True, open_world_hint=False)

_DENIED = (
    'A refused command starts nothing and is answered with a JSON text: {"status":"denied","reason":"policy" or '
    '"network",...,"hint"}.'
)


def _text(title: str, description: str) -> JsonObject:
    return {"default": "", "title": title, "type": "string", "description": description}


def _tool(name: str, annotations: ToolAnnotations, description: str, **arguments: JsonObject) -> Tool:
    either = [{"additionalProperties": True, "type": "object"}, {"type": "string"}]
    return Tool(
        name=name,
        description=description,
        annotations=annotations,
        input_schema={"type": "object", "properties": arguments, "title": f"{name}Arguments"},
        output_schema={
            "properties": {"result": {"anyOf": either, "title": "Result"}},
            "required": ["result"],
            "title": f"{name}Output",
            "type": "object",
        },
    )


_HOST = {"alias": _text("Alias", _ALIAS)}
_RUN_ON_HOST = {**_HOST, "command": _text("Command", _COMMAND)}
_TASK_ID = {"task_id": _text("Task Id", _TASK)}

TOOLS: Final = (
    _tool(
        "ssh_ping",
        _READS,
        'Check that this server answers. Touches no host. Returns {"status":"pong"}.',
    ),
    _tool(
        "ssh_list_hosts",
        _READS,
        "List the aliases of all hosts in servers.yml. Connects to none of them. "
        'Returns {"hosts":[alias, ...]}; the other tools take an alias from this list.',
    ),
    _tool(
        "ssh_describe_host",
        _READS,
        "Describe one host of servers.yml: address, description, tags. Does not connect to it. "
        "An unknown alias is answered with a text that starts with `Error:`.",
        **_HOST,
    ),
    _tool(
        "ssh_plan",
        _READS,
        "Tell whether a command would be allowed on a host, and within which limits, without running it. Use it before "
        "ssh_run and ssh_run_async. Returns alias, command, hash, allowed and limits; if not allowed also why, hint "
        "and denied_command.",
        **_RUN_ON_HOST,
    ),
    _tool(
        "ssh_run",
        _RUNS,
        "Run a command on one host and wait until it has ended (60 s at most, then it is stopped). Changes whatever "
        "the command changes. For anything longer than a few seconds use ssh_run_async instead. The task_id is "
        "announced at once in the log message ssh_run_task_created; while this call waits, ssh_cancel with that id, or "
        "cancelling the request, stops the command and all that it started. Returns task_id, alias, hash, exit_code "
        f"(-1: ended by a signal), duration_ms, cancelled, timeout, target_ip and output. {_DENIED}",
        **_RUN_ON_HOST,
    ),
    _tool(
        "ssh_run_on_tag",
        _RUNS,
        "Run one command on every host that carries a tag, at the same time, and wait until all have ended. One call "
        "changes many machines: check the tag with ssh_list_hosts and ssh_describe_host first, and prefer ssh_run for "
        'one host. Returns {"tag","results":[one per host, as ssh_run returns it, or its refusal with exit_code -1]}; '
        'without a matching host "results" is empty and "note" says so.',
        tag=_text("Tag", _TAG),
        command=_text("Command", _COMMAND),
    ),
    _tool(
        "ssh_cancel",
        _STOPS,
        "Stop a command that an ssh_run or ssh_run_on_tag call is still waiting for: the command and every process it "
        "started are terminated, by force if need be, and what they did is not undone. Answers at once with "
        '{"task_id","cancelled","message"}: cancelled true means signaled, and the waiting call then returns with '
        "cancelled true. cancelled false with `Task not found` means that no call waits for this id: the command has "
        "ended, the id is wrong, or it is an asynchronous task, for which ssh_cancel_async_task is the right tool. "
        "A blank or malformed id is answered with a text that starts with `Error:`.",
        task_id=_text("Task Id", _RUN),
    ),
    _tool(
        "ssh_reload_config",
        _RELOADS,
        "Read servers.yml again, so that changed hosts and tags count from now on; commands that run are not touched. "
        'Use it only after the file was changed. Returns {"status":"reloaded"}, or {"status":"error","error"} with '
        "the place of every mistake; then the hosts stay as they were.",
    ),
    _tool(
        "ssh_run_async",
        _RUNS,
        "Start a command on one host and return at once, with a task_id for the ssh_get_task_ tools and "
        "ssh_cancel_async_task. Changes whatever the command changes; it is stopped after 60 s. For a command of a "
        "moment ssh_run is simpler. Returns task_id, status `pending`, keepAlive (seconds that the result is kept "
        "after the end), pollFrequency (seconds between two looks), alias, command and hash. Log messages tell "
        f"`task <id> created`, then one of completed, failed or cancelled. {_DENIED}",
        **_RUN_ON_HOST,
    ),
    _tool(
        "ssh_get_task_status",
        _READS,
        "Look at an asynchronous task without waiting: status is pending, running, completed (exit code 0), failed or "
        "cancelled, the last three final. cancel_requested is true while a cancelled task has not stopped yet. Also "
        "returns progress_percent, elapsed_ms, bytes_read and output_lines_available. Not for ssh_run. A task that is "
        "unknown, or ended longer ago than keepAlive, is answered with `Error: Task not found: <id>`.",
        **_TASK_ID,
    ),
    _tool(
        "ssh_get_task_result",
        _READS,
        "Fetch the result of an asynchronous task that has ended: status, exit_code, duration_ms, output, cancelled, "
        "timeout, target_ip and max_seconds. Ask ssh_get_task_status first: a task that still runs, is unknown, or "
        "ended longer ago than keepAlive is answered with `Error: Task not found or expired: <id>`.",
        **_TASK_ID,
    ),
    _tool(
        "ssh_get_task_output",
        _READS,
        "Read the last lines that an asynchronous task has printed, also while it runs. Returns task_id, output_lines, "
        "total_lines and has_more (there are earlier lines). For the exit code use ssh_get_task_result.",
        **_TASK_ID,
        max_lines={"default": 50, "title": "Max Lines", "type": "integer", "description": _LINES},
    ),
    _tool(
        "ssh_cancel_async_task",
        _STOPS,
        "Stop an asynchronous task: if it runs, the command and every process it started are terminated, by force if "
        "need be, and what they did is not undone; if it is pending, it never starts. Answers at once with "
        '{"task_id","cancelled","message"}: cancelled true means signaled, and ssh_get_task_status says `cancelled` '
        "once no process is left. cancelled false with `Task not found or not cancellable` means that the task has "
        "ended, was cancelled before, or is unknown. A task_id of ssh_run is unknown here: use ssh_cancel. "
        "A blank or malformed id is answered with a text that starts with `Error:`.",
        **_TASK_ID,
    ),
)
