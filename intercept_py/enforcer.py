"""The policy enforcement point: discharges what a decision obliges to, records it, and says what the agent is told.

Fails closed (promise 4): whatever goes wrong between a call and its record is a denial. Below: `policy`, `state`,
`audit`. Above: `proxy`, which carries verdicts out.
"""

from __future__ import annotations

__all__ = ["Commits", "Enforcer", "Verdict"]

from collections.abc import Callable, Mapping
from itertools import count
from typing import Literal

import msgspec

from intercept_py.audit.chain import encode
from intercept_py.audit.log import AuditLog
from intercept_py.audit.record import (
    Request,
    decision_record,
    outcome_record,
    reload_record,
    stop_record,
    timestamp,
    uncounted_record,
)
from intercept_py.errors import AuditError, ProtocolError, StateError, UnavailableError
from intercept_py.model import (
    AuditLevel,
    Caller,
    Charge,
    Decision,
    Effect,
    Failure,
    Finding,
    JsonObject,
    Outcome,
    Tool,
    ToolCall,
)
from intercept_py.observing import Observer, Watch
from intercept_py.policy import pdp
from intercept_py.policy.rules import Policy
from intercept_py.state import Receipt, Refusal, State
from intercept_py.state.outage import Outage
from intercept_py.wire import codec
from intercept_py.wire.commands import Judge, Settle
from intercept_py.wire.messages import KNOWN_METHODS, Denial

# Members of an enum are slow to look up.
_ALLOW, _DENY, _RESPONSE = Effect.ALLOW, Effect.DENY, AuditLevel.RESPONSE
_OF_STATE = ("state_unavailable", "state_error")
_KEPT_REQUESTS = 256
_LONGEST_EXAMINED = 1024 * 1024


class Verdict(msgspec.Struct, frozen=True):
    """What becomes of one judged message: `denial` None lets it go on.

    The rest is for its end: `since` on the timer, what its outcome record repeats and looks for, what a refund needs;
    and `charges` for the case that they come to nothing.
    """

    ticket: int
    decision_id: str
    denial: Denial | None = None
    since: float = 0.0
    audit: AuditLevel = AuditLevel.METADATA
    receipt: Receipt | None = None
    failure: Failure | None = None
    charges: tuple[Charge, ...] = ()


class Commits:
    """What enforcers that share counters and a log know of each other's commits.

    A commit makes sure of what all of them have judged, or of nothing: whoever waits for another one must be able to
    tell that there was one, and that it failed.
    """

    def __init__(self, audit: AuditLog) -> None:
        self._audit = audit
        self.failed = 0
        self.problem: Finding | None = None

    @property
    def mark(self) -> tuple[int, int]:
        """Changes with every commit that fails. The second part alone: with every loss of records, whoever's."""
        return self.failed, self._audit.losses


