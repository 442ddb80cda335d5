"""One clock for all who share a file: whoever sets the machine's clock gains no call by it (security rule 6)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from intercept_py.model import Strategy
from intercept_py.state import clock as clock_module
from intercept_py.state import open_state
from intercept_py.state.clock import this_machine
from intercept_py.state.quota import Quota
from intercept_py.state.sqlite import SqliteStorage
from tests.support.sqlite_store import START, Clock, charge, fits

HOUR = 3600.0
ONCE = charge(limit=1, strategy=Strategy.FIXED, calendar="minute")
MOVING = charge("m", limit=1)

Start = Callable[[], Quota]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def start(tmp_path: Path, clock: Clock) -> Iterator[Start]:
    """A new process."""
    with ExitStack() as stack:

        def started() -> Quota:
            quota = Quota(SqliteStorage(f"sqlite://{tmp_path}/x", timepiece=clock.timepiece(), patience=0))
            stack.callback(quota.close)
            return quota

        yield started


@pytest.mark.parametrize("steps", [(-HOUR, HOUR), (HOUR, -HOUR), (HOUR, HOUR), (-HOUR, -HOUR)])
def test_no_step_of_the_wall_clock_gives_anybody_a_call(start: Start, clock: Clock, steps: tuple[float, float]) -> None:
    running = start()
    assert fits(running, ONCE, MOVING)
    for step in steps:
        clock.wall += step
        started = start()
        for quota in (running, started):
            assert not fits(quota, ONCE)
            assert not fits(quota, MOVING)
    clock.now += 61
    assert fits(start(), ONCE, MOVING)
    assert not fits(running, ONCE)


def test_windows_pass_for_all_at_the_same_moment(start: Start, clock: Clock) -> None:
    first = start()
    clock.wall = 30.0
    second = start()
    assert fits(first, ONCE)
    clock.now += 59
    assert not fits(second, ONCE)
    clock.now += 1
    assert fits(second, ONCE)
    assert not fits(first, ONCE)


def test_after_the_machine_starts_again_time_goes_on_and_never_back(start: Start, clock: Clock) -> None:
    before = start()
    assert fits(before, ONCE, MOVING)
    clock.now += 2  # a counter that expires at once, and is dropped with the next new one
    assert fits(before, charge("short", limit=1, seconds=1, strategy=Strategy.FIXED))
    before.close()
    clock.reboot()
    clock.wall = -HOUR
    after = start()
    assert not fits(after, ONCE)
    assert not fits(after, MOVING)
    clock.now += 61
    assert fits(after, ONCE, MOVING)


def test_the_time_that_passed_while_the_machine_was_off_counts(start: Start, clock: Clock) -> None:
    before = start()
    assert fits(before, ONCE, MOVING)
    before.close()
    clock.now += 61
    clock.reboot()
    assert fits(start(), ONCE, MOVING)


def test_the_file_knows_the_time_of_its_last_second(tmp_path: Path, start: Start, clock: Clock) -> None:
    before = start()
    for _ in range(3):
        assert fits(before, charge())
        clock.now += 20
    before.close()
    clock.reboot()
    clock.wall = -HOUR
    with closing(SqliteStorage(f"sqlite://{tmp_path}/x", timepiece=clock.timepiece())) as after:
        assert START + 39 <= after.get_expiry("none") <= START + 40


def test_a_window_whose_counter_was_dropped_does_not_begin_anew_after_a_reboot(start: Start, clock: Clock) -> None:
    once = charge(limit=1, seconds=10, strategy=Strategy.FIXED)
    before = start()
    clock.now += 9.5
    assert fits(before, once)
    clock.now += 0.5
    for key in "abcd":  # each new counter sweeps two
        assert fits(before, charge(key))
    before.close()
    clock.reboot()
    clock.wall = -HOUR
    after = start()
    assert fits(after, once), "the window after the one that is over"
    clock.now += 9.75
    assert not fits(after, once)
    clock.now += 0.25
    assert fits(after, once)


def test_a_process_whose_ticks_are_behind_under_the_same_boot_id_goes_on_from_the_latest_time(
    start: Start, clock: Clock
) -> None:
    before = start()
    assert fits(before, ONCE)
    before.close()
    clock.booted += 900  # as in a container with a time of its own
    after = start()
    assert not fits(after, ONCE)
    clock.now += 61
    assert fits(after, ONCE)


def test_without_a_boot_id_a_clock_that_was_set_back_stops_at_the_latest_time(start: Start, clock: Clock) -> None:
    clock.boot = ""
    running = start()
    assert fits(running, ONCE, MOVING)
    clock.now += 1
    clock.wall -= HOUR
    started = start()
    assert not fits(started, ONCE)
    assert not fits(started, MOVING)
    clock.now += 61
    assert fits(started, ONCE, MOVING)
    assert not fits(running, ONCE)
    assert not fits(running, MOVING)


def test_a_process_with_an_earlier_clock_adds_to_the_newest_point_and_never_before_it(
    start: Start, clock: Clock
) -> None:
    clock.boot = ""
    two = charge("m", limit=2)
    slow = start()
    clock.wall = 10.0
    fast = start()
    assert fits(fast, two)
    assert fits(slow, two)
    assert not fits(fast, two)
    clock.now += 65
    assert not fits(slow, two)
    clock.now += 6
    assert fits(slow, two)


def test_real_time_is_that_of_the_machine_and_immune_to_its_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = SqliteStorage(f"sqlite://{tmp_path}/x")
    assert storage.get_expiry("k") == pytest.approx(time.time(), abs=5)
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    again = SqliteStorage(f"sqlite://{tmp_path}/x")
    assert again.get_expiry("k") == pytest.approx(time.time(), abs=5)
    storage.close()
    again.close()


def test_the_clock_of_this_machine_has_a_boot_id_only_where_the_system_tells_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = this_machine()
    assert here.ticks() <= here.ticks()
    boot = tmp_path / "boot_id"
    boot.write_text("0b9d\n")
    monkeypatch.setattr(clock_module, "_BOOT_ID", str(boot))
    assert this_machine().boot == "0b9d"
    monkeypatch.setattr(clock_module, "_BOOT_ID", str(tmp_path / "none"))
    assert this_machine().boot == ""


@pytest.mark.parametrize(
    ("text", "ahead"), [("monotonic 5 0\nboottime -7 250000000\n", -6.75), ("new words\n", 0), ("", 0)]
)
def test_ticks_are_those_of_the_machine_in_a_container_with_a_clock_of_its_own(
    text: str, ahead: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offsets = tmp_path / "offsets"
    offsets.write_text(text)
    before = this_machine().ticks()
    monkeypatch.setattr(clock_module, "_OFFSETS", str(offsets))
    assert this_machine().ticks() == pytest.approx(before - ahead * 1_000_000, abs=1_000_000)


def test_a_restart_that_opens_the_real_store_refuses_what_the_one_before_has_used_up(tmp_path: Path) -> None:
    day = charge(limit=1, seconds=86400)
    for expected in (True, False):
        state = open_state(f"sqlite://{tmp_path}/x")
        assert fits(state, day) is expected
        state.close()
