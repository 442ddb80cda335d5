"""Text from strangers, made safe for a terminal: tool names, reasons, arguments and file names are all strangers'."""

from __future__ import annotations

__all__ = ["printable"]

# One definition: the proxy's own log lines quote the same strangers.
from intercept_py.log import printable
