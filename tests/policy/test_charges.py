"""Which budget a call draws on, and how much."""

from __future__ import annotations

import hashlib
from decimal import Decimal
from fractions import Fraction
from types import FunctionType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from intercept_py.model import Caller, Charge, Finding, Json, JsonObject, Strategy, Tool, ToolCall, Window
from intercept_py.policy import paths
from intercept_py.policy.charges import compile_charges, merge
from intercept_py.policy.operators import equal
from intercept_py.policy.rules import Action, Check, Counter, Path, RateLimit, Rule

MINUTE = Window(60)
DAY = Window(86_400, "day")
KNOWN = Caller(session="s", principal="p", address="192.0.2.1")


def charges(rule: Rule, call: ToolCall, shadow: bool = False) -> list[Charge | Finding]:
    return [oblige(call) for oblige in compile_charges("refund", rule, shadow)]


def key(arguments: JsonObject, *per: str | Path, caller: Caller = KNOWN, name: str = "refund") -> tuple[str, ...]:
    rule = Rule("r", Action.ALLOW, rate_limit=RateLimit(10, MINUTE, per, Strategy.MOVING))
    (charge,) = charges(rule, ToolCall(name, arguments, caller))
    assert isinstance(charge, Charge)
    return charge.key


def test_a_rate_limit_is_a_charge_of_one() -> None:
    limit = RateLimit(5, DAY, ("global",), Strategy.FIXED)
    rule = Rule("five a day", Action.ALLOW, rate_limit=limit, reason="five a day is enough")
    assert charges(rule, ToolCall("refund", {})) == [
        Charge(
            key=("limit", "refund", "day", "fixed", "global"),
            amount=Decimal(1),
            limit=Decimal(5),
            window=DAY,
            strategy=Strategy.FIXED,
            rule="five a day",
            reason="five a day is enough",
        )
    ]


def test_a_shadow_charge_says_so() -> None:
    (charge,) = charges(
        Rule("r", Action.ALLOW, rate_limit=RateLimit(5, DAY, ("session",), Strategy.FIXED)),
        ToolCall("refund", {}),
        True,
    )
    assert isinstance(charge, Charge)
    assert charge.shadow


@pytest.mark.parametrize(
    ("scope", "part"),
    [("session", "session=s"), ("principal", "principal=p"), ("tool", "tool=get_x"), ("global", "global")],
)
def test_a_scope_is_part_of_the_key_with_its_kind(scope: str, part: str) -> None:
    assert key({}, scope, name="get_x") == ("limit", "refund", "60s", "moving", part)


@pytest.mark.parametrize(
    ("caller", "session", "principal"),
    [
        (KNOWN, "session=s", "principal=p"),
        (Caller(principal="p", address="a"), "principal=p", "principal=p"),
        (Caller(session="s", address="a"), "session=s", "address=a"),
        (Caller(address="a"), "address=a", "address=a"),
        (Caller(), "global", "global"),
        (Caller(session="", principal="", address=""), "global", "global"),
    ],
)
def test_a_scope_the_transport_cannot_prove_falls_back_to_the_next_wider_one(
    caller: Caller, session: str, principal: str
) -> None:
    assert key({}, "session", caller=caller)[-1] == session
    assert key({}, "principal", caller=caller)[-1] == principal


def test_the_order_in_which_scopes_are_listed_means_nothing() -> None:
    path = paths.parse("args.id")
    assert key({"id": 1}, "session", path) == key({"id": 1}, path, "session")
    assert key({"id": 1}, "session", path)[4:] == ("args.id=1", "session=s")


def test_the_spelling_of_a_path_means_nothing() -> None:
    assert key({"id": 1}, paths.parse('args["id"]')) == key({"id": 1}, paths.parse("args.id"))


@pytest.mark.parametrize(
    ("value", "part"),
    [
        (1, "args.id=1"),
        (1.0, "args.id=1"),
        (-0.0, "args.id=0"),
        (1.5, "args.id=1.5"),
        ("1", 'args.id="1"'),
        (True, "args.id=true"),
        (None, "args.id"),
        ({"b": 1.0, "a": [2.0]}, 'args.id={"a":[2],"b":1}'),
        ("x" * 62, f'args.id="{"x" * 62}"'),
        ("x" * 63, "args.id=sha256:" + hashlib.sha256(b'"' + b"x" * 63 + b'"').hexdigest()),
    ],
)
def test_each_value_of_an_argument_has_its_budget(value: Json, part: str) -> None:
    assert key({"id": value}, paths.parse("args.id"))[-1] == part


