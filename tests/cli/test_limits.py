"""`intercept-py limits`: what real proxies have counted, shown and reset, on a real SQLite file and a real Redis."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from intercept_py.cli import audit as audit_command
from intercept_py.cli import limits
from intercept_py.errors import StateError
from intercept_py.model import Charge, Strategy, Window
from intercept_py.state import open_state
from tests.support import redis_group, redis_server
from tests.support.commands import echo_server, received
from tests.support.wire import StartProxy, Wire, denial

POLICY = """
tools:
  cancel_run:
    rules:
      - {name: three a minute, action: allow, rate_limit: {max: 3, window: 60, per: session}}
      - {name: two a run, action: allow, rate_limit: {max: 2, window: 300d, per: [args.runId, tool], strategy: sliding}}
  "list_*":
    rules: [{rate_limit: 5/month, mode: shadow}]
  refund:
    rules:
      - name: spent
        state: {counter: amount, window: day, increment_from: args.amount}
        conditions: [{path: state.refund.amount, op: lt, value: 500.5}]
  echo:
    rules: [{rate_limit: {max: 2, window: 30, per: global}}]
"""
SQLITE, REDIS = "sqlite", "redis"


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with redis_server.running(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture(params=[SQLITE, REDIS])
def state(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    """The options that name an empty store."""
    if request.param == SQLITE:
        return ["--state", f"sqlite://{tmp_path}/limits.sqlite", "--state-prefix", "team/a-"]
    return ["--state", request.getfixturevalue("redis"), "--state-prefix", str(tmp_path)]


@pytest.fixture
def sqlite(tmp_path: Path) -> list[str]:
    return ["--state", f"sqlite://{tmp_path}/limits.sqlite"]


@pytest.fixture
def policy(tmp_path: Path) -> str:
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY)
    return str(path)


class Done(NamedTuple):
    code: int
    out: str
    err: str


def run(*arguments: str) -> Done:
    """The command in a process of its own."""
    command = [sys.executable, "-m", "intercept_py", "limits", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    return Done(done.returncode, done.stdout, done.stderr)


def show(policy: str, state: Sequence[str]) -> dict[str, Any]:
    """What `show --json` says, by rule."""
    done = run("show", "-c", policy, *state, "--json")
    assert (done.code, done.err) == (0, "")
    return {limit["rule"]: limit for limit in json.loads(done.out)["limits"]}


def counters(limit: dict[str, Any]) -> dict[str, str]:
    """What is used, by scope."""
    return {" ".join(counter["scope"]): counter["used"] for counter in limit["counters"]}


def count(state: Sequence[str], *charges: Charge, server: str = "s", prefix: str = "") -> None:
    opened = open_state(state[1], prefix=prefix)
    for charge in charges:
        assert opened.charge(server, (charge,)).refused is None
    opened.commit()
    opened.close()


def echo(*scope: str) -> Charge:
    """What a call of `echo` is charged."""
    return Charge(("limit", "echo", "30s", "moving", *scope), 1, 2, Window(30), Strategy.MOVING, "r")


# What proxies have counted.


def test_every_limit_is_shown_with_who_has_used_how_much_of_it(
    proxy: StartProxy, policy: str, state: list[str]
) -> None:
    wire = proxy(Path(policy), echo_server(), *state)
    wire.initialize()
    for run_id in ("run_a", "run_b", "run_a"):
        assert "isError" not in wire.call("cancel_run", {"runId": run_id})["result"]
    for _ in range(6):
        wire.call("list_runs")
    wire.call("refund", {"amount": 100.25})
    wire.call("refund", {"amount": 0.1})
    shown = show(policy, state)
    server = f"{Path(sys.executable).name}-"

    (mine,) = shown["three a minute"]["counters"]
    assert mine["server"].startswith(server)
    assert [scope.partition("=")[0] for scope in mine["scope"]] == ["session"]
    assert (mine["used"], shown["three a minute"]["max"]) == ("3", "3")
    assert 0 < mine["next_in"] <= mine["empty_in"] <= 61
    assert counters(shown["two a run"]) == {
        'args.runId="run_a" tool=cancel_run': "2",
        'args.runId="run_b" tool=cancel_run': "1",
    }
    assert [run["next_in"] > 0 for run in shown["two a run"]["counters"]] == [True, False]
    assert counters(shown["list_*[0]"]) == {"global": "6"}
    assert shown["list_*[0]"]["shadow"]
    assert counters(shown["spent"]) == {"": "100.35"}
    assert (shown["spent"]["counter"], shown["spent"]["max"], shown["spent"]["window"]) == ("amount", "500.5", "day")
    assert shown["echo[0]"]["counters"] == []
    again = show(policy, state)
    assert {rule: counters(limit) for rule, limit in again.items()} == {
        rule: counters(limit) for rule, limit in shown.items()
    }


def test_after_a_reset_the_next_call_of_a_running_proxy_passes(
    proxy: StartProxy, policy: str, state: list[str], audit: Path
) -> None:
    wire = proxy(Path(policy), echo_server(), *state)
    wire.initialize()
    for _ in range(2):
        wire.call("echo", {"text": "x"})
        wire.call("list_runs")
    assert "retry in" in denial(wire.call("echo", {"text": "x"}))
    done = run("reset", "-c", policy, *state, "--tool", "echo", "--audit", str(audit))
    assert (done.code, done.err) == (0, "")
    first, line = done.out.splitlines()
    assert first.startswith(f"reset 1 counter, recorded in `{audit}`")
    assert re.fullmatch(r"echo  `echo\[0\]`  at most 2 in 30 s, moving:  \S+  global  2/2  full, next in \d+ s", line)
    assert [counters(show(policy, state)[rule]) for rule in ("echo[0]", "list_*[0]")] == [{}, {"global": "2"}]
    for _ in range(2):
        assert "isError" not in wire.call("echo", {"text": "x"})["result"]
    denial(wire.call("echo", {"text": "x"}))
    assert wire.finish() == 0

    records = received(audit)
    (reset,) = [record for record in records if record["event"] == "reset"]
    start = records[0]
    assert (reset["by"]["uid"], reset["entries"], reset["counters"]) == (os.getuid(), ["echo"], 1)
    assert (reset["policy"], reset["servers"]) == (start["policy"], [start["server"]])
    assert audit_command.main(["verify", str(audit)]) == 0


def test_after_a_failover_a_reset_of_all_has_limits_checked_again(policy: str, tmp_path: Path) -> None:
    day = Charge(("limit", "other"), 1, 3, Window(86400), Strategy.MOVING, "r")
    with redis_group.by_hand(tmp_path / "redis") as group, closing(open_state(f"{group.url}?timeout=2")) as state:
        assert state.charge("s", (day,)).refused is None
        group.servers[0].kill()
        group.promote(1)

        def checked() -> bool:
            with suppress(StateError):
                return state.charge("s", (day,)).refused is None
            return False

        state_options = ["--state", f"{group.url}?timeout=2"]
        redis_group.wait_until(lambda: group.facts(1)["connected_slaves"], "the third server follows")
        assert not checked()
        done = run("reset", "-c", policy, *state_options, "--all", "--audit", str(tmp_path / "audit"))
        assert (done.code, done.err) == (0, "")
        assert done.out.startswith("reset 0 counters, recorded in ")
        assert [record["event"] for record in received(tmp_path / "audit")].count("reset") == 1
        redis_group.wait_until(checked, "limits are checked again")


def test_a_reset_of_all_leaves_what_others_count_alone(
    policy: str, state: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prefix, other = state[3], f"other{state[3]}"
    long = Charge(("limit", "echo", "30s", "moving", "global", "x" * 600), 1, 2, Window(30), Strategy.MOVING, "r")
    foreign = Charge(("limit", "unknown", "30s", "moving", "global"), 1, 2, Window(30), Strategy.MOVING, "r")
    for server in ("a", "b/c%"):
        count(state, echo("global"), foreign, long, server=server, prefix=prefix)
    count(state, echo("global"), prefix=other)
    arguments = ["-c", policy, *state, "--json"]
    assert limits.main(["show", *arguments]) == 0
    before = json.loads(capsys.readouterr().out)
    assert [counter["server"] for counter in before["limits"][-1]["counters"]] == ["a", "b/c%"]
    assert (len(before["long_names"]), before["others"]) == (2, 2)

    log = str(tmp_path / "log")
    assert limits.main(["reset", *arguments, "--all", "--audit", log]) == 0
    done = json.loads(capsys.readouterr().out)
    assert (done["reset"], done["audit"], len(done["limits"])) == (4, log, 1)
    assert sorted(done["long_names"]) == sorted(before["long_names"])
    assert received(log)[-1]["servers"] == ["a", "b/c%"]
    assert limits.main(["reset", *arguments, "--all", "--audit", log]) == 0
    assert json.loads(capsys.readouterr().out)["reset"] == 0
    assert len(received(log)) == 1
    assert limits.main(["show", *arguments]) == 0
    after = json.loads(capsys.readouterr().out)
    assert (after["limits"][-1]["counters"], after["long_names"], after["others"]) == ([], [], 2)
    assert limits.main(["show", *arguments, "--state-prefix", other]) == 0
    assert counters(json.loads(capsys.readouterr().out)["limits"][-1]) == {"global": "1"}


def test_many_counters_are_shown_and_reset(
    policy: str, state: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    many = [
        Charge(("limit", "cancel_run", "60s", "moving", f"session={number}"), 1, 3, Window(60), Strategy.MOVING, "r")
        for number in range(1500)
    ]
    count(state, *many, prefix=state[3])
    assert limits.main(["show", "-c", policy, *state]) == 0
    assert capsys.readouterr().out.count("  1/3  ") == 1500
    assert limits.main(["reset", "-c", policy, *state, "--tool", "cancel_run", "--audit", str(tmp_path / "log")]) == 0
    assert capsys.readouterr().out.startswith("reset 1500 counters, ")


def test_every_strategy_and_window_is_found_again(
    state: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], proxy: StartProxy
) -> None:
    windows = {"moving": ["1s", "90m"], "sliding": ["week", "2d"], "fixed": ["30d", "month", "week", "366d"]}
    rules = [
        f"{{rate_limit: {{max: 9, window: {window}, per: [tool, args.text], strategy: {strategy}}}}}"
        for strategy, spans in windows.items()
        for window in spans
    ]
    text = f"tools: {{'?ch*/%': {{}}, 'ech*': {{rules: [{', '.join(rules)}]}}}}"
    wire = proxy(text, echo_server(), *state)
    wire.initialize()
    wire.call("echo", {"text": "a/b%2F"})
    assert limits.main(["show", "-c", str(tmp_path / "policy.yaml"), *state, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [counters(limit) for limit in found["limits"][1:]] == [{'args.text="a/b%2F" tool=echo': "1"}] * 7
    assert found["others"] <= 1  # the one of a second may have ended


def test_limits_that_overlap_are_told_apart(
    sqlite: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "policy.yaml"
    scopes = ["session", "principal", "tool", "global", "args.x", "[args.x, tool]"]
    rules = [f"{{rate_limit: {{max: 2, window: 30, per: {one}}}}}" for one in scopes]
    path.write_text(f"tools: {{echo: {{rules: [{', '.join(rules)}]}}}}")
    keys = [["session=1"], ["principal=p"], ["address=a"], ["tool=echo"], ["global"], ["args.x=1"], ["args.x"]]
    count(sqlite, *[echo(*key) for key in [*keys, ["args.x=1", "tool=echo"], ["args.xy=1"]]])
    assert limits.main(["show", "-c", str(path), *sqlite, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [sorted(counters(limit)) for limit in found["limits"]] == [
        ["address=a", "global", "principal=p", "session=1"],  # who cannot prove a session shares a wider budget
        ["address=a", "global", "principal=p"],
        ["tool=echo"],
        ["global"],
        ["args.x", "args.x=1"],
        ["args.x=1 tool=echo"],
    ]
    assert found["others"] == 1


def test_a_counter_that_other_rules_look_at_is_shown_for_each_of_them(
    sqlite: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text("""
