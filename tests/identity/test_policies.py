"""Who calls, as policies see it: from a real token through the decision to a counted limit."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from intercept_py import identity
from intercept_py.identity import Authenticator, Settings, tokens
from intercept_py.model import Caller, Decision, Effect, ToolCall
from intercept_py.policy import loader
from intercept_py.policy.pdp import decide, hidden_from
from intercept_py.state import open_state

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from intercept_py.policy.rules import Policy
    from tests.identity.conftest import Log
    from tests.support.issuer import Clock, Issuer

pytestmark = pytest.mark.anyio

DOCUMENT = (Path(__file__).resolve().parents[2] / "docs" / "identity.md").read_text("utf-8")


@pytest.fixture
async def door(issuer: Issuer, log: Log, clock: Clock, tmp_path: Path) -> AsyncIterator[Authenticator]:
    path = str(tmp_path / "tokens.json")
    (tmp_path / "ci").write_text(tokens.add(path, "ci", ("runs:read",), datetime(2027, 1, 1, tzinfo=UTC), None))
    trusted = identity.Issuer(issuer.url, issuer.jwks_url)
    authenticator = Authenticator(Settings("https://proxy.example/mcp", path, trusted), log, clock)
    yield authenticator
    await authenticator.close()


@pytest.fixture
async def ci(door: Authenticator, tmp_path: Path) -> Caller:
    return await door.authenticate(f"Bearer {(tmp_path / 'ci').read_text()}", "192.0.2.1")


async def of(door: Authenticator, token: str, address: str = "192.0.2.1") -> Caller:
    return await door.authenticate(f"Bearer {token}", address)


def load(rules: str) -> Policy:
    return loader.load(f"tools: {{cancel_run: {{rules: [{rules}]}}, get_run: {{}}}}".encode(), "policy.yaml")


def ask(policy: Policy, caller: Caller, **arguments: Any) -> Decision:
    return decide(policy, ToolCall("cancel_run", arguments, caller))


async def test_scopes_open_tools_and_tools_without_them_are_not_listed(
    door: Authenticator, ci: Caller, issuer: Issuer
) -> None:
    policy = load("{conditions: [{path: caller.scopes, op: contains, value: 'runs:write'}], reason: needs runs:write}")
    writer = await of(door, issuer.sign(scope="runs:read runs:write"))
    prefix = await of(door, issuer.sign(scope="runs:write:all runs"))
    assert ask(policy, writer).effect is Effect.ALLOW
    for caller in (ci, prefix):
        denied = ask(policy, caller)
        assert denied.finding is not None
        assert (denied.finding.code, denied.finding.reason) == ("condition_failed", "needs runs:write")
    assert [hidden_from(policy, "cancel_run", caller) for caller in (writer, ci, prefix)] == [False, True, True]
    assert not any(hidden_from(policy, "get_run", caller) for caller in (writer, ci, prefix))


async def test_a_principal_is_named_as_the_audit_names_it(door: Authenticator, ci: Caller, issuer: Issuer) -> None:
    rule = "{{conditions: [{{path: caller.principal, op: eq, value: '{0}'}}]}}"
    alice = await of(door, issuer.sign())
    impostor = await of(door, issuer.sign(sub="ci"))
    own, foreign = load(rule.format("ci")), load(rule.format(f"{issuer.url}#alice"))
    assert [ask(own, caller).effect is Effect.ALLOW for caller in (ci, alice, impostor)] == [True, False, False]
    assert [ask(foreign, caller).effect is Effect.ALLOW for caller in (ci, alice, impostor)] == [False, True, False]


async def test_claims_are_read_with_their_types(door: Authenticator, ci: Caller, issuer: Issuer) -> None:
    claims: Any = {
        "groups": ["ops", "dev"],
        "level": 3,
        "https://example.com/org": {"id": "o1"},
        "email_verified": True,
    }
    caller = await of(door, issuer.sign(**claims))
    for condition in (
        "{path: caller.claims.groups, op: contains, value: ops}",
        "{path: 'caller.claims.groups[1]', op: eq, value: dev}",
        "{path: caller.claims.level, op: gte, value: 3}",
        "{path: 'caller.claims[\"https://example.com/org\"].id', op: eq, value: o1}",
        "{path: caller.claims.email_verified, op: eq, value: true}",
        "{path: caller.claims.client_id, op: eq, value: agent}",
    ):
        policy = load(f"{{conditions: [{condition}]}}")
        assert ask(policy, caller).effect is Effect.ALLOW, condition
        assert ask(policy, ci).effect is Effect.DENY, condition


async def test_a_budget_is_that_of_the_principal_wherever_he_calls_from(
    door: Authenticator, ci: Caller, issuer: Issuer
) -> None:
    policy = load("{rate_limit: {max: 2, window: 1d, per: principal}}")
    state = open_state("memory:")

    def passes(caller: Caller) -> bool:
        decision = ask(policy, caller)
        assert decision.effect is Effect.ALLOW
        return state.charge("server", decision.charges).refused is None

    home = await of(door, issuer.sign(), "192.0.2.1")
    away = await of(door, issuer.sign(exp=1_900_000_000), "192.0.2.2")  # another token of the same person
    assert [passes(caller) for caller in (home, away, home, away)] == [True, True, False, False]
    assert [passes(ci), passes(ci), passes(ci)] == [True, True, False]
    named_alike = await of(door, issuer.sign(sub="ci"))
    assert passes(named_alike)
    state.close()


async def test_the_documented_policy_does_what_is_said_of_it(door: Authenticator, ci: Caller, issuer: Issuer) -> None:
    (text,) = re.findall(r"^```yaml\n(.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL)
    policy = loader.load(text.encode(), "identity.md")
    finance = await of(door, issuer.sign(scope="runs:write deploy", groups=["finance"]))
    own = Caller(principal="ci", scopes=("deploy",))
    names = ["list_runs", "cancel_run", "deploy", "refund"]
    seen = [[name for name in names if not hidden_from(policy, name, caller)] for caller in (finance, own, ci)]
    assert seen == [names, ["list_runs", "deploy"], ["list_runs"]]
    for environment, effect in (("staging", Effect.ALLOW), ("prod", Effect.DENY)):
        assert decide(policy, ToolCall("deploy", {"environment": environment}, own)).effect is effect
    assert decide(policy, ToolCall("deploy", {"environment": "prod"}, finance)).effect is Effect.ALLOW


async def test_a_denial_of_what_a_caller_is_not_does_not_reach_those_who_say_nothing(
    door: Authenticator, issuer: Issuer
) -> None:
    """The trap that the document warns of."""
    trap = load("{action: deny, when: [{path: caller.claims.role, op: neq, value: admin}]}")
    sound = load("{conditions: [{path: caller.claims.role, op: eq, value: admin}]}")
    silent = await of(door, issuer.sign())
    assert ask(trap, silent).effect is Effect.ALLOW
    assert ask(sound, silent).effect is Effect.DENY
