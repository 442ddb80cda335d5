"""Names of hosts and origins as whoever runs the proxy gives them, in a gateway file or on the command line. Pure.

Above: `gateway_file`, `cli`.
"""

from __future__ import annotations

__all__ = ["BAD_HOST", "BAD_ORIGIN", "is_address", "is_host", "is_origin"]

import re
from ipaddress import ip_address
from typing import Final

BAD_HOST: Final = "`{text}` is no host name: write it without scheme, port and path, such as `mcp.example.com`"
BAD_ORIGIN: Final = "`{text}` is no origin: write scheme, host and port only, such as `https://app.example.com`"

_ORIGIN: Final = re.compile(r"[a-z][a-z0-9+.-]*://(?:\[([0-9A-Fa-f:.]+)\]|([^:/\[\]]+))(?::([0-9]{1,5}))?")
_HOST: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?")


def is_address(text: str) -> bool:
    """Whether this is an IP address."""
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def is_host(text: str) -> bool:
    """Whether this is a host's name or its address, without anything around it."""
    return _HOST.fullmatch(text) is not None or is_address(text)


def is_origin(text: str) -> bool:
    """Whether this is what browsers send in `Origin`: also for extensions, and in programs with a browser inside."""
    found = _ORIGIN.fullmatch(text)
    return found is not None and is_host(found[1] or found[2]) and int(found[3] or 0) <= 65535