class Enforcer:
    """Judges for one connection. `clock` tells UTC seconds since the epoch, `timer` seconds that never go back.

    `caller` is whose messages come now, `now` what records say of when. `fail_open` is for limits that do not say
    themselves what they do while the store is unavailable, see `Charge`. `outage` is what is known of that. `mint`
    names decisions, uniquely in a log; without it they are counted, each with the beginning of the session's id.
    `observer` is told what becomes of messages. `commits` is for enforcers that share `state` and `audit`.
    """

    def __init__(
        self,
        policy: Policy,
        state: State,
        audit: AuditLog,
        server: str,
        caller: Caller,
        clock: Callable[[], float],
        timer: Callable[[], float],
        *,
        fail_open: bool = False,
        mint: Callable[[], str] | None = None,
        observer: Observer | None = None,
        commits: Commits | None = None,
    ) -> None:
        self._policy = policy
        self._needs_tools = pdp.needs_tools(policy)
        self._by_caller = pdp.hides_by_caller(policy)
        self._state = state
        self._audit = audit
        self._server = server
        self.caller = caller
        self._clock = clock
        self._timer = timer
        self._fail_open = fail_open
        self.commits = commits or Commits(audit)
        self.outage = Outage()
        self._mint = mint or _counted(caller.session)
        self._open: dict[int, Verdict] = {}  # allowed requests on their way
        self._requests: dict[tuple[str, bool], str] = {}  # what records of one kind of request share
        self._watch = None if observer is None else Watch(observer, timer)
        self._problem: str | None = None
        self.now = ""
        self.look_at_clock()

    # ---- what the policy hides and needs

    @property
    def hides(self) -> tuple[str, ...]:
        """What makes lists of tools shorter, as far as it can be told apart; empty where nothing does."""
        if self._policy.shadow:
            return ()
        return (*self._policy.hide, self._policy.revision) if self._by_caller else self._policy.hide

    @property
    def varies(self) -> bool:
        """Whether callers are shown different lists of tools."""
        return self._by_caller

    def hiding(self) -> Callable[[str], bool]:
        """What tells which tools are kept from this caller by this policy."""
        policy, caller = self._policy, self.caller
        if self._by_caller:
            return lambda name: pdp.hidden_from(policy, name, caller)
        return lambda name: pdp.match(policy, name).hidden

    def needs_tool(self, name: str) -> bool:
        """Whether a call of this tool must wait for the server's listing of it; in shadow mode none waits."""
        return self._needs_tools and pdp.match(self._policy, name).needs_tool

    def speaks(self, caller: Caller) -> None:
        """Judge what comes from now on as this caller's, in the same session."""
        caller = msgspec.structs.replace(caller, session=self.caller.session)
        if caller != self.caller:
            self.caller = caller
            self._requests.clear()

    def replace(self, policy: Policy) -> None:
        """Judge by another policy from now on."""
        self._policy = policy
        self._needs_tools = pdp.needs_tools(policy)
        self._by_caller = pdp.hides_by_caller(policy)
        self._requests.clear()

    # ---- judging

    def look_at_clock(self) -> None:
        """What happens until the next look has this time: that of the bytes, or of whatever else, which caused it."""
        self.now = timestamp(self._clock())

    def judge(self, judge: Judge, tool: Tool | None, caller: Caller) -> Verdict:
        """Decide, charge and append the record. It counts once `commit` has written it.

        `caller`: as it was when the message came.
        """
        decision_id = self._mint()
        message = judge.message
        method = str(message.method)
        receipt: Receipt | None = None
        call: ToolCall | None = None
        since = self._timer()
        try:
            if method == "tools/call":
                call = ToolCall(message.params["name"], message.params.get("arguments", {}), caller, tool)
            decision, receipt, refusal = self._decide(call, method)
            allowed = decision.effect is _ALLOW
            # A notification to the server may have an effect.
            if message.id is not None or not allowed or (judge.upward and method not in pdp.LIFECYCLE):
                self._record(decision_id, method, message.modern, decision, call)
        except Exception as exc:  # promise 4: any failure while deciding is a denial
            if receipt is not None:
                self._refund(receipt)
            allowed, decision, receipt, refusal = False, Decision(_DENY, self._fault(exc)), None, None
        if self._watch is not None:
            self._watch.judged(judge, call, caller, decision_id, decision, since)
        if allowed:
            verdict = Verdict(
                judge.ticket,
                decision_id,
                None,
                self._timer(),
                decision.audit,
                receipt,
                decision.failure,
                decision.charges,
            )
            if message.id is not None:
                self._open[judge.ticket] = verdict
            return verdict
        finding = decision.finding or Finding("internal_error", "the policy gave no reason")
        retry_after = None if refusal is None else refusal.retry_after
        return Verdict(judge.ticket, decision_id, _denial(decision_id, finding, retry_after))

    def _decide(self, call: ToolCall | None, method: str) -> tuple[Decision, Receipt | None, Refusal | None]:
        if call is None:
            return pdp.judge_method(self._policy, method, method in KNOWN_METHODS), None, None
        decision = pdp.decide(self._policy, call)
        if not decision.charges:  # a denial has none
            return decision, None, None
        try:
            receipt = self._state.charge(self._server, decision.charges)
        except Exception as exc:  # promise 4
            return self._uncharged(decision, self._fault(exc)), None, None
        if self.outage.why is not None:
            self.outage.answered()
        if receipt.shadowed:
            shadowed = decision.shadowed + tuple(_limit_finding(refusal) for refusal in receipt.shadowed)
            decision = msgspec.structs.replace(decision, shadowed=shadowed)
        if receipt.refused is None:
            return decision, receipt, None
        finding = _limit_finding(receipt.refused)
        denied = msgspec.structs.replace(decision, effect=_DENY, finding=finding, charges=())
        return denied, None, receipt.refused

    def _uncharged(self, decision: Decision, fault: Finding) -> Decision:
        """What becomes of an allowance whose charges could not be made: it stands if all of its limits open."""
        if not self._opens(fault, decision.charges):
            return msgspec.structs.replace(decision, effect=_DENY, finding=fault, charges=())
        uncounted = tuple([Finding(fault.code, fault.reason, charge.rule) for charge in decision.charges])
        return msgspec.structs.replace(decision, charges=(), uncounted=uncounted)

    def _opens(self, fault: Finding, charges: tuple[Charge, ...]) -> bool:
        """Whether a call may go on although its charges were not made."""
        if fault.code != "state_unavailable" and not (fault.code == "state_error" and all(c.shadow for c in charges)):
            return False
        default = self._fail_open
        return all(charge.shadow or (default if charge.fail_open is None else charge.fail_open) for charge in charges)

    def _fault(self, exc: Exception) -> Finding:
        """A failure while deciding. What an exception says may hold argument values: only our own faults are quoted."""
        if isinstance(exc, UnavailableError):
            self.outage.seen(str(exc))
        finding = _finding(exc)
        if self._watch is not None:
            self._watch.failed(finding.code)
        return finding

    def _record(self, decision_id: str, method: str, modern: bool, decision: Decision, call: ToolCall | None) -> None:
        request = self._requests.get((method, modern))
        if request is None:
            era: Literal["legacy", "modern"] = "modern" if modern else "legacy"
            request = Request(self._server, era, self._policy.revision, method, self.caller).encode()
            if len(self._requests) >= _KEPT_REQUESTS:  # the other side invents methods
                self._requests.clear()
            self._requests[method, modern] = request
        self._audit.append(decision_record(self.now, decision_id, request, decision, call))

    def commit(self, since: tuple[int, int] | None = None) -> Finding | None:
        """Keep all charges and write all records since the last commit.

        A finding says why that cannot be: then `retract` what was allowed since. `since`: the `Commits.mark` at the
        time of the first judgement, where others may have committed meanwhile.
        """
        problem = self._commit()
        commits = self.commits
        if problem is not None:
            commits.failed += 1
            commits.problem = problem
        if since is None or since == commits.mark:
            return problem
        if since[1] != commits.mark[1] and (problem is None or problem.code in _OF_STATE):
            # Not what failed last: a call whose charges are gone may still go on, one without a record must not.
            return Finding("audit_unavailable", "the call cannot be recorded: see what the proxy said on stderr")
        return problem or commits.problem

    def _commit(self) -> Finding | None:
        problem = None
        try:
            self._state.commit()
            if self.outage.why is not None:
                self.outage.committed()
        except Exception as exc:  # promise 4
            problem = self._fault(exc)
        try:
            self._audit.flush()
        except Exception as exc:  # promise 6
            problem = self._fault(exc if isinstance(exc, AuditError) else AuditError(type(exc).__name__))
        return problem

    def certain(self, denials: Mapping[int, Denial]) -> None:
        """What was judged since the last time is certain. `denials` are those of `retract`."""
        if self._watch is not None:
            self._watch.certain(denials)

    def tell(self) -> None:
        """Tell the observer what is certain."""
        if self._watch is not None and self._watch.untold:
            self._watch.tell()

    def complaint(self) -> str | None:
        """Why an outcome could not be recorded or a charge not be given back, if that happened since the last call."""
        problem, self._problem = self._problem, None
        return problem

    def retract(self, verdicts: list[Verdict], problem: Finding) -> dict[int, Denial]:
        """Turn allowances that `commit` could not make sure of into denials, each under its ticket.

        Where only the counters failed, calls that have none go on, and so do those that may go on uncounted.
        """
        self.look_at_clock()  # the commit may have waited for a lock
        denied = verdicts
        if problem.code in _OF_STATE:
            try:
                denied = self._revise([verdict for verdict in verdicts if verdict.charges], problem)
            except AuditError as exc:
                problem = self._fault(exc)
        return {verdict.ticket: self._withdraw(verdict, problem) for verdict in denied}

    def _revise(self, charged: list[Verdict], fault: Finding) -> list[Verdict]:
        """Record what becomes of calls whose records say that they were charged (promise 6); those that are denied."""
        denied = []
        for verdict in charged:
            opens = self._opens(fault, verdict.charges)
            self._audit.append(uncounted_record(self.now, verdict.decision_id, fault, opens))
            if not opens:
                denied.append(verdict)
            elif self._watch is not None:
                self._watch.opened(verdict.ticket)
        self._audit.flush()
        return denied

    def _withdraw(self, verdict: Verdict, problem: Finding) -> Denial:
        self._open.pop(verdict.ticket, None)
        if verdict.receipt is not None:
            self._refund(verdict.receipt)
        if problem.code != "audit_unavailable":  # else there is no record of the allowance
            self._append(outcome_record(self.now, verdict.decision_id, "withdrawn", 0))
        return _denial(verdict.decision_id, problem, None)

    def settle(self, settle: Settle, ended: float, at: str) -> None:
        """Append how an allowed request ended: `ended` on the timer, when `now` was `at`.

        What never reached the server is given back (security rule 6).
        """
        request = self._open.pop(settle.ticket, None)
        if request is None:
            return
        if settle.outcome == "withdrawn" and request.receipt is not None:
            self._refund(request.receipt)
        ms = (ended - request.since) * 1000
        outcome = settle.outcome
        more: JsonObject = {}
        if request.failure is not None and outcome == "ok":
            outcome, more = _examined(settle.result, request.failure)
        if request.audit is _RESPONSE and settle.result:
            more |= self._kept_result(settle.result)
        self._append(outcome_record(at, request.decision_id, outcome, ms, settle.code, more))
        if self._watch is not None:
            self._watch.ended(settle, outcome, ended - request.since)

    def _append(self, record: bytes) -> None:
        try:
            self._audit.append(record)
        except AuditError as exc:
            self._problem = str(exc)
            self._fault(exc)

    @staticmethod
    def _kept_result(result: bytes) -> JsonObject:
        """What an outcome record keeps of a result. What a server sends must not cost us the record of it."""
        try:
            kept = {"result": codec.decode_payload(result)}
            encode(kept)
        except (ProtocolError, ValueError, RecursionError) as exc:
            return {"result_error": str(exc)}
        return kept

    def _refund(self, receipt: Receipt) -> None:
        try:
            self._state.refund(receipt)
        except Exception as exc:  # over-counting is tolerable (promise 5), so nobody else needs to know
            self._problem = (
                f"a charge cannot be given back ({exc if isinstance(exc, StateError) else type(exc).__name__})"
            )

    # ---- the session's own records

    def reloaded(self, problems: int) -> str | None:
        """Record that a changed policy was taken, or refused for so many problems. One enforcer of a mount does."""
        if self._watch is not None:
            self._watch.reloaded(None if problems else self._policy)
        return self._say(reload_record(timestamp(self._clock()), self._server, self._policy.revision, problems))

    def stopped(self, reason: str) -> str | None:
        """Record that the proxy stops."""
        return self._say(stop_record(timestamp(self._clock()), self._server, reason))

    def _say(self, record: bytes) -> str | None:
        try:
            self._audit.append(record)
        except AuditError as exc:
            self._fault(exc)
            return str(exc)
        problem = self.commit()
        return None if problem is None else problem.reason


