"""How the demo uses each dialect's tools: one row a dialect, and the policies that are made from it. Pure.

Above: `stage`, `scenario`, `scale`, `demo`.
"""

from __future__ import annotations

__all__ = ["DEFAULT", "DIALECTS", "Dialect", "Words", "policy", "scale_policy"]

from collections.abc import Callable

import msgspec

from intercept_py.model import JsonObject


class Words(msgspec.Struct, frozen=True):
    """What a server calls jobs that have ended."""

    succeeded: str = "completed"
    failed: str = "failed"
    cancelled: str = "cancelled"


class Dialect(msgspec.Struct, frozen=True):
    """The tools that start a job, look at it and cancel it, and one that agents should not have.

    `arguments(recipe, directory)` are those of `start`. `job_id`, `running`, `ended` and `cancelled` are patterns to be
    searched for in the text of an answer: of `start`, `look`, `look` and `cancel`. `job_id` has the id as its group,
    `ended` the word for how the job ended. `required` is for the policy: what `cancel` must be called with.
    """

    start: str
    look: str
    cancel: str
    hidden: str
    id_argument: str
    arguments: Callable[[str, str], JsonObject]
    job_id: str
    cancelled: str
    running: str = r'"status": "running"'
    ended: str = r'"status": "(completed|failed|cancelled)"'
    words: Words = Words()
    required: str = "true"


def _spawn_run(recipe: str, directory: str) -> JsonObject:
    return {"backend": "codex", "role": "worker", "session_mode": "new", "prompt": recipe, "cwd": directory}


def _codex_start(recipe: str, directory: str) -> JsonObject:
    return {"prompt": recipe, "cwd": directory}


def _trigger_task(recipe: str, _: str) -> JsonObject:
    task, *arguments = recipe.split()
    return {"taskId": task, "payload": {"args": arguments}}


def _ssh_run_async(recipe: str, _: str) -> JsonObject:
    return {"alias": "local", "command": recipe}


DIALECTS = {
    "trigger": Dialect(
        start="trigger_task",
        look="get_run_details",
        cancel="cancel_run",
        hidden="deploy",
        id_argument="runId",
        arguments=_trigger_task,
        job_id=r"run with ID created: (run_\w+)",
        cancelled=r"(?m)^Status: CANCELED$",
        running=r"(?m)^Status: executing$",
        ended=r"(?m)^Status: (.+)\nTiming: .* finished ",  # a run that is being stopped is `canceled` already
        words=Words(cancelled="canceled"),
    ),
    "orchestration": Dialect(
        start="spawn_run",
        look="get_run",
        cancel="cancel_run",
        hidden="continue_run",
        id_argument="run_id",
        arguments=_spawn_run,
        job_id=r'"run_id": "([^"]+)"',
        cancelled=r'"status": "cancelled"',
        required="[run_id]",
    ),
    "codex": Dialect(
        start="codex_start",
        look="codex_poll",
        cancel="codex_cancel",
        hidden="codex_list",
        id_argument="job_id",
        arguments=_codex_start,
        job_id=r'"job_id": "([^"]+)"',
        cancelled=r'"status": "cancelled"',
        ended=r'"status": "(done|error|cancelled)"',
        words=Words(succeeded="done", failed="error"),
    ),
    "ssh": Dialect(
        start="ssh_run_async",
        look="ssh_get_task_status",
        cancel="ssh_cancel_async_task",
        hidden="ssh_run_on_tag",
        id_argument="task_id",
        arguments=_ssh_run_async,
        job_id=r'"task_id": "([^"]+)"',
        cancelled=r'"cancelled": true',
        required="[task_id]",  # its schemas require nothing
    ),
}
DEFAULT = "trigger"
"""Its policy is the published one word for word."""

_POLICY = """\
version: "1"
description: ten cancels a minute and session, and no {hidden}
default: deny
hide: [{hidden}]
tools:
  {start}: {{}}
  {look}: {{}}
  {cancel}:
    rules:
      - action: allow
        rate_limit:
          max: 10
          window: 60
        validate:
          required_args: {required}
"""
_SCALE_POLICY = """\
version: "1"
description: more calls than any demo makes, but every one is counted
default: deny
tools:
  {start}:
    rules: [{{rate_limit: 100000/hour}}]
  {look}:
    rules: [{{rate_limit: 10000000/hour}}]
  {cancel}:
    rules:
      - rate_limit: 100000/hour
        validate: {{required_args: {required}}}
"""


def policy(dialect: Dialect) -> str:
    """Ten cancels a minute: the rule of the dialect's ready-made policy."""
    return _filled(_POLICY, dialect)


def scale_policy(dialect: Dialect) -> str:
    """Limits that are counted and not reached."""
    return _filled(_SCALE_POLICY, dialect)


def _filled(text: str, dialect: Dialect) -> str:
    tools = {name: getattr(dialect, name) for name in ("start", "look", "cancel", "hidden", "required")}
    return text.format_map(tools)
