"""Short ways to build compiled policies without going through YAML."""

from __future__ import annotations

from typing import Any, Protocol

import pytest

from intercept_py.model import Json
from intercept_py.policy import paths
from intercept_py.policy.operators import OPERATORS
from intercept_py.policy.rules import Condition, Entry, Policy, Rule


class MakeCondition(Protocol):
    def __call__(self, path: str, op: str, value: Json) -> Condition: ...


class MakePolicy(Protocol):
    def __call__(self, *rules: Rule, pattern: str = "refund", **settings: Any) -> Policy: ...


@pytest.fixture(scope="session")
def condition() -> MakeCondition:
    def make(path: str, op: str, value: Json) -> Condition:
        operator = OPERATORS[op]
        return Condition(paths.parse(path), op, value, operator.compile(value), operator.negative)

    return make


@pytest.fixture(scope="session")
def policy() -> MakePolicy:
    def make(*rules: Rule, pattern: str = "refund", **settings: Any) -> Policy:
        return Policy("policy.yaml", "0" * 64, entries=(Entry(pattern, rules),), **settings)

    return make
