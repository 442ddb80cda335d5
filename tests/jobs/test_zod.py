"""What zod says of bad arguments, in its own words and order."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from mcp_types import TextContent

from intercept_py.jobs.dialects import zod
from intercept_py.jobs.dialects.orchestration_tools import TOOLS
from intercept_py.model import JsonObject

ROOT = Path(__file__).resolve().parents[2]
BY_NAME = {tool.name: tool for tool in TOOLS}
PREFIX = "MCP error -32602: Input validation error: Invalid arguments for tool"

SPAWN: JsonObject = {"backend": "codex", "role": "worker", "cwd": "/", "session_mode": "new"}
MESSAGE = "input_message"

CASES: list[tuple[str, JsonObject, str]] = [
    ("cancel_run", {"run_id": ""}, "Too small: expected string to have >=1 characters at run_id"),
    ("cancel_run", {}, "Invalid input: expected string, received undefined at run_id"),
    ("cancel_run", {"run_id": 7}, "Invalid input: expected string, received number at run_id"),
    ("cancel_run", {"run_id": None}, "Invalid input: expected string, received null at run_id"),
    ("cancel_run", {"run_id": ["x"]}, "Invalid input: expected string, received array at run_id"),
    ("cancel_run", {"run_id": {}}, "Invalid input: expected string, received object at run_id"),
    ("cancel_run", {"run_id": True}, "Invalid input: expected string, received boolean at run_id"),
    ("poll_events", {"run_id": "x", "after_seq": -1}, "Too small: expected number to be >=0 at after_seq"),
    ("poll_events", {"run_id": "x", "after_seq": 1.5}, "Invalid input: expected int, received number at after_seq"),
    ("poll_events", {"run_id": "x", "after_seq": "1"}, "Invalid input: expected number, received string at after_seq"),
    (
        "poll_events",
        {"run_id": "", "after_seq": 0, "limit": 1001, "wait_ms": -5},
        "Too small: expected string to have >=1 characters at run_id\n"
        "Too big: expected number to be <=1000 at limit\n"
        "Too small: expected number to be >=0 at wait_ms",
    ),
    ("list_runs", {"backend": "x"}, 'Invalid option: expected one of "codex"|"claude_code"|"remote_a2a" at backend'),
    (
        "spawn_run",
        {"cwd": "", "metadata": 5},
        'Invalid option: expected one of "codex"|"claude_code"|"remote_a2a" at backend\n'
        'Invalid option: expected one of "planner"|"worker"|"reviewer" at role\n'
        "Too small: expected string to have >=1 characters at cwd\n"
        'Invalid option: expected one of "new"|"resume" at session_mode\n'
        "Invalid input: expected record, received number at metadata",
    ),
    ("spawn_run", {**SPAWN, MESSAGE: 5}, "Invalid input: expected object, received number at input_message"),
    (
        "spawn_run",
        {**SPAWN, MESSAGE: {"role": "user", "parts": []}},
        "Too small: expected array to have >=1 items at input_message.parts",
    ),
    (
        "spawn_run",
        {**SPAWN, MESSAGE: {"role": "user", "parts": [{"type": "text", "text": ""}]}},
        "Too small: expected string to have >=1 characters at input_message.parts[0].text",
    ),
    (
        "spawn_run",
        {**SPAWN, MESSAGE: {"role": "user", "parts": [{"type": "text", "text": "a"}, {"type": "data", "data": 1}]}},
        "Invalid input: expected record, received number at input_message.parts[1].data",
    ),
    (
        "spawn_run",
        {**SPAWN, MESSAGE: {"role": "user", "parts": [{"type": "film"}]}},
        "Invalid input at input_message.parts[0].type",
    ),
    (
        "spawn_run",
        {**SPAWN, MESSAGE: {"role": "user", "parts": ["text"]}},
        "Invalid input: expected object, received string at input_message.parts[0]",
    ),
]


def said(name: str, arguments: JsonObject) -> str:
    """What we say, without the prefix."""
    tool = BY_NAME[name]
    result = zod.refuse(tool, list(Draft202012Validator(tool.input_schema).iter_errors(arguments)), arguments)
    assert result.is_error
    (content,) = result.content
    assert isinstance(content, TextContent)
    prefix, _, rest = content.text.partition(f"{PREFIX} {name}: ")
    assert prefix == ""
    return rest


@pytest.mark.parametrize(("name", "arguments", "words"), CASES)
def test_what_is_wrong_is_said_in_the_words_of_zod(name: str, arguments: JsonObject, words: str) -> None:
    assert said(name, arguments) == words


SCHEMAS = """
import * as z from 'zod/v4';
import { getParseErrorMessage } from '@modelcontextprotocol/sdk/server/zod-compat.js';
const text = z.string().min(1), record = z.record(z.string(), z.unknown());
const backend = z.enum(['codex', 'claude_code', 'remote_a2a']);
const part = z.discriminatedUnion('type', [
  z.object({ type: z.literal('text'), text }),
  z.object({ type: z.literal('data'), data: record }),
  z.object({ type: z.literal('file'), uri: text.optional() }),
]);
const message = z.object({ role: z.enum(['user', 'agent', 'system']), parts: z.array(part).min(1) });
const schemas = {
  cancel_run: z.object({ run_id: text }),
  poll_events: z.object({
    run_id: text, after_seq: z.number().int().min(0), limit: z.number().int().min(1).max(1000).default(100),
    wait_ms: z.number().int().min(0).max(30000).default(20000),
  }),
  list_runs: z.object({ backend: backend.optional() }),
  spawn_run: z.object({
    backend, role: z.enum(['planner', 'worker', 'reviewer']), input_message: message.optional(), cwd: text,
    session_mode: z.enum(['new', 'resume']), metadata: record.optional(),
  }),
};
const cases = JSON.parse(process.argv[1]);
console.log(JSON.stringify(cases.map(([name, value]) =>
  getParseErrorMessage(schemas[name].safeParse(value).error))));
"""


@pytest.mark.node
def test_the_real_zod_says_the_same() -> None:
    cases = json.dumps([(name, arguments) for name, arguments, _ in CASES])
    command = ["node", "--input-type=module", "--eval", SCHEMAS, cases]
    result = subprocess.run(command, cwd=ROOT / ".npm", capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout) == [words for _, _, words in CASES]
