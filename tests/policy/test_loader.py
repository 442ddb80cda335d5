"""What a policy file compiles to. What it may not say is in `test_mistakes`."""

from __future__ import annotations

import hashlib
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from intercept_py.errors import PolicyError
from intercept_py.model import AuditLevel, Strategy, Window
from intercept_py.policy.loader import load
from intercept_py.policy.rules import (
    Action,
    Check,
    Counter,
    Entry,
    MethodRule,
    Policy,
    RateLimit,
    Rule,
)
from intercept_py.policy.rules import (
    Path as ArgumentPath,
)
from intercept_py.policy.source import read
from intercept_py.policy.tree import plain

DOCUMENTS = Path(__file__).parent / "documents"

SEED = b"""
tools:
  cancel_run:
    rules:
      - action: allow
        rate_limit:
          max: 10
          window: 60
        validate:
          required_args: true
"""


def document(name: str) -> Policy:
    return load((DOCUMENTS / f"{name}.yaml").read_bytes(), f"{name}.yaml")


def entry(policy: Policy, pattern: str) -> Entry:
    return next(entry for entry in policy.entries if entry.pattern == pattern)


def rule(text: str, index: int = 0) -> Rule:
    """A rule of the tool `x`."""
    return load(f"tools:\n  x:\n    rules:\n{text}".encode(), "p.yaml").entries[0].rules[index]


def limit(text: str) -> RateLimit:
    found = rule(f"      - rate_limit: {text}\n").rate_limit
    assert found is not None
    return found


def test_the_seed_rule_means_ten_calls_in_any_minute_of_a_session_with_every_required_argument() -> None:
    (found,) = load(SEED, "trigger-dev.yaml").entries
    (only,) = found.rules
    assert (found.pattern, only.name, only.action) == ("cancel_run", "cancel_run[0]", Action.ALLOW)
    assert only.rate_limit == RateLimit(10, Window(60), ("session",), Strategy.MOVING)
    assert only.validate is not None
    assert (only.validate.required, only.validate.schema, only.validate.deny_unknown) == (True, False, False)


def test_a_document_of_dialect_a_loads_unchanged() -> None:
    policy = document("dialect_a")
    assert policy.default_allow
    assert [entry.pattern for entry in policy.entries] == ["cancel_run", "list_runs", "delete_project"]
    (deny,) = entry(policy, "delete_project").rules
    assert (deny.action, deny.reason) == (Action.DENY, "Projects are deleted by people only")


def test_a_document_of_dialect_b_loads_unchanged() -> None:
    policy = document("dialect_b")
    assert policy.default_allow
    assert policy.hide == ("list_disputes", "rotate_api_key")
    assert entry(policy, "list_charges").rules == ()
    single, cap, currencies = entry(policy, "create_charge").rules
    assert (single.name, single.action, single.reason) == (
        "largest single charge",
        Action.ALLOW,
        "A single charge cannot exceed $500.00",
    )
    assert [(condition.path.text, condition.op, condition.operand) for condition in currencies.conditions] == [
        ("args.currency", "in", ["usd", "eur"]),
        ("args.metadata.order_id", "exists", True),
    ]
    assert cap.conditions == ()
    assert cap.counter == Counter(
        "daily_spend", Window(86400, "day"), None, ArgumentPath("args", ("amount",), "args.amount")
    )
    assert cap.checks == (Check("create_charge", "daily_spend", Decimal(1000000), True, Window(86400, "day")),)


def test_dialect_b_counts_in_calendar_windows_for_all_callers_together() -> None:
    policy = document("dialect_b")
    (hourly,) = entry(policy, "create_customer").rules
    assert hourly.rate_limit == RateLimit(5, Window(3600, "hour"), ("global",), Strategy.FIXED)
    (everything,) = entry(policy, "*").rules
    assert everything.checks == (Check("*", "calls", Decimal(60), True, Window(60, "minute")),)
    assert everything.counter == Counter("calls", Window(60, "minute"), Decimal(1), None)


def test_conditions_of_a_rule_that_asks_for_approval_are_its_guard() -> None:
    _, large = entry(document("dialect_b"), "create_refund").rules
    assert large.action is Action.REQUIRE_APPROVAL
    assert large.conditions == ()
    assert [condition.path.text for condition in large.when] == ["args.amount"]


def test_a_folded_reason_becomes_one_line() -> None:
    (never,) = entry(document("dialect_b"), "delete_customer").rules
    assert never.reason == "Customers are not deleted by agents."


