"""The policy language as one table. A row is a field; nothing else knows which fields exist.

`section` checks keys and choices against it and words its suggestions from it, `json_schema` exports it to editors, and
the README's table of fields is compared with it by a test: so they cannot drift.
"""

from __future__ import annotations

__all__ = ["FIELDS", "FIELDS_OF", "PLACES", "Field", "json_schema"]

from collections.abc import Mapping
from typing import Final

import msgspec

from intercept_py.model import JsonObject
from intercept_py.policy.limits_syntax import MAX_WINDOW, RATE_PATTERN, WINDOW_PATTERN
from intercept_py.policy.operators import OPERATORS
from intercept_py.policy.pdp import LIFECYCLE


class Field(msgspec.Struct, frozen=True):
    """One field: where it stands, what it takes (for people, and as a JSON Schema), what it means when omitted."""

    where: str
    name: str
    values: str
    default: str
    meaning: str
    schema: JsonObject
    choices: tuple[str, ...] = ()
    required: bool = False


PLACES: Final[Mapping[str, str]] = {
    "policy": "the policy",
    "entry": "a tool entry",
    "rule": "a rule",
    "condition": "a condition",
    "validate": "`validate`",
    "rate_limit": "`rate_limit`",
    "state": "`state`",
    "outcome": "`outcome`",
    "method": "a method entry",
}
"""What messages call the mappings of the language, in the order of `FIELDS`."""

