"""Decisions: what is denied, with which code and reason, and what an allowed call is charged."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from intercept_py.model import (
    NO_TOOL,
    AuditLevel,
    Caller,
    Decision,
    Effect,
    Finding,
    Json,
    JsonObject,
    Strategy,
    Tool,
    ToolCall,
    Window,
)
from intercept_py.policy import paths
from intercept_py.policy.arguments import compile_schema
from intercept_py.policy.pdp import LIFECYCLE, decide, judge_method, match, unknown_tool_reason
from intercept_py.policy.rules import (
    Action,
    Check,
    Condition,
    Counter,
    Entry,
    MethodRule,
    Path,
    Policy,
    RateLimit,
    Rule,
    Validate,
)

if TYPE_CHECKING:
    from tests.policy.conftest import MakeCondition, MakePolicy

MINUTE = Window(60)
SCHEMA: JsonObject = {
    "type": "object",
    "properties": {"runId": {"type": "string"}, "amount": {"type": "number"}, "note": {"type": "string"}},
    "required": ["runId"],
}
TOOL = Tool("refund", SCHEMA)
BARE = Tool("refund")
ALLOWED = Decision(Effect.ALLOW)


def call(
    tool: Tool | None = None, name: str = "refund", caller: Caller | None = None, /, **arguments: Json
) -> ToolCall:
    return ToolCall(name, arguments, caller or Caller(session="s"), tool)


def denial(policy: Policy, asked: ToolCall) -> Finding:
    decision = decide(policy, asked)
    assert decision.effect is Effect.DENY
    assert decision.finding is not None
    assert decision.charges == ()
    assert decision.finding.reason.isprintable()
    return decision.finding


def limited(name: str = "limit", most: int = 10, **more: Any) -> Rule:
    return Rule(name, Action.ALLOW, rate_limit=RateLimit(most, MINUTE, ("session",), Strategy.MOVING), **more)


DENY = Rule("never", Action.DENY)


# -- names -------------------------------------------------------------------------------------------------------------


def test_an_empty_policy_allows_everything() -> None:
    assert decide(Policy("policy.yaml", "0"), call(amount=5)) == ALLOWED


def test_under_default_deny_only_listed_tools_pass(policy: MakePolicy) -> None:
    strict = policy(default_allow=False)
    assert decide(strict, call()) == ALLOWED
    assert denial(strict, call(None, "other")) == Finding(
        "unlisted", "the policy denies tools that it does not list, and `other` is not listed"
    )


def test_the_star_alone_lists_nothing(policy: MakePolicy) -> None:
    assert denial(policy(pattern="*", default_allow=False), call()).code == "unlisted"


def test_a_hidden_tool_is_denied_like_an_unknown_one(policy: MakePolicy) -> None:
    hiding = policy(hide=("secret",))
    hidden = denial(hiding, call(Tool("secret"), "secret"))
    unknown = denial(hiding, call(NO_TOOL, "nowhere"))
    assert (hidden.code, unknown.code) == ("hidden", "unknown")
    assert hidden.reason == unknown_tool_reason("secret")
    assert unknown.reason == unknown_tool_reason("nowhere")
    assert hidden.rule is unknown.rule is None


@pytest.mark.parametrize("default_allow", [True, False])
def test_while_the_list_of_tools_is_not_known_hidden_and_unknown_are_alike_too(
    policy: MakePolicy, default_allow: bool
) -> None:
    hiding = policy(hide=("secret",), default_allow=default_allow)
    assert denial(hiding, call(None, "secret")).reason == unknown_tool_reason("secret")
    assert denial(hiding, call(None, "nowhere")).reason == unknown_tool_reason("nowhere")
    assert denial(hiding, call(None)).reason == unknown_tool_reason("refund")


def test_an_unlisted_tool_that_the_server_does_not_have_is_unknown_where_tools_are_hidden(policy: MakePolicy) -> None:
    hiding = policy(hide=("secret",), default_allow=False)
    finding = denial(hiding, call(NO_TOOL, "nowhere"))
    assert (finding.code, finding.reason) == ("unlisted", unknown_tool_reason("nowhere"))
    assert "does not list" in denial(hiding, call(Tool("other"), "other")).reason


def test_a_name_cannot_break_out_of_the_reason(policy: MakePolicy) -> None:
    reason = denial(policy(default_allow=False), call(None, "x\n\u202e`" + "y" * 1000)).reason
    assert reason.isprintable()
    assert len(reason) < 250


# -- the tool's schema -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tool", "code", "words"),
    [
        (None, "schema_unavailable", "the server's list of tools"),
        (NO_TOOL, "unknown", "unknown tool `refund`"),
        (BARE, "schema_unavailable", "the server lists none"),
    ],
)
def test_a_rule_that_needs_the_schema_denies_without_it(
    policy: MakePolicy, tool: Tool | None, code: str, words: str
) -> None:
    finding = denial(policy(Rule("r", Action.ALLOW, validate=Validate(required=True))), call(tool, runId="a"))
    assert finding.code == code
    assert finding.rule is None
    assert words in finding.reason


def test_a_shadow_rule_that_needs_the_schema_denies_nothing_without_it(policy: MakePolicy) -> None:
    watching = policy(Rule("r", Action.ALLOW, validate=Validate(required=True), shadow=True), limited())
    decision = decide(watching, call(None, runId="a"))
    assert decision.effect is Effect.ALLOW
    assert [(finding.code, finding.rule) for finding in decision.shadowed] == [("schema_unavailable", "r")]
    assert len(decision.charges) == 1


def test_a_type_that_contradicts_the_schema_is_denied_before_any_rule(policy: MakePolicy) -> None:
    assert denial(policy(DENY), call(TOOL, runId=5)) == Finding(
        "argument_type", "argument `runId` must be string, not integer"
    )


def test_a_negative_rule_cannot_be_dodged_by_another_type(policy: MakePolicy, condition: MakeCondition) -> None:
    negative = policy(Rule("r", Action.ALLOW, conditions=(condition("args.runId", "neq", "prod"),)))
    assert decide(negative, call(TOOL, runId="dev")) == ALLOWED
    assert denial(negative, call(TOOL, runId=["prod"])).code == "argument_type"
    assert denial(negative, call(None, runId="dev")).code == "schema_unavailable"


def test_a_guard_cannot_be_dodged_by_another_type(policy: MakePolicy, condition: MakeCondition) -> None:
    guarded = policy(Rule("r", Action.DENY, when=(condition("args.runId", "eq", "prod"),)))
    assert denial(guarded, call(TOOL, runId="prod")).code == "denied_by_rule"
    assert denial(guarded, call(TOOL, runId=["prod"])).code == "argument_type"
    assert denial(guarded, call(None, runId=["prod"])).code == "schema_unavailable"


def test_null_stands_for_nothing_only_where_nothing_can_be_dodged_by_it(
    policy: MakePolicy, condition: MakeCondition
) -> None:
    properties = {"runId": {"type": "string"}, "verbose": {"type": "boolean"}}
    schema = {"type": "object", "required": ["runId"], "properties": properties}
    tool = Tool("cancel_run", schema)
    assert decide(policy(Rule("r", Action.ALLOW)), call(tool, runId="a", verbose=None)) == ALLOWED
    reads = policy(Rule("r", Action.DENY, when=(condition("args.verbose", "eq", True),)))
    assert denial(reads, call(tool, runId="a", verbose=None)).code == "argument_type"
    assert denial(policy(Rule("r", Action.ALLOW)), call(tool, runId=None)).code == "argument_type"
    assert denial(policy(Rule("r", Action.ALLOW)), call(tool, runId="a", verbose="yes")).code == "argument_type"


# -- look-alikes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["RunId", "runid", "ｒｕｎＩｄ", "run\u200bId"])
def test_a_key_that_looks_like_one_that_is_read_is_refused(
    policy: MakePolicy, condition: MakeCondition, key: str
) -> None:
    reading = policy(Rule("r", Action.ALLOW, conditions=(condition("args.runId", "eq", "a"),)))
    assert denial(reading, call(runId="a", **{key: "b"})).code == "ambiguous_argument"
    assert denial(reading, call(**{key: "b"})).code == "ambiguous_argument"
    assert denial(policy(), call(TOOL, **{key: "b"})).code == "ambiguous_argument"


def test_keys_that_the_schema_declares_are_no_look_alikes(policy: MakePolicy, condition: MakeCondition) -> None:
    reading = policy(Rule("r", Action.ALLOW, conditions=(condition("args.name", "eq", "a"),)))
    both = Tool("refund", {"properties": {"name": {}, "Name": {}}})
    assert decide(reading, call(both, name="a", Name="b", other=1)) == ALLOWED


def test_keys_that_nobody_reads_may_look_alike(policy: MakePolicy) -> None:
    assert decide(policy(), call(a=1, A=2)) == ALLOWED


@pytest.mark.parametrize(
    "arguments",
    [{"to": {"IBAN": "x"}}, {"to": {"iban": "DE", "Iban": "x"}}, {"to": {"iban": "DE"}, "list": [{"Id": 1}]}],
)
def test_look_alikes_inside_objects_are_refused(
    policy: MakePolicy, condition: MakeCondition, arguments: JsonObject
) -> None:
    reading = policy(
        Rule("r", Action.ALLOW, conditions=(condition("args.to.iban", "eq", "DE"),)),
        Rule(
            "q",
            Action.DENY,
            when=(condition("caller.principal", "eq", "x"), condition("args.list[0].id", "exists", True)),
        ),
    )
    assert denial(reading, call(**arguments)).code == "ambiguous_argument"


# -- rules -------------------------------------------------------------------------------------------------------------


def test_a_deny_rule_denies_whenever_it_applies(policy: MakePolicy, condition: MakeCondition) -> None:
    guard = condition("tool.category", "eq", "financial")
    denying = Policy("p", "0", entries=(Entry("refund", (Rule("no money", Action.DENY, when=(guard,)),), "financial"),))
    assert denial(denying, call()) == Finding("denied_by_rule", "the policy does not allow this call", "no money")
    assert decide(policy(Rule("no money", Action.DENY, when=(guard,))), call()) == ALLOWED


def test_the_authors_reason_is_what_the_agent_is_told(policy: MakePolicy, condition: MakeCondition) -> None:
    assert denial(policy(Rule("r", Action.DENY, reason="ask Ada")), call()).reason == "ask Ada"
    rule = Rule("r", Action.ALLOW, conditions=(condition("args.amount", "lte", 5),), reason="at most five")
    assert denial(policy(rule), call(amount=6)).reason == "at most five"


def test_an_approval_that_cannot_be_asked_for_is_a_denial_that_says_so(
    policy: MakePolicy, condition: MakeCondition
) -> None:
    over = (condition("args.amount", "gt", 100),)
    for rule in (
        Rule("r", Action.REQUIRE_APPROVAL, when=over),
        Rule("r", Action.REQUIRE_APPROVAL, conditions=over),
    ):
        finding = denial(policy(rule), call(TOOL, amount=101))
        assert (finding.code, finding.rule) == ("approval_required", "r")
        assert finding.reason.endswith("approvals are not available yet, so it is denied")
        assert decide(policy(rule), call(TOOL, amount=100)) == ALLOWED


@pytest.mark.parametrize(
    ("op", "operand", "value", "reason"),
    [
        ("lte", 500, 501, "`args.x` must be at most `500`"),
        ("in", ["a", "b"], "c", '`args.x` must be one of `["a","b"]`'),
        ("regex", "^run_", "secret", '`args.x` must match `"^run_"`'),
        ("exists", True, None, "`args.x` must be given"),
        ("exists", False, 1, "`args.x` must not be given"),
        ("starts_with", "a`\u202e", "secret", '`args.x` must start with `"a\\u0060\\u202e"`'),
    ],
)
def test_a_condition_that_fails_says_what_was_expected_and_never_the_value(
    policy: MakePolicy, condition: MakeCondition, op: str, operand: Json, value: Json, reason: str
) -> None:
    rule = Rule("r", Action.ALLOW, conditions=(condition("args.x", op, operand),))
    assert denial(policy(rule), call(x=value)) == Finding("condition_failed", reason, "r")


def test_a_missing_value_fails_every_operator_but_exists(policy: MakePolicy, condition: MakeCondition) -> None:
    for op, operand in (
        ("eq", 1),
        ("neq", 1),
        ("not_in", [1]),
        ("not_regex", "a"),
        ("not_contains", "a"),
        ("exists", True),
    ):
        rule = Rule("r", Action.ALLOW, conditions=(condition("args.note", op, operand),))
        assert denial(policy(rule), call(TOOL)).code == "condition_failed"
    rule = Rule("r", Action.ALLOW, conditions=(condition("args.note", "exists", False),))
    assert decide(policy(rule), call(TOOL)) == ALLOWED


def test_all_rules_of_all_matching_entries_must_pass(condition: MakeCondition) -> None:
    def entry(pattern: str, limit: int) -> Entry:
        return Entry(pattern, (Rule(pattern, Action.ALLOW, conditions=(condition("args.n", "lt", limit),)),))

    layered = Policy("p", "0", entries=(entry("*", 3), entry("re*", 5), entry("refund", 7)))
    assert decide(layered, call(n=2)) == ALLOWED
    assert denial(layered, call(n=4)).rule == "*"
    assert denial(layered, call(n=6)).rule == "re*"
    assert denial(layered, call(n=8)).rule == "refund"


# -- validate ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"runId": "run_1"}, None),
        ({}, "missing_argument"),
        ({"runId": ""}, "missing_argument"),
        ({"runId": " "}, "missing_argument"),
    ],
)
def test_required_arguments_are_present_and_not_blank(
    policy: MakePolicy, arguments: JsonObject, code: str | None
) -> None:
    decision = decide(policy(Rule("r", Action.ALLOW, validate=Validate(required=True))), call(TOOL, **arguments))
    assert (decision.finding and decision.finding.code) == code


def test_missing_arguments_are_named(policy: MakePolicy) -> None:
    rule = Rule("r", Action.ALLOW, validate=Validate(required=("a", "b", "c")), reason="be complete")
    assert denial(policy(rule), call(b=1, c=None)) == Finding(
        "missing_argument", "be complete: arguments `a`, `c` must be given and not be blank", "r"
    )


def test_arguments_that_the_schema_does_not_declare_can_be_denied(policy: MakePolicy) -> None:
    rule = Rule("r", Action.ALLOW, validate=Validate(deny_unknown=True))
    assert denial(policy(rule), call(TOOL, runId="a", **{"x`": 1})) == Finding(
        "unknown_argument", "the tool declares no argument `x\\u0060`", "r"
    )
    assert decide(policy(rule), call(TOOL, runId="a")) == ALLOWED


def test_arguments_are_validated_against_the_tools_own_schema(policy: MakePolicy) -> None:
    rule = Rule("r", Action.ALLOW, validate=Validate(schema=True))
    assert decide(policy(rule), call(TOOL, runId="a")) == ALLOWED
    assert denial(policy(rule), call(TOOL)) == Finding(
        "schema_violation", 'arguments: "runId" is a required property', "r"
    )


def test_arguments_are_validated_against_an_inline_schema(policy: MakePolicy) -> None:
    schema = {"properties": {"n": {"maximum": 3}}}
    for inline in (compile_schema(schema), None):
        rule = Rule("r", Action.ALLOW, validate=Validate(schema=schema, inline=inline))
        assert decide(policy(rule), call(n=3)) == ALLOWED
        assert denial(policy(rule), call(n=4)).code == "schema_violation"


def test_a_schema_of_the_server_that_cannot_be_used_is_a_denial(policy: MakePolicy) -> None:
    broken = Tool("refund", {"type": "object", "properties": {"a": {"pattern": "("}}})
    rule = Rule("r", Action.ALLOW, validate=Validate(schema=True))
    assert denial(policy(rule), call(broken)).code == "schema_unavailable"


# -- charges -----------------------------------------------------------------------------------------------------------


def test_an_allowed_call_is_charged_by_every_applicable_rule(policy: MakePolicy, condition: MakeCondition) -> None:
    guarded = limited("only prod", when=(condition("caller.principal", "eq", "prod"),))
    found = decide(policy(limited("one"), limited("two"), guarded), call())
    assert [charge.rule for charge in found.charges] == ["one", "two"]


def test_a_charge_of_a_denied_call_is_never_made(policy: MakePolicy) -> None:
    assert denial(policy(limited(), DENY), call()).rule == "never"
    assert denial(policy(DENY, limited()), call()).rule == "never"


def test_an_amount_that_cannot_be_told_is_a_denial(policy: MakePolicy) -> None:
    rule = Rule("r", Action.ALLOW, counter=Counter("spent", MINUTE, None, paths.parse("args.amount")))
    assert denial(policy(rule), call(amount=-1)).code == "bad_increment"
    assert decide(policy(rule), call(amount="1.5")).charges[0].amount == Decimal("1.5")


def test_two_rules_on_one_counter_make_one_charge_in_either_order(policy: MakePolicy) -> None:
    spends = Rule("spends", Action.ALLOW, counter=Counter("spent", MINUTE, Decimal(5), None))
    bounds = Rule("bounds", Action.ALLOW, checks=(Check("refund", "spent", Decimal(9), False, MINUTE),))
    one, other = decide(policy(spends, bounds), call()), decide(policy(bounds, spends), call())
    assert one.charges == other.charges
    (charge,) = one.charges
    assert (charge.amount, charge.limit, charge.inclusive) == (Decimal(5), Decimal(9), False)


# -- shadow ------------------------------------------------------------------------------------------------------------


def test_a_shadow_rule_is_recorded_and_not_enforced(policy: MakePolicy) -> None:
    watching = policy(Rule("watch", Action.DENY, shadow=True), limited(shadow=True), limited("enforced"))
    decision = decide(watching, call())
    assert decision.effect is Effect.ALLOW
    assert [finding.rule for finding in decision.shadowed] == ["watch"]
    assert [(charge.rule, charge.shadow) for charge in decision.charges] == [("limit", True), ("enforced", False)]


def test_a_shadow_rule_lets_nothing_through_that_another_rule_denies(policy: MakePolicy) -> None:
    watch = Rule("watch", Action.DENY, shadow=True)
    for rules in ((watch, DENY), (DENY, watch)):
        decision = decide(policy(*rules), call())
        assert decision.effect is Effect.DENY
        assert decision.finding is not None
        assert decision.finding.rule == "never"
        assert [finding.rule for finding in decision.shadowed] == ["watch"]


@pytest.mark.parametrize(
    ("settings", "asked", "code"),
    [
        ({"hide": ("refund",)}, call(TOOL), "hidden"),
        ({"default_allow": False}, call(TOOL, "other"), "unlisted"),
        ({"hide": ("x",)}, call(NO_TOOL), "unknown"),
        ({}, call(TOOL, runId=1), "argument_type"),
        ({}, call(TOOL, RunID="a"), "ambiguous_argument"),
    ],
)
def test_a_shadow_policy_records_everything_and_denies_nothing(
    policy: MakePolicy, settings: dict[str, Any], asked: ToolCall, code: str
) -> None:
    decision = decide(policy(limited(), shadow=True, **settings), asked)
    assert decision.effect is Effect.ALLOW
    assert decision.finding is None
    assert decision.shadowed[0].code == code
    assert all(charge.shadow for charge in decision.charges)


# -- failures ----------------------------------------------------------------------------------------------------------


def broken(value: Json) -> bool:
    raise RuntimeError(f"secret {value}")


def test_a_rule_that_raises_denies_and_tells_nothing_of_why(policy: MakePolicy) -> None:
    faulty = Rule("faulty", Action.ALLOW, conditions=(Condition(paths.parse("args.a"), "eq", 1, broken),))
    assert denial(policy(faulty, limited()), call(a="hunter2")) == Finding(
        "internal_error", "the rule could not be evaluated, so the call is denied", "faulty"
    )


def test_a_shadow_rule_that_raises_is_recorded(policy: MakePolicy) -> None:
    faulty = Rule("faulty", Action.DENY, when=(Condition(paths.parse("tool.name"), "eq", 1, broken),), shadow=True)
    decision = decide(policy(faulty), call())
    assert decision.effect is Effect.ALLOW
    assert [finding.code for finding in decision.shadowed] == ["internal_error"]


@pytest.mark.parametrize("shadow", [True, False])
def test_a_failure_outside_of_any_rule_is_a_denial(policy: MakePolicy, shadow: bool) -> None:
    schema: JsonObject = {}
    for _ in range(5_000):
        schema = {"allOf": [schema]}
    decision = decide(policy(shadow=shadow), call(Tool("refund", schema)))
    finding = Finding("internal_error", "the policy could not be evaluated for this call, so it is denied")
    if shadow:
        assert decision == Decision(Effect.ALLOW, shadowed=(finding,))
    else:
        assert decision == Decision(Effect.DENY, finding)


def test_arguments_nested_too_deep_to_be_walked_are_denied(policy: MakePolicy) -> None:
    deep: Json = 1
    for _ in range(5_000):
        deep = [deep]
    limit = RateLimit(1, MINUTE, (Path("args", ("a",), "args.a"),), Strategy.MOVING)
    assert (
        denial(policy(Rule("r", Action.ALLOW, rate_limit=limit)), call(Tool("refund", {}), a=deep)).code
        == "internal_error"
    )


# -- records -----------------------------------------------------------------------------------------------------------


def test_the_most_telling_level_that_an_applicable_rule_asks_for_is_recorded(condition: MakeCondition) -> None:
    guard = (condition("caller.principal", "eq", "root"),)
    rules = (
        Rule("a", Action.ALLOW, audit=AuditLevel.REQUEST),
        Rule("b", Action.ALLOW, audit=AuditLevel.NONE),
        Rule("c", Action.ALLOW, audit=AuditLevel.RESPONSE, when=guard),
    )
    for order in (rules, rules[::-1]):
        kept = Policy("p", "0", entries=(Entry("refund", order, audit=AuditLevel.METADATA),))
        assert decide(kept, call()).audit is AuditLevel.REQUEST
        assert decide(kept, call(None, "refund", Caller(principal="root"))).audit is AuditLevel.RESPONSE


def test_a_denial_is_recorded_as_its_rules_ask(policy: MakePolicy) -> None:
    asked = Rule("a", Action.ALLOW, audit=AuditLevel.REQUEST)
    assert decide(policy(DENY, asked), call()).audit is AuditLevel.REQUEST
    assert decide(policy(DENY, audit=AuditLevel.NONE), call()).audit is AuditLevel.NONE


# -- methods -----------------------------------------------------------------------------------------------------------


def methods(*rules: MethodRule, **settings: Any) -> Policy:
    return Policy("p", "0", methods=rules, **settings)


def test_known_methods_pass_unless_the_policy_denies_them() -> None:
    denying = methods(MethodRule("resources/*", False), MethodRule("resources/read", True), default_allow=False)
    assert judge_method(denying, "prompts/list", True).effect is Effect.ALLOW
    assert judge_method(denying, "resources/read", True) == Decision(
        Effect.DENY, Finding("method_denied", "the policy denies `resources/read`", "resources/*")
    )


def test_a_denied_method_is_denied_in_the_authors_words() -> None:
    finding = judge_method(
        methods(MethodRule("sampling/*", False, "no models here")), "sampling/createMessage", True
    ).finding
    assert finding is not None
    assert finding.reason == "no models here"


@pytest.mark.parametrize("pattern", ["acme/run", "acme/*", "*"])
def test_under_default_deny_an_unknown_method_must_be_allowed_by_name_or_glob(pattern: str) -> None:
    denied = judge_method(methods(default_allow=False), "acme/run\n", False)
    assert denied.finding == Finding(
        "unknown_method", "the policy denies unknown methods, and `acme/run\\u000a` is one"
    )
    assert (
        judge_method(methods(MethodRule(pattern, True), default_allow=False), "acme/run", False).effect is Effect.ALLOW
    )
    assert judge_method(methods(), "acme/run", False).effect is Effect.ALLOW


@pytest.mark.parametrize("method", sorted(LIFECYCLE))
def test_no_policy_can_deny_what_keeps_a_session_alive(method: str) -> None:
    denying = methods(MethodRule("*", False), default_allow=False)
    assert judge_method(denying, method, True).effect is Effect.ALLOW


def test_a_shadow_policy_denies_no_method() -> None:
    decision = judge_method(methods(MethodRule("*", False), shadow=True), "tools/list", True)
    assert decision.effect is Effect.ALLOW
    assert [finding.code for finding in decision.shadowed] == ["method_denied"]


def test_what_the_policy_says_about_a_name_can_be_asked(policy: MakePolicy) -> None:
    assert match(policy(hide=("refund",)), "refund").hidden