tools:
  refund:
    rules:
      - name: own
        state: {counter: n, window: 90s, increment: 0.5}
        conditions: [{path: state.refund.n, op: lte, value: 2}]
  other:
    rules: [{name: looks, conditions: [{path: state.refund.n, op: lt, value: 1.75}]}]
""")
    spent = Charge(("state", "refund", "n"), Decimal("1.75"), 2, Window(90), Strategy.FIXED, "own")
    count(sqlite, spent)
    assert limits.main(["show", "-c", str(path), *sqlite, "--tool", "refund"]) == 0
    out = capsys.readouterr().out
    own, looks = out.splitlines()
    assert re.fullmatch(
        r"refund  `own`  counter n, at most 2 in 90 s, fixed:  s  global  1.75/2  full, resets in \d+ s", own
    )
    assert re.fullmatch(
        r"refund  `looks`  counter n, below 1.75 in 90 s, fixed:  s  global  1.75/1.75  full, resets in \d+ s", looks
    )


# For people.


def test_on_a_terminal_there_is_a_bar_for_every_counter(policy: str, sqlite: list[str]) -> None:
    hostile = Charge(
        ("limit", "cancel_run", "25920000s", "sliding", 'args.runId="\x1b]0;x\x07\u202e"', "tool=x"),
        1, 2, Window(25920000), Strategy.SLIDING, "r",
    )  # fmt: skip
    many = [
        Charge(("limit", "cancel_run", "60s", "moving", f"session={n:032}"), 1, 3, Window(60), Strategy.MOVING, "r")
        for n in range(25)
    ]
    count(sqlite, hostile, *many, many[7], many[9], many[9], echo("global"), echo("global"), server="\x1b[2Jserver")
    text = terminal("limits", "show", "-c", policy, *sqlite)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    lines = plain.splitlines()
    assert max(map(len, lines)) <= 80
    assert "\x1b" not in plain
    assert "\x07" not in plain
    assert "\u202e" not in plain
    assert "  \\x1b[2Jserver" in lines
    assert "\\x1b]0;x\\x07\\u202e" in plain
    fullest = [line for line in lines if "session=" in line]
    assert "━" * 10 + " 3/3 full, next in " in fullest[0]
    assert "2/3 empty in " in fullest[1]
    assert len(fullest) == 20
    assert "    5 more, less full (--json has them all)" in lines
    assert "  not used yet" in lines
    assert "\x1b[31m" in text
    assert "\x1b[32m" in text


def test_a_policy_without_limits_says_so(tmp_path: Path, sqlite: list[str]) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text("tools: {a: {}}")
    count(sqlite, echo("global"), echo("global", "x" * 600))
    shown = terminal("limits", "show", "-c", str(path), *sqlite)
    assert "the policy has no limits" in shown
    assert "counter whose name was too long to be kept" in shown
    assert "1 other counter is of no limit of this policy" in shown


def terminal(*arguments: str) -> str:
    """What a terminal of 80 columns is sent."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "80"}
    command = [sys.executable, "-m", "intercept_py", *arguments]
    with subprocess.Popen(command, stdout=theirs, stdin=theirs, env=environment) as process:
        os.close(theirs)
        output = b""
        while chunk := _read(ours):
            output += chunk
    os.close(ours)
    assert process.returncode == 0
    return output.decode()


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # how Linux says that nobody holds the other end any more
        return b""


