"""What cannot be the same through the proxy, and why. A difference that is gone is a failure: it must leave this list.

Below: compare, pairings. Above: the run.
"""

from __future__ import annotations

__all__ = ["EXPECTED", "not_run"]

from tests.conformance.compare import Expected

_POLLING = Expected(
    frozenset(
        (
            "server-sse-priming-event ServerSendsPrimingEvent",
            "server-sse-retry-field ServerSendsRetryField",
            "server-sse-disconnect-resume ServerDisconnectResume",
        )
    ),
    "a server over stdio has no streams: it cannot end the one of a call and have the client come back for the rest",
)

# By side, pairing, version and scenario.
EXPECTED: dict[tuple[str, str, str, str], Expected] = {
    ("server", "http-stdio", "2025-11-25", "server-sse-polling"): _POLLING,
}


def not_run(scenario: str) -> str | None:
    """Why a client scenario cannot run through the proxy, or None if it can."""
    if scenario == "auth/client-credentials-jwt":
        return f"{scenario}: the proxy's own credentials for a server are a secret, not a key"
    if scenario.startswith("auth/") and scenario != "auth/client-credentials-basic":
        # MCP authorization, security considerations: a token that was issued for one server must not go to another.
        return "auth/*: a client's token is for the proxy and never passed on, so the suite's server would not see it"
    return None
