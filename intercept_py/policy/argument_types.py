"""Whether the JSON types of a call's arguments contradict the tool's schema (security rule 4).

It knows less than a validator on purpose: whatever it refuses, every validator refuses, so it denies no call that a
server could accept. What it does not know (`not`, `if`, anchors, remote references) allows everything.
Below: `arguments`. Above: `pdp`.
"""

from __future__ import annotations

__all__ = ["compile_types"]

from collections.abc import Callable
from typing import TypeAlias

from intercept_py.model import Json, JsonObject
from intercept_py.policy.arguments import Steps, located, resolve
from intercept_py.policy.operators import TYPES

_Mismatch: TypeAlias = tuple[Steps, tuple[str, ...], str]
"""Where, which types are possible there, which one came."""
_Memo: TypeAlias = dict[tuple[int, int], _Mismatch | None]
"""What is known of (target of a reference, value); both stay alive while a call is checked."""
_Check: TypeAlias = Callable[[Json, _Memo], _Mismatch | None]


def compile_types(schema: JsonObject) -> Callable[[JsonObject], str | None]:
    """A test of all arguments. Its reason names the argument, the types it may have and the one that came."""
    check = _Types(schema).compile(schema)
    if check is None:
        return lambda _arguments: None

    def contradiction(arguments: JsonObject) -> str | None:
        mismatch = check(arguments, {})
        if mismatch is None:
            return None
        steps, possible, actual = mismatch
        subject = f"argument `{located(steps)}`" if steps else "the value of `arguments`"
        return f"{subject} must be {' or '.join(dict.fromkeys(possible))}, not {actual}"

    return contradiction


class _Types:
    """Compiles one schema document. A check recurses over the data only: references are looked up as they are met."""

    def __init__(self, root: JsonObject) -> None:
        dialect = root.get("$schema")
        dialect = dialect if isinstance(dialect, str) else ""
        self._root = root
        # Up to draft 7 `$ref` hides its neighbours; `prefixItems` came with 2020-12, MCP's own dialect.
        self._lonely_ref = "draft-0" in dialect
        self._prefixes = not self._lonely_ref and "2019-09" not in dialect
        self._identifiers = ("$id", "id") if self._lonely_ref else ("$id",)
        self._targets: dict[int, _Check | None] = {}

    def compile(self, schema: Json) -> _Check | None:
        """The check of one (sub)schema, None where it demands no type."""
        if not isinstance(schema, dict) or self._foreign(schema):
            return None
        reference = self._reference(schema.get("$ref"))
        if self._lonely_ref and isinstance(schema.get("$ref"), str):
            return reference
        checks = [
            _kinds(schema),
            _values(schema),
            reference,
            self._object(schema),
            self._array(schema),
            *map(self.compile, _list(schema.get("allOf"))),
            self._any(_list(schema.get("anyOf"))),
            self._any(_list(schema.get("oneOf"))),
        ]
        return _every([check for check in checks if check is not None])

    def _foreign(self, schema: JsonObject) -> bool:
        """An embedded document: its references start elsewhere, its dialect may be another."""
        return schema is not self._root and (
            "$schema" in schema or any(isinstance(schema.get(name), str) for name in self._identifiers)
        )

    def _reference(self, reference: Json) -> _Check | None:
        target = resolve(self._root, reference)
        if target is None:
            return None

        def check(value: Json, memo: _Memo) -> _Mismatch | None:
            # Asked at most once per value, so neither a cycle nor a schema that refers to itself twice can explode.
            slot = (id(target), id(value))
            if slot not in memo:
                memo[slot] = None
                compiled = self._target(target)
                memo[slot] = compiled(value, memo) if compiled is not None else None
            return memo[slot]

        return check

    def _target(self, target: JsonObject) -> _Check | None:
        if id(target) not in self._targets:
            self._targets[id(target)] = self.compile(target)
        return self._targets[id(target)]

    def _object(self, schema: JsonObject) -> _Check | None:
        properties = {key: self.compile(child) for key, child in _dict(schema.get("properties")).items()}
        others = None if schema.get("patternProperties") else self.compile(schema.get("additionalProperties"))
        if others is None and not any(properties.values()):
            return None

        def check(value: Json, memo: _Memo) -> _Mismatch | None:
            if type(value) is dict:
                for key, item in value.items():
                    child = properties.get(key, others)
                    if child is not None and (bad := child(item, memo)) is not None:
                        return (key, *bad[0]), bad[1], bad[2]
            return None

        return check

    def _array(self, schema: JsonObject) -> _Check | None:
        items = schema.get("items")
        prefix = items if isinstance(items, list) else schema.get("prefixItems") if self._prefixes else []
        leading = [self.compile(child) for child in _list(prefix)]
        others = self.compile(items)
        if others is None and not any(leading):
            return None

        def check(value: Json, memo: _Memo) -> _Mismatch | None:
            if type(value) is list:
                for index, item in enumerate(value):
                    child = leading[index] if index < len(leading) else others
                    if child is not None and (bad := child(item, memo)) is not None:
                        return (index, *bad[0]), bad[1], bad[2]
            return None

        return check

    def _any(self, branches: list[Json]) -> _Check | None:
        """One branch that raises no objection is enough, for `oneOf` too: which one is right is not known by type."""
        checks = [self.compile(branch) for branch in branches if branch is not False]
        known = [check for check in checks if check is not None]
        if not known or len(known) < len(checks):
            return None

        def check(value: Json, memo: _Memo) -> _Mismatch | None:
            mismatches: list[_Mismatch] = []
            for branch in known:
                mismatch = branch(value, memo)
                if mismatch is None:
                    return None
                mismatches.append(mismatch)
            # The branch that went deepest is the one the caller most likely meant.
            steps, _, actual = max(mismatches, key=lambda found: len(found[0]))
            return steps, tuple(name for found in mismatches if found[0] == steps for name in found[1]), actual

        return check


