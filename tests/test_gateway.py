"""Mounts: conversations of several clients with one real server, each judged on its own."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from intercept_py import policy_file, state
from intercept_py.audit.log import AuditLog
from intercept_py.errors import AuditError, UnavailableError, UpstreamError
from intercept_py.gateway import Mount, Settings
from intercept_py.log import Log
from intercept_py.model import Caller, Finding, RequestId
from intercept_py.transports.conversation import Event, Link, Receiver
from intercept_py.upstreams import Command, Upstream
from intercept_py.wire.catalogue import Catalogue
from intercept_py.wire.commands import ToClient, ToUpstream
from tests.support.news import News
from tests.support.wire import DENIED

pytestmark = pytest.mark.anyio

ECHO = str(Path(__file__).resolve().parent / "support" / "echo_server.py")
MODERN = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}
POLICY = """
version: "1"
default: deny
hide: [delete_project]
tools:
  echo:
    rules:
      - rate_limit: 2/hour
  hold: {rules: [{action: allow}]}
  release: {rules: [{action: allow}]}
  exit: {rules: [{action: allow}]}
  progress: {rules: [{action: allow}]}
  cancel_run:
    rules:
      - conditions: [{path: args.environment, op: eq, value: dev}]
  list_runs:
    rules:
      - action: deny
        when: [{path: caller.principal, op: neq, value: alice}]
      - action: allow
