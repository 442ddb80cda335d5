"""The proxy's own `tools/list`: asked page by page, begun again when the server says meanwhile that its tools changed.

Pure. Below: `catalogue`. Above: `relay`.
"""

from __future__ import annotations

__all__ = ["MAX_LIST_BYTES", "MAX_PAGES", "Listing"]

from intercept_py.errors import ProtocolError
from intercept_py.model import JsonObject, Tool
from intercept_py.wire import catalogue, codec, messages
from intercept_py.wire.commands import ToUpstream

MAX_PAGES = 1000
MAX_LIST_BYTES = 64 * 1024 * 1024
"""What all pages may have."""
_MAX_RESTARTS = 3


class Listing:
    """See the module. `envelope`: the `_meta` of whom it is for, if that is modern; `since`: when it began.

    `stale` is to be set when the server announces a change.
    """

    def __init__(self, envelope: JsonObject, since: float) -> None:
        self.envelope = envelope
        self.since = since
        self.stale = False
        self.tools: list[Tool] = []
        self._pages = 0
        self._size = 0
        self._restarts = 0
        self._cursor: str | None = None

    def request(self, ticket: int) -> ToUpstream:
        """Ask for the next page."""
        params: JsonObject = {"_meta": self.envelope} if self.envelope else {}
        if self._cursor is not None:
            params["cursor"] = self._cursor
        request = {"jsonrpc": "2.0", "id": ticket, "method": "tools/list", "params": params}
        return ToUpstream(codec.encode(request), False, ticket, "tools/list", params)

    def take(self, result: bytes) -> bool:
        """Take a page. True: that was the last one. Raises `ProtocolError` if there will be no list."""
        _, tools, self._cursor = catalogue.read_page(result)
        if self.stale and self._restarts < _MAX_RESTARTS:
            self._restarts += 1
            self.stale, self._cursor = False, None
            self.tools, self._pages, self._size = [], 0, 0
            return False
        self.tools += tools
        self._pages += 1
        self._size += len(result)
        if self._cursor is None:
            return True
        if self._pages >= MAX_PAGES or len(self.tools) > catalogue.MAX_TOOLS or self._size > MAX_LIST_BYTES:
            raise ProtocolError(messages.INTERNAL_ERROR, "the server's `tools/list` does not come to an end")
        return False