def _every(checks: list[_Check]) -> _Check | None:
    if len(checks) < 2:
        return checks[0] if checks else None

    def check(value: Json, memo: _Memo) -> _Mismatch | None:
        for one in checks:
            mismatch = one(value, memo)
            if mismatch is not None:
                return mismatch
        return None

    return check


def _kinds(schema: JsonObject) -> _Check | None:
    """`type`, a name or a list of names. A name that JSON Schema does not know makes it mean nothing."""
    names = schema.get("type")
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name in TYPES for name in names):
        return None
    return _of_kinds(names, schema)


def _values(schema: JsonObject) -> _Check | None:
    """The types of the values that `const` and `enum` allow."""
    allowed = [schema["const"]] if "const" in schema else _list(schema.get("enum"))
    return _of_kinds(["number" if name == "integer" else name for name in map(_kind, allowed)], schema)


def _of_kinds(names: list[str], schema: JsonObject) -> _Check | None:
    if not names:
        return None
    possible = tuple(dict.fromkeys([*names, "null"] if schema.get("nullable") is True else names))
    accepted = frozenset(kind for name in possible for kind in TYPES[name])
    fractional = "number" in possible

    def check(value: Json, _memo: _Memo) -> _Mismatch | None:
        kind = type(value)
        if kind in accepted and (fractional or kind is not float or value.is_integer()):
            return None
        return (), possible, _kind(value)

    return check


def _kind(value: Json) -> str:
    """The JSON type of a value; `integer` is told apart for messages only."""
    for name in ("boolean", "integer", "number", "string", "object", "array"):
        if type(value) in TYPES[name] and (name != "integer" or type(value) is int):
            return name
    return "null"


def _dict(value: Json) -> JsonObject:
    return value if isinstance(value, dict) else {}


def _list(value: Json) -> list[Json]:
    return value if isinstance(value, list) else []
