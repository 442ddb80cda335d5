"""What an observer is told of real conversations, and what becomes of names that strangers choose."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from intercept_py.audit.log import AuditLog
from intercept_py.errors import AuditError, UnavailableError
from intercept_py.model import NO_TOOL, Charge, Outcome, Tool
from intercept_py.observing import OTHER, Judged, Names, Observer, Observers, label
from intercept_py.policy import loader
from intercept_py.policy.rules import Policy
from intercept_py.state import Receipt, open_state
from tests.conversation import Conversation, Message, call

POLICY = """
tools:
  cancel_run: {rules: [{name: two, rate_limit: {max: 2, window: 60}}]}
  purge: {rules: [{name: never, action: deny}]}
  watched: {rules: [{name: looks, action: deny, mode: shadow}]}
"""


class Watcher:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.decisions: list[Judged] = []
        self.ends: list[tuple[str, Outcome, int | None, float]] = []
        self.failures: list[str] = []
        self.lists: list[list[str]] = []
        self.policies: list[Policy | None] = []

    def decided(self, judged: Judged) -> object:
        self.decisions.append(judged)
        return f"seen {judged.message.id}"

    def ended(self, seen: object, outcome: Outcome, code: int | None, seconds: float) -> None:
        self.ends.append((str(seen), outcome, code, seconds))

    def listed(self, names: list[str]) -> None:
        self.lists.append(names)

    def failed(self, code: str) -> None:
        self.failures.append(code)

    def reloaded(self, policy: Policy | None) -> None:
        self.policies.append(policy)

    def effects(self) -> list[tuple[object, str | None]]:
        """Each message's id and the code of its denial."""
        return [(one.message.id, one.finding.code if one.finding else None) for one in self.decisions]


class Broken:
    """Fails at everything."""

    def decided(self, judged: Judged) -> object:
        raise RuntimeError

    def ended(self, seen: object, outcome: Outcome, code: int | None, seconds: float) -> None:
        raise RuntimeError

    def listed(self, names: list[str]) -> None:
        raise RuntimeError

    def failed(self, code: str) -> None:
        raise RuntimeError

    def reloaded(self, policy: Policy | None) -> None:
        raise RuntimeError


def finished(observer: Observer, folder: Path) -> Conversation:
    """A conversation of two calls that are answered, one over its limit, and one that is denied anyway."""
    talk = Conversation(POLICY, folder, observer=observer)
    talk.say(call(1))
    talk.now = 1.5
    talk.answer(talk.calls()[0])
    talk.say(call(2), call(3), call(4, "purge"))
    error = {"code": -32000, "message": "no"}
    talk.reply({"jsonrpc": "2.0", "id": talk.calls()[1]["id"], "error": error})
    talk.end()
    return talk


def test_decisions_are_told_when_they_are_certain_and_ends_with_their_outcome(tmp_path: Path) -> None:
    watcher = Watcher()
    finished(watcher, tmp_path)
    assert watcher.effects() == [(1, None), (2, None), (3, "limit_reached"), (4, "denied_by_rule")]
    assert watcher.ends == [("seen 1", "ok", None, 1.5), ("seen 2", "error", -32000, 0.0)]
    assert watcher.failures == []


def test_a_decision_is_told_with_the_id_of_its_record(tmp_path: Path) -> None:
    watcher = Watcher()
    talk = finished(watcher, tmp_path)
    recorded = [record["id"] for record in talk.records() if record["event"] == "decision"]
    assert [judged.decision for judged in watcher.decisions] == recorded


def test_a_rule_that_is_only_watched_is_told_of(tmp_path: Path) -> None:
    watcher = Watcher()
    Conversation(POLICY, tmp_path, observer=watcher).say(call(1, "watched"))
    (judged,) = watcher.decisions
    assert [(one.rule, one.code) for one in judged.shadowed] == [("looks", "denied_by_rule")]


class Full(AuditLog):
    """A log on a disk that is full from now on."""

    def flush(self) -> None:
        raise AuditError("the disk is full")


def test_an_allowance_that_cannot_be_recorded_is_told_as_the_denial_that_it_becomes(tmp_path: Path) -> None:
    watcher = Watcher()
    log = Full.open(str(tmp_path / "log.jsonl"))
    talk = Conversation(POLICY, tmp_path, audit=log, observer=watcher)
    talk.say(call(1))
    assert talk.calls() == []
    assert watcher.effects() == [(1, "audit_unavailable")]
    assert watcher.failures == ["audit_unavailable"]
    assert watcher.ends == []


def test_what_is_told_later_says_when_it_was(tmp_path: Path) -> None:
    watcher = Watcher()
    talk = Conversation(POLICY, tmp_path, observer=watcher)
    talk.session.from_client([json.dumps(call(1)).encode()], 10_000)
    assert watcher.decisions == []
    talk.now = 2.5
    talk.session.sent()
    assert [(judged.seconds, judged.ago) for judged in watcher.decisions] == [(0.0, 2.5)]


