"""Whether the store can be used, as far as charges have shown, and what a person should hear of that: each change once.

Above: the enforcer, which reports what charges and commits came to, and the session, which tells the news.
"""

from __future__ import annotations

__all__ = ["Outage"]


class Outage:
    """`why` the store cannot be used, None while nothing is known against it. `news`: level and text of what to say."""

    __slots__ = ("_answered", "news", "why")

    def __init__(self) -> None:
        self.why: str | None = None
        self.news: list[tuple[str, str]] = []
        self._answered = False

    def seen(self, why: str) -> None:
        """The store could not be used."""
        self._answered = False
        if why != self.why:
            self.why = why
            text = "until they can, calls that have some are denied, or go on uncounted where all of them fail open"
            self.news.append(("error", f"limits cannot be checked ({why}): {text}"))

    def answered(self) -> None:
        """A charge was made or refused. That is the end once it has been committed as well."""
        self._answered = True

    def committed(self) -> None:
        """What was charged has been kept."""
        if self._answered:
            self.why, self._answered = None, False
            self.news.append(("info", "limits are checked again"))
