"""Servers behind policies, for clients that come over HTTP or whose server does: each with its own policy and counters.

A mount is one server; what it makes are conversations, each with a session of its own, so that nothing of one server
or one client touches another. Below: `proxy`, `enforcer`, `upstreams`. Above: `cli`.
"""

from __future__ import annotations

__all__ = ["Mount", "Settings"]

import asyncio
import os
import time
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from itertools import count
from weakref import WeakSet, ref

import msgspec

from intercept_py import policy_file
from intercept_py.audit.log import AuditLog
from intercept_py.enforcer import Commits, Enforcer
from intercept_py.errors import PolicyError
from intercept_py.identity import Authenticator, Unauthorized
from intercept_py.log import Log
from intercept_py.model import Caller
from intercept_py.observing import Observer
from intercept_py.policy import pdp
from intercept_py.policy.rules import Policy
from intercept_py.proxy import Group, Session
from intercept_py.state import State
from intercept_py.transports.conversation import NOBODY, Conversation, Front
from intercept_py.transports.http_gateway import Challenge
from intercept_py.transports.stdio import REST
from intercept_py.transports.wakeful import Wakeful
from intercept_py.upstreams import Upstream
from intercept_py.wire import http_fields
from intercept_py.wire.catalogue import Catalogue
from intercept_py.wire.http_params import Mirror, mirrors_in
from intercept_py.wire.messages import Incoming

_TICK = 0.25
_FORGET = 60.0
"""Seconds for which conversations without a session, whom no server tells of changes, rely on one list of tools."""
_KEPT_CALLERS = 1024
_MOST_SPARE = 64


@lru_cache(maxsize=_KEPT_CALLERS)
def _stranger(address: str) -> Caller:
    """Somebody of whom nothing is known but the address."""
    return Caller(address=address)


def _disagreement(message: Incoming, known: Catalogue, hidden: bool) -> str | None:
    """What a call and the head of the HTTP request that it came with say differently, if it came with one.

    What is hidden has no arguments: nobody shall be able to tell it from what does not exist.
    """
    if message.arrival is None:
        return None
    told = message.arrival.mcp
    if not known.known:
        return http_fields.incomparable(told)
    return http_fields.disagreement(told, message.value, () if hidden else mirrors_in(known, message.params["name"]))


class Settings(msgspec.Struct, frozen=True):
    """What all conversations of a mount have in common: times in seconds, sizes in bytes."""

    timeout: float = 300.0
    max_message_bytes: int = 10 * 1024 * 1024
    fail_open: bool = False


class _Shared:
    """What one caller's conversations without a session have in common.

    `spare` are those that are over and as good as new: making one costs a tenth of what a call costs.
    """

    __slots__ = ("caller", "enforcer", "spare", "who")

    def __init__(self, who: tuple[object, ...], caller: Caller, enforcer: Enforcer) -> None:
        self.who = who
        self.caller = caller
        self.enforcer = enforcer
        self.spare: list[Conversation] = []


class _Open(Conversation):
    """One of a mount's conversations. `shared` is where it may go when it is over, to be used again."""

    session: Session
    shared: _Shared | None = None


