"""A policy after loading: compiled, immutable, nothing in it can be misspelled any more.

Below: `model`. Above: `loader` builds these values, `pdp` reads them. The YAML's shape ends here.
"""

from __future__ import annotations

__all__ = [
    "Action",
    "Check",
    "Condition",
    "Counter",
    "Entry",
    "Matched",
    "MethodRule",
    "Path",
    "Policy",
    "RateLimit",
    "Rule",
    "Validate",
]

from collections.abc import Callable
from decimal import Decimal
from enum import Enum

import msgspec

from intercept_py.model import AuditLevel, Json, JsonObject, Strategy, Window


class Action(Enum):
    """`evaluate` in dialect B is `allow`: its requirements must hold."""

    ALLOW = "allow"
    DENY = "deny"
    REQUIRE_APPROVAL = "require_approval"


class Path(msgspec.Struct, frozen=True):
    """Where a condition looks: a root, the steps below it, and `text` as written.

    Roots are `args`, `caller`, `tool`; of a result `text`, `json`, `structured`.
    """

    root: str
    steps: tuple[str | int, ...]
    text: str


class Condition(msgspec.Struct, frozen=True):
    """`{path, op, value}`, compiled. `holds(value)` never raises; a missing value fails all but `exists: false`.

    `negative` marks operators that re-typing an argument could dodge (security rule 4): they need the tool's schema.
    """

    path: Path
    op: str
    operand: Json
    holds: Callable[[Json], bool]
    negative: bool = False


class Check(msgspec.Struct, frozen=True):
    """A condition on `state.<entry>.<counter>`: the counter must be below (`inclusive`: not above) `limit`.

    `fail_open` is the counter's, see `Charge`.
    """

    entry: str
    counter: str
    limit: Decimal
    inclusive: bool
    window: Window
    fail_open: bool | None = None


class Counter(msgspec.Struct, frozen=True):
    """A `state` block: what a call adds to the counter. Exactly one of `increment` and `increment_from` is set."""

    counter: str
    window: Window
    increment: Decimal | None
    increment_from: Path | None
    fail_open: bool | None = None


class RateLimit(msgspec.Struct, frozen=True):
    """`rate_limit`, both forms. `per` holds `session`, `principal`, `tool`, `global` or a Path into the arguments."""

    max: int
    window: Window
    per: tuple[str | Path, ...]
    strategy: Strategy
    fail_open: bool | None = None


class Validate(msgspec.Struct, frozen=True):
    """`validate`. `required`: True (what the tool's schema requires) or names; `schema`: True or a JSON Schema."""

    required: bool | tuple[str, ...] = False
    schema: bool | JsonObject = False
    deny_unknown: bool = False
    inline: Callable[[Json], str | None] | None = None


class Rule(msgspec.Struct, frozen=True):
    """One rule. It applies when every `when` holds; then its action decides and its requirements must hold."""

    name: str
    action: Action
    when: tuple[Condition, ...] = ()
    conditions: tuple[Condition, ...] = ()
    validate: Validate | None = None
    rate_limit: RateLimit | None = None
    counter: Counter | None = None
    checks: tuple[Check, ...] = ()
    reason: str | None = None
    shadow: bool = False
    audit: AuditLevel | None = None


class Entry(msgspec.Struct, frozen=True):
    """One key under `tools`: an exact name, a glob, or `*`. A result for which a `failure` holds counts as one."""

    pattern: str
    rules: tuple[Rule, ...] = ()
    category: str | None = None
    risk: str | None = None
    audit: AuditLevel | None = None
    failure: tuple[Condition, ...] = ()


class MethodRule(msgspec.Struct, frozen=True):
    """One key under `methods`: a JSON-RPC method or glob that is allowed or denied, in both directions."""

    pattern: str
    allow: bool
    reason: str | None = None


class Matched(msgspec.Struct, frozen=True):
    """Everything a policy says about one tool name, resolved once per name.

    `entries` are all that match: the exact name, then globs in file order, then `*`. `needs_tool`: the call may only be
    judged with the server's own listing of the tool at hand. `reads` are the top-level arguments that rules read,
    `folded` their NFKC case-folded spellings, to refuse look-alikes.
    """

    hidden: bool
    listed: bool
    entries: tuple[Entry, ...]
    category: str | None
    needs_tool: bool
    reads: frozenset[str]
    folded: frozenset[str]


class Policy(msgspec.Struct, frozen=True):
    """One immutable snapshot. `revision` is the SHA-256 (hex) of the file's bytes, `source` its name as given."""

    source: str
    revision: str
    default_allow: bool = True
    description: str | None = None
    hide: tuple[str, ...] = ()
    entries: tuple[Entry, ...] = ()
    methods: tuple[MethodRule, ...] = ()
    shadow: bool = False
    audit: AuditLevel = AuditLevel.METADATA

    @property
    def counts(self) -> bool:
        """Whether any rule charges or checks a counter."""
        rules = (rule for entry in self.entries for rule in entry.rules)
        return any(rule.rate_limit is not None or rule.counter is not None or rule.checks for rule in rules)

    @property
    def counts_by_session(self) -> bool:
        """Whether a limit is one of each session, so that another session is another budget."""
        rules = [rule for entry in self.entries for rule in entry.rules]
        return any(rule.rate_limit is not None and "session" in rule.rate_limit.per for rule in rules)

    @property
    def counts_beyond_session(self) -> bool:
        """Whether a budget is shared by sessions, so that it must be kept when this one ends."""
        rules = [rule for entry in self.entries for rule in entry.rules]
        wide = (rule.rate_limit is not None and "session" not in rule.rate_limit.per for rule in rules)
        return any(wide) or any(rule.counter is not None or rule.checks for rule in rules)