"""


class Client:
    """A front that remembers, and can be waited for."""

    def __init__(self) -> None:
        self.got: list[ToClient] = []
        self.why_gone: str | None = None
        self._news = News()
        self.until = self._news.until

    def deliver(self, messages: list[ToClient], event: Event | None) -> None:
        self.got += messages
        self._news()

    def mark(self, request: RequestId | None, stream: int, event: Event) -> None:
        raise AssertionError

    def opened(self, request: RequestId | None, stream: int) -> None:
        assert request is not None

    def status(self, request: RequestId | None, stream: int, status: int, body: bytes) -> None:
        raise AssertionError

    def ended(self, request: RequestId | None, stream: int) -> None:
        assert request is not None

    def gone(self, why: str) -> None:
        self.why_gone = why
        self._news()

    async def answer(self, request: RequestId = 1) -> Any:
        def found() -> list[Any]:
            return [json.loads(one.data) for one in self.got if one.final and one.request == request]

        await self.until(lambda: bool(found()))
        return found()[0]


def call(name: str, request: RequestId = 1, /, modern: bool = True, **arguments: Any) -> bytes:
    params: dict[str, Any] = {"name": name, "arguments": arguments}
    if modern:
        params["_meta"] = MODERN
    return json.dumps({"jsonrpc": "2.0", "id": request, "method": "tools/call", "params": params}).encode()


def method(name: str, request: RequestId = 1, **params: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": request, "method": name, "params": params}).encode()


def text_of(answer: Any) -> str:
    text: str = answer["result"]["content"][0]["text"]
    return text


@asynccontextmanager
async def mounted(
    folder: Path,
    policy: str = POLICY,
    command: list[str] | None = None,
    upstream: Upstream | None = None,
    **settings: Any,
) -> AsyncIterator[Mount]:
    path = folder / "policy.yaml"
    path.write_text(policy)
    loaded = policy_file.read(str(path))
    audit = AuditLog.open(str(folder / "audit.jsonl"))
    log = Log("error")
    if upstream is None:
        upstream = Command(command or [sys.executable, "-S", "-E", ECHO], os.environ, 1 << 20, log)
    mount = Mount(
        "echo",
        loaded,
        policy_file.Watch(str(path), loaded.revision),
        state.open_state("memory://"),
        audit,
        upstream,
        log,
        Settings(**settings),
    )
    task = asyncio.ensure_future(mount.run())
    try:
        yield mount
    finally:
        task.cancel()
        await mount.close("the test is over")
        audit.close()


def records(folder: Path) -> list[Any]:
    return [json.loads(line) for line in (folder / "audit.jsonl").read_text().splitlines()]


async def ask(mount: Mount, line: bytes, caller: Caller | None = None) -> Any:
    client = Client()
    conversation = mount.converse(client, caller or Caller(), session=False)
    conversation.from_client(line)
    answer = await client.answer(json.loads(line)["id"])
    await conversation.close()
    return answer


async def test_requests_without_a_session_share_a_server_and_limits_but_not_ids(tmp_path: Path) -> None:
    async with mounted(tmp_path) as mount:
        clients = [Client() for _ in range(3)]
        conversations = [mount.converse(client, Caller(), session=False) for client in clients]
        for number, conversation in enumerate(conversations):
            conversation.from_client(call("echo", text=str(number)))
        answers = [await client.answer() for client in clients]
        assert [text_of(answer) for answer in answers[:2]] == ["0", "1"]
        assert text_of(answers[2]).startswith(DENIED)
        for conversation in conversations:
            await conversation.close()
    decisions = [record for record in records(tmp_path) if record.get("event") == "decision"]
    assert len({record["id"] for record in decisions}) == 3
    assert len([record for record in records(tmp_path) if record.get("event") == "outcome"]) == 2


async def test_a_session_has_its_server_to_itself(tmp_path: Path) -> None:
    async with mounted(tmp_path) as mount:
        one, other = Client(), Client()
        first, second = (mount.converse(client, Caller(), session=True) for client in (one, other))
        first.from_client(call("hold", 7, modern=False))
        second.from_client(call("release", 8, modern=False))
        assert text_of(await other.answer(8)) == "0"
        first.from_client(call("release", 9, modern=False))
        assert text_of(await one.answer(9)) == "1"
        assert text_of(await one.answer(7)) == "released"
        await first.close()
        await second.close()


async def test_one_shared_server_that_ends_is_started_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("intercept_py.upstreams._PAUSE", 0.0)
    async with mounted(tmp_path) as mount:
        client = Client()
        mount.converse(client, Caller(), session=False).from_client(call("exit", code=3))
        assert "ended" in (await client.answer())["error"]["message"]
        assert client.why_gone is not None
        assert text_of(await ask(mount, call("echo", text="again"))) == "again"


async def test_a_server_that_ends_at_once_is_not_started_for_every_request(tmp_path: Path) -> None:
    bad = [sys.executable, "-c", "raise SystemExit(3)"]
    async with mounted(tmp_path, command=bad) as mount:
        client = Client()
        mount.converse(client, Caller(), session=False).from_client(method("tools/list", _meta=MODERN))
        await client.answer()
        with pytest.raises(UpstreamError, match="ended as soon as it was started"):
            mount.converse(Client(), Caller(), session=False)


async def test_lists_are_as_long_as_the_caller_may_see(tmp_path: Path) -> None:
    async with mounted(tmp_path) as mount:
        listed = {}
        for who in ("alice", "bob"):
            answer = await ask(mount, method("tools/list", _meta=MODERN), Caller(principal=who))
            listed[who] = {tool["name"] for tool in answer["result"]["tools"]}
            assert answer["result"]["cacheScope"] == "private"
        assert listed["alice"] - listed["bob"] == {"list_runs"}
        assert "delete_project" not in listed["alice"]
        assert text_of(await ask(mount, call("list_runs"), Caller(principal="alice"))) == "called list_runs with {}"
        assert text_of(await ask(mount, call("list_runs"), Caller(principal="bob"))).startswith(DENIED)


async def test_a_changed_policy_is_taken_for_all_and_lists_are_announced(tmp_path: Path) -> None:
    async with mounted(tmp_path) as mount:
        session, client = Client(), Client()
        kept = mount.converse(session, Caller(), session=True)
        kept.from_client(method("initialize", 0, protocolVersion="2025-11-25", capabilities={}, clientInfo={}))
        await session.answer(0)
        (tmp_path / "policy.yaml").write_text(POLICY.replace("delete_project", "hold"))
        await session.until(lambda: any(b"list_changed" in one.data for one in session.got))
        conversation = mount.converse(client, Caller(), session=False)
        conversation.from_client(call("hold", name="x"))
        assert "unknown tool" in text_of(await client.answer())
        await kept.close()
    assert any(record.get("event") == "reload" and record["accepted"] for record in records(tmp_path))


async def test_a_refused_policy_leaves_the_one_before(tmp_path: Path) -> None:
    async with mounted(tmp_path) as mount:
        (tmp_path / "policy.yaml").write_text("version: [")
        async with asyncio.timeout(20):
            while not any(record.get("event") == "reload" for record in records(tmp_path)):
                await asyncio.sleep(0.05)
        assert text_of(await ask(mount, call("echo", text="still"))) == "still"
    assert any(record.get("event") == "reload" and not record["accepted"] for record in records(tmp_path))


async def test_a_request_that_its_client_left_is_cancelled_and_recorded(tmp_path: Path) -> None:
    async with mounted(tmp_path) as mount:
        await ask(mount, call("release"))  # now the list of tools is known, and nothing has to wait for it
        client = Client()
        conversation = mount.converse(client, Caller(), session=False)
        conversation.from_client(call("hold", name="x"))
        assert conversation.waiting
        while conversation.session.judging:
            await asyncio.sleep(0)
        conversation.cancel(1)
        await conversation.close()
        assert client.got == []
    outcomes = [record["outcome"] for record in records(tmp_path) if record.get("event") == "outcome"]
    assert outcomes == ["ok", "cancelled"]


async def test_a_server_that_does_not_answer_in_time_is_given_up(tmp_path: Path) -> None:
    async with mounted(tmp_path, timeout=0.2) as mount:
        answer = await ask(mount, call("hold", name="x"))
        assert "did not answer within 0.2 s" in answer["error"]["message"]


async def test_what_headers_repeat_is_known_once_a_call_needed_the_tools_but_of_nothing_hidden(tmp_path: Path) -> None:
    annotated = {"properties": {"runId": {"type": "string", "x-mcp-header": "Run"}}, "required": ["runId"]}
    names = ["cancel_run", "list_runs", "delete_project"]
    listing = [{"name": name, "inputSchema": annotated} for name in names] + [{"name": "echo", "inputSchema": {}}]
    (tmp_path / "tools.json").write_text(json.dumps(listing))
    command = [sys.executable, "-S", "-E", ECHO, "--tools", str(tmp_path / "tools.json")]
    async with mounted(tmp_path, command=command) as mount:
        assert mount.mirrors_of("cancel_run", Caller()) == ()
        assert text_of(await ask(mount, call("cancel_run", runId="run_1", environment="prod"))).startswith(DENIED)
        (mirror,) = mount.mirrors_of("cancel_run", Caller())
        assert mirror.lower == b"mcp-param-run"
        assert mount.mirrors_of("delete_project", Caller()) == ()
        assert mount.mirrors_of("list_runs", Caller(principal="alice")) == (mirror,)
        assert mount.mirrors_of("list_runs", Caller(principal="bob")) == ()
        assert mount.mirrors_of("echo", Caller()) == ()
        assert mount.mirrors_of("no_such_tool", Caller()) == ()


async def calm(mount: Mount) -> None:
    """Wait until nothing goes on, and all that did is recorded."""
    while mount._fresh or mount._rest is not None or mount._wakeful is None or not mount._wakeful.quiet:
        await asyncio.sleep(0)


def stir(mount: Mount) -> None:
    """Something goes on from now: what is judged next is recorded together with what follows it."""
    mount.converse(Client(), Caller(), session=False).from_client(call("release"))


async def test_a_call_that_comes_alone_is_recorded_at_once_and_those_of_a_moment_with_one_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with mounted(tmp_path) as mount:
        await ask(mount, call("release"))
        await calm(mount)
        writes: list[int] = []
        flush = AuditLog.flush

        def counted(log: AuditLog) -> None:
            if log._waiting.lines:
                writes.append(len(log._waiting.lines))
            flush(log)

        monkeypatch.setattr(AuditLog, "flush", counted)
        clients = [Client() for _ in range(10)]
        for client in clients:
            mount.converse(client, Caller(), session=False).from_client(call("release"))
        assert writes == [1]
        answers = [await client.answer() for client in clients]
        assert all(text_of(answer) == "0" for answer in answers)
        assert writes[1] >= len(clients) - 1
        await calm(mount)
        assert mount._wakeful is not None
        mount._wakeful()  # as it is while messages come one after the other
        before = len(writes)
        mount.converse(last := Client(), Caller(), session=False).from_client(call("release"))
        assert len(writes) == before
        assert text_of(await last.answer()) == "0"


async def test_none_of_the_calls_of_a_moment_goes_on_if_they_cannot_be_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with mounted(tmp_path) as mount:
        await ask(mount, call("release"))
        clients = [Client() for _ in range(2)]
        with monkeypatch.context() as patch:
            patch.setattr("intercept_py.audit.log._write_all", broken)
            for client in clients:
                mount.converse(client, Caller(), session=False).from_client(call("echo", text="x"))
            answers = [await client.answer() for client in clients]
        assert all("cannot be recorded" in text_of(answer) for answer in answers)
        # None of them was counted either: the policy has two an hour.
        assert [text_of(await ask(mount, call("echo", text=str(n)))) for n in range(2)] == ["0", "1"]


async def test_somebody_elses_failed_write_is_not_taken_for_a_good_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with mounted(tmp_path) as mount:
        await ask(mount, call("release"))
        stir(mount)
        client = Client()
        mount.converse(client, Caller(), session=False).from_client(call("echo", text="x"))
        with monkeypatch.context() as patch:
            patch.setattr("intercept_py.audit.log._write_all", broken)
            mount.reload(force=True)  # writes a record, and what waits along with it
        assert "cannot be recorded" in text_of(await client.answer())


def broken(fd: int, data: bytes) -> None:
    raise OSError(28, "No space left on device")


class Echo:
    """An upstream in this process without tools, whose links answer calls when they are told to."""

    one_stream = False
    reusable = True
    headers = False

    def __init__(self) -> None:
        self.links: list[EchoLink] = []
        self._mint = count(1).__next__

    def connect(
        self, session: bool, version: str | None, known: Catalogue, who: object
    ) -> tuple[Callable[[Receiver], Link], Callable[[], int]]:
        def link(receiver: Receiver) -> Link:
            self.links.append(EchoLink(receiver))
            return self.links[-1]

        return link, self._mint

    def look(self) -> None:
        pass

    async def close(self) -> None:
        pass


class EchoLink:
    crowded = session = False

    def __init__(self, receiver: Receiver) -> None:
        self.receiver = receiver
        self.tickets: list[int] = []
        self._news = News()
        self.until = self._news.until

    def send(self, messages: list[ToUpstream]) -> None:
        for message in messages:
            if message.method == "tools/list" and message.ticket is not None:
                nothing = {"id": message.ticket, "result": {"tools": []}}
                asyncio.get_running_loop().call_soon(self.say, message.ticket, nothing)
            elif message.ticket is not None:
                self.tickets.append(message.ticket)
        messages.clear()
        self._news()

    def say(self, ticket: int, message: dict[str, Any]) -> None:
        self.receiver.from_upstream([json.dumps({"jsonrpc": "2.0", **message}).encode()], ticket)

    def listen(self, stream: int, last_event_id: str | None) -> None:
        pass

    def unlisten(self, stream: int) -> None:
        pass

    def leave(self) -> None:
        pass

    async def close(self) -> None:
        pass


async def test_a_conversation_that_is_used_again_shows_nothing_of_the_one_before(tmp_path: Path) -> None:
    upstream = Echo()
    async with mounted(tmp_path, POLICY.replace("hide: [delete_project]", ""), upstream=upstream) as mount:
        one, other, third = Client(), Client(), Client()
        first = mount.converse(one, Caller(), session=False)
        first.from_client(call("hold"))
        (link,) = upstream.links
        await link.until(lambda: bool(link.tickets))
        link.say(link.tickets[0], {"id": link.tickets[0], "result": {"content": []}})
        mount.over(first)
        second = mount.converse(other, Caller(), session=False)
        assert second is first
        second.from_client(call("hold"))
        await link.until(lambda: len(link.tickets) == 2)
        secret = {"method": "notifications/message", "params": {"level": "info", "data": "of the first"}}
        link.say(link.tickets[0], secret)
        link.receiver.opened(link.tickets[0])
        link.receiver.status(link.tickets[0], 500, b"")
        link.receiver.ended(link.tickets[0])
        link.receiver.failed(link.tickets[0], "late")
        assert other.got == []
        assert len(one.got) == 1
        assert mount.converse(third, Caller(), session=False) is not second
        assert mount.converse(third, Caller(principal="alice"), session=False) is not second
        link.say(link.tickets[1], {"id": link.tickets[1], "result": {"content": []}})
        assert len(other.got) == 1


class ToldAStatus(Client):
    """A front whose server refuses."""

    def status(self, request: RequestId | None, stream: int, status: int, body: bytes) -> None:
        self.why_gone = str(status)


async def test_a_call_that_the_server_answers_with_a_status_is_over_and_recorded_as_an_error(tmp_path: Path) -> None:
    upstream = Echo()
    client = ToldAStatus()
    async with mounted(tmp_path, "default: allow\n", upstream=upstream) as mount:
        conversation = mount.converse(client, Caller(), session=False)
        conversation.from_client(call("hold"))
        (link,) = upstream.links
        await link.until(lambda: bool(link.tickets))
        link.receiver.status(link.tickets[0], 500, b"")
        assert client.why_gone == "500"
        assert not conversation.waiting
    decision, end = (record for record in records(tmp_path) if "id" in record)
    assert end["outcome"] == "error"
    assert decision["ts"] < end["ts"]


async def test_denied_messages_and_cancelled_calls_leave_nothing_behind(tmp_path: Path) -> None:
    async with mounted(tmp_path, 'version: "1"\ndefault: deny\ntools: {hold: {rules: [{action: allow}]}}\n') as mount:
        for _ in range(20):
            conversation = mount.converse(Client(), Caller(), session=False)
            conversation.from_client(b'{"jsonrpc":"2.0","method":"notifications/strange"}')
            mount.over(conversation)
        left = []
        for _ in range(5):
            conversation = mount.converse(Client(), Caller(), session=False)
            conversation.from_client(call("hold", name="x"))
            left.append(conversation)
        while any(conversation.session.judging for conversation in left):
            await asyncio.sleep(0)
        for conversation in left:
            conversation.cancel(1)
            mount.over(conversation)
        conversation = mount.converse(Client(), Caller(), session=False)
        conversation.from_client(call("hold", name="never sent"))
        conversation.cancel(1)
        mount.over(conversation)
        while any(conversation.session.judging for conversation in mount._left) or mount._fresh:
            await asyncio.sleep(0)
        for conversation in list(mount._busy):
            conversation.session.upstream_gone("in place of the half minute that a cancelled request may take")
            conversation.pump()
        while mount._fresh:
            await asyncio.sleep(0)
        assert not mount._left
        assert not mount._busy
    outcomes = [record["outcome"] for record in records(tmp_path) if record.get("event") == "outcome"]
    assert sorted(outcomes) == ["cancelled"] * 5 + ["withdrawn"]


async def test_a_bug_in_one_conversation_costs_no_other_its_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise RuntimeError

    async with mounted(tmp_path, "default: allow\n") as mount:
        clients = [Client() for _ in range(5)]
        conversations = [mount.converse(client, Caller(), session=False) for client in clients]
        for attribute in ("sent", "rest"):
            monkeypatch.setattr(conversations[2].session, attribute, broken)
        for conversation in conversations:
            conversation.from_client(call("echo", text="x"))
        while not all(client.got for client in clients):
            await asyncio.sleep(0.01)
    outcomes = [record["outcome"] for record in records(tmp_path) if record.get("event") == "outcome"]
    assert outcomes == ["ok"] * 4


async def test_a_failure_of_the_past_does_not_explain_away_a_record_that_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with mounted(tmp_path) as mount:
        await ask(mount, call("release"))
        mount._commits.problem = Finding("state_unavailable", "the store was away, long ago")
        stir(mount)
        client = Client()
        mount.converse(client, Caller(), session=False).from_client(call("release"))
        with monkeypatch.context() as patch:
            patch.setattr("intercept_py.audit.log._write_all", broken)
            with pytest.raises(AuditError):
                mount._audit.flush()  # as another server's mount does, which writes the same log
        assert "cannot be recorded" in text_of(await client.answer())


async def test_sessions_with_the_same_tickets_keep_their_own_verdicts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = 'version: "1"\ntools: {echo: {rules: [{rate_limit: {max: 9, window: hour, per: global, fail: closed}}]}}\n'
    async with mounted(tmp_path, policy) as mount:
        alice, bob = Client(), Client()
        first, second = (mount.converse(client, Caller(), session=True) for client in (alice, bob))
        stir(mount)
        with monkeypatch.context() as patch:
            patch.setattr(mount._state, "commit", away)
            first.from_client(call("echo", modern=False, text="counted"))
            second.from_client(call("release", modern=False))
            assert "cannot be checked" in text_of(await alice.answer())
            assert text_of(await bob.answer()) == "0"
        await first.close()
        await second.close()


async def test_a_call_that_waited_is_judged_as_its_own_caller(tmp_path: Path) -> None:
    policy = """
