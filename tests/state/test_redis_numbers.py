"""The numbers and windows of the scripts, run by a real Redis, against Python's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from intercept_py.model import Window
from intercept_py.state import quota
from intercept_py.state.quota import SECOND, Number, exact
from intercept_py.state.redis_link import read_script
from tests.support import redis_store

Ask = Callable[..., str]


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """Evaluate a Lua expression of `ARGV` below the given files."""
    with redis_store.server(tmp_path_factory.mktemp("redis")) as redis:

        def ask(expression: str, *arguments: str | int, files: tuple[str, ...] = ("numbers",)) -> str:
            text = read_script(*files).text.replace("redis.call('TIME')", "{ARGV[1], 0}")
            answer = redis.client.eval(f"{text}\nreturn {expression}", 1, "store", *map(str, arguments))
            assert isinstance(answer, bytes)
            return answer.decode()

        yield ask


def text(number: Number) -> str:
    return format(Decimal(number), "f")


def number_of(digits: int, places: int) -> Number:
    # Not by arithmetic, which would round.
    return exact(Decimal(f"{digits}E-{places}"))


WHOLE = st.one_of(
    st.integers(0, 10**16), st.integers(0, 10**41 - 1), st.sampled_from([2**53, 10**14, 10**14 - 1, 10**28])
)
NUMBERS: st.SearchStrategy[Number] = st.one_of(
    WHOLE,
    st.builds(number_of, WHOLE, st.integers(0, 40)),
    st.builds(number_of, st.integers(0, 10_000), st.just(2)),
)
many = settings(max_examples=100, deadline=None)


@given(NUMBERS, NUMBERS)
@example(10**14 - 1, 1)
@example(0, Decimal("0.5"))
@example(Decimal("99999999999999.99999999999999"), Decimal("0.00000000000001"))
@many
def test_sums_differences_and_comparisons_are_those_of_decimals(ask: Ask, a: Number, b: Number) -> None:
    expression = "plus(ARGV[1], ARGV[2]) .. ' ' .. minus(ARGV[1], ARGV[2]) .. ' ' .. compare(ARGV[1], ARGV[2])"
    total, rest, order = ask(expression, text(a), text(b)).split()
    assert total == text(quota.plus(a, b))
    assert rest == text(quota.minus(a, b))
    assert (float(order) > 0, float(order) < 0) == (a > b, a < b)


@given(st.lists(NUMBERS, max_size=8))
@many
def test_what_is_added_and_taken_away_again_leaves_nothing(ask: Ask, numbers: list[Number]) -> None:
    program = "(function() local sum = '0' for _, one in ipairs(ARGV) do sum = plus(sum, one) end "
    program += "for _, one in ipairs(ARGV) do sum = minus(sum, one) end return sum end)()"
    assert ask(program, *map(text, numbers)) == "0"


@given(NUMBERS, st.integers(1, 366 * 86400), st.floats(0, 1))
@example(2**53 - 1, 366 * 86400, 0.999999)
@many
def test_the_share_of_a_window_is_rounded_as_in_memory(ask: Ask, amount: Number, seconds: int, part: float) -> None:
    window = seconds * SECOND
    rest = min(int(part * window), window)
    if type(amount) is int:
        expected = amount * rest // window
    else:
        numerator, denominator = amount.as_integer_ratio()
        expected = -(-numerator * rest // (denominator * window))
    assert ask("share(ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]))", text(amount), rest, window) == str(expected)


def test_a_share_is_exact_where_doubles_are_not(ask: Ask) -> None:
    window, amount = 366 * 86400 * SECOND, 12347
    rest = -pow(amount, -1, window) % window  # one more would make a whole number, which a double rounds it to
    expected = amount * rest // window
    assert ask("share(ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]))", amount, rest, window) == str(expected)


@given(st.integers(345_600, 7_000_000_000), st.sampled_from([None, "week", "month"]), st.integers(1, 366 * 86400))
@example(1709164800, "month", 1)  # 2024-02-29
@example(1709251199, "month", 1)
@example(4107542400, "month", 1)  # 2100-03-01
@example(951782400, "month", 1)  # 2000-02-29
@example(1735689599, "month", 1)  # the last second of 2024
@many
def test_fixed_windows_end_when_those_of_the_other_stores_do(
    ask: Ask, now: int, calendar: str | None, seconds: int
) -> None:
    window = Window(604800 if calendar == "week" else seconds, calendar)
    expression = "text(window_end(now, tonumber(ARGV[2]), ARGV[3]))"
    end = ask(expression, now, window.seconds * SECOND, calendar or "epoch", files=("numbers", "windows"))
    assert int(end) == quota.window_end(window, now * SECOND)
