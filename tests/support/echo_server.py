"""A minimal MCP server over stdio: both eras, only the standard library, as fast as Python can be.

Run it as `python -S -E echo_server.py [--page-size N] [--tools FILE] [--era legacy|modern|both]`. With
`ECHO_RECORD=FILE` in the environment every line received is appended to FILE before it is acted on: that is what "the
upstream received" means in the tests. `--tools` takes a JSON list of tools (or an object with `tools`) that is listed
instead of the built-in ones; a tool without a behaviour here answers with its name and arguments.

The usual call, `echo` with a text, is answered without decoding JSON: benchmarks measure the proxy and not this.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

Message = dict[str, Any]

VERSION_KEY = "io.modelcontextprotocol/protocolVersion"
MODERN = "2026-07-28"
LEGACY = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
INFO = {"name": "echo", "version": "1.0.0"}
CAPABILITIES = {"tools": {"listChanged": True}, "resources": {}, "prompts": {}}
CACHE = {"ttlMs": 60000, "cacheScope": "public"}

HEAD = b'{"jsonrpc":"2.0","id":'
CALL = b',"method":"tools/call","params":{"name":"echo","arguments":{"text":"'
TAIL = b'"}}}'
ANSWER = b',"result":{"content":[{"type":"text","text":"'
END = b'"}]}}\n'


def _tool(name: str, properties: Message, required: list[str], **more: Any) -> Message:
    schema = {"type": "object", "properties": properties, "required": required}
    return {"name": name, "description": f"{name} of the echo server", "inputSchema": schema, **more}


TEXT = {"type": "string"}
NUMBER = {"type": "integer"}
TOOLS: list[Message] = [
    _tool("echo", {"text": TEXT}, ["text"], annotations={"readOnlyHint": True}),
    _tool("cancel_run", {"runId": TEXT, "environment": {"type": "string", "enum": ["dev", "prod"]}}, ["runId"]),
    _tool("list_runs", {}, []),
    _tool("delete_project", {"projectId": TEXT}, ["projectId"], annotations={"destructiveHint": True}),
    _tool("refund", {"amount": {"type": "number"}, "currency": TEXT, "force": {"type": "boolean"}}, ["amount"]),
    _tool("measure", {"value": NUMBER}, ["value"], outputSchema={"type": "object", "required": ["value"]}),
    _tool("hold", {"name": TEXT}, []),
    _tool("release", {}, []),
    _tool("progress", {"steps": NUMBER}, ["steps"]),
    _tool("ask", {"question": TEXT}, []),
    _tool("big", {"size": NUMBER}, ["size"]),
    _tool("fail", {}, []),
    _tool("error", {"code": NUMBER}, []),
    _tool("environment", {"name": TEXT}, ["name"]),
    _tool("exit", {"code": NUMBER}, []),
    _tool("change_tools", {}, []),
]


class EchoServer:
    """One process, one client, no threads. `held` are the calls of `hold` that still wait for `release`."""

    def __init__(self, tools: list[Message], page_size: int, era: str) -> None:
        self.tools = tools
        self.page_size = page_size or len(tools) or 1
        self.era = era
        self.held: dict[int | str, bool] = {}
        self.asked: dict[str, tuple[int | str, bool]] = {}

    def take(self, line: bytes) -> bytes:
        """All the lines to send because of this one."""
        if line.startswith(HEAD) and line.endswith(TAIL):
            start = line.find(CALL, len(HEAD))
            text = line[start + len(CALL) : -len(TAIL)]
            if start > 0 and b'"' not in text and b"\\" not in text:
                return line[:start] + ANSWER + text + END
        try:
            message = json.loads(line)
        except ValueError:
            return _error(None, -32700, "this is not JSON")
        if not isinstance(message, dict):
            return _error(None, -32600, "this is no request")
        if "method" not in message:
            return self.answered(message)
        if "id" not in message:
            return self.notified(message["method"], message.get("params") or {})
        return self.requested(message["id"], message["method"], message.get("params") or {})

    def requested(self, ident: int | str, method: str, params: Message) -> bytes:
        """The answer to a request; empty when it comes later."""
        modern = VERSION_KEY in (params.get("_meta") or {})
        if modern and self.era == "legacy":
            return _error(ident, -32601, f"unknown method {method}")
        if method == "tools/call":
            return self.call(ident, params, modern)
        if method == "tools/list":
            return _result(ident, self.page(params), modern, CACHE)
        if method == "initialize" and self.era != "modern":
            wanted = params.get("protocolVersion")
            version = wanted if wanted in LEGACY else LEGACY[-1]
            return _result(ident, {"protocolVersion": version, "capabilities": CAPABILITIES, "serverInfo": INFO}, False)
        if method == "server/discover" and modern:
            return _result(ident, {"supportedVersions": [MODERN], "capabilities": CAPABILITIES}, modern, CACHE)
        if method == "ping":
            return _result(ident, {}, modern)
        if method in ("resources/list", "prompts/list"):
            return _result(ident, {method.split("/")[0]: []}, modern, CACHE)
        if method == "resources/read":
            return _result(ident, {"contents": [{"uri": params.get("uri", ""), "text": "read"}]}, modern, CACHE)
        if method == "initialize":
            return _error(ident, -32022, "unsupported protocol version", {"supported": [MODERN]})
        return _error(ident, -32601, f"unknown method {method}")

    def page(self, params: Message) -> Message:
        start = int(params.get("cursor") or 0)
        stop = start + self.page_size
        more = {"nextCursor": str(stop)} if stop < len(self.tools) else {}
        return {"tools": self.tools[start:stop], "x-extra": {"kept": [1, None, "é"]}, **more}

    def call(self, ident: int | str, params: Message, modern: bool) -> bytes:
        name, arguments = params.get("name"), params.get("arguments") or {}
        if not any(tool["name"] == name for tool in self.tools):
            return _error(ident, -32602, f"Unknown tool: {name}")
        handler = getattr(self, f"tool_{name}", None)
        if handler is None:
            return _result(ident, _text(f"called {name} with {json.dumps(arguments)}"), modern)
        return bytes(handler(ident, params, arguments, modern))

    def tool_echo(self, ident: int | str, params: Message, arguments: Message, modern: bool) -> bytes:
        return _result(ident, _text(arguments.get("text", "")), modern)

    def tool_measure(self, ident: int | str, params: Message, arguments: Message, modern: bool) -> bytes:
        value = {"value": arguments.get("value")}
        return _result(ident, {**_text(json.dumps(value)), "structuredContent": value}, modern)

    def tool_hold(self, ident: int | str, params: Message, arguments: Message, modern: bool) -> bytes:
        self.held[ident] = modern
        return b""

    def tool_release(self, ident: int | str, params: Message, arguments: Message, modern: bool) -> bytes:
        held, self.held = self.held, {}
        answers = [_result(waiting, _text("released"), era) for waiting, era in held.items()]
        return b"".join(answers) + _result(ident, _text(str(len(held))), modern)

    def tool_progress(self, ident: int | str, params: Message, arguments: Message, modern: bool) -> bytes:
        token = (params.get("_meta") or {}).get("progressToken")
        steps = range(1, int(arguments.get("steps", 0)) + 1) if token is not None else ()
        sent = [_notification("notifications/progress", {"progressToken": token, "progress": n}) for n in steps]
        return b"".join(sent) + _result(ident, _text("done"), modern)

    def tool_ask(self, ident: int | str, params: Message, arguments: Message, modern: bool) -> bytes:
        question = str(arguments.get("question", "?"))
        schema = {"type": "object", "properties": {"answer": TEXT}}
        request = {"method": "elicitation/create", "params": {"message": question, "requestedSchema": schema}}
        if not modern:
            key = f"ask-{len(self.asked)}"
            self.asked[key] = (ident, modern)
            return line({"jsonrpc": "2.0", "id": key, **request})
        responses = params.get("inputResponses")
        if responses is None:
            result = {"resultType": "input_required", "inputRequests": {"q": request}, "requestState": "opaque-1"}
            return _result(ident, result, modern)
        return _result(ident, _text(json.dumps([responses["q"], params.get("requestState")])), modern)

    def tool_big(self, ident: int | str, params: Message, arguments: Message, modern: bool) -> bytes:
        return _result(ident, _text("x" * int(arguments["size"])), modern)

    def tool_fail(self, ident: int | str, params: Message, arguments: Message, modern: bool) -> bytes:
        return _result(ident, {**_text("the tool failed"), "isError": True}, modern)

    def tool_error(self, ident: int | str, params: Message, arguments: Message, modern: bool) -> bytes:
        return _error(ident, int(arguments.get("code", -32603)), "the server failed", {"kept": True})

    def tool_environment(self, ident: int | str, params: Message, arguments: Message, modern: bool) -> bytes:
        return _result(ident, _text(os.environ.get(arguments["name"], "(unset)")), modern)

    def tool_exit(self, ident: int | str, params: Message, arguments: Message, modern: bool) -> bytes:
        os._exit(int(arguments.get("code", 0)))

    def tool_change_tools(self, ident: int | str, params: Message, arguments: Message, modern: bool) -> bytes:
        self.tools = [*self.tools, _tool(f"added_{len(self.tools)}", {}, [])]
        return _notification("notifications/tools/list_changed", {}) + _result(ident, _text("changed"), modern)

    def notified(self, method: str, params: Message) -> bytes:
        if method == "notifications/cancelled":
            self.held.pop(params.get("requestId", ""), None)
        return b""

    def answered(self, message: Message) -> bytes:
        """The client's answer to a request of ours becomes the result of the call that asked."""
        ident, modern = self.asked.pop(str(message.get("id")), (None, False))
        if ident is None:
            return b""
        return _result(ident, _text(json.dumps(message.get("result", message.get("error")))), modern)


