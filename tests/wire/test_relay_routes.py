"""What the relay says of every message it sends on: whose it is, where it came from, which headers it needs."""

from __future__ import annotations

import json
from itertools import count
from typing import Any

from intercept_py.wire.catalogue import Catalogue
from intercept_py.wire.commands import Command, Judge, Settle, ToClient, ToUpstream, Unanswered, Withdraw
from intercept_py.wire.messages import PROTOCOL_VERSION_KEY, SUBSCRIPTION_KEY, Denial
from intercept_py.wire.relay import Relay

Message = dict[str, Any]
MODERN = {PROTOCOL_VERSION_KEY: "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}


def request(id: Any, method: str = "tools/call", **params: Any) -> bytes:
    if method == "tools/call":
        params = {"name": "echo", "arguments": {}} | params
    return json.dumps({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).encode()


def notification(method: str, **params: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "method": method, "params": params}).encode()


def allowed(relay: Relay, commands: list[Command]) -> Command:
    """What an allowing judge lets through."""
    (judge,) = (command for command in commands if isinstance(command, Judge))
    (sent,) = relay.decided(judge.ticket, None, now=0.0)
    return sent


def sent(relay: Relay, data: bytes) -> ToUpstream:
    command = allowed(relay, relay.from_client(data))
    assert isinstance(command, ToUpstream)
    return command


def heard(relay: Relay, data: bytes, stream: int = 0) -> ToClient:
    """What the client gets of a message that the server begins."""
    command = allowed(relay, relay.from_upstream(data, stream))
    assert isinstance(command, ToClient)
    return command


def answered(relay: Relay, ticket: int | None, stream: int = 0) -> ToClient:
    data = json.dumps({"jsonrpc": "2.0", "id": ticket, "result": {}}).encode()
    (command,) = (command for command in relay.from_upstream(data, stream) if isinstance(command, ToClient))
    return command


def test_a_request_goes_on_with_what_headers_repeat() -> None:
    command = sent(Relay(), request("a", name="refund"))
    assert command.ticket == 1
    assert command.method == "tools/call"
    assert command.params["name"] == "refund"


def test_a_notification_has_no_ticket_and_an_answer_to_the_server_no_method() -> None:
    relay = Relay()
    command = sent(relay, notification("notifications/roots/list_changed"))
    assert (command.ticket, command.method) == (None, "notifications/roots/list_changed")
    heard(relay, request(7, "roots/list"))
    (settle, answer) = relay.from_client(b'{"jsonrpc":"2.0","id":7,"result":{"roots":[]}}')
    assert isinstance(settle, Settle)
    assert isinstance(answer, ToUpstream)
    assert (answer.ticket, answer.method, answer.params) == (None, None, {})


def test_an_answer_says_whose_it_is_and_on_which_stream_it_came() -> None:
    relay = Relay()
    ticket = sent(relay, request("a")).ticket
    assert ticket is not None
    answer = answered(relay, ticket, stream=ticket)
    assert (answer.request, answer.final, answer.stream) == ("a", True, ticket)


def test_a_denial_and_a_failure_are_answers_as_well() -> None:
    relay = Relay()
    (judge,) = relay.from_client(request("a"))
    assert isinstance(judge, Judge)
    (denial,) = relay.decided(judge.ticket, Denial("d", "denied", "no"), now=0.0)
    assert isinstance(denial, ToClient)
    assert (denial.request, denial.final) == ("a", True)
    ticket = sent(relay, request("b")).ticket
    assert ticket is not None
    settle, failure = relay.failed(ticket, "the connection broke")
    assert settle == Settle(ticket, "error", -32603)
    assert isinstance(failure, ToClient)
    assert (failure.request, failure.final) == ("b", True)
    assert b"the connection broke" in failure.data
    assert relay.failed(ticket, "again") == []


def test_what_cannot_be_read_is_answered_to_nobody_in_particular_but_finally() -> None:
    _, refusal = Relay().from_client(b"[]")
    assert isinstance(refusal, ToClient)
    assert (refusal.request, refusal.final) == (None, True)


def test_what_the_server_says_on_the_stream_of_a_request_belongs_to_it() -> None:
    relay = Relay()
    ticket = sent(relay, request("a")).ticket
    assert ticket is not None
    log = heard(relay, notification("notifications/message", level="info", data="x"), stream=ticket)
    assert (log.request, log.final, log.stream) == ("a", False, ticket)
    ask = heard(relay, request(1, "sampling/createMessage"), stream=ticket)
    assert ask.request == "a"
    other = heard(relay, notification("notifications/message", level="info", data="y"), stream=-3)
    assert (other.request, other.stream) == (None, -3)


def test_progress_tokens_become_tickets_and_come_back() -> None:
    relay = Relay(correlate=True)
    command = sent(relay, request("a", _meta={"progressToken": "mine"}))
    assert command.ticket is not None
    assert json.loads(command.data)["params"]["_meta"]["progressToken"] == command.ticket
    progress = heard(relay, notification("notifications/progress", progressToken=command.ticket, progress=1))
    assert progress.request == "a"
    assert json.loads(progress.data)["params"] == {"progressToken": "mine", "progress": 1}


def test_progress_of_a_cancelled_request_is_dropped() -> None:
    relay = Relay(correlate=True)
    ticket = sent(relay, request("a", _meta={"progressToken": "mine"})).ticket
    relay.from_client(notification("notifications/cancelled", requestId="a"))
    commands = relay.from_upstream(notification("notifications/progress", progressToken=ticket, progress=1))
    assert not any(isinstance(command, Judge) for command in commands)


def test_progress_of_nobody_is_dropped() -> None:
    relay = Relay(correlate=True)
    sent(relay, request("a"))
    for token in (1, 2, "mine", None, True):
        commands = relay.from_upstream(notification("notifications/progress", progressToken=token, progress=1))
        assert not any(isinstance(command, Judge) for command in commands), token


def test_relays_of_one_server_never_use_a_ticket_twice_and_share_what_they_know() -> None:
    mint, known = count(1).__next__, Catalogue()
    relays = [Relay(known=known, mint=mint) for _ in range(3)]
    tickets = [sent(relay, request(1)).ticket for relay in relays for _ in "x"]
    assert tickets == [1, 2, 3]
    assert all(relay.catalogue is known for relay in relays)


def test_an_abandoned_request_is_cancelled_at_the_server_and_wants_no_answer() -> None:
    relay = Relay()
    ticket = sent(relay, request("a")).ticket
    (cancellation,) = relay.abandon("a")
    assert isinstance(cancellation, ToUpstream)
    assert (cancellation.method, cancellation.params["requestId"]) == ("notifications/cancelled", ticket)
    assert json.loads(cancellation.data)["params"]["requestId"] == ticket
    assert ticket is not None
    assert relay.failed(ticket, "gone") == [Settle(ticket, "cancelled"), Unanswered("a")]


def test_a_request_abandoned_while_it_is_judged_is_never_sent() -> None:
    relay = Relay()
    (judge,) = relay.from_client(request("a"))
    assert isinstance(judge, Judge)
    assert relay.abandon("a") == [Withdraw(judge.ticket)]
    assert relay.decided(judge.ticket, None, now=0.0) == [Settle(judge.ticket, "withdrawn")]


def test_nothing_happens_when_nobody_knows_the_abandoned_request() -> None:
    assert Relay().abandon("a") == []


def test_what_a_subscription_is_told_belongs_to_it() -> None:
    relay = Relay()
    ticket = sent(relay, request("s", "subscriptions/listen", _meta=MODERN, notifications={})).ticket
    note = heard(relay, notification("notifications/prompts/list_changed", _meta={SUBSCRIPTION_KEY: ticket}))
    assert note.request == "s"
    assert json.loads(note.data)["params"]["_meta"][SUBSCRIPTION_KEY] == "s"


def test_the_client_s_id_of_a_ticket_is_known_while_it_is_open() -> None:
    relay = Relay()
    ticket = sent(relay, request("a")).ticket
    assert ticket is not None
    assert relay.request_of(ticket) == "a"
    answered(relay, ticket)
    assert relay.request_of(ticket) is None
    assert relay.request_of(99) is None


def test_what_comes_after_the_answer_of_a_request_on_its_stream_is_nobodys() -> None:
    relay = Relay()
    ticket = sent(relay, request("a")).ticket
    assert ticket is not None
    answered(relay, ticket, stream=ticket)
    late = notification("notifications/message", level="info", data="secret")
    for data in (late, request(5, "sampling/createMessage")):
        assert not any(isinstance(one, Judge | ToClient) for one in relay.from_upstream(data, ticket))
