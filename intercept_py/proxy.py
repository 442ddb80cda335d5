"""One session: carries the relay's commands out and has the enforcer judge what the relay holds.

No I/O of its own: a transport feeds it lines, sends what it has collected in `to_client` and `to_upstream`, and calls
`tick` now and then. So every transport enforces alike, and none of them knows a policy.
"""

from __future__ import annotations

__all__ = ["Group", "Session"]

import math
from collections.abc import Callable, Sequence

from intercept_py.enforcer import Enforcer, Verdict
from intercept_py.errors import ProtocolError
from intercept_py.log import Log
from intercept_py.model import Caller, Finding, RequestId, Tool
from intercept_py.policy.rules import Policy
from intercept_py.transports.lines import TooLong
from intercept_py.wire import codec, messages
from intercept_py.wire.catalogue import Catalogue
from intercept_py.wire.commands import (
    Command,
    Judge,
    Note,
    Settle,
    ToClient,
    ToolsKnown,
    ToUpstream,
    Unanswered,
    Withdraw,
)
from intercept_py.wire.messages import Denial, Incoming
from intercept_py.wire.relay import Relay, nothing_hidden

_OURS = frozenset({"audit_unavailable", "state_error", "internal_error"})
"""Denials that are about the proxy and not about the call: whoever runs it must hear of them.

`state_unavailable` is another, but lasts: the enforcer's `outage` has news when it begins and ends.
"""


class Group:
    """Sessions that share counters and a log, and whose calls are recorded together: one write for all of a moment.

    `later` calls what it is given, soon or at once.
    """

    def __init__(self, enforcer: Enforcer, log: Log, later: Callable[[Callable[[], None]], object]) -> None:
        self._enforcer = enforcer
        self._log = log
        self._later = later
        self._members: dict[Session, None] = {}
        self._mark = (0, 0)

    def join(self, session: Session) -> None:
        """Something was judged and waits for a commit."""
        first = not self._members
        self._members[session] = None
        if first:
            self._mark = self._enforcer.commits.mark
            self._later(self.commit)

    def commit(self) -> None:
        """Record all that was judged, and carry it out."""
        if not self._members:
            return
        members, self._members = list(self._members), {}
        problem = self._enforcer.commit(self._mark)
        denials: dict[Session, dict[int, Denial]] = {}
        if problem is not None:
            for session in members:
                denials[session] = session.retracted(problem, told=session is not members[0])
            self._deny(denials)
        for session in members:
            try:
                session.carry_out(denials.get(session, {}))
                session.ready()
            except Exception as exc:  # a bug of ours must not take the others with it
                self._log("error", f"what was judged could not be carried out ({type(exc).__name__})")

    @staticmethod
    def _deny(denials: dict[Session, dict[int, Denial]]) -> None:
        """Say what is denied before a session says that what others with its enforcer asked is allowed.

        Tickets are unique among sessions that share an enforcer, and only among those.
        """
        shared: dict[Enforcer, dict[int, Denial]] = {}
        for session, denied in denials.items():
            shared.setdefault(session.enforcer, {}).update(denied)
        for enforcer, denied in shared.items():
            enforcer.certain(denied)


_LONG = 16384
"""Judging a line of more bytes takes so long that charges made before it are committed first: others wait for them."""


def _data(line: bytes | Incoming) -> bytes:
    return line.line if type(line) is Incoming else line


