"""The tasks of the `trigger` dialect are the recipes: what payloads they take, and what those mean as arguments. Pure.

A payload is `{"args": [...]}`, a list of arguments, one argument, or an object with the names of `PARAMETERS`:
`{"seconds": 30}`, `[30]`, `30` and `"30"` are the same to `sleep`.

Above: `trigger_objects`, `trigger_runs`.
"""

from __future__ import annotations

__all__ = ["PARAMETERS", "PayloadError", "arguments", "payload_schema"]

from intercept_py.model import Json, JsonObject

PARAMETERS: dict[str, tuple[str, ...]] = {
    "sleep": ("seconds",),
    "count": ("n", "seconds"),
    "flood": ("mb",),
    "fail": ("code",),
    "stubborn": ("seconds",),
    "forker": ("seconds",),
    "ask": ("question",),
    "echo": ("text",),
}
"""The arguments of each task by name, in their order."""

_TEXTS = ("question", "text")


class PayloadError(Exception):
    """A payload that the task does not take; the text is one line for people."""


def arguments(task: str, payload: Json) -> list[str]:
    """What the recipe `task` gets for `payload`; whether it is enough is for the recipe to say."""
    if isinstance(payload, dict):
        values = payload["args"] if set(payload) == {"args"} else _named(task, payload)
    else:
        values = [] if payload is None else payload
    return [_argument(task, value) for value in (values if isinstance(values, list) else [values])]


def payload_schema(task: str) -> JsonObject:
    """JSON Schema of the object form, for `get_task_schema`."""
    names = PARAMETERS[task]
    properties = {name: {"type": "string" if name in _TEXTS else "number"} for name in names}
    return {"type": "object", "properties": properties, "required": [names[0]], "additionalProperties": False}


def _named(task: str, payload: JsonObject) -> list[Json]:
    names = PARAMETERS[task]
    if unknown := sorted(set(payload) - set(names)):
        raise PayloadError(f"payload of `{task}` has no `{unknown[0]}`: use {_usage(task)}")
    if names[: len(payload)] != tuple(name for name in names if name in payload):
        raise PayloadError(f"payload of `{task}` lacks `{names[0]}`: use {_usage(task)}")
    return [payload[name] for name in names if name in payload]


def _argument(task: str, value: Json) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise PayloadError(f"payload of `{task}` may hold texts and numbers only: use {_usage(task)}")
    return str(int(value) if isinstance(value, float) and value.is_integer() else value)


def _usage(task: str) -> str:
    names = ", ".join(f'"{name}": ...' for name in PARAMETERS[task])
    return f'{{{names}}} or {{"args": [...]}}'