class Mount:
    """See the module. `server` names it in records and in the keys of its counters.

    `watch`: where its policy may change; None: it does not. `door` tells who calls; without one callers are known by
    their address alone. `observer` is told what becomes of messages.
    """

    def __init__(
        self,
        server: str,
        policy: Policy,
        watch: policy_file.Watch | None,
        state: State,
        audit: AuditLog,
        upstream: Upstream,
        log: Log,
        settings: Settings,
        door: Authenticator | None = None,
        observer: Observer | None = None,
    ) -> None:
        self.server = server
        self._policy = policy
        self._watch = watch
        self._state = state
        self._audit = audit
        self._upstream = upstream
        self._log = log
        self._settings = settings
        self._door = door
        self._observer = observer
        self._known = Catalogue()  # for conversations without a session
        self._forget_at = 0.0
        # By who it is; claims by their identity, since they are kept.
        self._callers: dict[tuple[object, ...], _Shared] = {}
        self._busy: set[Conversation] = set()
        self._left: set[Conversation] = set()  # those of them that are over
        self._fresh: set[Conversation] = set()
        self._unrecorded: set[Conversation] = set()
        self._rest: asyncio.TimerHandle | None = None
        self._wakeful: Wakeful | None = None
        run, number = os.urandom(8).hex(), count(1)
        self._mint_decision: Callable[[], str] = lambda: f"{run}-{next(number)}"
        self._commits = Commits(audit)
        self._main = self._enforcer(Caller())
        self._group = Group(self._main, log, self._soon)
        self._open: WeakSet[_Open] = WeakSet()

    # ---- who calls

    def recognise(self, authorization: str | None, address: str) -> Caller | Challenge | None:
        """Who sends this `Authorization` header from this address; None: only `authenticate` can tell."""
        if self._door is None:
            return _stranger(address)
        try:
            return self._door.recognise(authorization, address)
        except Unauthorized as exc:
            return self._turned_away(exc)

    async def authenticate(self, authorization: str | None, address: str) -> Caller | Challenge:
        """Who sends this `Authorization` header from this address."""
        if self._door is None:
            return _stranger(address)
        try:
            return await self._door.authenticate(authorization, address)
        except Unauthorized as exc:
            return self._turned_away(exc)

    def _turned_away(self, exc: Unauthorized) -> Challenge:
        self._log("info", f"a request to `{self.server}` was not authorized: {exc.reason}")
        return Challenge(exc.status, exc.challenge)

    # ---- conversations

    def converse(self, front: Front, caller: Caller, *, session: bool, version: str | None = None) -> Conversation:
        """Begin a conversation. Raises `UpstreamError` if the server cannot be started.

        `session`: it lasts, and has its server (or its session there) to itself. `version`: the protocol version that a
        legacy client without a session names.
        """
        if session:
            return self._converse(front, self._enforcer_of_session(caller), Catalogue(), None, version)
        shared = self._shared(caller)
        if shared.spare and version is None:
            conversation = shared.spare.pop()
            conversation.meet(front)
            return conversation
        return self._converse(front, shared.enforcer, self._known, shared, version)

    def _converse(
        self, front: Front, enforcer: Enforcer, known: Catalogue, shared: _Shared | None, version: str | None
    ) -> Conversation:
        who = None if shared is None else shared.who
        connect, mint = self._upstream.connect(shared is None, version, known, who)
        made = Session(
            enforcer,
            self._log,
            time.monotonic,
            self._settings.timeout,
            known=known,
            mint=mint,
            correlate=self._upstream.one_stream,
            headers=self._upstream.headers,
            disagrees=None if shared is None else _disagreement,
            group=self._group,
        )
        conversation = _Open(made, front, connect, self._settings.max_message_bytes, self._news)
        held = ref(conversation)  # a ring of references would wait for the garbage collector

        def ready() -> None:
            if (it := held()) is not None:
                it.pump()

        made.ready = ready
        conversation.shared = shared if version is None else None
        self._open.add(conversation)
        return conversation

    def over(self, conversation: Conversation) -> None:
        """Nobody will say anything more in a conversation without a session, nor wait for an answer."""
        if not conversation.session.idle:  # the server owes its word on what was cancelled, or on a notification
            self._left.add(conversation)
            return
        shared = conversation.shared if isinstance(conversation, _Open) else None
        if shared is not None and self._may_be_spared(shared):
            conversation.meet(NOBODY)
            shared.spare.append(conversation)
        else:
            self._leave(conversation)

    def _may_be_spared(self, shared: _Shared) -> bool:
        return (
            self._upstream.reusable
            and len(shared.spare) < _MOST_SPARE
            and self._callers.get(shared.who) is shared  # else nobody would ever take it
        )

    def _leave(self, conversation: Conversation) -> None:
        conversation.leave()
        if isinstance(conversation, _Open):
            self._open.discard(conversation)
            conversation.session.ready = bool

    @property
    def needs_session(self) -> bool:
        """Whether clients of eras that have sessions must have one to be served."""
        return self._upstream.one_stream

    def mirrors_of(self, name: str, caller: Caller) -> tuple[Mirror, ...]:
        """The arguments of a tool that header fields repeat, as far as conversations without a session know it.

        None of what is hidden from this caller: nobody shall be able to tell it from what does not exist.
        """
        mirrors = mirrors_in(self._known, name)
        return () if mirrors and pdp.hidden_from(self._policy, name, caller) else mirrors

    def _enforcer(self, caller: Caller) -> Enforcer:
        return Enforcer(
            self._policy,
            self._state,
            self._audit,
            self.server,
            caller,
            time.time,
            time.monotonic,
            fail_open=self._settings.fail_open,
            mint=self._mint_decision,
            observer=self._observer,
            commits=self._commits,
        )

    def _enforcer_of_session(self, caller: Caller) -> Enforcer:
        return self._enforcer(msgspec.structs.replace(caller, session=os.urandom(16).hex()))

    def _shared(self, caller: Caller) -> _Shared:
        """What a caller's conversations without a session have in common. A token has the same claims every time."""
        who = (caller.principal, caller.address, caller.scopes, id(caller.claims) if caller.claims else None)
        kept = self._callers.get(who)
        if kept is None:
            if len(self._callers) >= _KEPT_CALLERS:
                self._forget_callers()
            kept = self._callers[who] = _Shared(who, caller, self._enforcer(caller))
        return kept

    def _forget_callers(self) -> None:
        """Conversations at hand keep what they have in common; what nobody uses goes."""
        forgotten, self._callers = self._callers, {}
        for shared in forgotten.values():
            for conversation in shared.spare:
                self._leave(conversation)
            shared.spare.clear()

    # ---- time

    def _news(self, conversation: Conversation) -> None:
        """All that can wait comes when the event loop has been through what it read."""
        if not self._fresh:
            wakeful = self._wakeful or self._wake()
            wakeful.loop.call_soon(self._after_news, wakeful)
        self._fresh.add(conversation)

    def _soon(self, commit: Callable[[], None]) -> None:
        """What comes while nothing else does is recorded at once; else all that the event loop has read together."""
        wakeful = self._wakeful or self._wake()
        if wakeful.quiet and not self._fresh:
            commit()
        else:
            wakeful.loop.call_soon(commit)

    def _wake(self) -> Wakeful:
        self._wakeful = Wakeful()
        return self._wakeful

    def _after_news(self, wakeful: Wakeful) -> None:
        fresh, self._fresh = self._fresh, set()
        self._unrecorded |= fresh
        wakeful()
        if self._rest is None:
            self._rest = wakeful.loop.call_later(REST, self._record)
        for conversation in fresh:
            try:
                self._look_after(conversation)
            except Exception as exc:  # a bug of ours must not take the records of others with it
                self._failed(exc)

    def _look_after(self, conversation: Conversation) -> None:
        session = conversation.session
        session.sent()
        if not session.idle:
            self._busy.add(conversation)
            return
        self._busy.discard(conversation)
        if conversation in self._left:
            self._left.discard(conversation)
            self._leave(conversation)

    def _record(self) -> None:
        self._rest = None
        self._unrecorded |= self._fresh
        while self._unrecorded:
            try:
                self._unrecorded.pop().session.rest()
            except Exception as exc:  # a bug of ours must not take the records of others with it
                self._failed(exc)

    def _failed(self, exc: Exception) -> None:
        self._log("error", f"the proxy failed to look after its conversations ({type(exc).__name__})")

    async def run(self) -> None:
        """Do what time demands, until cancelled: look at servers that end, at what takes too long, at the policy."""
        while True:
            await asyncio.sleep(_TICK)
            try:
                self._tick()
            except Exception as exc:  # a bug of ours must not end the watch
                self._failed(exc)

    def _tick(self) -> None:
        self._upstream.look()
        for conversation in list(self._busy):
            conversation.tick()
        now = time.monotonic()
        if now >= self._forget_at:
            self._forget_at = now + _FORGET
            self._known.forget()
        self.reload(force=False)

    def reload(self, *, force: bool) -> None:
        """Take the policy file if it has changed and may be used; `force` reads it whether or not."""
        if self._watch is None:
            return
        try:
            changed = self._watch.poll(force)
        except PolicyError as exc:
            for problem in exc.problems:
                self._log("error", str(problem))
            self._log("error", f"the changed policy of `{self.server}` is refused, the one before stays in force")
            self._main.reloaded(len(exc.problems))
            return
        if changed is not None:
            self._replace(changed)
            self._log("info", f"policy of `{self.server}` reloaded: {policy_file.describe(changed)}")
            self._main.reloaded(0)

    def _replace(self, policy: Policy) -> None:
        self._policy = policy
        self._forget_callers()
        self._main.replace(policy)
        for conversation in list(self._open):
            conversation.session.replace_policy(policy)
            conversation.pump()

    # ---- the end

    def why_not_ready(self) -> str | None:
        """Why calls would be denied now, whatever they are; None if nothing is known."""
        return self._main.outage.why

    async def close(self, reason: str) -> None:
        """End the server and write the last records."""
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._upstream.close(), 10)
        if self._rest is not None:
            self._rest.cancel()
        self._record()
        self._main.stopped(reason)
        self._state.close()
        if self._door is not None:
            await self._door.close()
