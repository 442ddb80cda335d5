"""How the event loop is kept awake, and when nothing goes on."""

from __future__ import annotations

import asyncio

import pytest

from intercept_py.transports import wakeful
from intercept_py.transports.wakeful import Wakeful

pytestmark = pytest.mark.anyio


def quiet(awake: Wakeful) -> bool:
    return awake.quiet


async def test_it_is_quiet_once_the_loop_has_looked_for_news_in_vain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wakeful, "SPIN", 60)
    awake = Wakeful()
    assert quiet(awake)
    for _ in range(3):
        awake()
        assert not quiet(awake)
        await asyncio.sleep(0)  # what the loop reads now it reads for the first time since the message
        assert not quiet(awake)
    await asyncio.sleep(0)
    assert quiet(awake)
    awake()
    assert not quiet(awake)


async def test_it_is_quiet_when_the_loop_goes_to_sleep_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wakeful, "SPIN", 0)
    awake = Wakeful()
    awake()
    assert not quiet(awake)
    await asyncio.sleep(0)
    assert quiet(awake)
    awake()
    assert not quiet(awake)
