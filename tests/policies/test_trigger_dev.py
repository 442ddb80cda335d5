"""policies/trigger-dev.yaml, exercised with the schemas that the real server (trigger.dev 4.8.3) lists."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from intercept_py import policy_file
from intercept_py.model import Decision, Effect, JsonObject, Strategy, Tool, ToolCall
from intercept_py.policy import pdp
from intercept_py.policy.rules import Action, Entry, Validate

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "policies/trigger-dev.yaml"
POLICY = policy_file.read(str(SOURCE))
LISTED: list[JsonObject] = json.loads((ROOT / "tests/data/trigger-dev-4.8.3-tools.json").read_text())
TOOLS = {tool["name"]: Tool(tool["name"], tool["inputSchema"]) for tool in LISTED}
ENTRIES = {entry.pattern: entry for entry in POLICY.entries}

THE_PUBLISHED_RULE = """\
  cancel_run:
    rules:
      - action: allow
        rate_limit:
          max: 10
          window: 60
        validate:
          required_args: true
"""
LIMITS = {"read": 60, "write": 30, "execute": 10}
DENIED = {"switch_profile", "generate_webhook_secret", "set_webhook_secret"}
RUN = {"runId": "run_abc123"}
SLUG = {"slug": "greeting"}
ENDPOINT = {"endpointId": "payments"}
VALID: dict[str, JsonObject] = {
    "search_docs": {"query": "how to cancel a run"},
    "list_orgs": {},
    "list_projects": {},
    "create_project_in_org": {"orgParam": "acme-1a2b", "name": "Billing"},
    "initialize_project": {"orgParam": "acme-1a2b", "projectName": "Billing"},
    "get_current_worker": {"environment": "staging"},
    "get_task_schema": {"taskSlug": "send/e-mail"},
    "trigger_task": {"taskId": "send/e-mail", "payload": {"to": "a@example.com"}},
    "list_runs": {"projectRef": "proj_abc", "status": "EXECUTING", "limit": 20},
    "get_run_details": {**RUN, "maxTraceLines": 100},
    "get_span_details": {**RUN, "spanId": "a1b2c3d4e5f60718"},
    "wait_for_run_to_complete": {**RUN, "timeoutInSeconds": 60},
    "cancel_run": {**RUN, "projectRef": "proj_abc", "environment": "prod"},
    "replay_run": {**RUN, "tags": ["again"]},
    "deploy": {"environment": "preview", "branch": "feature/x-1"},
    "list_deploys": {"environment": "prod"},
    "list_preview_branches": {},
    "get_query_schema": {"table": "runs"},
    "query": {"query": "SELECT count() FROM runs", "scope": "project"},
    "list_dashboards": {},
    "run_dashboard_query": {"dashboardKey": "overview", "widgetId": "w1"},
    "create_dashboard": {"title": "Failures"},
    "set_dashboard_widgets": {"dashboardId": "d1", "widgets": []},
    "whoami": {},
    "list_profiles": {},
    "switch_profile": {"profile": "work"},
    "start_dev_server": {"configPath": "./apps/worker/trigger.config.ts"},
    "stop_dev_server": {},
    "dev_server_status": {"lines": 10},
    "list_prompts": {},
    "get_prompt_versions": SLUG,
    "promote_prompt_version": {**SLUG, "version": 3},
    "create_prompt_override": {**SLUG, "textContent": "Hello"},
    "update_prompt_override": {**SLUG, "textContent": "Hello"},
    "remove_prompt_override": SLUG,
    "reactivate_prompt_override": {**SLUG, "version": 2},
    "list_agents": {},
    "start_agent_chat": {"agentId": "support"},
    "send_agent_message": {"chatId": "c1", "message": "hello"},
    "close_agent_chat": {"chatId": "c1"},
    "read_session_channel": {"sessionId": "session_1"},
    "write_session_channel": {"sessionId": "session_1", "channel": "control", "value": "pause"},
    "get_report": {"key": "weekly"},
    "list_alert_capabilities": {},
    "list_alerts": {},
    "create_alert": {
        "capabilityKey": "queue.depth",
        "params": {},
        "condition": {"kind": "threshold", "operator": ">", "value": 10, "windowSec": 60},
        "behavior": {},
        "notifiers": [{"type": "chat", "chatId": "c1"}],
    },
    "resolve_alert": {"alertId": "alert_1"},
    "list_webhook_endpoints": {},
    "get_webhook_endpoint_details": ENDPOINT,
    "list_webhook_deliveries": {**ENDPOINT, "status": ["failed"]},
    "get_webhook_delivery": {"deliveryId": "whd_1"},
    "replay_webhook_delivery": {"deliveryId": "whd_1"},
    "generate_webhook_secret": ENDPOINT,
    "set_webhook_secret": {**ENDPOINT, "secret": "whsec_1"},
}
OUT_OF_PLACE = ("../../v1/whoami?x=", "run_a/../b", "run_abc\n", "RUN_abc", "run_", "", "run_abc ", "run_аbc", "%2e%2e")


def decide(tool: str, arguments: JsonObject) -> Decision:
    return pdp.decide(POLICY, ToolCall(name=tool, arguments=arguments, tool=TOOLS[tool]))


def refused(decision: Decision, words: str = "") -> bool:
    return decision.effect is Effect.DENY and decision.finding is not None and words in decision.finding.reason


def limits(entry: Entry) -> list[tuple[int, int, Strategy, object]]:
    rates = [rule.rate_limit for rule in entry.rules if rule.rate_limit]
    return [(rate.max, rate.window.seconds, rate.strategy, rate.per) for rate in rates]


def having(argument: str) -> list[str]:
    return [name for name, tool in TOOLS.items() if argument in (tool.schema or {}).get("properties", {})]


def test_all_54_tools_are_listed_one_by_one_and_nothing_else_but_the_entry_for_every_tool() -> None:
    assert len(TOOLS) == 54
    assert set(ENTRIES) == {*TOOLS, "*"}
    assert set(VALID) == set(TOOLS)


def test_the_tools_are_those_that_the_real_server_was_seen_to_list() -> None:
    recorded = ROOT.parent / "shared/data/trigger-dev-4.8.3-tools.json"
    if not recorded.exists():
        pytest.skip("the recording is not beside this checkout")
    assert [tool["name"] for tool in json.loads(recorded.read_text())["tools"]] == list(TOOLS)


def test_the_published_rule_for_cancel_run_is_there_word_for_word() -> None:
    assert THE_PUBLISHED_RULE in SOURCE.read_text()
    rule = ENTRIES["cancel_run"].rules[0]
    assert rule.action is Action.ALLOW
    assert rule.validate == Validate(required=True)
    assert limits(ENTRIES["cancel_run"]) == [(10, 60, Strategy.MOVING, ("session",))]


@pytest.mark.parametrize("name", TOOLS)
def test_every_tool_has_a_category_and_the_limit_that_is_recommended_for_it(name: str) -> None:
    entry = ENTRIES[name]
    if name in DENIED:
        assert entry.rules[0].action is Action.DENY
        return
    assert entry.category in LIMITS
    assert limits(entry) == [(LIMITS[entry.category], 60, Strategy.MOVING, ("session",))]
    if entry.category != "read":
        assert any(rule.validate and rule.validate.required is True for rule in entry.rules)
        assert entry.risk


def test_what_changes_or_runs_something_is_no_read_whatever_the_server_claims() -> None:
    claimed = {tool["name"] for tool in LISTED if tool["annotations"]["readOnlyHint"]}
    reads = {name for name in TOOLS if ENTRIES[name].category == "read"}
    assert claimed - reads == {"switch_profile", "start_dev_server", "stop_dev_server", "wait_for_run_to_complete"}
    assert not reads - claimed


@pytest.mark.parametrize("name", sorted(set(TOOLS) - DENIED))
def test_a_sensible_call_passes_and_is_charged_to_one_limit(name: str) -> None:
    decision = decide(name, VALID[name])
    assert decision.effect is Effect.ALLOW, decision.finding
    assert len(decision.charges) == 1


@pytest.mark.parametrize("name", sorted(DENIED))
def test_a_tool_that_is_left_to_people_says_so(name: str) -> None:
    assert refused(decide(name, VALID[name]), "a person ")


@pytest.mark.parametrize("name", TOOLS)
def test_an_argument_that_the_server_would_drop_silently_is_refused(name: str) -> None:
    assert refused(decide(name, {**VALID[name], "force": True}))


@pytest.mark.parametrize(
    ("name", "argument"),
    [(name, required) for name, tool in TOOLS.items() for required in (tool.schema or {}).get("required", [])],
)
def test_a_required_argument_that_is_missing_is_refused_unless_the_tool_only_reads(name: str, argument: str) -> None:
    call = {key: value for key, value in VALID[name].items() if key != argument}
    passes = ENTRIES[name].category == "read" and argument not in {"runId", "spanId", "slug"}
    assert refused(decide(name, call)) is not passes


@pytest.mark.parametrize("name", having("runId"))
@pytest.mark.parametrize("value", [*OUT_OF_PLACE, None, 7, ["run_abc"]])
def test_a_run_id_that_could_change_the_url_is_refused(name: str, value: object) -> None:
    assert refused(decide(name, {**VALID[name], "runId": value}))


@pytest.mark.parametrize("name", having("projectRef"))
@pytest.mark.parametrize("value", ["../../v2/whoami", "proj_a/b", "proj_", "acme", "proj_a?x=", "", None])
def test_a_project_ref_that_could_change_the_url_is_refused(name: str, value: object) -> None:
    assert refused(decide(name, {**VALID[name], "projectRef": value}))


@pytest.mark.parametrize("name", having("configPath"))
@pytest.mark.parametrize(
    ("value", "passes"),
    [
        ("trigger.config.ts", True),
        ("./packages/jobs/trigger.config.ts", True),
        ("packages/@acme/jobs", True),
        ("/tmp/evil/trigger.config.ts", False),
        ("../evil/trigger.config.ts", False),
        ("packages/../../evil", False),
        ("packages//jobs", False),
        (".hidden/trigger.config.ts", False),
        ("~/evil", False),
        ("", False),
    ],
)
def test_a_config_is_loaded_from_inside_the_project_only(name: str, value: str, passes: bool) -> None:
    assert refused(decide(name, {**VALID[name], "configPath": value})) is (name in DENIED or not passes)


@pytest.mark.parametrize("name", having("branch"))
@pytest.mark.parametrize("value", ["--env=prod", "a b", "a\r\nx-header: 1", ""])
def test_a_branch_that_could_be_an_option_or_a_header_is_refused(name: str, value: str) -> None:
    assert refused(decide(name, {**VALID[name], "branch": value}))


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("get_span_details", {"spanId": "../../runs"}, "span id"),
        ("create_project_in_org", {"orgParam": "../acme"}, "list_orgs"),
        ("initialize_project", {"orgParam": "acme?x="}, "list_orgs"),
        ("initialize_project", {"cwd": "/tmp/evil"}, "leave cwd out"),
        ("resolve_alert", {"alertId": "a/../b"}, "list_alerts"),
        ("remove_prompt_override", {"slug": "../versions"}, "list_prompts"),
        ("get_prompt_versions", {"slug": "a/b"}, "list_prompts"),
        ("wait_for_run_to_complete", {"timeoutInSeconds": 301}, "300 seconds"),
        ("wait_for_run_to_complete", {"timeoutInSeconds": 0}, "300 seconds"),
        ("query", {"scope": "organization"}, "one project"),
        ("run_dashboard_query", {"scope": "organization"}, "one project"),
        ("deploy", {"environment": "prod"}, "approv"),
    ],
)
def test_what_a_rule_forbids_is_refused_with_its_reason(name: str, change: JsonObject, words: str) -> None:
    assert refused(decide(name, {**VALID[name], **change}), words)


def test_a_tool_that_a_later_version_adds_is_denied() -> None:
    later = Tool("submit_feedback", {"type": "object"})
    assert refused(pdp.decide(POLICY, ToolCall(name=later.name, arguments={}, tool=later)))


def test_without_the_servers_list_nothing_can_be_judged_so_nothing_passes() -> None:
    for name in TOOLS:
        assert pdp.match(POLICY, name).needs_tool
        assert refused(pdp.decide(POLICY, ToolCall(name=name, arguments=VALID[name])))
