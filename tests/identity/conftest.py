"""Fixtures of the tests of who calls."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support import issuer as issuers
from tests.support.issuer import Clock


class Log(list[tuple[str, str]]):
    """Keeps what would be told on stderr."""

    def __call__(self, level: str, text: str) -> None:
        self.append((level, text))


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def timer() -> Clock:
    return Clock(0)


@pytest.fixture
def issuer() -> Iterator[issuers.Issuer]:
    with issuers.running() as one:
        yield one