_NAME: Final[JsonObject] = {"type": "string", "pattern": r"^\S(.*\S)?$"}
_REASON: Final[JsonObject] = {"type": "string", "minLength": 1, "maxLength": 2000, "pattern": r"\S"}
_NAMES: Final[JsonObject] = {"type": "array", "items": _NAME, "uniqueItems": True}
_CONDITIONS: Final[JsonObject] = {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/condition"}}
_ON_RESULTS: Final[JsonObject] = {
    "type": "array",
    "minItems": 1,
    "items": {
        "$ref": "#/$defs/condition",
        "properties": {"path": {"pattern": r"^(text|(json|structured)([.\[].+)?)$"}},
    },
}
_WINDOW: Final[JsonObject] = {
    "anyOf": [
        {"type": "integer", "minimum": 1, "maximum": MAX_WINDOW},
        {"type": "string", "pattern": WINDOW_PATTERN},
    ]
}
_SCOPE: Final[JsonObject] = {"type": "string", "pattern": r"^(session|principal|tool|global|args[.\[].+)$"}
_WINDOW_VALUES: Final = "seconds, a span such as `90s`, `5m`, `2h`, `1d`, or second, minute, hour, day, week, month"
_AUDIT: Final = ("none", "metadata", "request", "response")
_MODES: Final = ("enforce", "shadow")
_FAILS: Final = ("closed", "open")


def _one_of(
    where: str, name: str, choices: tuple[str, ...], default: str, meaning: str, *, required: bool = False
) -> Field:
    values = " or ".join((", ".join(f"`{choice}`" for choice in choices[:-1]), f"`{choices[-1]}`"))
    return Field(where, name, values, default, meaning, {"enum": list(choices)}, choices, required)


FIELDS: Final[tuple[Field, ...]] = (
    Field("policy", "version", 'the text `"1"`', '`"1"`', "version of the policy language", {"const": "1"}),
    Field("policy", "description", "text", "none", "what the policy is for", _REASON),
    _one_of("policy", "default", ("allow", "deny"), "`allow`", "whether a tool that no entry names may be called"),
    Field(
        "policy", "hide", "a list of tool names or globs", "none",
        "tools removed from `tools/list`; a call is denied like one of an unknown tool", _NAMES,
    ),
    Field(
        "policy", "tools", "a mapping from tool names, globs or `*` to entries", "none",
        "the rules of each tool; every entry that matches a name counts",
        {"type": "object", "propertyNames": _NAME, "additionalProperties": {"$ref": "#/$defs/entry"}},
    ),
    Field(
        "policy", "methods", "a mapping from methods or globs to `allow`, `deny` or an entry", "none",
        "JSON-RPC methods that are refused, in both directions; a glob over `tools/call` refuses every call",
        {
            "type": "object",
            "propertyNames": {**_NAME, "not": {"enum": [*sorted(LIFECYCLE), "tools/call"]}},
            "additionalProperties": {"anyOf": [{"enum": ["allow", "deny"]}, {"$ref": "#/$defs/method"}]},
        },
    ),
    _one_of("policy", "mode", _MODES, "`enforce`", "`shadow`: verdicts are recorded, every call goes on"),
    _one_of("policy", "audit", _AUDIT, "`metadata`", "what an audit record keeps of a call"),
    _one_of(
        "entry", "category", ("read", "write", "execute", "financial", "destructive"), "none",
        "what kind of tool it is; conditions read it as `tool.category`",
    ),
    _one_of("entry", "risk", ("low", "medium", "high", "critical"), "none", "how dangerous the tool is, for people"),
    _one_of("entry", "audit", _AUDIT, "the policy's", "what an audit record keeps of these calls"),
    Field(
        "entry", "rules", "a list of rules", "none", "every rule that applies must let the call pass; none: allowed",
        {"type": "array", "items": {"$ref": "#/$defs/rule"}},
    ),
    Field(
        "entry", "outcome", "a mapping that holds `failure`", "none",
        "which results the audit counts as failures although the server does not say so; changes no answer",
        {"$ref": "#/$defs/outcome"},
    ),
    Field(
        "rule", "name", "text", "`<tool>[<index>]`", "the rule's name in denials and records",
        {**_NAME, "maxLength": 200},
    ),
    _one_of(
        "rule", "action", ("allow", "evaluate", "deny", "require_approval"), "`evaluate`",
        "`allow` and `evaluate`: the requirements must hold; `evaluate` needs at least one; "
        "`deny`: no call passes; `require_approval`: a person is asked (not yet: the call is denied)",
    ),
    Field("rule", "when", "a list of conditions", "always", "the rule applies only where all these hold", _CONDITIONS),
    Field(
        "rule", "conditions", "a list of conditions", "none",
        "requirements: the call is denied unless all hold (`require_approval`: the same as `when`)", _CONDITIONS,
    ),
    Field(
        "rule", "validate", "a mapping of checks", "none", "checks of the arguments against the tool's schema",
        {"$ref": "#/$defs/validate"},
    ),
    Field(
        "rule", "rate_limit", "a rate such as `5/hour`, or a mapping", "none",
        "how many calls may pass; `5/hour` is one budget in calendar hours for all callers",
        {"anyOf": [{"type": "string", "pattern": RATE_PATTERN}, {"$ref": "#/$defs/rate_limit"}]},
    ),
    Field(
        "rule", "state", "a mapping that describes a counter", "none",
        "a counter that each call adds to; a condition on it sets its limit", {"$ref": "#/$defs/state"},
    ),
    Field("rule", "reason", "text of 1 to 2000 characters", "generated", "what the agent is told on a denial", _REASON),
    Field("rule", "on_deny", "text of 1 to 2000 characters", "generated", "the same as `reason`", _REASON),
    _one_of(
        "rule", "mode", _MODES, "the policy's",
        "`shadow`: the rule's verdict is recorded only; in a shadow policy every rule is",
    ),
    _one_of("rule", "audit", _AUDIT, "the entry's", "what an audit record keeps where this rule applies"),
    Field(
        "condition", "path", "a path such as `args.amount`", "required",
        "what to look at: below `args`, `caller`, `tool`, or a counter `state.<tool>.<counter>` (`_global` for `*`); "
        "in `outcome`: `text`, or below `json` or `structured`",
        {"type": "string", "minLength": 1}, required=True,
    ),
    _one_of("condition", "op", tuple(OPERATORS), "required", "how to compare", required=True),
    Field("condition", "value", "a JSON value", "required", "what to compare with", {}, required=True),
    Field(
        "validate", "required_args", "true, false or a list of argument names", "false",
        "arguments that must be present and not blank; `true`: all that the tool's schema requires",
        {"anyOf": [{"type": "boolean"}, {**_NAMES, "minItems": 1}]},
    ),
    Field(
        "validate", "schema", "true, false or an inline JSON Schema", "false",
        "the arguments must satisfy the tool's own schema, or the one given here",
        {"anyOf": [{"type": "boolean"}, {"type": "object"}]},
    ),
    _one_of(
        "validate", "unknown_args", ("allow", "deny"), "`allow`",
        "whether arguments may be sent that the schema does not declare",
    ),
    Field(
        "rate_limit", "max", "a whole number of at least 1", "required", "how many calls may pass in a window",
        {"type": "integer", "minimum": 1}, required=True,
    ),
    Field("rate_limit", "window", _WINDOW_VALUES, "required", "how long a window lasts", _WINDOW, required=True),
    Field(
        "rate_limit", "per", "`session`, `principal`, `tool`, `args.x`, a list of these, or `global`", "`session`",
        "how the budget is split; `global`: one budget for all calls the entry matches",
        {"anyOf": [_SCOPE, {"type": "array", "minItems": 1, "uniqueItems": True, "items": _SCOPE}]},
    ),
    _one_of(
        "rate_limit", "strategy", ("moving", "fixed", "sliding"), "`moving`",
        "`moving`: never more in any span; `fixed`: calendar windows in UTC; `sliding`: approximate, constant memory",
    ),
    _one_of(
        "rate_limit", "fail", _FAILS, "that of `--state-fail-mode`",
        "what becomes of calls while the store is unavailable; `closed`: denied; `open`: they go on, uncounted",
    ),
    Field("state", "counter", "a name", "required", "the counter's name in state paths", _NAME, required=True),
    Field("state", "window", _WINDOW_VALUES, "required", "when the counter restarts, in UTC", _WINDOW, required=True),
    Field(
        "state", "increment", "a number above 0", "1", "what a call adds, as an exact decimal",
        {"type": "number", "exclusiveMinimum": 0},
    ),
    Field(
        "state", "increment_from", "a path such as `args.amount`", "none", "the argument whose value a call adds",
        {"type": "string", "pattern": r"^args[.\[].+$"},
    ),
    _one_of(
        "state", "fail", _FAILS, "that of `--state-fail-mode`",
        "the same as in `rate_limit`; it holds for every condition on the counter",
    ),
    Field(
        "outcome", "failure", "a list of conditions on the result", "required",
        "each of them makes the outcome `tool_error`: on `text` (all text blocks, joined by line feeds), "
        "`json` (the first text block, read as JSON) or `structured` (the structured content)",
        _ON_RESULTS, required=True,
    ),
    _one_of("method", "action", ("allow", "deny"), "required", "whether the method may be used", required=True),
    Field("method", "reason", "text of 1 to 2000 characters", "generated", "what the sender is told", _REASON),
)  # fmt: skip
"""Every field of the language, in the order people read it."""

FIELDS_OF: Final[Mapping[str, Mapping[str, Field]]] = {
    where: {field.name: field for field in FIELDS if field.where == where} for where in PLACES
}

_REQUIREMENTS: Final = ("conditions", "validate", "rate_limit", "state")
_OPERANDS: Final[Mapping[tuple[str, ...], JsonObject]] = {
    ("in", "not_in", "subset_of"): {"type": "array", "minItems": 1},
    ("lt", "lte", "gt", "gte"): {"type": ["number", "string"]},
    ("regex", "not_regex"): {"type": "string"},
    ("exists",): {"type": "boolean"},
    ("length_lte",): {"type": "integer", "minimum": 0},
    ("starts_with", "ends_with"): {"type": "string", "minLength": 1},
    ("is_type", "cidr_in", "path_under"): {"type": ["string", "array"]},
}
"""What an editor can say about operands; `operators` decides."""

_RULES_BETWEEN_FIELDS: Final[Mapping[str, JsonObject]] = {
    "rule": {
        "allOf": [
            {"not": {"required": ["reason", "on_deny"]}},
            {
                "if": {"properties": {"action": {"const": "evaluate"}}},
                "then": {"anyOf": [{"required": [name]} for name in _REQUIREMENTS]},
            },
            {
                "if": {"properties": {"action": {"const": "deny"}}, "required": ["action"]},
                "then": {"properties": dict.fromkeys(_REQUIREMENTS, False)},
            },
            {
                "if": {"properties": {"action": {"const": "require_approval"}}, "required": ["action"]},
                "then": {"properties": dict.fromkeys(_REQUIREMENTS[1:], False)},
            },
            {
                "if": {"properties": {"action": {"const": "allow"}}, "required": ["action", "when"]},
                "then": {"anyOf": [{"required": [name]} for name in _REQUIREMENTS]},
            },
        ]
    },
    "condition": {
        "allOf": [
            {"if": {"properties": {"op": {"enum": list(ops)}}}, "then": {"properties": {"value": operand}}}
            for ops, operand in _OPERANDS.items()
        ]
    },
    "validate": {"minProperties": 1},
    "state": {"not": {"required": ["increment", "increment_from"]}},
    "method": {"not": {"properties": {"action": {"const": "allow"}}, "required": ["action", "reason"]}},
    "policy": {"minProperties": 1},
}
"""What a table of fields cannot say."""


def json_schema() -> JsonObject:
    """The language as a JSON Schema (draft 2020-12). It accepts every valid policy; the loader refuses more."""
    definitions = {where: _definition(where) for where in PLACES}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "intercept-py policy",
        **definitions.pop("policy"),
        "$defs": definitions,
    }


def _definition(where: str) -> JsonObject:
    fields = FIELDS_OF[where].values()
    required = [field.name for field in fields if field.required]
    return {
        "type": "object",
        "properties": {field.name: {**field.schema, "description": _description(field)} for field in fields},
        "additionalProperties": False,
        **({"required": required} if required else {}),
        **_RULES_BETWEEN_FIELDS.get(where, {}),
    }


def _description(field: Field) -> str:
    return f"{field.meaning} ({'required' if field.required else f'default: {field.default}'})"