def test_callers_in_turns_draw_on_their_own_budgets_and_few_charges_are_remembered() -> None:
    rule = Rule("r", Action.ALLOW, rate_limit=RateLimit(5, MINUTE, ("session",), Strategy.MOVING))
    (oblige,) = compile_charges("refund", rule, False)
    drawn: dict[str, Charge] = {}
    for number in [*range(300), *range(300)]:
        session = f"s{number}"
        charge = oblige(ToolCall("refund", {}, Caller(session=session)))
        assert isinstance(charge, Charge)
        assert charge.key[-1] == f"session={session}"
        assert drawn.setdefault(session, charge) == charge
    assert isinstance(oblige, FunctionType)
    kept = [cell.cell_contents for cell in oblige.__closure__ or ()]
    assert [len(one) <= 64 for one in kept if isinstance(one, dict)] == [True]


def test_a_missing_argument_and_null_share_a_budget_of_their_own() -> None:
    parts = [key(arguments, paths.parse("args.id"))[-1] for arguments in ({}, {"id": None}, {"id": ""}, {"id": "null"})]
    assert parts[0] == parts[1]
    assert len(set(parts)) == 3


def test_a_missing_argument_draws_on_the_budget_of_its_default() -> None:
    tool = Tool("t", {"properties": {"env": {"type": "string", "default": "dev"}}})
    limit = Rule("r", Action.ALLOW, rate_limit=RateLimit(2, Window(60), (paths.parse("args.env"),), Strategy.MOVING))
    (oblige,) = compile_charges("t", limit, False)
    keys = [oblige(ToolCall("t", arguments, tool=tool)).key for arguments in ({}, {"env": None}, {"env": "dev"})]  # type: ignore[union-attr]
    assert keys[0] == keys[1] == keys[2]


def test_a_value_cannot_pass_for_the_digest_of_another() -> None:
    path = paths.parse("args.id")
    digest = key({"id": "x" * 1000}, path)[-1].removeprefix("args.id=")
    assert key({"id": digest}, path)[-1] != f"args.id={digest}"
    long = key({}, "tool", name="x" * 1000)[-1].removeprefix("tool=")
    assert key({}, "tool", name=long)[-1] != f"tool={long}"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from([0.0, 1.0, 0.5]) | st.text("1a", max_size=2),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=5,
)


@given(JSON, JSON)
@settings(max_examples=150, deadline=None)
def test_values_share_a_budget_if_and_only_if_they_are_equal(one: Json, other: Json) -> None:
    path = paths.parse("args.id")
    assert (key({"id": one}, path) == key({"id": other}, path)) is equal(one, other)


# -- counters ----------------------------------------------------------------------------------------------------------


def counting(amount: str = "args.amount", *checks: Check) -> Rule:
    counter = Counter("spent", DAY, None, paths.parse(amount))
    return Rule("budget", Action.ALLOW, counter=counter, checks=checks)


def check(limit: int, inclusive: bool = True, entry: str = "refund", counter: str = "spent") -> Check:
    return Check(entry, counter, Decimal(limit), inclusive, DAY)


def test_a_counter_is_charged_what_the_call_says() -> None:
    assert charges(counting("args.amount", check(500)), ToolCall("refund", {"amount": 12.5})) == [
        Charge(
            key=("state", "refund", "spent"),
            amount=Decimal("12.5"),
            limit=Decimal(500),
            window=DAY,
            strategy=Strategy.FIXED,
            rule="budget",
        )
    ]


def test_a_fixed_increment_needs_no_argument() -> None:
    rule = Rule("r", Action.ALLOW, counter=Counter("n", DAY, Decimal("0.5"), None), checks=(check(3, counter="n"),))
    (charge,) = charges(rule, ToolCall("refund", {}))
    assert isinstance(charge, Charge)
    assert charge.amount == Decimal("0.5")


def test_of_several_limits_on_its_own_counter_the_tightest_is_charged_once() -> None:
    rule = counting("args.amount", check(500), check(100), check(100, inclusive=False))
    (charge,) = charges(rule, ToolCall("refund", {"amount": 1}))
    assert isinstance(charge, Charge)
    assert (charge.limit, charge.inclusive) == (Decimal(100), False)


def test_a_limit_on_another_counter_adds_nothing_to_it() -> None:
    own, other = charges(counting("args.amount", check(500), check(9, entry="*")), ToolCall("refund", {"amount": 1}))
    assert isinstance(own, Charge)
    assert isinstance(other, Charge)
    assert (own.key, own.amount) == (("state", "refund", "spent"), Decimal(1))
    assert (other.key, other.amount, other.limit) == (("state", "*", "spent"), Decimal(0), Decimal(9))


