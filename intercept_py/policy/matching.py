"""What a policy says about a tool's name, worked out once per name: which rules ask, what they read, what they need.

Below: `rules`, `charges`. Above: `pdp`. The result depends on the policy and the name alone.
"""

from __future__ import annotations

__all__ = ["NESTED", "Plan", "Step", "glob", "needs_listing", "plan_for"]

import re
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Final, TypeAlias

import msgspec

from intercept_py.model import AuditLevel, Failure, Finding, ToolCall
from intercept_py.policy.arguments import Steps, fold
from intercept_py.policy.charges import Obligation, compile_charges
from intercept_py.policy.outcomes import compile_failure
from intercept_py.policy.paths import MISSING, lookup
from intercept_py.policy.readings import readings
from intercept_py.policy.rules import Action, Condition, Entry, Matched, Path, Policy, Rule

NAMES: Final = 4096
"""How many invented names are remembered; agents may invent more, at their own expense."""
POLICIES: Final = 64
"""How many policies are remembered: a gateway has one for each of its servers."""
LONGEST_NAME: Final = 256
"""Longer names are not remembered at all."""

Test: TypeAlias = Callable[[ToolCall], bool]
Nested: TypeAlias = tuple[Steps, frozenset[str], frozenset[str]]
"""An object inside the arguments, the keys that rules read there, and these keys folded."""
NESTED: tuple[Nested, ...] = ()


class Step(msgspec.Struct, frozen=True):
    """One rule in its place.

    The rule applies when `guard` holds. `verdict` is then its answer if it denies in any case; otherwise its
    `requirements` are asked and its `obligations` taken. `needs_schema`: re-typed arguments could dodge it.
    `shadow`: the rule, or the whole policy, is only watched.
    """

    rule: Rule
    guard: tuple[Test, ...]
    requirements: tuple[tuple[Test, Condition], ...]
    verdict: Finding | None
    obligations: tuple[Obligation, ...]
    needs_schema: bool
    shadow: bool


class Plan(msgspec.Struct, frozen=True):
    """Everything for one name. `needs_schema`: an enforced rule does. `merges`: two rules may charge one counter.

    `method`: why no tool may be called at all. `failure`: what any of the entries takes for a failed call.
    """

    matched: Matched
    steps: tuple[Step, ...]
    nested: tuple[Nested, ...]
    needs_schema: bool
    merges: bool
    audit: AuditLevel
    method: Finding | None
    failure: Failure | None


class _Plans:
    """The plans of one policy object."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.known: dict[str, Plan] = {}
        self._exact = frozenset(entry.pattern for entry in policy.entries if not is_glob(entry.pattern))

    def make(self, name: str) -> Plan:
        plan = _plan(self.policy, name)
        # Names that the policy spells out always have a place, however many others were invented before.
        if name in self._exact or (len(self.known) < NAMES + len(self._exact) and len(name) <= LONGEST_NAME):
            self.known[name] = plan
        return plan


_plans: dict[int, _Plans] = {}
"""By the identity of the policy, which its plans keep alive. Of replaced policies the oldest are dropped."""


def plan_for(policy: Policy, name: str) -> Plan:
    """The plan of this very policy object, remembered for a bounded number of names."""
    plans = _plans.get(id(policy))
    if plans is None:
        if len(_plans) >= POLICIES:
            del _plans[next(iter(_plans))]
        plans = _plans[id(policy)] = _Plans(policy)
    return plans.known.get(name) or plans.make(name)


def needs_listing(policy: Policy) -> bool:
    """Whether the plan of any name could need the server's list of tools."""
    rules = (rule for entry in policy.entries for rule in entry.rules)
    return bool(policy.hide) or any(_needs_schema(rule) and not rule.shadow for rule in rules)


# -- names -------------------------------------------------------------------------------------------------------------


def is_glob(pattern: str) -> bool:
    """Whether the pattern stands for more than its own text."""
    return "*" in pattern or "?" in pattern


@lru_cache(maxsize=1024)
def glob(pattern: str) -> Callable[[str], bool]:
    """A case-sensitive test: `*` is any text, `?` any character, all else itself. Linear: no `*` is tried twice."""
    head, *rest = ["".join("." if char == "?" else re.escape(char) for char in part) for part in pattern.split("*")]
    if rest:
        *middle, last = rest
        # The leftmost match of a part leaves most to the next, so an atomic group may forget the others.
        head += "".join(f"(?>.*?{part})" for part in middle if part) + f".*{last}"
    match = re.compile(head, re.DOTALL).fullmatch
    return lambda name: match(name) is not None


def _matching(entries: Iterable[Entry], name: str) -> tuple[Entry, ...]:
    """The exact name, then globs in file order, then `*`."""
    found = [entry for entry in entries if glob(entry.pattern)(name)]
    return tuple(sorted(found, key=lambda entry: 2 if entry.pattern == "*" else int(is_glob(entry.pattern))))


# -- plans -------------------------------------------------------------------------------------------------------------


