"""The nine promises of the proxy, one test each, on real processes where a process can break them.

Deeper tests of each stand elsewhere; these say in one place what the product is.
"""

from __future__ import annotations

import itertools
import json
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pydantic_core
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from intercept_py.model import Effect, ToolCall
from intercept_py.policy import loader, pdp
from tests.conversation import Conversation, call
from tests.support.commands import echo_server, received, sdk_server
from tests.support.wire import MODERN_META, StartDirect, StartProxy, Wire, denial, text_of

Message = dict[str, Any]

ONLY_ECHO = """
default: deny
tools:
  echo:
    rules:
      - conditions: [{path: args.text, op: not_contains, value: forbidden}]
"""

FORBIDDEN = b'{"name":"delete_project","arguments":{"projectId":"p"}}'
ATTACKS = [
    b'{"jsonrpc":"2.0","id":ID,"method":"tools/call","params":%b}' % FORBIDDEN,
    b'{"jsonrpc":"2.0","id":2.0,"method":"tools/call","params":%b}' % FORBIDDEN,
    b'{"jsonrpc":"2.0","id":null,"method":"tools/call","params":%b}' % FORBIDDEN,
    b'{"jsonrpc":"2.0","id":true,"method":"tools/call","params":%b}' % FORBIDDEN,
    b'{"jsonrpc":"2.0","method":"tools/call","params":%b}' % FORBIDDEN,
    b'[{"jsonrpc":"2.0","id":ID,"method":"tools/call","params":%b}]' % FORBIDDEN,
    b'{"jsonrpc":"2.0","id":ID,"method":"tools\\/call","params":%b}' % FORBIDDEN,
    b'{"jsonrpc":"2.0","id":ID,"method":"ping","method":"tools/call","params":%b}' % FORBIDDEN,
    b'{"jsonrpc":"2.0","id":ID,"method":"tools/call","method":"ping","params":%b}' % FORBIDDEN,
    b'{"jsonrpc":"2.0","id":ID,"method":"ping","Method":"tools/call","params":%b}' % FORBIDDEN,
    b'{"jsonrpc":"2.0","id":ID,"method":"tools/call","params":{"name":"echo","name":"delete_project"}}',
    b'{"jsonrpc":"2.0","id":ID,"method":"tools/call","params":{"name":"echo","n\\u0061me":"delete_project"}}',
    b'{"jsonrpc":"2.0","id":ID,"method":"tools/call","params":{"name":"echo","Name":"delete_project","arguments":{}}}',
    b'{"jsonrpc":"2.0","id":ID,"method":"tools/call","params":{"name":"echo","arguments":{"text":"forbidden"}}}',
    b'{"jsonrpc":"2.0","id":ID,"method":"tools/call","params":{"name":"echo","arguments":{"text":["forbidden"]}}}',
    b'{"jsonrpc":"2.0","id":ID,"method":"tools/call","params":{"name":"echo","arguments":{"text":{"a":"forbidden"}}}}',
    b'{"jsonrpc":"2.0","id":ID,"method":"tools/call","params":{"name":"echo","arguments":{"Text":"forbidden"}}}',
    b'{"jsonrpc":"2.0","id":ID,"method":"tools/call","params":{"name":"Echo","arguments":{"text":"forbidden"}}}',
    b'{"jsonrpc":"2.0","id":ID,"method":"ping"}{"jsonrpc":"2.0","id":ID,"method":"tools/call","params":%b}' % FORBIDDEN,
    b'{"jsonrpc":"2.0","id":1,"method":"ping"}\r{"jsonrpc":"2.0","id":2,"method":"tools/call","params":%b}' % FORBIDDEN,
    b'\xef\xbb\xbf{"jsonrpc":"2.0","id":ID,"method":"tools/call","params":%b}' % FORBIDDEN,
    '{"jsonrpc":"2.0","id":ID,"method":"tools/call","params":{"name":"delete_project"}}'.encode("utf-16"),
    b'{"jsonrpc":"2.0","id":ID,"method":"tools/call2","params":%b}' % FORBIDDEN,
    b'{"jsonrpc":"2.0","id":ID,"method":"x/run","params":%b}' % FORBIDDEN,
]  # fmt: skip


