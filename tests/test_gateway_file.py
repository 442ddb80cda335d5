"""What a gateway file comes to, and every mistake in one: each has a small file that states its exact problems."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import intercept_py.gateway_file
from intercept_py import gateway_file
from intercept_py.errors import PolicyError
from intercept_py.gateway_file import Command, Gateway, Reference, Remote, Value, messages, surroundings
from intercept_py.gateway_file.fields import FIELDS, FIELDS_OF, PLACES
from intercept_py.gateway_file.loader import load
from tests.support.mistakes import executed_lines, expected, pattern_of, reported, reporting_lines

ROOT = Path(__file__).resolve().parents[1]
MISTAKES = sorted((ROOT / "tests/gateway_mistakes").glob("*.yaml"))
PACKAGE = Path(intercept_py.gateway_file.__path__[0])
REPORTING = tuple(PACKAGE / f"{name}.py" for name in ("section", "values", "upstreams", "loader"))
TEMPLATES = {name: text for name, text in vars(messages).items() if name.isupper()}
SMALL = "servers: {a: {policy: a.yaml, command: [a]}}\n"


# ---- mistakes


@pytest.mark.parametrize("file", MISTAKES, ids=lambda file: file.stem)
def test_a_mistake_is_reported_exactly_as_its_file_says(file: Path) -> None:
    assert reported(file, load) == expected(file) != []


def test_no_message_repeats_a_secret() -> None:
    told = [line for file in MISTAKES for line in reported(file, load)]
    assert sum("hunter2" in file.read_text("utf-8") for file in MISTAKES) > 4
    assert not any("hunter2" in line for line in told)


def test_every_problem_is_one_line_that_starts_in_lower_case_or_with_what_the_author_wrote() -> None:
    for line in (line for file in MISTAKES for line in expected(file)):
        message = line.split(": ", 2)[2]
        assert line.isprintable()
        assert message[0] in '`"' or message[0].islower(), line


@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_every_message_is_shown_by_a_file(name: str) -> None:
    pattern = pattern_of(TEMPLATES[name])
    assert any(pattern.fullmatch(line) for file in MISTAKES for line in expected(file))


def test_every_place_that_reports_a_problem_is_reached_by_a_file() -> None:
    """A template may be used in several places, so the places are counted too."""
    reached = executed_lines(lambda: [reported(file, load) for file in MISTAKES], REPORTING)
    places = {(path, line) for path in REPORTING for line in reporting_lines(path, TEMPLATES)}
    assert len(places) > 30
    assert places <= reached


# What fields hold, and what they should not.
ODD = st.none() | st.booleans() | st.integers(-1, 10**6) | st.text(max_size=8)
WORDS = st.sampled_from(
    [
        "127.0.0.1:1",
        "0.0.0.0:1",
        "https://a.example.com/?x",
        "env:A",
        "@f",
        "Bearer env:",
        "5m",
        "http",
        "[::1]:8",
        "a b",
    ]
)
NAMES = st.sampled_from(sorted({field.name for field in FIELDS} | {"a", "A_B"}))
DOCUMENTS = st.recursive(
    ODD | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=6),
    max_leaves=25,
)


@given(st.fixed_dictionaries({"servers": st.dictionaries(NAMES, DOCUMENTS, max_size=3)}), DOCUMENTS)
@settings(max_examples=250, deadline=None)
def test_any_document_is_taken_or_told_apart(servers: dict[str, Any], more: Any) -> None:
    """No traceback, whatever stands where."""
    document = {**more, **servers} if isinstance(more, dict) else servers
    with suppress(PolicyError):
        load(json.dumps(document).encode(), "gateway.yaml")


# ---- what a good file says


def test_the_smallest_file_serves_one_server_to_this_machine() -> None:
    gateway = load(SMALL.encode(), "/etc/intercept/gateway.yaml")
    assert (gateway.host, gateway.port, gateway.auth) == ("127.0.0.1", 8000, None)
    (server,) = gateway.servers
    assert server.policy.target == "/etc/intercept/a.yaml"
    assert server.upstream == Command(("a",), Reference("a", 1, 41, "$.servers.a.command[0]"), {})
    assert (server.max_sessions, server.session_idle, server.timeout) == (None, 1800, 300)
    assert gateway.max_message_bytes == 10485760
    assert gateway.endpoint(server) == "http://127.0.0.1:8000/a/mcp"


def test_everything_that_a_file_can_say_is_taken() -> None:
    gateway = load(FULL.encode(), "/etc/intercept/gateway.yaml")
    first, second = gateway.servers
    assert gateway.endpoint(first) == "https://mcp.example.com/gate/trigger/mcp"
    assert gateway.allow_hosts == ("mcp.example.com", "mcp.internal", "::1")
    assert gateway.allow_origins == ("https://app.example.com", "http://localhost:3000")
    assert gateway.state is not None
    assert gateway.state.target == "env:INTERCEPT_STATE"
    assert gateway.audit is not None
    assert gateway.audit.target == "/var/log/intercept/audit.jsonl"
    assert (gateway.state_prefix, gateway.fail_open) == ("blue", True)
    assert gateway.auth is not None
    assert gateway.auth.tokens is not None
    assert gateway.auth.tokens.target == "/etc/intercept/tokens.json"
    assert gateway.auth.issuer is not None
    assert (gateway.auth.issuer.keys.target, gateway.auth.issuer.untyped) == ("https://id.example.com/keys", True)
    assert gateway.auth.scopes == ("mcp",)
    assert isinstance(first.upstream, Command)
    assert first.upstream.words == ("npx", "trigger", "mcp", "@latest", "")
    assert {name: value.text for name, value in first.upstream.environment.items()} == {
        "LEVEL": "debug",
        "EMPTY_TOKEN": "",
        "TRIGGER_ACCESS_TOKEN": "",
    }
    assert (first.max_sessions, first.session_idle, first.timeout) == (64, 1800, 2.5)
    assert isinstance(second.upstream, Remote)
    assert second.upstream.sse
    token = Reference("env:TICKETS_TOKEN", 31, 22, "$.servers.tickets.headers.Authorization")
    key = Reference("@/run/secrets/key", 32, 14, '$.servers.tickets.headers["X-Key"]')
    assert second.upstream.headers == {
        "Authorization": Value("Bearer ", token),
        "X-Key": Value("", key),
        "X-Team": Value("a"),
    }
    assert second.scopes == ("tickets",)


FULL = """\
version: "1"
listen: "[::]:8080"
audit: /var/log/intercept/audit.jsonl
state: env:INTERCEPT_STATE
state_prefix: blue
state_fail_mode: open
public_url: https://mcp.example.com/gate/
allow_hosts: [mcp.internal, mcp.example.com, "::1"]
allow_origins: [https://app.example.com, "http://localhost:3000"]
auth:
  tokens: tokens.json
  issuer: {url: https://id.example.com, jwks: https://id.example.com/keys, audience: mcp, untyped: true}
  scopes: [mcp]
servers:
  trigger:
    policy: ../policies/trigger-dev.yaml
    command: [npx, trigger, mcp, "@latest", ""]
    env:
      LEVEL: debug
      EMPTY_TOKEN: ""
      TRIGGER_ACCESS_TOKEN: env:TRIGGER_ACCESS_TOKEN
    max_sessions: 64
    session_idle: 30m
    timeout: 2.5
  tickets:
    policy: tickets.yaml
    url: https://tickets.internal/mcp
    transport: sse
    scopes: [tickets]
    headers:
      Authorization: Bearer env:TICKETS_TOKEN
      X-Key: "@/run/secrets/key"
      X-Team: a
"""


def test_the_table_of_fields_has_every_field_once_and_every_place() -> None:
    assert [where for where in PLACES if FIELDS_OF[where]] == list(PLACES)
    assert len({(field.where, field.name) for field in FIELDS}) == len(FIELDS)


def test_the_documentation_has_the_table_of_fields() -> None:
    document = (ROOT / "docs/gateway.md").read_text("utf-8")
    start, end = document.index("<!-- fields"), document.index("<!-- end of fields")
    rows = document[start:end].splitlines()[3:]
    assert rows == [
        "| " + " | ".join([field.where, f"`{field.name}`", field.values, field.default, field.meaning]) + " |"
        for field in FIELDS
    ]


def test_every_gateway_in_the_documentation_is_one() -> None:
    document = (ROOT / "docs/gateway.md").read_text("utf-8")
    shown = [text for text in re.findall(r"^```yaml\n(.*?)^```", document, re.M | re.S) if "servers:" in text]
    assert shown
    for text in shown:
        assert load(text.encode(), "gateway.yaml").servers


# ---- what is somewhere else


@pytest.fixture
def gateway(tmp_path: Path) -> Callable[[str], Gateway]:
    """Reads a text as a gateway file in a folder that has a policy, `a.yaml`."""
    (tmp_path / "a.yaml").write_text("default: deny\n")

    def read(text: str) -> Gateway:
        (tmp_path / "gateway.yaml").write_text(text)
        return gateway_file.read(str(tmp_path / "gateway.yaml"))

    return read


def test_a_file_that_is_not_there_is_told_like_a_policy(tmp_path: Path) -> None:
    with pytest.raises(PolicyError) as caught:
        gateway_file.read(str(tmp_path / "none.yaml"))
    assert str(caught.value) == f"{tmp_path}/none.yaml:1:1: $: cannot read the gateway file: No such file or directory"


def test_policies_that_are_missing_or_wrong_are_all_told(gateway: Callable[[str], Gateway], tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("defualt: deny\n")
    servers = {"good": "a.yaml", "gone": "none.yaml", "bad": "bad.yaml", "as-bad": "bad.yaml"}
    lines = [f"  {name}: {{policy: {policy}, command: [a]}}\n" for name, policy in servers.items()]
    policies, problems = surroundings.read_policies(gateway("servers:\n" + "".join(lines)))
    assert list(policies) == ["good"]
    assert [str(problem) for problem in problems] == [
        f"{tmp_path}/bad.yaml:1:1: $.defualt: unknown field `defualt`: did you mean `default`?",
        f"{tmp_path}/gateway.yaml:3:18: $.servers.gone.policy: "
        f"cannot read the policy `{tmp_path}/none.yaml`: No such file or directory",
    ]


def test_what_is_not_there_is_all_told_at_its_place(
    gateway: Callable[[str], Gateway], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("TWO_LINES", "a\nb")
    monkeypatch.setenv("NOT_ASCII", "\u00e9")
    monkeypatch.delenv("NOT_SET", raising=False)
    _, problems = surroundings.resolve(gateway(NOTHING_THERE))
    assert [str(problem).removeprefix(f"{tmp_path}/gateway.yaml:") for problem in problems] == [
        "1:8: $.state: state in memory has no address: write `memory:`",
        f"3:11: $.auth.tokens: there is no token file `{tmp_path}/tokens.json`: "
        "make it with `intercept-py tokens add`, or correct its path",
        f"4:49: $.auth.issuer.jwks: cannot read the issuer's keys in `{tmp_path}/keys.json`: no such file or directory",
        "8:15: $.servers.a.command[0]: "
        "cannot start `nonesuch`: no such program on PATH; install it, or correct its spelling",
        "10:10: $.servers.a.env.A: "
        "the environment variable `NOT_SET` is not set, or empty: the gateway must be started with it",
        f"11:10: $.servers.a.env.B: cannot read the secret in `{tmp_path}/secret`: no such file or directory",
        "14:15: $.servers.b.command[0]: "
        "cannot start `./a.yaml`: no such program; correct its path, or make it executable",
        "19:10: $.servers.c.headers.X: "
        "the environment variable `TWO_LINES` must hold a secret: one line of text of at most 8192 characters",
        "20:10: $.servers.c.headers.Y: the header `Y` has a value that is not plain ASCII on one line",
        "21:96: $.servers.c.oauth.client_secret: "
        "the environment variable `NOT_SET` is not set, or empty: the gateway must be started with it",
    ]


NOTHING_THERE = """\
state: memory://somewhere
auth:
  tokens: tokens.json
  issuer: {url: "https://id.example.com", jwks: keys.json}
servers:
  a:
    policy: a.yaml
    command: [nonesuch, a]
    env:
      A: env:NOT_SET
      B: "@secret"
  b:
    policy: a.yaml
    command: [./a.yaml]
  c:
    policy: a.yaml
    url: https://c.example.com/mcp
    headers:
      X: Bearer env:TWO_LINES
      Y: env:NOT_ASCII
    oauth: {token_url: "https://id.example.com/token", client_id: intercept-py, client_secret: env:NOT_SET}
"""


def test_secrets_are_found_where_the_file_says(
    gateway: Callable[[str], Gateway], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", "hunter2")
    (tmp_path / "secret").write_text("memory:\n")
    text = (
        'state: "@secret"\nservers:\n'
        "  a: {policy: a.yaml, command: [sh], env: {KEY: env:TOKEN, LEVEL: debug}}\n"
        "  b: {policy: a.yaml, url: 'https://b.example.com/mcp', headers: {Authorization: Bearer env:TOKEN, X-A: b}}\n"
    )
    resolved, problems = surroundings.resolve(gateway(text))
    assert problems == []
    assert resolved.state == "memory:"
    assert resolved.environments["a"]["KEY"] == "hunter2"
    assert resolved.environments["a"]["LEVEL"] == "debug"
    assert "PATH" in resolved.environments["a"]
    assert resolved.headers == {"b": (("Authorization", "Bearer hunter2"), ("X-A", "b"))}


def test_no_server_gets_the_secrets_of_another_one_or_of_the_gateway(
    gateway: Callable[[str], Gateway], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TOKEN_OF_A", "TOKEN_OF_B", "TOKEN_OF_C", "SECRET_OF_C", "LANGUAGE"):
        monkeypatch.setenv(name, "hunter2")
    monkeypatch.setenv("STATE", "memory:")
    oauth = "{token_url: 'https://id.example.com/token', client_id: c, client_secret: env:SECRET_OF_C}"
    text = (
        "state: env:STATE\nservers:\n"
        "  a: {policy: a.yaml, command: [sh], env: {TOKEN_OF_A: env:TOKEN_OF_A}}\n"
        "  b: {policy: a.yaml, command: [sh], env: {KEY: env:TOKEN_OF_B}}\n"
        f"  c: {{policy: a.yaml, url: 'https://c.example.com/mcp', headers: {{X: env:TOKEN_OF_C}}, oauth: {oauth}}}\n"
    )
    resolved, problems = surroundings.resolve(gateway(text))
    assert problems == []
    names = {"STATE", "TOKEN_OF_A", "TOKEN_OF_B", "TOKEN_OF_C", "SECRET_OF_C", "KEY", "LANGUAGE"}
    assert {name: names & set(found) for name, found in resolved.environments.items()} == {
        "a": {"TOKEN_OF_A", "LANGUAGE"},
        "b": {"KEY", "LANGUAGE"},
    }
