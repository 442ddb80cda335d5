"""Promises of the decision point, tried on generated policies and calls."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from intercept_py.model import NO_TOOL, AuditLevel, Caller, Effect, Json, Strategy, Tool, ToolCall, Window
from intercept_py.policy import paths
from intercept_py.policy.operators import OPERATORS
from intercept_py.policy.pdp import decide
from intercept_py.policy.rules import (
    Action,
    Check,
    Condition,
    Counter,
    Entry,
    Path,
    Policy,
    RateLimit,
    Rule,
    Validate,
)

if TYPE_CHECKING:
    from collections.abc import Callable

PROPERTY = settings(max_examples=100, deadline=None)

NAMES = st.sampled_from(["refund", "get_x", "other"])
KEYS = st.sampled_from(["a", "A", "b", "c"])
SCALARS = st.sampled_from([None, True, 0, 1, 5, 1.5, -1, "", "a", "5", "prod", 1e300, float("nan")])
JSON = st.recursive(
    SCALARS | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS | st.text(max_size=2), inner, max_size=3),
    max_leaves=6,
)
PATHS = st.sampled_from(
    ["args.a", "args.b", "args.a.b", "args.a[0]", "caller.principal", "caller.scopes", "tool.name", "tool.category"]
).map(paths.parse)
OPERANDS: dict[str, list[Json]] = {
    "eq": [1, "a", None, [1]],
    "neq": [1, "prod"],
    "in": [["a", 5], [None, True]],
    "not_in": [["prod", 5]],
    "lt": [5],
    "lte": [1.5],
    "gt": [0],
    "gte": ["1"],
    "regex": ["^a", ""],
    "contains": ["a", 1],
    "exists": [True, False],
    "starts_with": ["a"],
    "ends_with": ["d"],
    "not_regex": ["prod"],
    "not_contains": ["a"],
    "length_lte": [1],
    "is_type": ["string", ["integer", "null"]],
    "subset_of": [["a", 1]],
    "cidr_in": ["10.0.0.0/8"],
    "path_under": ["/srv"],
}


def compiled(path: Path, op: str, operand: Json) -> Condition:
    return Condition(path, op, operand, OPERATORS[op].compile(operand), OPERATORS[op].negative)


CONDITIONS = st.sampled_from(sorted(OPERANDS)).flatmap(
    lambda op: st.builds(compiled, PATHS, st.just(op), st.sampled_from(OPERANDS[op]))
)
SOME_CONDITIONS = st.lists(CONDITIONS, max_size=2).map(tuple)
WINDOWS = st.sampled_from([Window(60), Window(86_400, "day")])
ARGUMENT = st.sampled_from(["args.a", "args.b"]).map(paths.parse)
LIMITS = st.builds(
    RateLimit,
    max=st.integers(1, 9),
    window=WINDOWS,
    per=st.lists(st.sampled_from(["session", "principal", "tool", "global"]) | ARGUMENT, min_size=1, max_size=2).map(
        tuple
    ),
    strategy=st.sampled_from(Strategy),
)
COUNTERS = st.builds(
    Counter, counter=st.just("n"), window=WINDOWS, increment=st.just(Decimal(2)), increment_from=st.none()
) | st.builds(Counter, counter=st.just("n"), window=WINDOWS, increment=st.none(), increment_from=ARGUMENT)
CHECKS = st.builds(
    Check,
    entry=st.sampled_from(["refund", "*"]),
    counter=st.just("n"),
    limit=st.integers(0, 9).map(Decimal),
    inclusive=st.booleans(),
    window=WINDOWS,
)
VALIDATIONS = st.builds(
    Validate,
    required=st.booleans() | st.just(("a",)),
    schema=st.booleans() | st.just({"required": ["a"]}),
    deny_unknown=st.booleans(),
)
RULES = st.builds(
    Rule,
    name=st.sampled_from(["one", "two", "three"]),
    action=st.sampled_from([Action.ALLOW, Action.ALLOW, Action.ALLOW, Action.DENY, Action.REQUIRE_APPROVAL]),
    when=SOME_CONDITIONS,
    conditions=SOME_CONDITIONS,
    validate=st.none() | VALIDATIONS,
    rate_limit=st.none() | LIMITS,
    counter=st.none() | COUNTERS,
    checks=st.lists(CHECKS, max_size=2).map(tuple),
    reason=st.none() | st.just("because"),
    shadow=st.sampled_from([False, False, True]),
    audit=st.none() | st.sampled_from(AuditLevel),
)
ENTRIES = st.builds(
    Entry,
    pattern=st.sampled_from(["refund", "get_*", "*", "re?und"]),
    rules=st.lists(RULES, max_size=3).map(tuple),
    category=st.none() | st.just("financial"),
)
POLICIES = st.builds(
    Policy,
    source=st.just("policy.yaml"),
    revision=st.just("0"),
    default_allow=st.booleans(),
    hide=st.lists(st.sampled_from(["other", "get_*"]), max_size=1).map(tuple),
    entries=st.lists(ENTRIES, max_size=3, unique_by=lambda entry: entry.pattern).map(tuple),
)
SCHEMAS: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {},
    optional={
        "properties": st.dictionaries(
            KEYS, st.sampled_from([{}, {"type": "string"}, {"type": ["number", "null"]}]), max_size=3
        ),
        "required": st.lists(KEYS, max_size=2),
    },
)
TOOLS = st.none() | st.just(NO_TOOL) | st.builds(Tool, name=NAMES, schema=st.none() | SCHEMAS)
CALLS = st.builds(
    ToolCall,
    name=NAMES | st.text(max_size=5),
    arguments=st.dictionaries(KEYS | st.text(max_size=3), JSON, max_size=4),
    caller=st.sampled_from([Caller(), Caller(session="s", principal="a", scopes=("a",))]),
    tool=TOOLS,
)


@PROPERTY
@given(POLICIES, CALLS, st.booleans())
def test_decide_never_raises_and_says_the_same_again(policy: Policy, call: ToolCall, shadow: bool) -> None:
    policy = msgspec.structs.replace(policy, shadow=shadow)
    first = decide(policy, call)
    # Another policy in between, so that nothing remembered can help.
    decide(Policy("other", "1"), call)
    assert repr(decide(policy, call)) == repr(first)
    assert (first.effect is Effect.DENY) is (first.finding is not None)
    assert first.effect is Effect.ALLOW or not first.charges
    assert first.finding is None or first.finding.code != "internal_error"


def changed(policy: Policy, place: int, change: Callable[[tuple[Rule, ...]], tuple[Rule, ...]]) -> Policy:
    entries = list(policy.entries)
    entry = entries[place % len(entries)]
    entries[place % len(entries)] = msgspec.structs.replace(entry, rules=change(entry.rules))
    return msgspec.structs.replace(policy, entries=tuple(entries))


WITH_ENTRIES = POLICIES.filter(lambda policy: bool(policy.entries))


@PROPERTY
@given(WITH_ENTRIES, CALLS, RULES, st.integers(0, 9), st.integers(0, 9))
def test_adding_a_rule_never_turns_a_denial_into_an_allowance(
    policy: Policy, call: ToolCall, rule: Rule, place: int, position: int
) -> None:
    more = changed(policy, place, lambda rules: (*rules[:position], rule, *rules[position:]))
    before, after = decide(policy, call), decide(more, call)
    assert before.effect is Effect.ALLOW or after.effect is Effect.DENY
    if before.effect is after.effect is Effect.ALLOW:
        # Nor does it spare the call a charge.
        kept = {charge.key: charge for charge in after.charges if not charge.shadow}
        for charge in (charge for charge in before.charges if not charge.shadow):
            assert kept[charge.key].amount >= charge.amount
            assert kept[charge.key].limit <= charge.limit or charge.key[0] == "limit"


@PROPERTY
@given(WITH_ENTRIES, CALLS, st.integers(0, 9), st.randoms(use_true_random=False))
def test_the_order_of_rules_and_entries_never_changes_the_verdict(
    policy: Policy, call: ToolCall, place: int, random: Any
) -> None:
    other = changed(policy, place, lambda rules: tuple(random.sample(rules, len(rules))))
    other = msgspec.structs.replace(other, entries=tuple(random.sample(other.entries, len(other.entries))))
    before, after = decide(policy, call), decide(other, call)
    assert after.effect is before.effect
    assert after.audit is before.audit
    assert len(after.shadowed) == len(before.shadowed)
    amounts = [sorted((charge.key, charge.amount) for charge in one.charges) for one in (before, after)]
    assert amounts[0] == amounts[1]


@PROPERTY
@given(POLICIES, CALLS)
def test_a_shadow_policy_allows_whatever_an_enforced_one_says(policy: Policy, call: ToolCall) -> None:
    decision = decide(msgspec.structs.replace(policy, shadow=True), call)
    assert decision.effect is Effect.ALLOW
    assert all(charge.shadow for charge in decision.charges)
    enforced = decide(policy, call)
    assert enforced.finding is None or decision.shadowed


@PROPERTY
@given(WITH_ENTRIES, CALLS, st.integers(0, 9))
def test_a_rule_in_shadow_changes_no_verdict(policy: Policy, call: ToolCall, place: int) -> None:
    watching = changed(policy, place, lambda rules: tuple(msgspec.structs.replace(rule, shadow=True) for rule in rules))
    without = changed(policy, place, lambda rules: ())
    assert decide(watching, call).effect is decide(without, call).effect


@PROPERTY
@given(POLICIES.filter(lambda policy: bool(policy.hide)), CALLS.filter(lambda call: call.tool in (None, NO_TOOL)))
def test_where_tools_are_hidden_no_reason_tells_hidden_from_unknown(policy: Policy, call: ToolCall) -> None:
    names = {"hidden": "other" if policy.hide == ("other",) else "get_x", "unknown": "nowhere"}
    reasons = set()
    for name in names.values():
        finding = decide(policy, msgspec.structs.replace(call, name=name)).finding
        assert finding is not None
        assert finding.code in ("hidden", "unlisted", "unknown")
        reasons.add(finding.reason.replace(name, "NAME"))
    assert len(reasons) == 1
