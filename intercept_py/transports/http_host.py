"""What one HTTP connection of ours needs from who answers requests, and from who runs all connections.

Above: `http_connection`; `http_server` and `http_service` implement it.
"""

from __future__ import annotations

__all__ = ["Handler", "Host"]

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from intercept_py.transports.http_arrivals import Arrivals
from intercept_py.transports.http_gateway import Settings
from intercept_py.transports.http_heads import Heads
from intercept_py.transports.http_messages import Field, Reply
from intercept_py.transports.http_reader import Known

if TYPE_CHECKING:
    from intercept_py.transports.http_connection import Connection


class Handler(Protocol):
    """What answers requests, see `http_server.App`. An intake is its own business."""

    @property
    def settings(self) -> Settings:
        """The bounds of bodies."""

    @property
    def arrivals(self) -> Arrivals:
        """The bodies that are arriving."""

    def read(self, method: str, path: str, fields: list[Field], address: str) -> Any:
        """What a head says, or the answer that refuses it; the same for the same head, always.

        What it says has `shared`, fields that go with every answer.
        """

    def admit(self, head: Any) -> Any:
        """Whether what `read` has given may go on: an intake, or the answer that refuses it."""

    def identify(self, intake: Any, told: Callable[[Any], None]) -> None:
        """Tell, later, an intake whose caller is known, or the answer that refuses it."""

    def take(self, intake: Any, body: bytes, reply: Reply) -> None:
        """Answer the request, now or later."""


class Host(Protocol):
    """What a connection needs from who runs it, see `http_service.Service`. Times are in seconds by one clock."""

    connections: set[Connection]
    ending: bool
    patience: float
    idle: float
    now: float
    date: bytes
    heads: Heads[Known]

    @property
    def app(self) -> Handler:
        """What answers."""

    @property
    def full(self) -> bool:
        """Whether there are too many connections."""

    def weigh(self) -> None:
        """Much was written: see that clients do not leave too much unread, all together."""

    def failed(self, exc: Exception) -> None:
        """A bug of ours has shown."""
