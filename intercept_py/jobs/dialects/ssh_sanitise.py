"""What an error may tell an agent: the text without paths, addresses, users and secrets. Pure.

Above: `ssh`, for texts that were not written for agents. The marks are mcp-ssh-orchestrator's.
"""

from __future__ import annotations

__all__ = ["sanitised"]

import re
from typing import Final

# In this order: an address is a part of `user@address`, and a path may hold anything.
_MARKS: Final = tuple(
    (re.compile(pattern, re.IGNORECASE), mark)
    for pattern, mark in (
        (r"\b(password|passwd|passphrase|secret|token|api[_-]?key)(\s*[:=]\s*)\S+", r"\1\2[redacted]"),
        (r"\b[\w.+-]+@[\w.-]+(:\d+)?", "[user@host]"),
        (r"(?<![\w.])[a-z]:\\[^\s`'\",]*", "[path]"),
        (r"(?<![\w.])(~|\.{1,2})?/[^\s`'\",;]+", "[path]"),
        (r"\b\d{1,3}(\.\d{1,3}){3}\b(:\d+)?", "[ip]"),
        (r"(?<![\w:])[0-9a-f]{0,4}(:[0-9a-f]{0,4}){3,7}(?![\w:])", "[ip]"),
        (r"\bport\s+\d+", "port [port]"),
    )
)


def sanitised(text: str) -> str:
    """The text with a mark in place of everything that an agent need not know."""
    for pattern, mark in _MARKS:
        text = pattern.sub(mark, text)
    return text or "An error occurred"