def test_spans_are_told_in_words_that_are_never_too_short(
    policy: str, sqlite: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    count(sqlite, Charge(("state", "refund", "amount"), 1, 2, Window(86400, "day"), Strategy.FIXED, "r"))
    assert limits.main(["show", "-c", policy, *sqlite, "--tool", "refund"]) == 0
    assert re.search(r"1/500.5  resets in \d+ (h|min|s)$", capsys.readouterr().out.strip())


# What goes wrong.


def test_nothing_is_reset_that_cannot_be_recorded(policy: str, sqlite: list[str], tmp_path: Path) -> None:
    count(sqlite, echo("global"))
    done = run("reset", "-c", policy, *sqlite, "--all", "--audit", str(tmp_path))
    assert (done.code, done.out) == (73, "")
    assert done.err.startswith("intercept-py: error: audit file ")
    assert done.err.count("\n") == 1
    assert counters(show(policy, sqlite)["echo[0]"]) == {"global": "1"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["show", "--state", "memory://"], "known to their proxy alone"),
        (["reset"], "either --tool TOOL or --all"),
        (["reset", "--all", "--tool", "echo"], "either --tool TOOL or --all"),
        (["show", "--all"], "for `limits reset`"),
        (["show", "--audit", "x"], "for `limits reset`"),
        (["reset", "--tool", "list_runs", "--state", "sqlite:///x"], "has limits; its calls count for `list_*`"),
        (["reset", "--tool", "x\x1b", "--state", "sqlite:///x"], "no entry `x\\x1b` of the policy has limits; see"),
        (["forget"], "invalid choice"),
    ],
)
def test_a_wrong_command_line_exits_64(
    policy: str, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    with pytest.raises(SystemExit) as exit_:
        limits.main([*arguments, "-c", policy])
    assert exit_.value.code == 64
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert words in err


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("sqlite://{}/none.sqlite", "does not exist: name the one that the proxies use"),
        ("sqlite://{}", "is a directory"),
        ("redis://:hunter2@127.0.0.1:1/0", "cannot be reached"),
        ("memcached://x", "is not supported"),
    ],
)
def test_a_store_that_cannot_be_opened_exits_73_and_is_not_created(
    policy: str, tmp_path: Path, url: str, words: str
) -> None:
    done = run("show", "-c", policy, "--state", url.format(tmp_path))
    assert (done.code, done.out, done.err.count("\n")) == (73, "", 1)
    assert words in done.err
    assert "hunter2" not in done.err
    assert os.listdir(tmp_path) == ["policy.yaml"]


def test_a_bad_policy_exits_78_with_every_problem(tmp_path: Path, sqlite: list[str]) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text("defualt: deny\ntools: {a: {rules: [{action: alow}]}}\n")
    done = run("show", "-c", str(path), *sqlite)
    assert (done.code, done.out, done.err.count("\n")) == (78, "", 2)


def test_a_running_proxy_is_not_disturbed_by_who_looks(proxy: StartProxy, policy: str, sqlite: list[str]) -> None:
    wire: Wire = proxy(Path(policy), echo_server(), *sqlite)
    wire.initialize()
    for used in (1, 2):
        assert "isError" not in wire.call("echo", {"text": "x"})["result"]
        assert counters(show(policy, sqlite)["echo[0]"]) == {"global": str(used)}
    denial(wire.call("echo", {"text": "x"}))
    assert wire.finish() == 0