def test_every_field_of_the_language_is_compiled() -> None:
    policy = document("whole_language")
    assert (policy.default_allow, policy.shadow, policy.audit) == (False, False, AuditLevel.REQUEST)
    assert (policy.description, policy.hide) == ("every field of the language", ("delete_project", "admin_*"))
    assert policy.methods == (
        MethodRule("sampling/createMessage", False),
        MethodRule("resources/*", False, "no resources here"),
        MethodRule("roots/list", True),
        MethodRule("prompts/list", True),
    )
    cancel = entry(policy, "cancel_run")
    assert (cancel.category, cancel.risk, cancel.audit) == ("execute", "high", AuditLevel.RESPONSE)
    first, second, _, inline, forced, asked, plain = cancel.rules
    assert [condition.op for condition in first.when + first.conditions] == ["eq", "regex", "in", "neq"]
    assert [condition.negative for condition in first.conditions] == [False, False, True]
    assert first.rate_limit is not None
    assert first.rate_limit.fail_open is True
    assert first.validate is not None
    assert (first.validate.required, first.validate.schema, first.validate.deny_unknown) == (True, True, True)
    assert (second.shadow, second.audit, second.name) == (True, AuditLevel.NONE, "cancel_run[1]")
    assert inline.validate is not None
    assert inline.validate.required == ("runId",)
    assert inline.validate.inline is not None
    assert inline.validate.inline({"runId": "run_1"}) is None
    assert inline.validate.inline({"runId": 1}) is not None
    assert (forced.action, forced.reason) == (Action.DENY, "force is not allowed")
    assert [condition.path.text for condition in asked.when] == ["args.all", "args.count"]
    assert plain == Rule("cancel_run[6]", Action.ALLOW)


def test_a_condition_may_limit_a_counter_of_another_entry_with_that_counters_window() -> None:
    spent, fees = entry(document("whole_language"), "pay").rules
    assert spent.checks == (
        Check("pay", "spent", Decimal("1000.50"), True, Window(31 * 86400, "month")),
        Check("*", "calls", Decimal(1000), False, Window(7 * 86400, "week")),
    )
    assert fees.counter == Counter("fees", Window(3600), Decimal("0.25"), None, fail_open=False)
    assert [check.fail_open for check in (*spent.checks, *fees.checks)] == [None, None, False]


def test_a_counter_may_be_used_before_the_entry_that_feeds_it() -> None:
    feeds = "tools:\n  b:\n    rules: [{conditions: [{path: state.a.n, op: lt, value: 2}]}]\n  a:\n    rules:\n"
    feeds += "      - {conditions: [{path: state.a.n, op: lte, value: 5}], state: {counter: n, window: day}}\n"
    first = load(feeds.encode(), "p.yaml").entries[0].rules[0]
    assert first.checks == (Check("a", "n", Decimal(2), False, Window(86400, "day")),)
    assert first.counter is None


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("5/second", RateLimit(5, Window(1, "second"), ("global",), Strategy.FIXED)),
        ("60/minute", RateLimit(60, Window(60, "minute"), ("global",), Strategy.FIXED)),
        ("7/week", RateLimit(7, Window(604800, "week"), ("global",), Strategy.FIXED)),
        ("1000000/month", RateLimit(1000000, Window(2678400, "month"), ("global",), Strategy.FIXED)),
        ("{max: 1, window: 90s}", RateLimit(1, Window(90), ("session",), Strategy.MOVING)),
        ("{max: 1, window: 5m, per: global}", RateLimit(1, Window(300), ("global",), Strategy.MOVING)),
        ("{max: 1, window: 2h, strategy: sliding}", RateLimit(1, Window(7200), ("session",), Strategy.SLIDING)),
        ("{max: 1, window: 366d, per: tool}", RateLimit(1, Window(31622400), ("tool",), Strategy.MOVING)),
        ("{max: 1, window: day}", RateLimit(1, Window(86400), ("session",), Strategy.MOVING)),
        ("{max: 1, window: day, strategy: fixed}", RateLimit(1, Window(86400, "day"), ("session",), Strategy.FIXED)),
        (
            "{max: 1, window: 1, per: [principal, args.a.b]}",
            RateLimit(1, Window(1), ("principal", ArgumentPath("args", ("a", "b"), "args.a.b")), Strategy.MOVING),
        ),
    ],
)
def test_limits_are_read_in_both_forms(written: str, expected: RateLimit) -> None:
    assert limit(written) == expected


def test_limits_of_one_entry_may_differ_in_window_scope_or_strategy() -> None:
    text = "      - {rate_limit: {max: 1, window: 60}}\n      - {rate_limit: {max: 9, window: 61}}\n"
    text += "      - {rate_limit: {max: 9, window: 60, per: tool}}\n      - {rate_limit: 5/minute}\n"
    text += "      - {rate_limit: {max: 9, window: 60, strategy: sliding}}\n"
    assert rule(text, 4).rate_limit == RateLimit(9, Window(60), ("session",), Strategy.SLIDING)


@pytest.mark.parametrize("written", ["null", "7", "-0.5", "text", "[]", "{a: [1, {b: null}]}", '"no"', "true"])
def test_an_operand_is_any_json_value(written: str) -> None:
    (condition,) = rule(f"      - conditions: [{{path: args.a, op: eq, value: {written}}}]\n").conditions
    assert condition.holds(condition.operand)


def test_a_policy_may_only_hide_or_only_set_the_default() -> None:
    assert load(b"hide: ['*']\n", "p.yaml").hide == ("*",)
    assert not load(b"default: deny\n", "p.yaml").default_allow
    assert load(b"tools: {}\nhide: []\nmethods: {}\n", "p.yaml").entries == ()


