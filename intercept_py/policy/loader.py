"""A policy file's bytes become an immutable, compiled `Policy`; or every mistake in it is told, with its place.

Below: `source` reads YAML strictly, `section` reads fields, `compile` compiles rules. Above: `cli`.
"""

from __future__ import annotations

__all__ = ["load"]

import hashlib
from collections.abc import Iterator

from intercept_py.errors import PolicyError
from intercept_py.model import AuditLevel
from intercept_py.policy import messages as say
from intercept_py.policy.compile import Compiler, Draft
from intercept_py.policy.paths import GLOBAL_ENTRY
from intercept_py.policy.pdp import LIFECYCLE
from intercept_py.policy.rules import Entry, MethodRule, Policy
from intercept_py.policy.section import Section, describe, is_clean
from intercept_py.policy.source import read
from intercept_py.policy.tree import Node, Problems, Scalar


def load(text: bytes, source: str) -> Policy:
    """The policy in `text`; `source` names the file in messages. Raises PolicyError with all problems at once."""
    root, problems = read(text, source)
    section = None if root is None else Section.open(root, "$", "policy", problems)
    policy = None if section is None else _policy(section, source, hashlib.sha256(text).hexdigest())
    found = problems.sorted()
    if found or policy is None:
        raise PolicyError(found)
    return policy


def _policy(section: Section, source: str, revision: str) -> Policy:
    _check_version(section)
    shadow = section.choice("mode") == "shadow"
    if not section.node.members:
        section.problems.add(section.node, section.path, say.EMPTY_FILE, what="policy", start="tools")
    return Policy(
        source=source,
        revision=revision,
        default_allow=section.choice("default") != "deny",
        description=section.prose("description"),
        hide=section.names("hide"),
        entries=_entries(section, shadow=shadow),
        methods=tuple(_methods(section)),
        shadow=shadow,
        audit=AuditLevel(section.choice("audit") or "metadata"),
    )


def _check_version(section: Section) -> None:
    scalar = section.scalar("version")
    if scalar is None or scalar.value == "1":
        return
    if scalar.value in (1, 1.0) and not isinstance(scalar.value, bool):
        section.report("version", say.VERSION_UNQUOTED)
    else:
        section.wrong_type("version")


def _entries(section: Section, *, shadow: bool) -> tuple[Entry, ...]:
    """All entries. Rules are compiled once every counter of the policy is known, since conditions refer to them."""
    compiler = Compiler(section.problems, shadow=shadow)
    drafts = {name: _drafts(name, entry) for name, entry in _tools(section)}
    for _, rules in drafts.values():
        for draft in rules:
            compiler.declare(draft)
    return tuple(_entry(compiler, name, entry, rules) for name, (entry, rules) in drafts.items())


def _tools(section: Section) -> Iterator[tuple[str, Section]]:
    for path, name, found in section.members("tools"):
        if not is_clean(name, found.key, path, section.problems):
            continue
        if name == GLOBAL_ENTRY:
            section.problems.add(found.key, path, say.RESERVED_ENTRY)
        elif isinstance(found.node, Scalar) and found.node.value is None:
            section.problems.add(found.key, path, say.NULL_ENTRY, name=name)
        elif entry := Section.open(found.node, path, "entry", section.problems):
            yield name, entry


def _drafts(name: str, entry: Section) -> tuple[Section, tuple[Draft, ...]]:
    drafts = []
    for index, (path, node) in enumerate(entry.items("rules")):
        rule = Section.open(node, path, "rule", entry.problems)
        if rule:
            drafts.append(Draft(name, rule.name("name") or f"{name}[{index}]", rule))
    return entry, tuple(drafts)


def _entry(compiler: Compiler, name: str, entry: Section, drafts: tuple[Draft, ...]) -> Entry:
    audit = entry.choice("audit")
    return Entry(
        pattern=name,
        rules=tuple(compiler.compile(draft) for draft in drafts),
        category=entry.choice("category"),
        risk=entry.choice("risk"),
        audit=AuditLevel(audit) if audit else None,
        failure=compiler.failure(entry),
    )


def _methods(section: Section) -> Iterator[MethodRule]:
    for path, name, found in section.members("methods"):
        if not is_clean(name, found.key, path, section.problems):
            continue
        if name in LIFECYCLE:
            section.problems.add(found.key, path, say.METHOD_LIFECYCLE, name=name)
        elif name == "tools/call":
            section.problems.add(found.key, path, say.METHOD_TOOLS_CALL)
        elif rule := _method(name, found.node, path, section.problems):
            yield rule


def _method(name: str, node: Node, path: str, problems: Problems) -> MethodRule | None:
    if isinstance(node, Scalar) and node.value in ("allow", "deny"):
        return MethodRule(name, node.value == "allow")
    if isinstance(node, Scalar):
        problems.add(node, path, say.BAD_METHOD, name=name, got=describe(node))
        return None
    entry = Section.open(node, path, "method", problems)
    if entry is None:
        return None
    action, reason = entry.choice("action"), entry.prose("reason")
    if action == "allow" and "reason" in entry:
        entry.report_key("reason", say.METHOD_ALLOW_REASON)
    return MethodRule(name, action == "allow", reason)
