"""Which tools a caller is not shown: those that a rule denies him whatever he sends, and no others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from intercept_py.model import Caller, Effect, Json, Tool, ToolCall
from intercept_py.policy import loader, paths
from intercept_py.policy.operators import OPERATORS
from intercept_py.policy.pdp import decide, hidden_from, hides_by_caller, match
from intercept_py.policy.rules import Action, Condition, Entry, Policy, Rule

if TYPE_CHECKING:
    from collections.abc import Sequence

ADMIN = Caller(session="s", principal="alice", address="10.0.0.1", scopes=("admin", "runs"), claims={"team": "core"})
GUEST = Caller(session="s", principal="bob", address="10.0.0.2", scopes=("runs",), claims={"team": "web"})
NOBODY = Caller(session="s")


def load(text: str) -> Policy:
    return loader.load(text.encode(), "policy.yaml")


def one_rule(rule: str, entry: str = "") -> Policy:
    return load(f"tools: {{refund: {{{entry} rules: [{rule}]}}}}")


def hidden(policy: Policy, name: str = "refund") -> list[bool]:
    return [hidden_from(policy, name, caller) for caller in (ADMIN, GUEST, NOBODY)]


@pytest.mark.parametrize(
    "rule",
    [
        "{conditions: [{path: caller.scopes, op: contains, value: admin}]}",
        "{action: deny, when: [{path: caller.scopes, op: not_contains, value: admin}]}",
        "{conditions: [{path: caller.principal, op: eq, value: alice}]}",
        "{conditions: [{path: caller.claims.team, op: in, value: [core, ops]}]}",
        # Whatever else is demanded: this demand cannot be met.
        "{conditions: [{path: args.x, op: eq, value: 1}, {path: caller.principal, op: eq, value: alice}]}",
        "{action: allow, rate_limit: 5/hour, conditions: [{path: caller.principal, op: eq, value: alice}]}",
        "{when: [{path: tool.name, op: neq, value: x}], conditions: [{path: caller.principal, op: eq, value: alice}]}",
    ],
)
def test_a_tool_is_not_shown_to_callers_whom_a_rule_denies_every_call_of_it(rule: str) -> None:
    policy = one_rule(rule)
    assert hidden(policy) == [False, True, True]
    assert hides_by_caller(policy)
    for caller in (GUEST, NOBODY):
        for arguments in ({}, {"x": 1}):
            assert decide(policy, ToolCall("refund", arguments, caller)).effect is Effect.DENY


@pytest.mark.parametrize(
    "rule",
    [
        # These depend on what is sent.
        "{action: deny, when: [{path: caller.principal, op: neq, value: x}, {path: args.x, op: eq, value: 1}]}",
        "{when: [{path: args.x, op: eq, value: 1}], conditions: [{path: caller.principal, op: eq, value: x}]}",
        "{conditions: [{path: args.x, op: eq, value: 1}]}",
        # These are the same for everybody: `hide` is for them.
        "{action: deny}",
        "{action: deny, when: [{path: tool.name, op: eq, value: refund}]}",
        # A list must not vary by connection.
        "{conditions: [{path: caller.session, op: eq, value: x}]}",
        "{action: deny, when: [{path: caller.address, op: exists, value: true}]}",
        "{action: deny, when: [{path: caller.session, op: neq, value: x}, {path: caller.scopes, op: neq, value: x}]}",
        # These deny nothing, or not for good.
        "{mode: shadow, conditions: [{path: caller.principal, op: eq, value: x}]}",
        "{action: require_approval, when: [{path: caller.principal, op: exists, value: true}]}",
        "{action: require_approval, conditions: [{path: caller.principal, op: exists, value: true}]}",
    ],
)
def test_a_tool_stays_in_the_list_for_every_other_reason(rule: str) -> None:
    assert hidden(one_rule(rule)) == [False, False, False]


def test_what_the_policy_hides_is_hidden_from_everybody() -> None:
    policy = load("{hide: [refund], tools: {x: {}}}")
    assert hidden(policy) == [True, True, True]
    assert not hides_by_caller(policy)


def test_a_policy_in_shadow_hides_nothing() -> None:
    rule = "{conditions: [{path: caller.principal, op: eq, value: x}]}"
    shadow = load(f"{{mode: shadow, hide: [x], tools: {{refund: {{rules: [{rule}]}}}}}}")
    assert hidden(shadow) == hidden(shadow, "x") == [False, False, False]
    assert not hides_by_caller(shadow)


def test_a_rule_of_the_star_may_go_by_the_category_of_a_tool() -> None:
    policy = load(
        """
        tools:
          refund: {category: financial}
          list_runs: {category: read}
          "*":
            rules:
              - when: [{path: tool.category, op: eq, value: financial}]
                conditions: [{path: caller.scopes, op: contains, value: admin}]
        """
    )
    assert hidden(policy) == [False, True, True]
    assert hidden(policy, "list_runs") == [False, False, False]


# -- for all policies --------------------------------------------------------------------------------------------------

CALLERS = st.sampled_from([ADMIN, GUEST, NOBODY, Caller(), Caller(principal="alice", claims={"team": {"x": [1]}})])
TESTS: list[tuple[str, str, Json]] = [
    ("caller.principal", "eq", "alice"),
    ("caller.principal", "neq", "alice"),
    ("caller.principal", "exists", False),
    ("caller.scopes", "contains", "admin"),
    ("caller.scopes", "not_contains", "admin"),
    ("caller.scopes[0]", "in", ["admin"]),
    ("caller.claims.team", "not_in", ["core"]),
    ("caller.claims.team.x", "exists", True),
    ("caller.session", "eq", "s"),
    ("caller.address", "exists", True),
    ("tool.name", "regex", "^r"),
    ("tool.category", "exists", False),
    ("args.a", "exists", True),
    ("args.a", "exists", False),
    ("args.a", "neq", "alice"),
    ("args.a", "eq", "alice"),
]


def compiled(path: str, op: str, operand: Json) -> Condition:
    return Condition(paths.parse(path), op, operand, OPERATORS[op].compile(operand), OPERATORS[op].negative)


CONDITIONS = st.lists(st.sampled_from([compiled(*test) for test in TESTS]), max_size=2).map(tuple)
RULES = st.builds(
    Rule,
    name=st.just("rule"),
    action=st.sampled_from([Action.ALLOW, Action.ALLOW, Action.DENY, Action.REQUIRE_APPROVAL]),
    when=CONDITIONS,
    conditions=CONDITIONS,
    shadow=st.sampled_from([False, False, False, True]),
)
ENTRIES = st.builds(
    Entry,
    pattern=st.sampled_from(["refund", "re*", "*"]),
    rules=st.lists(RULES, max_size=3).map(tuple),
    category=st.none() | st.just("financial"),
)
POLICIES = st.builds(
    Policy,
    source=st.just("policy.yaml"),
    revision=st.just("0"),
    default_allow=st.booleans(),
    hide=st.sampled_from([(), (), ("x*",), ("refund",)]),
    entries=st.lists(ENTRIES, max_size=3, unique_by=lambda entry: entry.pattern).map(tuple),
    shadow=st.sampled_from([False, False, False, True]),
)
ARGUMENTS = st.dictionaries(
    st.sampled_from(["a", "A", "b"]),
    st.sampled_from([None, True, 1, "alice", "refund", [], ["admin"], {"a": 1}]),
    max_size=2,
)
NAMES = st.sampled_from(["refund", "report", "x", "other"])
PROPERTY = settings(max_examples=300, deadline=None)


@PROPERTY
@given(POLICIES, NAMES, CALLERS, st.lists(ARGUMENTS, max_size=4))
def test_every_call_of_a_tool_that_is_not_shown_is_denied(
    policy: Policy, name: str, caller: Caller, sent: Sequence[dict[str, Any]]
) -> None:
    if hidden_from(policy, name, caller):
        for arguments in [{}, *sent]:
            # Also from elsewhere: the list does not vary by connection.
            for session, address in ((caller.session, caller.address), ("other", "192.0.2.7"), (None, None)):
                asks = msgspec.structs.replace(caller, session=session, address=address)
                for tool in (None, Tool(name, {})):
                    assert decide(policy, ToolCall(name, arguments, asks, tool)).effect is Effect.DENY


@PROPERTY
@given(POLICIES, NAMES, CALLERS)
def test_lists_differ_only_where_it_is_said_that_they_can(policy: Policy, name: str, caller: Caller) -> None:
    if not hides_by_caller(policy):
        assert hidden_from(policy, name, caller) == hidden_from(policy, name, Caller())


@PROPERTY
@given(POLICIES, NAMES, CALLERS)
def test_a_tool_is_shown_to_whom_no_rule_that_asks_who_he_is_denies_it(
    policy: Policy, name: str, caller: Caller
) -> None:
    """The other half: what is hidden without `hide` is so because of a rule that names the caller."""
    without = [
        msgspec.structs.replace(entry, rules=tuple(rule for rule in entry.rules if not _names_caller(rule)))
        for entry in policy.entries
    ]
    blind = msgspec.structs.replace(policy, entries=tuple(without))
    assert hidden_from(blind, name, caller) is (match(blind, name).hidden and not policy.shadow)


def _names_caller(rule: Rule) -> bool:
    return any(condition.path.root == "caller" for condition in rule.when + rule.conditions)