def test_a_hidden_name_may_have_an_entry_too() -> None:
    policy = load(b"hide: [a]\ntools: {a: {}}\n", "p.yaml")
    assert (policy.hide, policy.entries) == (("a",), (Entry("a"),))


def test_a_policy_in_shadow_mode_says_so() -> None:
    assert load(b"mode: shadow\ntools: {a: {rules: [{action: deny}]}}\n", "p.yaml").shadow


def test_a_glob_of_methods_may_match_lifecycle_methods() -> None:
    """It never covers them; that is for the judge of methods to see to."""
    assert load(b"methods: {'*': deny, 'notifications/*': deny}\n", "p.yaml").methods == (
        MethodRule("*", False),
        MethodRule("notifications/*", False),
    )


def test_the_revision_is_the_hash_of_the_bytes_and_the_source_the_name_as_given() -> None:
    policy = load(SEED, "dir/trigger dev.yaml")
    assert policy.revision == hashlib.sha256(SEED).hexdigest()
    assert policy.source == "dir/trigger dev.yaml"


def test_a_policy_cannot_be_changed() -> None:
    policy = load(SEED, "p.yaml")
    with pytest.raises(AttributeError):
        policy.default_allow = True  # type: ignore[misc]
    with pytest.raises(AttributeError):
        policy.entries[0].rules[0].action = Action.DENY  # type: ignore[misc]


def test_the_error_lists_each_problem_on_a_line_of_its_own() -> None:
    with pytest.raises(PolicyError) as caught:
        load(b"defualt: deny\nversion: 1\n", "p.yaml")
    assert str(caught.value).splitlines() == [
        "p.yaml:1:1: $.defualt: unknown field `defualt`: did you mean `default`?",
        'p.yaml:2:10: $.version: the version is text: write `version: "1"`',
    ]


VALID = [path.read_text("utf-8") for path in sorted(DOCUMENTS.glob("*.yaml"))]
FRAGMENTS = [
    "",
    " ",
    "\n",
    ":",
    "-",
    "{",
    "}",
    "[",
    "]",
    '"',
    "'",
    "*",
    "&a",
    "null",
    "no",
    "0",
    "-1",
    "1e9",
    "state.a.b",
    "\t",
    "#",
]


@given(st.sampled_from(VALID), st.data())
@settings(max_examples=200, deadline=None)
def test_a_changed_policy_loads_or_tells_its_problems(text: str, data: st.DataObject) -> None:
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, min(len(text), start + 12)))
        text = text[:start] + data.draw(st.sampled_from(FRAGMENTS) | st.text(max_size=3)) + text[end:]
    loads_or_tells(text.encode("utf-8", "surrogatepass"))


@given(st.sampled_from(VALID), st.data())
@settings(max_examples=100, deadline=None)
def test_a_policy_of_which_lines_are_lost_or_swapped_loads_or_tells_its_problems(
    text: str, data: st.DataObject
) -> None:
    lines = data.draw(st.lists(st.sampled_from(text.splitlines()), max_size=20))
    loads_or_tells("\n".join(lines).encode())


@given(st.binary(max_size=200))
@settings(max_examples=100, deadline=None)
def test_any_bytes_load_or_tell_their_problems(text: bytes) -> None:
    loads_or_tells(text)


def loads_or_tells(text: bytes) -> None:
    try:
        assert_nothing_is_lost(text, load(text, "p.yaml"))
        return
    except PolicyError as fault:
        problems = fault.problems
    assert problems
    assert all(str(problem).isprintable() for problem in problems)


def assert_nothing_is_lost(text: bytes, policy: Policy) -> None:
    """Whatever a policy that loads demands has been compiled: no rule, condition or limit was dropped on the way."""
    root, _ = read(text, "p.yaml")
    assert root is not None
    written = plain(root)
    assert [entry.pattern for entry in policy.entries] == list(written.get("tools", {}))
    assert list(policy.hide) == written.get("hide", [])
    assert [method.pattern for method in policy.methods] == list(written.get("methods", {}))
    assert policy.default_allow is (written.get("default") != "deny")
    for entry in policy.entries:
        rules = written["tools"][entry.pattern].get("rules", [])
        assert len(entry.rules) == len(rules)
        for compiled, fields in zip(entry.rules, rules, strict=True):
            assert compiled.action.value == fields.get("action", "allow").replace("evaluate", "allow")
            found = len(compiled.when) + len(compiled.conditions) + len(compiled.checks)
            assert found == len(fields.get("when", [])) + len(fields.get("conditions", []))
            assert (compiled.rate_limit is not None) is ("rate_limit" in fields)
            assert (compiled.validate is not None) is ("validate" in fields)
            assert (compiled.counter is not None) is ("state" in fields)
            assert (compiled.reason is not None) is ("reason" in fields or "on_deny" in fields)


@pytest.mark.parametrize("text", VALID, ids=range(len(VALID)))
def test_nothing_that_a_policy_demands_is_lost(text: str) -> None:
    assert_nothing_is_lost(text.encode(), load(text.encode(), "p.yaml"))
