"""A secret that stands where others do not see it: in the environment (`env:NAME`) or in a file (`@FILE`).

Above: `client_credentials`.
"""

from __future__ import annotations

__all__ = ["read_secret"]

import os
from typing import Final

from intercept_py.identity.faults import IdentityError
from intercept_py.identity.watched_file import read_file

_LONGEST: Final = 8192


def read_secret(source: str) -> str:
    """The secret as it is now: a file may be replaced by a newer one. Raises `IdentityError`, which never quotes it."""
    if source.startswith("env:"):
        value, place = os.environ.get(source[4:], ""), f"the environment variable `{source[4:]}`"
    elif source.startswith("@"):
        data, _ = read_file(source[1:], "the secret in")
        value, place = data.decode("utf-8", "replace"), f"`{source[1:]}`"
    else:
        raise IdentityError("a secret is not written down here: use `env:NAME` or `@FILE`, which hold it")
    value = value.strip()
    if not value or not value.isprintable() or "\ufffd" in value or len(value) > _LONGEST:
        raise IdentityError(f"{place} must hold a secret: one line of text of at most {_LONGEST} characters")
    return value