class Session:
    """See the module. `clock` gives seconds that never go back; `timeout` bounds the wait for the server (0: none).

    `known`, `mint` and `correlate` are for sessions that share a server, see `Relay`; `group` for those that are
    recorded together. `headers`: modern calls go on with headers for which the tool must be known; `disagrees`: they
    come with such headers, and this says what head and body of one say differently; it is told what is known of the
    server's tools, and whether the tool is hidden.
    """

    def __init__(
        self,
        enforcer: Enforcer,
        log: Log,
        clock: Callable[[], float],
        timeout: float = 0.0,
        *,
        known: Catalogue | None = None,
        mint: Callable[[], int] | None = None,
        correlate: bool = False,
        headers: bool = False,
        disagrees: Callable[[Incoming, Catalogue, bool], str | None] | None = None,
        group: Group | None = None,
    ) -> None:
        self.to_client: list[ToClient] = []
        self.to_upstream: list[ToUpstream] = []
        self.unanswered: list[RequestId] = []  # requests that the client cancelled, for who keeps a stream for each
        self.upstream_crowded = False  # set by the transport while the server does not read what it was sent
        self._enforcer = enforcer
        self._log = log
        self._clock = clock
        self._timeout = timeout
        self._hides = enforcer.hides  # as the client knows it
        self._relay = Relay(self._hidden(), varies=enforcer.varies, known=known, mint=mint, correlate=correlate)
        self._waiting: dict[int, tuple[Judge, Caller]] = {}  # for the server's list of tools
        self.ready: Callable[[], object] = bool  # told by the group that there is something to send
        self._headers = headers or disagrees is not None
        self._disagrees = disagrees
        self._group = group
        self._batch: list[tuple[Judge, Verdict]] = []
        self._settled: list[tuple[Settle, float, str]] = []

    def from_client(self, lines: Sequence[bytes | Incoming | ProtocolError | TooLong], limit: int) -> None:
        """Lines from the client, in order. All decisions among them are recorded with one write before any is sent.

        A transport that has taken a message apart already gives what `parse_client` made of it, or found wrong with it.
        """
        self._enforcer.look_at_clock()
        for line in lines:
            if type(line) is TooLong:
                why = f"message is longer than {limit} bytes: raise --max-message-bytes if it must pass"
                self._perform(self._relay.too_long(line.edges, why))
                continue
            if type(line) is ProtocolError:
                self._perform(self._relay.unsound(line))
                continue
            if self._batch and len(_data(line)) > _LONG:
                self._send_judged()
            try:
                self._perform(self._relay.from_client(line))
            except Exception as exc:  # a bug of ours must not take the other requests with it
                self._log("error", f"a message from the client could not be handled ({type(exc).__name__})")
                why = "the proxy failed to handle this message, which went no further"
                self._perform(self._relay.refuse(codec.peek_id(_data(line)), messages.INTERNAL_ERROR, why))
        self._finish_batch()

    def from_upstream(self, lines: list[bytes | TooLong], limit: int, stream: int = 0) -> None:
        """Lines from the server, in order. `stream`: see `Relay.from_upstream`."""
        self._enforcer.look_at_clock()
        for line in lines:
            if type(line) is TooLong:
                why = f"it is longer than {limit} bytes: raise --max-message-bytes if it must pass"
                self._perform(self._relay.unreadable(line.edges, why))
                continue
            try:
                self._perform(self._relay.from_upstream(line, stream))
            except Exception as exc:  # a bug of ours must not take the other requests with it
                self._log("error", f"a message from the server could not be handled ({type(exc).__name__})")
                self._perform(self._relay.unreadable(line, "the proxy failed to handle it"))
        self._send_judged()  # at once: it belongs to what the transport says of the stream that it came on

    def speaks(self, caller: Caller) -> None:
        """What comes from the client from now on is this caller's."""
        self._enforcer.speaks(caller)
        self._relay.hidden = self._hidden()

    def abandon(self, request_id: RequestId) -> None:
        """The client has gone away from this request and wants no answer."""
        self._perform_now(self._relay.abandon(request_id))
        self._finish_batch()

    def failed(self, ticket: int, why: str) -> None:
        """The request with this ticket will get no answer from the server."""
        self._perform_now(self._relay.failed(ticket, why))
        self._finish_batch()  # what waited for this answer, if it was the proxy's own question

    def request_of(self, ticket: int) -> RequestId | None:
        """The client's id of a request at the server, see `Relay`."""
        return self._relay.request_of(ticket)

    def _perform_now(self, commands: list[Command]) -> None:
        """Perform what no message has caused: its records must not carry the time of the last one."""
        if commands:
            self._enforcer.look_at_clock()
            self._perform(commands)

    def _perform(self, commands: list[Command]) -> None:
        for command in commands:
            if type(command) is Judge:
                self._judge(command, self._enforcer.caller)
                continue
            if self._batch:
                self._send_judged()  # what was judged before goes first
            if type(command) is ToUpstream:
                if not (command.courtesy and self.upstream_crowded):
                    self.to_upstream.append(command)
            elif type(command) is ToClient:
                self.to_client.append(command)
            elif type(command) is Settle:
                self._settled.append((command, self._clock(), self._enforcer.now))
            else:
                self._perform_rare(command)

    def _perform_rare(self, command: Command) -> None:
        match command:
            case Note(level, text):
                self._log(level, text)
            case Unanswered(request):
                self.unanswered.append(request)
            case Withdraw(ticket):
                if self._waiting.pop(ticket, None) is not None:
                    self._perform(self._relay.decided(ticket, None, self._clock()))
            case ToolsKnown(problem):
                self._tools_known(problem)

    def _judge(self, judge: Judge, caller: Caller) -> None:
        message = judge.message
        tool: Tool | None = None
        if message.method == "tools/call":
            name = message.params["name"]
            tool = self._relay.catalogue.lookup(name)
            # A call behind one that waits waits as well: the server gets calls in the order of the client.
            needed = tool is None and (
                self._enforcer.needs_tool(name)
                or bool(self._waiting)
                or (self._headers and message.modern and not self._relay.catalogue.failed)
            )
            if needed and judge.ticket not in self._waiting:
                self._waiting[judge.ticket] = judge, caller
                envelope = messages.modern_envelope(message.params) if message.modern else {}
                self._perform(self._relay.fetch_tools(envelope, self._clock()))
                return
            if tool is None or judge.ticket in self._waiting:
                why = self._disagreement(message)
                if why is not None:
                    self._perform(self._relay.mistaken(judge.ticket, messages.HEADER_MISMATCH, why))
                    return
        self._batch.append((judge, self._enforcer.judge(judge, tool, caller)))

    def _tools_known(self, problem: str | None) -> None:
        """The calls that waited for the server's list are judged now, with it or (and then denied) without it."""
        if problem is not None:
            what = "calls that need their schemas are denied, others go on without `Mcp-Param` headers"
            self._log("warn", f"the server's tools are not known, so {what}: {problem}")
        for judge, caller in list(self._waiting.values()):
            self._judge(judge, caller)
        self._waiting.clear()

    def _disagreement(self, message: Incoming) -> str | None:
        """What a call and the head of its HTTP request say differently, where nobody knew its tool when it came."""
        if self._disagrees is None or not message.modern:
            return None
        return self._disagrees(message, self._relay.catalogue, self._relay.hidden(message.params["name"]))

    def _finish_batch(self) -> None:
        """Nothing more comes with what was judged."""
        if self._group is None:
            self._send_judged()
        elif self._batch:
            self._group.join(self)

    def _send_judged(self) -> None:
        """Record every verdict, then carry it out. One that could not be recorded becomes a denial (promise 6)."""
        if not self._batch:
            return
        if self._group is not None:
            self._group.join(self)
            self._group.commit()
            return
        problem = self._enforcer.commit()
        self.carry_out({} if problem is None else self.retracted(problem))

    def retracted(self, problem: Finding, *, told: bool = False) -> dict[int, Denial]:
        """What `problem`, with which the commit of all that was judged has failed, makes of allowances.

        `told`: people know of it.
        """
        if problem.code in _OURS and not told:
            self._log("error", f"calls of a moment are denied: {problem.reason}")
        return self._enforcer.retract([verdict for _, verdict in self._batch if verdict.denial is None], problem)

    def carry_out(self, denials: dict[int, Denial]) -> None:
        """Carry out what was judged, which is recorded, but for these tickets."""
        batch, self._batch = self._batch, []
        self._enforcer.certain(denials)
        if self._enforcer.outage.news:
            self._tell_news()
        now = self._clock()
        for judge, verdict in batch:
            denial = verdict.denial
            if denial is not None and denial.code in _OURS:
                self._log("error", f"a call is denied: {denial.reason}")
            if denial is None and denials:
                denial = denials.get(verdict.ticket)
            self._perform(self._relay.decided(judge.ticket, denial, now))

    def sent(self) -> None:
        """What was collected is on its way: tell who watches, and prepare the records of what ended meanwhile.

        Where somebody watches, the transport calls this soon after every message: what is to be told is kept till then.
        """
        self.unanswered.clear()
        self._enforcer.tell()
        for settle, ended, at in self._settled:
            self._enforcer.settle(settle, ended, at)
        self._settled.clear()

    def rest(self) -> None:
        """Nothing to do for a moment: record how requests ended, which else waits for the next decision's write."""
        self.sent()
        problem = self._enforcer.commit()
        if self._enforcer.outage.news:
            self._tell_news()
        why = problem.reason if problem is not None and problem.code in _OURS else self._enforcer.complaint()
        if why is not None:
            self._log("error", f"what became of calls is not recorded: {why}")

    def _tell_news(self) -> None:
        news = self._enforcer.outage.news
        for level, text in news:
            self._log(level, text)
        news.clear()

    @property
    def enforcer(self) -> Enforcer:
        """What judges."""
        return self._enforcer

    @property
    def judging(self) -> bool:
        """Whether a request is held back until the server's list of tools is known, or until it is recorded."""
        return bool(self._waiting or self._batch)

    @property
    def waiting(self) -> bool:
        """Whether a request is at the server."""
        return self._relay.waiting

    @property
    def idle(self) -> bool:
        """Whether nothing is being judged, at the server, or at the client."""
        return not (self._batch or self._waiting or self._relay.waiting)

    def tick(self) -> None:
        """Give up on what the server has had too long. Call it at least once a second while `waiting`."""
        self._perform_now(self._relay.expire(self._clock(), self._timeout or math.inf))
        self._finish_batch()

    def upstream_gone(self, why: str) -> None:
        """The server ended: answer what is open, and then what only now got its turn behind a call that waited."""
        self._perform_now(self._relay.upstream_gone(why))
        self._send_judged()
        self._perform_now(self._relay.upstream_gone(why))

    def replace_policy(self, policy: Policy) -> None:
        """One reference is swapped: calls judged from now on see the new policy, all others the old one (promise 9)."""
        self._enforcer.replace(policy)
        self._relay.hidden, self._relay.varies = self._hidden(), self._enforcer.varies
        if self._enforcer.hides != self._hides:
            self._hides = self._enforcer.hides
            self._perform(self._relay.announce_tools())

    def _hidden(self) -> Callable[[str], bool]:
        return self._enforcer.hiding() if self._enforcer.hides else nothing_hidden