def line(message: Message) -> bytes:
    """A message as the line that carries it."""
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def _text(text: str) -> Message:
    return {"content": [{"type": "text", "text": text}]}


def _result(ident: int | str, result: Message, modern: bool, cache: Message | None = None) -> bytes:
    era = {"resultType": "complete", **(cache or {})} if modern else {}
    return line({"jsonrpc": "2.0", "id": ident, "result": {**era, **result}})


def _error(ident: int | str | None, code: int, message: str, data: Message | None = None) -> bytes:
    more = {"data": data} if data else {}
    return line({"jsonrpc": "2.0", "id": ident, "error": {"code": code, "message": message, **more}})


def _notification(method: str, params: Message) -> bytes:
    return line({"jsonrpc": "2.0", "method": method, "params": params})


def _options(arguments: list[str]) -> dict[str, str]:
    return dict(zip(arguments[::2], arguments[1::2], strict=True))


def write(data: bytes) -> None:
    """Write all of it to stdout."""
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]


def main(arguments: list[str]) -> None:
    options = _options(arguments)
    tools = TOOLS
    if "--tools" in options:
        with open(options["--tools"], encoding="utf-8") as file:
            listed = json.load(file)
        tools = listed["tools"] if isinstance(listed, dict) else listed
    server = EchoServer(tools, int(options.get("--page-size", "0")), options.get("--era", "both"))
    recorded = os.environ.get("ECHO_RECORD")
    record = os.open(recorded, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600) if recorded else -1
    take, rest = server.take, b""
    while data := os.read(0, 65536):
        *lines, rest = (rest + data if rest else data).split(b"\n")
        if not lines:
            continue
        if record >= 0:
            os.write(record, b"\n".join(lines) + b"\n")
        out = b"".join([take(each) for each in lines])
        if out:
            write(out)


if __name__ == "__main__":
    main(sys.argv[1:])
