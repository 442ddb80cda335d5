"""One rule of the policy: conditions, checks of arguments, limits and counters, compiled and checked together.

Below: `section` reads the fields, `operators`, `paths` and `requirements` compile them. Above: `loader`.
State blocks are declared for the whole policy first, because a condition may refer to a counter of any entry.
"""

from __future__ import annotations

__all__ = ["Compiler", "Draft"]

from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from intercept_py.model import AuditLevel
from intercept_py.policy import messages as say
from intercept_py.policy import paths
from intercept_py.policy.operators import OPERATORS
from intercept_py.policy.requirements import counter_name, rate_limit, read_counter, validate
from intercept_py.policy.rules import Action, Check, Condition, Counter, Path, RateLimit, Rule
from intercept_py.policy.section import Section, amount, closest, describe
from intercept_py.policy.tree import Node, Problems, is_sound, plain

_ACTIONS: Final[Mapping[str, Action]] = {
    "allow": Action.ALLOW,
    "evaluate": Action.ALLOW,
    "deny": Action.DENY,
    "require_approval": Action.REQUIRE_APPROVAL,
}
_GUESSES: Final = 50
_REQUIREMENTS: Final = ("conditions", "validate", "rate_limit", "state")


class Draft(msgspec.Struct, frozen=True):
    """A rule that has been found, but not compiled yet."""

    entry: str
    name: str
    section: Section


