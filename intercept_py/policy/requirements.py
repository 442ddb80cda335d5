"""What a rule demands beside conditions: checks of the arguments, a rate limit, a counter.

Below: `section` reads the fields, `paths`, `arguments` and `limits_syntax` compile them. Above: `compile`.
"""

from __future__ import annotations

__all__ = ["counter_name", "rate_limit", "read_counter", "validate"]

from collections.abc import Callable
from decimal import Decimal
from typing import Final

from intercept_py.model import Json, Strategy, Window
from intercept_py.policy import limits_syntax, paths
from intercept_py.policy import messages as say
from intercept_py.policy.arguments import compile_schema
from intercept_py.policy.rules import Counter, Path, RateLimit, Validate
from intercept_py.policy.section import Section, amount, describe
from intercept_py.policy.tree import Array, Member, Node, Object, Scalar, is_sound, plain

_SCOPES: Final = frozenset(("session", "principal", "tool", "global"))


def validate(rule: Section) -> Validate | None:
    """The rule's `validate`."""
    checks = rule.section("validate", "validate")
    if checks is None:
        return None
    if all(map(_is_off, checks.node.members.values())):
        rule.report("validate", say.VALIDATES_NOTHING)
    schema, inline = _schema(checks)
    return Validate(_required(checks), schema, checks.choice("unknown_args") == "deny", inline)


def _is_off(field: Member) -> bool:
    return isinstance(field.node, Scalar) and (field.node.value is False or field.node.value == "allow")


def _required(checks: Section) -> bool | tuple[str, ...]:
    node = checks.value("required_args")
    if node is None:
        return False
    if isinstance(node, Scalar) and isinstance(node.value, bool):
        return node.value
    return checks.names("required_args", at_least_one=True)


def _schema(checks: Section) -> tuple[bool | dict[str, Json], Callable[[Json], str | None] | None]:
    node = checks.value("schema")
    if node is None:
        return False, None
    if not isinstance(node, Object):
        if isinstance(node, Scalar) and isinstance(node.value, bool):
            return node.value, None
        checks.wrong_type("schema")
        return False, None
    if not is_sound(node):
        return False, None
    schema = plain(node)
    try:
        return schema, compile_schema(schema)
    except ValueError as fault:
        checks.report("schema", say.REFUSED, detail=str(fault))
        return False, None


def rate_limit(rule: Section) -> RateLimit | None:
    """The rule's `rate_limit`, in either form. None if absent or wrong."""
    node = rule.value("rate_limit")
    if isinstance(node, Object):
        section = rule.section("rate_limit", "rate_limit")
        return _mapping_form(section) if section else None
    text = rule.text("rate_limit")
    if text is None:
        return None
    try:
        maximum, window = limits_syntax.rate(text)
    except ValueError as fault:
        rule.report("rate_limit", str(fault), text=text)
        return None
    return RateLimit(maximum, window, ("global",), Strategy.FIXED)


def _mapping_form(section: Section) -> RateLimit | None:
    strategy = Strategy(section.choice("strategy") or "moving")
    maximum, window, per = section.count("max"), _window(section, strategy), _per(section)
    fail_open = _fail_open(section)
    return RateLimit(maximum, window, per, strategy, fail_open) if maximum and window and per else None


def _fail_open(section: Section) -> bool | None:
    fail = section.choice("fail")
    return None if fail is None else fail == "open"


def _window(section: Section, strategy: Strategy) -> Window | None:
    scalar = section.scalar("window")
    if scalar is None:
        return None
    if isinstance(scalar.value, str) or type(scalar.value) is int:
        try:
            return limits_syntax.window(scalar.value, strategy)
        except ValueError as fault:
            section.report("window", str(fault), text=scalar.text)
    else:
        section.wrong_type("window")
    return None


def _per(section: Section) -> tuple[str | Path, ...]:
    """How the budget is split; empty if that is wrong."""
    if "per" not in section:
        return ("session",)
    node = section.value("per")
    if not isinstance(node, Array):
        single = section.text("per")
        only = _scope(section, section.at("per"), node, single) if node and single else None
        return (only,) if only else ()
    scopes: dict[str, str | Path] = {}
    for path, item in section.filled("per"):
        text = item.value if isinstance(item, Scalar) else None
        if not isinstance(text, str):
            section.problems.add(item, path, say.WRONG_ITEM, name="per", got=describe(item))
            continue
        scope = _scope(section, path, item, text)
        if scope is None:
            continue
        key = scope if isinstance(scope, str) else paths.render(scope)
        if key in scopes:
            section.problems.add(item, path, say.REPEATED, text=text)
        scopes[key] = scope
    if "global" in scopes and len(scopes) > 1:
        section.report("per", say.GLOBAL_SCOPE)
    return tuple(scopes.values())


def _scope(section: Section, path: str, node: Node, text: str) -> str | Path | None:
    if text in _SCOPES:
        return text
    try:
        argument = paths.parse(text)
    except ValueError as fault:
        known = text.startswith("args")
        section.problems.add(node, path, say.REFUSED if known else say.BAD_SCOPE, text=text, detail=str(fault))
        return None
    if argument.root == "args":
        return argument
    section.problems.add(node, path, say.BAD_SCOPE, text=text)
    return None


def counter_name(state: Section) -> str | None:
    """The name of the counter, fit to stand in a state path."""
    name = state.text("counter")
    if name is None:
        return None
    try:
        if paths.parse_state(f"state.tool.{name}") == ("tool", name):
            return name
    except ValueError:
        pass
    state.report("counter", say.BAD_COUNTER, text=name)
    return None


def read_counter(state: Section, name: str) -> Counter | None:
    """The counter of a `state` block; None if a part of it is wrong."""
    window, fail_open = _window(state, Strategy.FIXED), _fail_open(state)
    if "increment_from" in state:
        if "increment" in state:
            state.report_key("increment", say.TWO_INCREMENTS)
        source = _argument(state)
        return Counter(name, window, None, source, fail_open) if window and source else None
    increment = _increment(state)
    return Counter(name, window, increment, None, fail_open) if window and increment else None


def _increment(state: Section) -> Decimal | None:
    if "increment" not in state:
        return Decimal(1)
    node = state.value("increment")
    number = amount(node) if node else None
    if node and number is None:
        state.wrong_type("increment")
    elif isinstance(node, Scalar) and number is not None and number <= 0:
        state.report("increment", say.BAD_INCREMENT, text=node.text)
        return None
    return number


def _argument(state: Section) -> Path | None:
    text = state.text("increment_from")
    if text is None:
        return None
    try:
        path = paths.parse(text)
    except ValueError as fault:
        state.report("increment_from", say.REFUSED, detail=str(fault))
        return None
    if path.root == "args":
        return path
    state.report("increment_from", say.NOT_AN_ARGUMENT, text=text)
    return None
