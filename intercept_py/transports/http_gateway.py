"""What an HTTP front needs from above: who calls, and conversations with a server.

Below: `conversation`. Above: `http_sessions`, `http_app`; the `gateway` package level implements it.
"""

from __future__ import annotations

__all__ = ["Challenge", "Document", "Gateway", "Settings"]

from collections.abc import Callable
from typing import Protocol

import msgspec

from intercept_py.model import Caller
from intercept_py.transports.conversation import Conversation, Front
from intercept_py.wire.http_params import Mirror


class Challenge(msgspec.Struct, frozen=True):
    """A request without the right to go on: the status, 401 or 403, and the value of `WWW-Authenticate`."""

    status: int
    challenge: str


class Gateway(Protocol):
    """One server behind its policy, and who may speak to it."""

    @property
    def needs_session(self) -> bool:
        """Whether the server can be spoken to only after `initialize` in the eras that have it, as a child is."""

    def recognise(self, authorization: str | None, address: str) -> Caller | Challenge | None:
        """Who calls, if that can be told at once; None: `authenticate` has to find out."""

    async def authenticate(self, authorization: str | None, address: str) -> Caller | Challenge:
        """Who calls. `authorization` is that header's value, `address` the peer's."""

    def converse(self, front: Front, caller: Caller, *, session: bool, version: str | None) -> Conversation:
        """Begin a conversation. Raises `UpstreamError` if the server cannot be started.

        `session`: it lasts for several requests of its client; else it is there for one, until `over`. `version`: the
        protocol version that a legacy client without a session names.
        """

    def over(self, conversation: Conversation) -> None:
        """The front has no more use for a conversation without a session, though an answer may still be on its way."""

    def mirrors_of(self, name: str, caller: Caller) -> tuple[Mirror, ...]:
        """The arguments of a tool that header fields repeat, if it is known and not kept from this caller."""

    def why_not_ready(self) -> str | None:
        """Why requests would not be served now; None if nothing is known."""


class Document(msgspec.Struct, frozen=True):
    """Something to read with GET besides the servers. `open`: for anybody, else as the settings say for probes.

    `read` is called in a thread, because it may take its time.
    """

    content_type: str
    read: Callable[[], bytes]
    open: bool = False


class Settings(msgspec.Struct, frozen=True):
    """Bounds and names: sizes in bytes, times in seconds.

    `bodies_limit`: of all bodies together that are arriving; `body_limit` if that is more.
    `local`: only this machine reaches the server. `hosts` and `origins`: see `Guard`. `open_probes`: health, readiness
    and metrics are for anybody; else for callers that a gateway knows, and all of this machine where it is `local`.
    `heartbeat`: after that long, twice at most, an answer that is silent gives a sign of life.
    """

    local: bool = True
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    open_probes: bool = False
    body_limit: int = 10 * 1024 * 1024
    bodies_limit: int = 256 * 1024 * 1024
    body_patience: float = 30.0
    session_idle: float = 30 * 60.0
    max_sessions: int = 10_000
    heartbeat: float = 15.0