def _plan(policy: Policy, name: str) -> Plan:
    entries = _matching(policy.entries, name)
    category = next((entry.category for entry in entries if entry.category is not None), None)
    steps = tuple(_step(policy, entry, rule, category) for entry in entries for rule in entry.rules)
    rules = [step.rule for step in steps]
    # Look-alikes are refused whatever the rules say, so rules that are only watched must not cause that.
    enforced = [rule for rule in rules if not rule.shadow]
    reads = frozenset(_names_read(enforced))
    matched = Matched(
        hidden=any(glob(pattern)(name) for pattern in policy.hide),
        listed=any(entry.pattern != "*" for entry in entries),
        entries=entries,
        category=category,
        # A hidden tool is denied like an unknown one, so which tools are unknown must be known.
        needs_tool=bool(policy.hide) or any(step.needs_schema and not step.rule.shadow for step in steps),
        reads=reads,
        folded=frozenset(map(fold, reads)),
    )
    return Plan(
        matched=matched,
        steps=steps,
        nested=_nested(enforced),
        needs_schema=any(step.needs_schema and not step.shadow for step in steps),
        merges=sum(len(rule.checks) + (rule.counter is not None) for rule in rules) > 1,
        audit=next((entry.audit for entry in entries if entry.audit is not None), policy.audit),
        method=_method_finding(policy),
        failure=compile_failure(tuple(condition for entry in entries for condition in entry.failure)),
    )


def _method_finding(policy: Policy) -> Finding | None:
    """A glob under `methods` that denies `tools/call` denies every call: it reads like that, so it must be that."""
    for rule in policy.methods:
        if not rule.allow and glob(rule.pattern)("tools/call"):
            return Finding("method_denied", rule.reason or "the policy denies `tools/call`", rule.pattern)
    return None


def _test(condition: Condition, category: str | None, every: bool | None) -> Test:
    """The condition as a question to a call. A missing value is, to `exists`, what null is, and fails all else.

    `every`: it must hold under every reading of an argument (True), or under any (False); None: as it is written.
    """
    path, holds = condition.path, condition.holds
    absent = condition.op == "exists" and holds(None)
    key = path.steps[0]
    if path.root == "args" and every is not None:
        op, steps = condition.op, path.steps

        def test_readings(call: ToolCall) -> bool:
            answers = [absent if value is MISSING else holds(value) for value in readings(call.arguments, steps, op)]
            return all(answers) if every else any(answers)

        return test_readings
    if path.root == "args" and len(path.steps) == 1 and isinstance(key, str):

        def test(call: ToolCall) -> bool:
            value = call.arguments.get(key, MISSING)
            return absent if value is MISSING else holds(value)

        return test

    def test_deeper(call: ToolCall) -> bool:
        value = lookup(path, call, category)
        return absent if value is MISSING else holds(value)

    return test_deeper


def _step(policy: Policy, entry: Entry, rule: Rule, category: str | None) -> Step:
    shadow = policy.shadow or rule.shadow
    asks = rule.action is Action.REQUIRE_APPROVAL
    verdict = _verdict(rule)
    return Step(
        rule=rule,
        guard=tuple(_test(one, category, every=False) for one in (rule.when + rule.conditions if asks else rule.when)),
        requirements=()
        if asks
        else tuple((_test(one, category, every=True if one.negative else None), one) for one in rule.conditions),
        verdict=verdict,
        obligations=compile_charges(entry.pattern, rule, shadow) if verdict is None else (),
        needs_schema=_needs_schema(rule),
        shadow=shadow,
    )


def _verdict(rule: Rule) -> Finding | None:
    if rule.action is Action.DENY:
        return Finding("denied_by_rule", rule.reason or "the policy does not allow this call", rule.name)
    if rule.action is Action.REQUIRE_APPROVAL:
        reason = rule.reason or "a person must approve this call"
        return Finding("approval_required", f"{reason}; approvals are not available yet, so it is denied", rule.name)
    return None


def _needs_schema(rule: Rule) -> bool:
    """Whether another JSON type, which the server may coerce, could dodge the rule (security rule 4).

    A guard is dodged by any value that fails it, a requirement only by one that a negative operator lets through, a
    budget by every new spelling of the value that it is split by.
    """
    checks = rule.validate
    if checks is not None and (checks.required is True or checks.schema is True or checks.deny_unknown):
        return True
    if rule.rate_limit is not None and any(isinstance(scope, Path) for scope in rule.rate_limit.per):
        return True
    guard = rule.when + rule.conditions if rule.action is Action.REQUIRE_APPROVAL else rule.when
    return any(_reads_arguments(condition) and condition.op != "exists" for condition in guard) or any(
        _reads_arguments(condition) and condition.negative for condition in rule.conditions
    )


def _reads_arguments(condition: Condition) -> bool:
    return condition.path.root == "args"


# -- what rules read ---------------------------------------------------------------------------------------------------


def _paths(rules: Iterable[Rule]) -> Iterator[Path]:
    """Every path into the arguments."""
    for rule in rules:
        yield from (one.path for one in rule.when + rule.conditions if _reads_arguments(one))
        if rule.rate_limit is not None:
            yield from (scope for scope in rule.rate_limit.per if isinstance(scope, Path))
        if rule.counter is not None and rule.counter.increment_from is not None:
            yield rule.counter.increment_from


def _names_read(rules: list[Rule]) -> Iterator[str]:
    yield from (path.steps[0] for path in _paths(rules) if path.steps and isinstance(path.steps[0], str))
    for rule in rules:
        if rule.validate is not None and isinstance(rule.validate.required, tuple):
            yield from rule.validate.required


def _nested(rules: list[Rule]) -> tuple[Nested, ...]:
    """The objects below the top level whose keys rules read."""
    names: dict[Steps, set[str]] = {}
    for path in _paths(rules):
        for depth, step in enumerate(path.steps):
            if depth and isinstance(step, str):
                names.setdefault(path.steps[:depth], set()).add(step)
    return tuple((steps, frozenset(keys), frozenset(map(fold, keys))) for steps, keys in names.items())
