"""Which entries match a name, and what follows from the name alone."""

from __future__ import annotations

import fnmatch
import gc
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from intercept_py.model import AuditLevel, Strategy, Window
from intercept_py.policy import matching, paths
from intercept_py.policy.matching import glob, plan_for
from intercept_py.policy.rules import Action, Counter, Entry, Matched, Policy, RateLimit, Rule, Validate

if TYPE_CHECKING:
    from tests.policy.conftest import MakeCondition, MakePolicy

MINUTE = Window(60)


def policy_of(*entries: Entry, hide: tuple[str, ...] = (), audit: AuditLevel = AuditLevel.METADATA) -> Policy:
    return Policy("policy.yaml", "0", entries=entries, hide=hide, audit=audit)


def matched(policy: Policy, name: str = "refund") -> Matched:
    return plan_for(policy, name).matched


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("get_*", "get_", True),
        ("get_*", "forget_x", False),
        ("*", "", True),
        ("*", "a\nb", True),
        ("a?c", "abc", True),
        ("a?c", "ac", False),
        ("Get", "get", False),
        ("[ab]", "a", False),
        ("[ab]", "[ab]", True),
        ("a.c", "abc", False),
        ("*_*_x", "a_b_x", True),
        ("*_*_x", "a_x", False),
        ("a**b", "ab", True),
        ("abc", "abc\n", False),
        ("*a", "aba", True),
    ],
)
def test_only_the_star_and_the_question_mark_are_special(pattern: str, name: str, expected: bool) -> None:
    assert glob(pattern)(name) is expected


@given(st.text("ab*?", max_size=8), st.text("ab", max_size=10))
@settings(max_examples=150, deadline=None)
def test_globs_mean_what_shells_mean(pattern: str, name: str) -> None:
    assert glob(pattern)(name) is fnmatch.fnmatchcase(name, pattern)


def test_a_glob_of_many_stars_is_quick_on_a_long_name() -> None:
    assert not glob("*a" * 30 + "b")("a" * 100_000)


def test_all_matching_entries_count_the_exact_name_first_then_globs_then_the_star() -> None:
    policy = policy_of(Entry("*"), Entry("re*"), Entry("*nd", category="write"), Entry("refund"), Entry("other"))
    found = matched(policy)
    assert [entry.pattern for entry in found.entries] == ["refund", "re*", "*nd", "*"]
    assert found.category == "write"


def test_the_star_constrains_but_does_not_list() -> None:
    policy = policy_of(Entry("*"), Entry("get_*"), Entry("refund"))
    assert [matched(policy, name).listed for name in ("refund", "get_x", "other")] == [True, True, False]


def test_hide_takes_names_and_globs() -> None:
    policy = policy_of(hide=("refund", "admin_*"))
    assert [matched(policy, name).hidden for name in ("refund", "admin_x", "refunds")] == [True, True, False]


def test_where_tools_are_hidden_every_call_needs_the_list_of_tools() -> None:
    assert matched(policy_of(hide=("other",))).needs_tool
    assert not matched(policy_of()).needs_tool


@pytest.mark.parametrize(
    ("validate", "expected"),
    [
        (Validate(required=True), True),
        (Validate(schema=True), True),
        (Validate(deny_unknown=True), True),
        (Validate(required=("a",)), False),
        (Validate(schema={"type": "object"}, inline=lambda _: None), False),
    ],
)
def test_validation_against_the_tools_own_schema_needs_it(
    policy: MakePolicy, validate: Validate, expected: bool
) -> None:
    assert matched(policy(Rule("r", Action.ALLOW, validate=validate))).needs_tool is expected


@pytest.mark.parametrize(
    ("where", "path", "op", "expected"),
    [
        ("conditions", "args.a", "neq", True),
        ("conditions", "args.a", "eq", False),
        ("conditions", "caller.principal", "neq", False),
        # A guard that does not hold lets the call pass by the rule, so any operator could be dodged there.
        ("when", "args.a", "eq", True),
        ("when", "args.a", "neq", True),
        ("when", "tool.category", "eq", False),
        ("when", "args.a", "exists", False),
    ],
)
def test_rules_that_another_type_could_dodge_need_the_schema(
    policy: MakePolicy, condition: MakeCondition, where: str, path: str, op: str, expected: bool
) -> None:
    rule = Rule("r", Action.ALLOW, **{where: (condition(path, op, True),)})  # type: ignore[arg-type]
    assert matched(policy(rule)).needs_tool is expected


