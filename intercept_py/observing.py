"""What the enforcer tells those who watch: every decision and every end, for metrics and traces.

Watching costs nothing where nobody does, and changes nothing. Below: `policy`, `wire`. Above: the enforcer, which calls
an `Observer`; `metrics` and `telemetry`, which are some.
"""

from __future__ import annotations

__all__ = ["OTHER", "Judged", "Names", "Observer", "Observers", "Watch", "label"]

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Protocol, TypeAlias

import msgspec

from intercept_py.log import printable
from intercept_py.model import Caller, Decision, Finding, Outcome, Tool, ToolCall
from intercept_py.policy.rules import Policy
from intercept_py.wire.catalogue import read_page
from intercept_py.wire.commands import Judge, Settle
from intercept_py.wire.messages import Denial, Incoming

OTHER = "other"
"""Stands for all names that are not among a bounded number."""

_MOST_NAMES = 200
_LONGEST = 128


class Judged(msgspec.Struct, frozen=True):
    """One decision, once it is certain: recorded, and its charges kept.

    `call` is None for every method but `tools/call`. `finding` denies; None: the message goes on, `uncounted` where its
    limits fail open. `decision` is the id of its audit record. `seconds`: from when it was held back until it could be
    carried out, which was `ago` seconds ago. `upward`: it goes from the client to the server.
    """

    message: Incoming
    call: ToolCall | None
    caller: Caller
    decision: str
    seconds: float
    ago: float
    finding: Finding | None = None
    shadowed: tuple[Finding, ...] = ()
    upward: bool = True
    uncounted: bool = False


class Observer(Protocol):
    """Watches one server's conversations. Its methods never block. What they raise is lost, and harms nobody."""

    def decided(self, judged: Judged) -> object:
        """A decision was made. What it gives is handed back to `ended` if there is an end to come."""

    def ended(self, seen: object, outcome: Outcome, code: int | None, seconds: float) -> None:
        """An allowed request is over, after so many seconds. `code` is that of a JSON-RPC error."""

    def listed(self, names: list[str]) -> None:
        """The server lists these tools, among others."""

    def failed(self, code: str) -> None:
        """Something that a decision needs did not work: the code of the denial that this causes (`Finding.code`)."""

    def reloaded(self, policy: Policy | None) -> None:
        """A changed policy is in force, or (None) was refused."""


