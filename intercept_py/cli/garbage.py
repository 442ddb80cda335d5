"""How often Python looks for garbage. Above: `__main__`, `jobs`, `session`, `site`."""

from __future__ import annotations

__all__ = ["collect_rarely", "importing"]

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_YOUNG = 20_000
"""Calls under way are hundreds of objects and no garbage: looking at them 30 times less often costs a few megabytes."""


def collect_rarely() -> None:
    """What exists now stays, and need not be looked at again; what comes is looked at rarely."""
    gc.freeze()
    gc.set_threshold(_YOUNG)


@contextmanager
def importing() -> Iterator[None]:
    """What imports create stays: to look for garbage in it takes milliseconds, in the SDK a quarter of a second."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
