"""Whether a result that claims success is a failure all the same, as the `outcome` of a policy's entries sees it.

Many servers report failures as ordinary results (`isError: false`): an `error` key, a text that starts with `Error:`.
This changes what the audit says, never a decision or an answer. Below: `paths`, `rules`. Above: `matching`.
"""

from __future__ import annotations

__all__ = ["compile_failure"]

from collections.abc import Callable, Iterator, Mapping
from typing import Final

import msgspec

from intercept_py.model import Failure, Json
from intercept_py.policy.arguments import printable
from intercept_py.policy.paths import MISSING, walk
from intercept_py.policy.rules import Condition

_LONGEST: Final = 200


def compile_failure(conditions: tuple[Condition, ...]) -> Failure | None:
    """The question whether one of them holds, None without any. Whatever a server sends, asking does not raise.

    The answer names the first that holds by path and operator, which the policy's author wrote: nothing of the result.
    """
    if not conditions:
        return None
    tests = [(_named(one), one.path, one.holds, one.op == "exists" and one.holds(None)) for one in conditions]

    def failure(result: Json) -> str | None:
        if type(result) is dict and result.get("resultType") == "input_required":
            return None  # MCP 2026-07-28: the server asks back, the call has not ended
        parts: dict[str, Json] = {}
        for name, path, holds, absent in tests:
            if path.root not in parts:
                parts[path.root] = _PARTS[path.root](result)
            value = walk(parts[path.root], path.steps)
            if absent if value is MISSING else holds(value):
                return name
        return None

    return failure


def _named(condition: Condition) -> str:
    return f"{printable(condition.path.text, _LONGEST)} {condition.op}"


# -- what a condition can look at --------------------------------------------------------------------------------------


def _texts(result: Json) -> Iterator[str]:
    content = result.get("content") if type(result) is dict else None
    for block in content if type(content) is list else ():
        if type(block) is dict and block.get("type") == "text" and type(block.get("text")) is str:
            yield block["text"]


def _text(result: Json) -> Json:
    texts = list(_texts(result))
    return "\n".join(texts) if texts else MISSING


def _json(result: Json) -> Json:
    try:
        return msgspec.json.decode(next(_texts(result), ""))
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return MISSING


def _structured(result: Json) -> Json:
    return result.get("structuredContent", MISSING) if type(result) is dict else MISSING


_PARTS: Final[Mapping[str, Callable[[Json], Json]]] = {"text": _text, "json": _json, "structured": _structured}
"""The roots of paths into a result. Each is worked out once for a result, and only if a condition asks."""