@pytest.mark.parametrize(
    ("amount", "expected"),
    [
        (5, "5"),
        (0, "0"),
        (0.1, "0.1"),
        ("12.50", "12.50"),
        (1e39, "1e39"),
        (10**40 - 1, "9999999999999999999999999999999999999999"),
        (1e-40, "1e-40"),
        (-0.0, "0"),
        ("0." + 50 * "0", "0"),
    ],
)
def test_amounts_are_exact(amount: Json, expected: str) -> None:
    (charge,) = charges(counting(), ToolCall("refund", {"amount": amount}))
    assert isinstance(charge, Charge)
    assert charge.amount == Decimal(expected)


NO_AMOUNTS: tuple[Json, ...] = (-1, "-0.5", True, None, "1e3", "ten", [5], {}, float("nan"), float("inf"))


@pytest.mark.parametrize("arguments", [{}, *({"amount": amount} for amount in NO_AMOUNTS)])
def test_an_amount_that_cannot_be_told_is_a_finding(arguments: dict[str, Any]) -> None:
    assert charges(counting(), ToolCall("refund", arguments)) == [
        Finding("bad_increment", "`args.amount` is counted, so it must be a number of at least 0", "budget")
    ]


@pytest.mark.parametrize("amount", [1e40, 10**40, 10**400, 1e300, 1e-41, 5e-324, "1" + 40 * "0", "0." + 40 * "0" + "1"])
def test_an_amount_with_more_digits_than_every_store_counts_is_a_finding(amount: Json) -> None:
    reason = "`args.amount` is counted, so it may have at most 40 digits before and behind the point"
    assert charges(counting(), ToolCall("refund", {"amount": amount})) == [Finding("bad_increment", reason, "budget")]


def test_charges_of_one_counter_are_merged_whatever_their_order() -> None:
    call = ToolCall("refund", {"amount": 5})
    found = [
        *charges(counting("args.amount", check(500)), call),
        *charges(Rule("look", Action.ALLOW, checks=(check(7),)), call),
    ]
    both = [charge for charge in found if isinstance(charge, Charge)]
    assert len(both) == 2
    for order in (both, both[::-1]):
        (charge,) = merge(order)
        assert (charge.amount, charge.limit, charge.rule) == (Decimal(5), Decimal(7), "look")


def test_below_a_limit_is_tighter_than_at_it_when_charges_are_merged() -> None:
    call = ToolCall("refund", {})
    looks = [Rule("look", Action.ALLOW, checks=(check(7, inclusive),)) for inclusive in (True, False)]
    both = [charge for rule in looks for charge in charges(rule, call) if isinstance(charge, Charge)]
    for order in (both, both[::-1]):
        (charge,) = merge(order)
        assert not charge.inclusive


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [(True, True, True), (True, None, None), (True, False, False), (None, False, False), (None, None, None)],
)
def test_the_mode_that_opens_less_is_kept_when_charges_are_merged(
    one: bool | None, other: bool | None, expected: bool | None
) -> None:
    looks = [
        Rule("r", Action.ALLOW, checks=(Check("refund", "spent", Decimal(7), True, DAY, mode),))
        for mode in (one, other)
    ]
    both = [charge for rule in looks for charge in charges(rule, ToolCall("refund", {})) if isinstance(charge, Charge)]
    for order in (both, both[::-1]):
        (charge,) = merge(order)
        assert charge.fail_open is expected


def test_a_shadow_charge_is_not_merged_with_an_enforced_one() -> None:
    call = ToolCall("refund", {"amount": 5})
    found = [*charges(counting(), call), *charges(counting(), call, shadow=True)]
    assert len(merge([charge for charge in found if isinstance(charge, Charge)])) == 2


COUNTABLE = st.one_of(st.just(0.0), st.floats(1e-20, 1e39))  # floats have up to 17 digits


@given(st.lists(COUNTABLE, min_size=1, max_size=4))
@settings(max_examples=50, deadline=None)
def test_merged_amounts_add_up_exactly(amounts: list[float]) -> None:
    found = [one for amount in amounts for one in charges(counting(), ToolCall("refund", {"amount": amount}))]
    (charge,) = merge([one for one in found if isinstance(one, Charge)])
    assert Fraction(charge.amount) == sum(Fraction(repr(amount)) for amount in amounts)
