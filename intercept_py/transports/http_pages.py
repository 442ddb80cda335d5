"""What browsers ask before a web page may call this server, and what lets it read the answers (Fetch standard, CORS).

Only for origins that whoever runs the server has listed. There is no word of credentials: tokens come in a header that
the page sets.
Below: `http_messages`. Above: `http_guard`.
"""

from __future__ import annotations

__all__ = ["answer_preflight", "is_preflight", "readable_by"]

import re
from collections.abc import Iterable
from typing import Final

from intercept_py.transports.http_messages import Answer, Field, Fields

_EXPOSED: Final = (b"access-control-expose-headers", b"mcp-session-id, www-authenticate, retry-after")
_METHODS: Final = (b"access-control-allow-methods", b"GET, POST, DELETE")
_SENT: Final = re.compile(
    rb"authorization|content-type|accept|last-event-id|mcp-[!#$%&'*+.^_`|~0-9a-z-]+|traceparent|tracestate"
)
"""Header fields that a page may set. What `mcp-param-` fields there are is for each tool to say."""
_MOST_SENT: Final = 100
_AGE: Final = (b"access-control-max-age", b"600")


def readable_by(origin: bytes) -> Fields:
    """What goes with every answer to pages of this origin."""
    return ((b"access-control-allow-origin", origin), (b"vary", b"origin"), _EXPOSED)


def is_preflight(method: str, fields: Iterable[Field]) -> bool:
    """Whether a browser asks, on its own, what a page may send."""
    return method == "OPTIONS" and any(name == b"access-control-request-method" for name, _ in fields)


def answer_preflight(fields: Iterable[Field]) -> Answer:
    """Whoever calls afterwards has to say who it is: a browser asks without a token."""
    wanted = b",".join([value for name, value in fields if name == b"access-control-request-headers"])
    names = dict.fromkeys(name.strip().lower() for name in wanted.split(b",", _MOST_SENT)[:_MOST_SENT])
    sent = b", ".join([name for name in names if _SENT.fullmatch(name)])
    return Answer(204, b"", (_METHODS, (b"access-control-allow-headers", sent), _AGE))