class Compiler:
    """Compiles the rules of one policy. Every draft must be declared before the first is compiled."""

    def __init__(self, problems: Problems, *, shadow: bool) -> None:
        self._problems = problems
        self._shadow = shadow
        # A broken state block is kept as None: what refers to it is no second mistake.
        self._counters: dict[tuple[str, str], tuple[str, Counter | None]] = {}
        self._states: dict[str, Counter] = {}
        self._limits: dict[tuple[object, ...], str] = {}

    def declare(self, draft: Draft) -> None:
        """Reads the rule's state block."""
        state = draft.section.section("state", "state")
        name = counter_name(state) if state else None
        if state is None or name is None:
            return
        counter = read_counter(state, name)
        key = (draft.entry, name)
        if key in self._counters:
            rule = self._counters[key][0]
            state.report("counter", say.REPEATED_COUNTER, entry=draft.entry, counter=name, rule=rule)
            return
        self._counters[key] = (draft.name, counter)
        if counter:
            self._states[draft.section.path] = counter

    def compile(self, draft: Draft) -> Rule:
        """The rule; where a problem was reported, as much of it as could be compiled."""
        section = draft.section
        action = self._action(section)
        when, _ = self._conditions(draft, "when", guard=True)
        conditions, checks = self._conditions(draft, "conditions", guard=action is not Action.ALLOW)
        if action is Action.REQUIRE_APPROVAL:
            when, conditions = when + conditions, ()
        audit = section.choice("audit")
        return Rule(
            name=draft.name,
            action=action,
            when=when,
            conditions=conditions,
            validate=validate(section),
            rate_limit=self._rate_limit(draft),
            counter=self._states.get(section.path),
            checks=checks,
            reason=self._reason(section),
            shadow=self._mode(section),
            audit=AuditLevel(audit) if audit else None,
        )

    def _rate_limit(self, draft: Draft) -> RateLimit | None:
        limit = rate_limit(draft.section)
        if limit is None:
            return None
        scopes = frozenset(scope if isinstance(scope, str) else paths.render(scope) for scope in limit.per)
        budget = (draft.entry, limit.window.seconds, limit.strategy, scopes)
        if budget in self._limits:
            draft.section.report_key("rate_limit", say.REPEATED_LIMIT, entry=draft.entry, rule=self._limits[budget])
        self._limits.setdefault(budget, draft.name)
        return limit

    def _action(self, section: Section) -> Action:
        text = section.choice("action")
        given = [name for name in _REQUIREMENTS if name in section]
        if text == "deny":
            for name in given:
                message = say.DENY_CONDITIONS if name == "conditions" else say.DENY_REQUIREMENT
                section.report_key(name, message, name=name)
        elif text == "require_approval":
            for name in given:
                if name != "conditions":
                    section.report_key(name, say.APPROVAL_REQUIREMENT, name=name)
        elif text == "allow":
            if not given and "when" in section:
                section.report_key("when", say.GUARDS_NOTHING)
        elif not given and text == "evaluate":
            section.report("action", say.REQUIRES_NOTHING)
        elif not given and "action" not in section:
            self._problems.add(section.node, section.path, say.REQUIRES_NOTHING)
        return _ACTIONS[text or "evaluate"]

    def _mode(self, section: Section) -> bool:
        mode = section.choice("mode")
        if mode == "enforce" and self._shadow:
            section.report_key("mode", say.ENFORCE_IN_SHADOW)
        return mode == "shadow"

    def _reason(self, section: Section) -> str | None:
        if "reason" in section and "on_deny" in section:
            section.report_key("on_deny", say.TWO_REASONS)
        return section.prose("reason") or section.prose("on_deny")

    # -- conditions ----------------------------------------------------------------------------------------------------

    def _conditions(self, draft: Draft, name: str, *, guard: bool) -> tuple[tuple[Condition, ...], tuple[Check, ...]]:
        """What the list demands of the call and of counters. Conditions of a guard may not read counters."""
        found = [self._condition(path, node, guard=guard) for path, node in draft.section.filled(name)]
        checks = tuple(item for item in found if isinstance(item, Check))
        state = self._states.get(draft.section.path)
        if name == "conditions" and state and not guard and None not in found:
            self._check_limited(draft, state, checks)
        return tuple(item for item in found if isinstance(item, Condition)), checks

    def _check_limited(self, draft: Draft, state: Counter, checks: tuple[Check, ...]) -> None:
        if any((check.entry, check.counter) == (draft.entry, state.counter) for check in checks):
            return
        path = _state_path(draft.entry, state.counter)
        draft.section.report_key("state", say.UNLIMITED_COUNTER, counter=state.counter, path=path)

    def _condition(self, path: str, node: Node, *, guard: bool) -> Condition | Check | None:
        section = Section.open(node, path, "condition", self._problems)
        if section is None:
            return None
        target, op, operand = section.text("path"), section.choice("op"), section.value("value")
        if target is not None and (target == "state" or target.startswith("state.")):
            if guard:
                section.report("path", say.STATE_IN_GUARD)
                return None
            return self._check(section, target, op, operand)
        return self._test(section, paths.parse, target, op, operand)

    def failure(self, entry: Section) -> tuple[Condition, ...]:
        """What an entry's `outcome` takes for a failure. Conditions on a result look at nothing else."""
        outcome = entry.section("outcome", "outcome")
        found = [] if outcome is None else [self._on_result(path, node) for path, node in outcome.filled("failure")]
        return tuple(condition for condition in found if condition is not None)

    def _on_result(self, path: str, node: Node) -> Condition | None:
        section = Section.open(node, path, "condition", self._problems)
        if section is None:
            return None
        target, op, operand = section.text("path"), section.choice("op"), section.value("value")
        return self._test(section, paths.parse_result, target, op, operand)

    def _test(
        self, section: Section, parse: Callable[[str], Path], target: str | None, op: str | None, operand: Node | None
    ) -> Condition | None:
        where = None
        if target is not None:
            try:
                where = parse(target)
            except ValueError as fault:
                section.report("path", say.REFUSED, detail=str(fault))
        if op is None or operand is None or not is_sound(operand):
            return None
        value, operator = plain(operand), OPERATORS[op]
        try:
            holds = operator.compile(value)
        except ValueError as fault:
            section.report("value", say.BAD_OPERAND, op=op, detail=str(fault))
            return None
        return Condition(where, op, value, holds, operator.negative) if where else None

    def _check(self, section: Section, target: str, op: str | None, operand: Node | None) -> Check | None:
        limit = None
        if op is not None and op not in ("lt", "lte"):
            section.report("op", say.STATE_OPERATOR, op=op)
        if operand is not None:
            limit = amount(operand)
            if limit is None or limit < 0:
                limit = None
                section.report("value", say.STATE_LIMIT, got=describe(operand))
        try:
            entry, counter = paths.parse_state(target)
        except ValueError as fault:
            section.report("path", say.REFUSED, detail=str(fault))
            return None
        declared = self._counters.get((entry, counter))
        if declared is None:
            self._unknown_counter(section, target, entry, counter)
        if declared is None or declared[1] is None or limit is None or op not in ("lt", "lte"):
            return None
        return Check(entry, counter, limit, op == "lte", declared[1].window, declared[1].fail_open)

    def _unknown_counter(self, section: Section, target: str, entry: str, counter: str) -> None:
        # Only what shares a part with the path can have been meant; comparing with all would be quadratic.
        likely = [_state_path(*key) for key in self._counters if entry == key[0] or counter == key[1]]
        guess = closest(target, likely[:_GUESSES], self._problems)
        if guess:
            section.report("path", say.UNKNOWN_COUNTER_GUESS, path=target, guess=guess)
        else:
            section.report("path", say.UNKNOWN_COUNTER, path=target, counter=counter, entry=entry)


def _state_path(entry: str, counter: str) -> str:
    return f"state.{paths.GLOBAL_ENTRY if entry == '*' else entry}.{counter}"