class Away:
    """Counters in a store that cannot be reached: when it is charged, or only when that is to be kept."""

    def __init__(self, *, at_once: bool) -> None:
        self._state = open_state("memory://")
        self._at_once = at_once

    def charge(self, server: str, charges: tuple[Charge, ...]) -> Receipt:
        if self._at_once:
            raise UnavailableError("away")
        return self._state.charge(server, charges)

    def refund(self, receipt: Receipt) -> None:
        self._state.refund(receipt)

    def commit(self) -> None:
        raise UnavailableError("away")

    def close(self) -> None:
        self._state.close()


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("fail_open", [True, False])
def test_a_call_whose_limits_cannot_be_counted_is_told_as_what_becomes_of_it(
    tmp_path: Path, at_once: bool, fail_open: bool
) -> None:
    watcher = Watcher()
    talk = Conversation(POLICY, tmp_path, state=Away(at_once=at_once), fail_open=fail_open, observer=watcher)
    talk.say(call(1), call(2, "free"))
    assert watcher.effects() == [(1, None if fail_open else "state_unavailable"), (2, None)]
    assert [one.uncounted for one in watcher.decisions if one.finding is None] == [True, False][not fail_open :]
    assert set(watcher.failures) == {"state_unavailable"}


def test_a_request_that_the_server_does_not_live_to_answer_ends_so(tmp_path: Path) -> None:
    watcher = Watcher()
    talk = Conversation(POLICY, tmp_path, observer=watcher)
    talk.say(call(1))
    talk.end()
    assert [(seen, outcome) for seen, outcome, _, _ in watcher.ends] == [("seen 1", "upstream_gone")]


def test_an_observer_that_fails_harms_nobody(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    watched, alone = finished(Broken(), tmp_path), finished(Watcher(), tmp_path / "other")
    assert [message["id"] for message in watched.client] == [message["id"] for message in alone.client] == [1, 3, 4, 2]
    assert watched.upstream == alone.upstream


@pytest.mark.parametrize("result", [{}, {"tools": 1}, {"tools": [{"name": 5}]}])
def test_a_list_that_cannot_be_read_is_not_told(tmp_path: Path, result: Message) -> None:
    watcher = Watcher()
    talk = Conversation(POLICY, tmp_path, observer=watcher)
    talk.say({"jsonrpc": "2.0", "id": 1, "method": "tools/list"})
    talk.answer(talk.upstream[0], result)
    talk.end()
    assert watcher.lists == []
    assert [(seen, outcome) for seen, outcome, _, _ in watcher.ends] == [("seen 1", "ok")]


def test_what_the_server_lists_is_told(tmp_path: Path) -> None:
    watcher = Watcher()
    talk = Conversation(POLICY, tmp_path, observer=watcher)
    talk.say({"jsonrpc": "2.0", "id": 1, "method": "tools/list"})
    talk.answer(talk.upstream[0], {"tools": [{"name": "a"}, {"name": "b"}]})
    talk.end()
    assert watcher.lists == [["a", "b"]]


@pytest.mark.parametrize("others", [[], [Broken()]], ids=["alone", "beside one that fails"])
def test_a_reload_is_told_with_the_policy_that_is_in_force_and_one_that_fails_without(
    others: list[Observer], tmp_path: Path
) -> None:
    watcher, changed = Watcher(), loader.load(b"default: allow\n", "policy.yaml")
    talk = Conversation(POLICY, tmp_path, observer=Observers(watcher, *others))
    talk.session.replace_policy(changed)
    talk.session.enforcer.reloaded(0)
    talk.session.enforcer.reloaded(2)
    assert watcher.policies == [changed, None]
    assert [record["accepted"] for record in talk.records()] == [True, False]


def test_several_observers_are_told_the_same_and_get_back_what_each_gave(tmp_path: Path) -> None:
    first, second = Watcher(), Watcher()
    finished(Observers(first, second), tmp_path)
    assert first.decisions == second.decisions
    assert first.ends == second.ends == [("seen 1", "ok", None, 1.5), ("seen 2", "error", -32000, 0.0)]


# -- names -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def names() -> Names:
    names = Names()
    names.learn(loader.load(b"hide: [secret, 'x*']\ntools: {echo: {}, 'list_*': {}}\n", "policy.yaml"))
    return names


@pytest.mark.parametrize("name", ["echo", "secret"])
def test_a_name_that_the_policy_spells_out_is_a_label(names: Names, name: str) -> None:
    assert names(name, NO_TOOL) == names(name, None) == name


@pytest.mark.parametrize("name", ["list_*", "x*", "list_runs", "invented"])
def test_a_name_that_nobody_spells_out_is_no_label(names: Names, name: str) -> None:
    assert names(name, NO_TOOL) == names(name, None) == OTHER


def test_a_name_that_the_server_lists_is_a_label_from_then_on(names: Names) -> None:
    assert names("list_runs", Tool("list_runs")) == "list_runs"
    assert names("list_runs", None) == "list_runs"


def test_a_server_cannot_list_names_without_end(names: Names) -> None:
    labels = {names(f"tool_{number}", Tool("")) for number in range(10_000)}
    assert len(labels) == 201
    assert OTHER in labels
    assert names("echo", None) == "echo"


def test_a_label_is_short_and_moves_no_cursor() -> None:
    assert label("a\x1b[2J\n\u202eb\ud800") == "a\\x1b[2J\\n\\u202eb\\ud800"
    assert label("x" * 1000) == "x" * 127 + "…"