def _counted(session: str | None) -> Callable[[], str]:
    prefix, number = (session or "")[:16], count(1)
    return lambda: f"{prefix}-{next(number)}"


def _finding(exc: Exception) -> Finding:
    if isinstance(exc, UnavailableError):
        return Finding("state_unavailable", f"the limits cannot be checked: {exc}")
    if isinstance(exc, StateError):
        return Finding("state_error", f"the limits cannot be checked: {exc}")
    if isinstance(exc, AuditError):
        return Finding("audit_unavailable", f"the call cannot be recorded: {exc}")
    return Finding("internal_error", f"the proxy failed to decide ({type(exc).__name__})")


def _examined(result: bytes, failure: Failure) -> tuple[Outcome, JsonObject]:
    """The true outcome of a call that succeeded according to its server, and the members that explain it."""
    if len(result) > _LONGEST_EXAMINED:
        return "ok", {"unchecked": "too_large"}
    try:
        matched = failure(codec.decode_payload(result))
    except ProtocolError:
        return "ok", {"unchecked": "unreadable"}
    except Exception:  # what a server sends must not cost us the record of it
        return "ok", {"unchecked": "internal_error"}
    return ("ok", {}) if matched is None else ("tool_error", {"matched": matched})


def _limit_finding(refusal: Refusal) -> Finding:
    charge = refusal.charge
    return Finding("limit_reached", charge.reason or _limit_reason(charge), charge.rule)


def _limit_reason(charge: Charge) -> str:
    """`rate limit of 10 per 60 s reached`, or what a counter would have passed."""
    window = charge.window.calendar or f"{charge.window.seconds} s"
    if charge.key[0] == "limit":
        return f"rate limit of {charge.limit} per {window} reached"
    return f"counter `{charge.key[2]}` would pass its limit of {charge.limit} per {window}"


def _denial(decision_id: str, finding: Finding, retry_after: float | None) -> Denial:
    # Hidden and unknown must look alike to the agent; the audit record keeps the difference.
    code = "unknown_tool" if finding.code in ("hidden", "unlisted", "unknown") else finding.code
    return Denial(decision_id, code, finding.reason, finding.rule, retry_after)
