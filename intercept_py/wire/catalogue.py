"""What the server offers: `tools/list` results, read for schemas and filtered for the client.

Pure. A result that cannot be read is a `ProtocolError`, never an unfiltered list.
"""

from __future__ import annotations

__all__ = ["MAX_TOOLS", "Catalogue", "filter_page", "read_page"]

from collections.abc import Callable, Iterable

import msgspec

from intercept_py.errors import ProtocolError
from intercept_py.model import NO_TOOL, JsonObject, Tool
from intercept_py.wire import codec, messages

MAX_TOOLS = 10_000
"""Bound of the catalogue: a server that lists more is not understood, so calls that need a schema are denied."""

_decode = msgspec.json.Decoder().decode


class Catalogue:
    """The tools a server lists, by name. Unknown until a complete listing arrived, and again after a change of it.

    `failed`: the server was asked and gave none. Who can do without does not ask again before it is forgotten.
    """

    def __init__(self) -> None:
        self.failed = False
        self._tools: dict[str, Tool] | None = None

    @property
    def known(self) -> bool:
        """Whether a complete listing is at hand."""
        return self._tools is not None

    def lookup(self, name: str) -> Tool | None:
        """The tool; `NO_TOOL` when the server does not list it; None while its list is unknown."""
        return None if self._tools is None else self._tools.get(name, NO_TOOL)

    def replace(self, tools: Iterable[Tool]) -> None:
        """Take a complete listing."""
        self.failed = False
        self._tools = {tool.name: tool for tool in tools}

    def amend(self, tools: Iterable[Tool]) -> None:
        """Take what the client was shown: calls are judged by the schemas that the agent has last seen."""
        if self._tools is not None:
            for tool in tools:
                if tool.name in self._tools or len(self._tools) < MAX_TOOLS:
                    self._tools[tool.name] = tool

    def forget(self) -> None:
        """The server announced another list, or may have another one by now."""
        self.failed = False
        self._tools = None


def read_page(raw: bytes) -> tuple[JsonObject, list[Tool], str | None]:
    """A `tools/list` result: itself, its tools, and the cursor of the next page (MCP, server/utilities/pagination)."""
    try:
        result = _decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise ProtocolError(messages.INTERNAL_ERROR, "the server's `tools/list` result is not JSON") from None
    listed = result.get("tools") if type(result) is dict else None
    cursor = result.get("nextCursor") if type(result) is dict else None
    if type(listed) is not list or not all(type(tool) is dict and type(tool.get("name")) is str for tool in listed):
        raise ProtocolError(messages.INTERNAL_ERROR, "the server's `tools/list` result has no list of named tools")
    if cursor is not None and type(cursor) is not str:
        raise ProtocolError(messages.INTERNAL_ERROR, "the server's `tools/list` cursor is no string")
    return result, [_tool(tool) for tool in listed], cursor


def _tool(listed: JsonObject) -> Tool:
    schema = listed.get("inputSchema")
    return Tool(listed["name"], schema if type(schema) is dict else None)


def filter_page(result: JsonObject, hidden: Callable[[str], bool], modern: bool, varies: bool = False) -> bytes:
    """The result without hidden tools, all else kept.

    A changed modern list is `private` (MCP 2026-07-28, caching), and so is one that `varies` from caller to caller: no
    cache may show it to another one.
    """
    kept = [tool for tool in result["tools"] if not hidden(tool["name"])]
    shorter = len(kept) < len(result["tools"])
    if shorter:
        result = {**result, "tools": kept}
    if modern and (shorter or varies):
        result[messages.CACHE_SCOPE] = "private"
    return codec.encode(result)
