"""The n-th use of the file fails, for n = 1, 2, 3 …, once or for ever: no call goes on uncounted (promises 4 and 5)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from intercept_py.errors import StateError
from intercept_py.state import open_state
from intercept_py.state.sqlite_database import Database, DatabaseError
from tests.conversation import Conversation
from tests.test_fault_injection import MODES, POLICY, Failing, check, run

OPERATIONS = ("begin", "commit", "execute", "execute_many", "first", "rows", "one")


def fail(patch: pytest.MonkeyPatch, failing: Failing) -> None:
    """Have uses of the file fail as `failing` says."""

    def failing_version(real: Callable[..., Any]) -> Callable[..., Any]:
        def use(*arguments: Any) -> Any:
            if failing.now():
                raise DatabaseError("the file failed")
            return real(*arguments)

        return use

    for name in OPERATIONS:
        patch.setattr(Database, name, failing_version(getattr(Database, name)))


@MODES
def test_no_call_goes_on_uncounted_when_the_file_fails(
    for_ever: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for nth in range(1, 200):
        folder = tmp_path / str(nth)
        folder.mkdir()
        failing = Failing(nth, for_ever)
        with closing(open_state(f"sqlite://{folder}/limits.sqlite")) as state:
            talk = Conversation(POLICY, folder, state=state)
            with monkeypatch.context() as patch:
                fail(patch, failing)
                run(talk)
            check(talk)
        if failing.uses < nth:
            return
    pytest.fail("the file is used more often than this test expects")


@MODES
def test_a_store_that_fails_while_it_is_opened_is_closed_and_can_be_opened_later(
    for_ever: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite://{tmp_path}/limits.sqlite"
    for nth in range(1, 50):
        failing = Failing(nth, for_ever)
        with monkeypatch.context() as patch:
            fail(patch, failing)
            if failing_opening(url):
                continue
        assert nth > 3, "hardly anything was asked of the file"
        with closing(open_state(url)):
            return
    pytest.fail("the file is used more often than this test expects")


def failing_opening(url: str) -> bool:
    """Whether opening it fails."""
    try:
        open_state(url).close()
    except StateError:
        return True
    return False