def test_promise_1_nothing_unjudged_is_forwarded(proxy: StartProxy, record: Path) -> None:
    wire = proxy(ONLY_ECHO)
    wire.initialize()
    for number, attack in enumerate(ATTACKS):
        wire.send_raw(attack.replace(b"ID", b"%d" % (1000 + number)) + b"\n")
    assert text_of(wire.call("echo", {"text": "fine"})) == "fine"
    assert wire.finish() == 0
    calls = [message for message in received(record) if message["method"] not in LIFECYCLE]
    assert [message["params"] for message in calls] == [{"name": "echo", "arguments": {"text": "fine"}}]


LIFECYCLE = ("initialize", "notifications/initialized", "tools/list", "ping")


def independent_parsers(line: bytes) -> list[Any]:
    """One line, as parsers that share no code read it."""
    values = [json.loads(line), msgspec.json.decode(line), pydantic_core.from_json(line)]
    if node := shutil.which("node"):
        script = "process.stdout.write(JSON.stringify(JSON.parse(require('fs').readFileSync(0, 'utf8'))))"
        values.append(
            json.loads(subprocess.run([node, "-e", script], input=line, capture_output=True, check=True).stdout)
        )
    return values


SPELLINGS = [
    '{"text": "caf\\u00e9 \\ud83d\\ude00 \\u2028\\u0085\\u007f", "n": 1e2}',
    '{"text": "é 😀  "\r, "n": 100.0}',
    '{ "n" : -0.0 , "text":"\\/\\b\\f\\n\\r\\t\\"\\\\" }',
    '{"text":"x","n":0.30000000000000004,"deep":[[{"":null}],true,false]}',
    '{"text":"x","n":9007199254740991,"small":-9007199254740991,"tiny":5e-324,"large":1.7976931348623157e308}',
]


@pytest.mark.parametrize("arguments", SPELLINGS)
def test_promise_2_what_was_judged_is_what_is_sent(arguments: str, proxy: StartProxy, record: Path) -> None:
    wire = proxy("default: allow\n")
    head = '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":'
    wire.send_raw((head + arguments + "}}\n").encode())
    wire.recv()
    assert wire.finish() == 0
    (line,) = record.read_bytes().splitlines()
    assert line.isascii()
    assert b"\r" not in line
    for value in independent_parsers(line):
        assert value["params"] == {"name": "echo", "arguments": json.loads(arguments)}


RULES = st.sampled_from(
    [
        "{action: deny}",
        "{action: deny, when: [{path: args.x, op: eq, value: 1}]}",
        "{conditions: [{path: args.x, op: gte, value: 2}]}",
        "{conditions: [{path: args.x, op: exists, value: true}]}",
        "{validate: {required_args: [x]}}",
        "{action: require_approval, conditions: [{path: args.y, op: exists, value: true}]}",
        "{action: allow, rate_limit: {max: 5, window: WINDOW}}",
        "{action: allow}",
        "{action: deny, mode: shadow}",
    ]
)


@given(
    st.lists(RULES, max_size=4), RULES, st.integers(0, 4), st.sampled_from([{}, {"x": 1}, {"x": 2}, {"x": 3, "y": 0}])
)
@settings(max_examples=150)
def test_promise_3_a_rule_can_only_narrow(rules: list[str], more: str, at: int, arguments: Message) -> None:
    def effect(chosen: list[str]) -> Effect:
        windows = itertools.count(1)  # two limits of one entry may not share a budget
        body = ", ".join(rule.replace("WINDOW", str(next(windows))) for rule in chosen)
        policy = loader.load(f"tools: {{t: {{rules: [{body}]}}}}\n".encode(), "p.yaml")
        return pdp.decide(policy, ToolCall("t", arguments)).effect

    before = effect(rules)
    after = effect([*rules[:at], more, *rules[at:]])
    assert not (before is Effect.DENY and after is Effect.ALLOW)
    assert effect(list(reversed(rules))) is before


def test_promise_4_any_failure_while_deciding_is_a_denial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    talk = Conversation("tools: {cancel_run: {rules: [{rate_limit: 5/minute}]}}\n", tmp_path)

    def broken(*_: object) -> None:
        raise MemoryError("whatever")

    monkeypatch.setattr(pdp, "_decide", broken)
    talk.say(call(1))
    monkeypatch.undo()
    monkeypatch.setattr(pdp, "decide", broken)
    talk.say(call(2))
    monkeypatch.undo()
    assert talk.calls() == []
    assert [talk.answers(number)[0]["result"]["isError"] for number in (1, 2)] == [True, True]


