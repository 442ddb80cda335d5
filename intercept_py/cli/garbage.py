"""How often Python looks for garbage in a proxy that runs. Above: `session`, `site`."""

from __future__ import annotations

__all__ = ["collect_rarely"]

import gc

_YOUNG = 20_000
"""Calls under way are hundreds of objects and no garbage: looking at them 30 times less often costs a few megabytes."""


def collect_rarely() -> None:
    """What exists now stays, and need not be looked at again; what comes is looked at rarely."""
    gc.freeze()
    gc.set_threshold(_YOUNG)