def test_a_budget_for_each_value_of_an_argument_needs_the_schema(policy: MakePolicy) -> None:
    by_value = RateLimit(1, MINUTE, ("session", paths.parse("args.id")), Strategy.MOVING)
    by_session = RateLimit(1, MINUTE, ("session",), Strategy.MOVING)
    assert matched(policy(Rule("r", Action.ALLOW, rate_limit=by_value))).needs_tool
    assert not matched(policy(Rule("r", Action.ALLOW, rate_limit=by_session))).needs_tool


def test_what_rules_read_is_known_by_name(policy: MakePolicy, condition: MakeCondition) -> None:
    rule = Rule(
        "r",
        Action.ALLOW,
        when=(condition('args["Größe"].x', "eq", 1), condition("caller.principal", "eq", "a")),
        conditions=(condition("args.a.b[0].c", "eq", 1),),
        validate=Validate(required=("runId",)),
        rate_limit=RateLimit(1, MINUTE, ("global", paths.parse("args.project")), Strategy.MOVING),
        counter=Counter("spent", MINUTE, None, paths.parse("args.amount")),
    )
    plan = plan_for(policy(rule), "refund")
    assert plan.matched.reads == {"Größe", "a", "runId", "project", "amount"}
    assert plan.matched.folded == {"grösse", "a", "runid", "project", "amount"}
    assert {(steps, *names) for steps, names, _ in plan.nested} == {
        (("Größe",), "x"),
        (("a",), "b"),
        (("a", "b", 0), "c"),
    }


def test_the_most_specific_entry_says_what_is_recorded() -> None:
    entries = (Entry("*", audit=AuditLevel.NONE), Entry("refund"), Entry("re*", audit=AuditLevel.RESPONSE))
    assert plan_for(policy_of(*entries), "refund").audit is AuditLevel.RESPONSE
    assert plan_for(policy_of(*entries), "other").audit is AuditLevel.NONE
    assert plan_for(policy_of(audit=AuditLevel.REQUEST), "other").audit is AuditLevel.REQUEST


# -- remembering -------------------------------------------------------------------------------------------------------


def test_a_name_is_worked_out_once() -> None:
    policy = policy_of(Entry("refund"))
    assert plan_for(policy, "refund") is plan_for(policy, "refund")


def test_policies_that_are_equal_are_not_mixed_up() -> None:
    one, other = policy_of(hide=("refund",)), policy_of(hide=("refund",))
    assert plan_for(one, "refund") is not plan_for(other, "refund")
    assert plan_for(policy_of(), "refund").matched.hidden is False


def test_an_old_policy_is_let_go_when_there_are_many_newer_ones() -> None:
    class Marker:
        """Something whose life can be watched: values inside a policy cannot."""

    def alive() -> int:
        gc.collect()
        return sum(isinstance(one, Marker) for one in gc.get_objects())

    old = policy_of(Entry("refund", (Rule("r", Action.ALLOW, validate=Validate(schema={"marker": Marker()})),)))
    plan_for(old, "refund")
    assert alive() == 1
    del old
    newer = [policy_of() for _ in range(matching.POLICIES)]
    for policy in newer:
        plan_for(policy, "refund")
    assert alive() == 0


def test_policies_that_take_turns_are_planned_once() -> None:
    one, other = policy_of(Entry("refund")), policy_of(Entry("refund"))
    plans = [plan_for(policy, "refund") for policy in (one, other)]
    assert [plan_for(policy, "refund") for policy in (one, other)] == plans
    assert plan_for(one, "refund") is plans[0]
    assert plan_for(other, "refund") is plans[1]


def test_invented_names_do_not_fill_the_memory_nor_push_out_real_ones() -> None:
    policy = policy_of(Entry("refund"), Entry("get_*"))
    assert plan_for(policy, "x" * 10_000) is not plan_for(policy, "x" * 10_000)
    for number in range(matching.NAMES + 100):
        plan_for(policy, f"get_{number}")
    assert plan_for(policy, "refund") is plan_for(policy, "refund")
    last = f"get_{matching.NAMES + 99}"
    assert plan_for(policy, last) is not plan_for(policy, last)
    assert plan_for(policy, last).matched == plan_for(policy, "get_0").matched