def test_promise_5_never_more_than_n_calls_in_a_window(proxy: StartProxy, record: Path) -> None:
    wire = proxy("tools: {'*': {rules: [{rate_limit: {max: 10, window: 3600}}]}}\n")
    wire.initialize()
    burst: list[Message] = []
    for number in range(50):
        burst += [call(1000 + number % 7, "echo", {"text": "x"}), call(f"{number}", "error", {"code": -32000})]
        burst += [{"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": f"{number}"}}]
    wire.send_raw(b"".join(json.dumps(message).encode() + b"\n" for message in burst))
    for _ in range(10):  # what was cancelled before it was sent has been given back
        last = wire.call("echo", {"text": "y"})
    assert "retry in" in denial(last)
    assert wire.finish() == 0
    assert sum(message["method"] == "tools/call" for message in received(record)) == 10


def test_promise_6_no_effect_without_a_record(proxy: StartProxy, record: Path, audit: Path) -> None:
    wire = proxy("default: allow\n")
    for number in range(100):
        wire.start_call("echo", {"text": str(number)})
    wire.recv()
    wire.signal(signal.SIGKILL)
    wire.wait()
    wire.assert_no_survivors()
    effects = sum(message["method"] == "tools/call" for message in received(record))
    records = [json.loads(line) for line in audit.read_bytes().splitlines()]
    assert 1 <= effects <= sum(entry.get("effect") == "allow" for entry in records)


def test_promise_7_every_request_gets_exactly_one_answer(proxy: StartProxy) -> None:
    wire = proxy(ONLY_ECHO + "  hold: {}\n  exit: {}\n", echo_server())
    wire.initialize()
    ids = [wire.start_call(tool, {"text": "x"}) for tool in ("echo", "delete_project", "hold", "nothing")]
    ids.append(wire.start("x/unknown"))
    last = [wire.new_id() for _ in range(2)]
    wire.send_raw(  # at once: after the first of them nobody may read any more
        b'{"jsonrpc":"2.0","id":%d,"method":"tools/call","params":{"name":"exit","arguments":{"code":0}}}\n'
        b'{"jsonrpc":"2.0","id":%d,"method":"resources/list"}\n' % tuple(last)
    )
    ids += last
    wire.close_stdin()
    answers = [message["id"] for message in wire.recv_all() if "method" not in message]
    assert sorted(answers) == sorted(ids)


@pytest.mark.parametrize("modern", [False, True], ids=["legacy", "modern"])
@pytest.mark.parametrize("server", [echo_server("--page-size", "4"), sdk_server()], ids=["echo", "sdk"])
def test_promise_8_the_proxy_is_invisible_when_it_allows(
    server: list[str], modern: bool, proxy: StartProxy, direct: StartDirect
) -> None:
    def transcript(wire: Wire) -> list[bytes]:
        meta: Message = {"_meta": MODERN_META} if modern else {}
        if not modern:
            wire.initialize()
        lines = []
        for method, params in (
            ("server/discover", {}),
            ("tools/list", {}),
            ("prompts/list", {}),
            ("resources/list", {}),
            ("resources/templates/list", {}),
            ("ping", {}),
            ("no/such", {}),
            ("tools/call", {"name": "echo", "arguments": {"text": "é \u2028 😀"}}),
            ("tools/call", {"name": "echo", "arguments": {"text": 5}}),
            ("tools/call", {"name": "no_such_tool", "arguments": {}}),
            (
                "completion/complete",
                {"ref": {"type": "ref/prompt", "name": "x"}, "argument": {"name": "a", "value": ""}},
            ),
        ):
            wire.start(method, {**params, **meta})
            lines.append(json.dumps(wire.recv(), sort_keys=True).encode())
        return lines

    assert transcript(proxy("default: allow\n", server)) == transcript(direct(server))


def test_promise_9_each_call_is_judged_by_one_policy_and_a_bad_file_changes_nothing(tmp_path: Path) -> None:
    first = loader.load(b"tools: {a: {rules: [{action: deny, reason: first}]}}\n", "p")
    second = loader.load(b"tools: {a: {rules: [{action: deny, reason: second}]}}\n", "p")
    talk = Conversation("default: allow\n", tmp_path)
    reasons = []
    for number in range(100):
        talk.session.replace_policy((first, second)[number % 2])
        talk.say(call(number, "a", {}))
        record = talk.records()[-1]
        reasons.append((record["reason"], record["policy"]))
    assert set(reasons) == {("first", first.revision), ("second", second.revision)}