class Observers:
    """Several observers as one."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers

    def decided(self, judged: Judged) -> object:
        """See `Observer`."""
        return [observer.decided(judged) for observer in self._observers]

    def ended(self, seen: object, outcome: Outcome, code: int | None, seconds: float) -> None:
        """See `Observer`."""
        assert isinstance(seen, list)
        for observer, own in zip(self._observers, seen, strict=True):
            observer.ended(own, outcome, code, seconds)

    def listed(self, names: list[str]) -> None:
        """See `Observer`."""
        for observer in self._observers:
            observer.listed(names)

    def failed(self, code: str) -> None:
        """See `Observer`."""
        for observer in self._observers:
            observer.failed(code)

    def reloaded(self, policy: Policy | None) -> None:
        """See `Observer`."""
        for observer in self._observers:
            observer.reloaded(policy)


_Uncertain: TypeAlias = tuple[Judge, ToolCall | None, Caller, str, Decision, float]
_Moment: TypeAlias = tuple[float, list[_Uncertain], set[int], Mapping[int, Denial]]


class Watch:
    """One enforcer's side of its observer: holds decisions back until they are certain, and knows whose an end is.

    `timer` tells seconds that never go back. `untold` is what is certain and what `tell` will say.
    """

    def __init__(self, observer: Observer, timer: Callable[[], float]) -> None:
        self._observer = observer
        self._timer = timer
        self._uncertain: list[_Uncertain] = []
        self._opened: set[int] = set()
        self.untold: list[_Moment] = []
        self._open: dict[int, object] = {}
        self._lists: set[int] = set()  # which of them are `tools/list`

    def judged(
        self, judge: Judge, call: ToolCall | None, caller: Caller, decision_id: str, decision: Decision, since: float
    ) -> None:
        """This was decided, and will be certain after the next commit."""
        self._uncertain.append((judge, call, caller, decision_id, decision, since))

    def opened(self, ticket: int) -> None:
        """The charges of this message could not be kept, and it goes on nonetheless."""
        self._opened.add(ticket)

    def certain(self, denials: Mapping[int, Denial]) -> None:
        """What was judged since the last time is recorded; these tickets were denied after all. `tell` says so."""
        if self._uncertain:
            self.untold.append((self._timer(), self._uncertain, self._opened, denials))
            self._uncertain = []
            if self._opened:
                self._opened = set()

    def tell(self) -> None:
        """Tell the observer what is certain. Nobody has to wait for that."""
        for moment in self.untold:
            self._tell(*moment)
        self.untold.clear()

    def _tell(self, at: float, decided: list[_Uncertain], opened: set[int], denials: Mapping[int, Denial]) -> None:
        ago = self._timer() - at
        for judge, call, caller, decision_id, decision, since in decided:
            ticket, message = judge.ticket, judge.message
            denial = denials.get(ticket)
            finding = decision.finding if denial is None else Finding(denial.code, denial.reason, denial.rule)
            judged = Judged(
                message,
                call,
                caller,
                decision_id,
                at - since,
                ago,
                finding,
                decision.shadowed,
                judge.upward,
                bool(decision.uncounted) or ticket in opened,
            )
            try:
                seen = self._observer.decided(judged)
                if finding is None and message.id is not None:
                    self._open[ticket] = seen
                    if message.method == "tools/list":
                        self._lists.add(ticket)
            except Exception:  # see `Observer`
                pass

    def ended(self, settle: Settle, outcome: Outcome, seconds: float) -> None:
        """An allowed request is over, of whose decision the observer was told; `outcome` is the true one."""
        ticket = settle.ticket
        try:
            if ticket in self._open:
                self._observer.ended(self._open.pop(ticket), outcome, settle.code, seconds)
            if ticket in self._lists:
                self._lists.remove(ticket)
                if outcome == "ok":
                    self._observer.listed([tool.name for tool in read_page(settle.result)[1]])
        except Exception:  # see `Observer`
            pass

    def failed(self, code: str) -> None:
        """See `Observer`."""
        with suppress(Exception):
            self._observer.failed(code)

    def reloaded(self, policy: Policy | None) -> None:
        """See `Observer`."""
        with suppress(Exception):
            self._observer.reloaded(policy)


class Names:
    """The names of tools that may label something: agents invent names, and each label is kept for ever.

    These are the names that policies have or had, and the first 200 others that the server is seen to list.
    """

    def __init__(self) -> None:
        self._labels: dict[str, str] = {}
        self._listed = 0

    def learn(self, policy: Policy) -> None:
        """Take the names that a policy has as they are, without those of globs."""
        patterns = (*(entry.pattern for entry in policy.entries), *policy.hide)
        self._labels |= {name: label(name) for name in patterns if "*" not in name and "?" not in name}

    def listed(self, names: list[str]) -> None:
        """Take what the server lists."""
        for name in names:
            if name not in self._labels and self._listed < _MOST_NAMES:
                self._listed += 1
                self._labels[name] = label(name)

    def known(self) -> list[str]:
        """All of them. Any thread may ask."""
        return list(self._labels)

    def __call__(self, name: str, tool: Tool | None) -> str:
        """The label for a tool of this name; `tool` as in `ToolCall`."""
        known = self._labels.get(name)
        if known is not None or tool is None or not tool.listed:
            return known or OTHER
        self.listed([name])
        return self._labels.get(name, OTHER)


def label(text: str) -> str:
    """A stranger's text as a label: of bounded length, without anything that moves a cursor or that UTF-8 lacks."""
    return printable(text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…")