version: "1"
tools:
  echo:
    rules:
      - {action: deny, when: [{path: caller.scopes, op: not_contains, value: admin}]}
      - {validate: {required_args: true}}
"""
    async with mounted(tmp_path, policy) as mount:
        client = Client()
        conversation = mount.converse(client, Caller(principal="p"), session=True)
        conversation.from_client(call("echo", 1, modern=False, text="x"))  # waits for the list of tools
        conversation.from_client(method("tools/list", 2))
        conversation.speaks(Caller(principal="p", scopes=("admin",)))
        conversation.from_client(method("ping", 3))
        assert text_of(await client.answer(1)).startswith(DENIED)
        listed = (await client.answer(2))["result"]["tools"]
        assert "echo" not in {tool["name"] for tool in listed}
        conversation.from_client(call("echo", 4, modern=False, text="x"))
        assert text_of(await client.answer(4)) == "x"
        await conversation.close()


def away() -> None:
    raise UnavailableError("the store is away")


async def test_callers_that_are_forgotten_take_their_spare_conversations_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("intercept_py.gateway._KEPT_CALLERS", 4)
    upstream = Echo()
    async with mounted(tmp_path, POLICY.replace("hide: [delete_project]", ""), upstream=upstream) as mount:
        late = mount.converse(Client(), Caller(principal="late"), session=False)
        for number in range(50):
            conversation = mount.converse(Client(), Caller(principal=f"p{number}"), session=False)
            mount.over(conversation)
        mount.over(late)  # whose caller is forgotten by now
        assert len(mount._open) <= 4
        del conversation, late
        mount.reload(force=True)
        assert len(mount._open) == 0
