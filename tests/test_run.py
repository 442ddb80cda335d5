"""`intercept-py run` as a process: what a client, a bad server and a careless operator see."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.commands import bad_server, echo_server, received
from tests.support.wire import StartProxy, Wire, denial, proxy_command, text_of

ALLOW = "default: allow\n"
MIB = 1024 * 1024


def run(*arguments: str, stdin: bytes = b"", timeout: float = 20) -> subprocess.CompletedProcess[bytes]:
    """The command line, to its end."""
    command = [sys.executable, "-m", "intercept_py", *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, timeout=timeout, check=False)


def one_line(text: bytes) -> str:
    """stderr that must be one line and no traceback."""
    lines = text.decode().splitlines()
    assert len(lines) == 1, text.decode()
    return lines[0]


@pytest.fixture
def policy(tmp_path: Path) -> str:
    file = tmp_path / "p.yaml"
    file.write_text(ALLOW)
    return str(file)


# ---- the command line


@pytest.mark.parametrize("dashes", [["--"], []], ids=["with --", "without --"])
@pytest.mark.parametrize("word", [["run"], []], ids=["run", "no run"])
def test_options_end_at_the_servers_command(dashes: list[str], word: list[str], policy: str, tmp_path: Path) -> None:
    audit = str(tmp_path / "a.jsonl")
    command = [sys.executable, "-m", "intercept_py", *word, "-c", policy, "--audit", audit, *dashes]
    with Wire([*command, *echo_server(), "--page-size", "3"]) as wire:
        wire.initialize()
        assert "nextCursor" in wire.request("tools/list")["result"]
        assert wire.finish() == 0


LISTEN = ("run", "-c", "POLICY", "--audit", "AUDIT", "--listen", "127.0.0.1:0")
URL = ("run", "-c", "POLICY", "--upstream", "http://127.0.0.1:1/")
OAUTH = (*URL, "--oauth-token-url", "https://issuer.example/token", "--oauth-client-id", "proxy")


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["run"], 64, "name a policy"),
        (["run", "-c", "POLICY"], 64, "name the server's command"),
        (["run", "-c"], 64, "expected one argument"),
        (["run", "--config", "POLICY", "--nonsense", "x"], 64, "--nonsense"),
        (["run", "-c", "POLICY", "--log-level", "loud", "--", "true"], 64, "loud"),
        (
            ["run", "-c", "POLICY", "--timeout", "soon", "--", "true"],
            64,
            "`soon` is no number of seconds from 0 to 604800;",
        ),
        (["run", "-c", "POLICY", "--timeout", "nan", "--", "true"], 64, "`nan` is no number of seconds"),
        (
            ["run", "-c", "POLICY", "--max-message-bytes", "1", "--", "true"],
            64,
            "`1` is no number of bytes from 65536 to",
        ),
        (
            ["run", "-c", "POLICY", "--listen", "127.0.0.1:65536", "--", "true"],
            64,
            "`65536` is no port from 0 to 65535;",
        ),
        (["run", "-c", "POLICY", "--listen", ":http", "--", "true"], 64, "write HOST:PORT, e.g. 127.0.0.1:8000"),
        (
            ["run", "-c", "POLICY", "--allow-origin", "*", "--", "true"],
            64,
            "`*` is no origin: write scheme, host",
        ),
        (["run", "-c", "POLICY", "--allow-host", "a b", "--", "true"], 64, "`a b` is no host name: write it without"),
        (["rnu"], 64, "rnu"),
        (["run", "-c", "/nowhere/p.yaml", "--", "true"], 78, "No such file"),
        (["run", "-c", "/", "--", "true"], 78, "directory"),
        (["run", "-c", "POLICY", "--state", "mysql://x", "--", "true"], 73, "mysql"),
        (["run", "-c", "POLICY", "--state", "env:NO_SUCH_NAME", "--", "true"], 64, "`NO_SUCH_NAME` is not set"),
        (["run", "-c", "POLICY", "--state", "@/nowhere/url", "--", "true"], 64, "cannot read `/nowhere/url`: no such"),
        (["run", "-c", "POLICY", "--state", "@/", "--", "true"], 64, "cannot read `/`: is a directory"),
        (["run", "-c", "POLICY", "--state", "@POLICY", "--", "true"], 64, "cannot read `POLICY`: no such"),
        (["run", "-c", "POLICY", "--state-fail-mode", "ajar", "--", "true"], 64, "ajar"),
        (["run", "-c", "POLICY", "--audit", "/dev/null", "--", "true"], 73, "/dev/null"),
        (["run", "-c", "POLICY", "--audit", "/", "--", "true"], 73, "audit"),
        (["run", "-c", "POLICY", "--audit", "AUDIT", "--", "no-such-command-here"], 127, "no such command"),
        (["run", "-c", "POLICY", "--audit", "AUDIT", "--", "/etc/passwd"], 127, "not executable"),
        (["run", "-c", "POLICY", "--audit", "AUDIT", "--", "/"], 127, "cannot start"),
        ([*LISTEN, "--", "no-such-command-here"], 127, "no such program on PATH"),
        ([*LISTEN, "--", "/nowhere/server"], 127, "no such program; correct its path"),
        (
            ["run", "-c", "POLICY", "--audit", "AUDIT", "--listen", "0.0.0.0:0", "--", "true"],
            73,
            "--tokens or --issuer",
        ),
        (["run", "-c", "POLICY", "--upstream", "ftp://x"], 64, "must be like `https://example.com/mcp`"),
        ([*URL, "--header", "Content-Length: 5"], 64, "`Content-Length` is set by the proxy itself"),
        ([*URL, "--header", "transfer-encoding: chunked"], 64, "`transfer-encoding` is set by the proxy itself"),
        ([*URL, "--header", "Mcp-Name: x"], 64, "`Mcp-Name` is set by the proxy itself"),
        ([*URL, "--header", "Authorization: env:TWO_LINES"], 64, "`TWO_LINES` must hold one line"),
        ([*URL, "--header", "X-Key: a\r\nX-Injected: b"], 64, "not plain ASCII on one line"),
        ([*URL, "--header", "X-Key: \u00fc"], 64, "not plain ASCII on one line"),
        ([*URL, "--header", "X Key: a"], 64, "a name that HTTP does not allow"),
        ([*URL, "--header", "X-Key: a", "--header", "x-key: b"], 64, "--header names `x-key` twice"),
        ([*URL, "--oauth-token-url", "http://issuer.example/token"], 64, "use `https://` beyond this machine"),
        ([*OAUTH, "--oauth-client-secret", "hunter2"], 64, "a secret is not written down here"),
        ([*OAUTH, "--oauth-client-secret", "env:NO_SUCH_NAME"], 64, "`NO_SUCH_NAME` must hold a secret"),
        ([*OAUTH, "--oauth-client-secret", "env:ONE_LINE", "--header", "Authorization: x"], 64, "already"),
    ],
)
def test_bad_input_gets_one_line_that_says_what_to_do(
    arguments: list[str], status: int, said: str, policy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TWO_LINES", "Bearer s\r\nX-Injected: hunter2")
    monkeypatch.setenv("ONE_LINE", "hunter2")
    places = {"POLICY": policy, "AUDIT": str(tmp_path / "a.jsonl")}
    done = run(*(places.get(word, word) for word in arguments))
    assert done.returncode == status, done.stderr.decode()
    assert said in one_line(done.stderr)
    assert b"hunter2" not in done.stderr
    assert done.stdout == b""


@pytest.mark.parametrize(
    ("content", "status", "said"),
    [
        (b"mysql://:hunter2@db\n", 73, "state of kind `mysql` is not supported"),
        (b"", 64, "must hold one line"),
        (b"redis://:hunter2@db\nhunter2\n", 64, "must hold one line"),
        (b"hunter2" * 5000, 64, "must hold one line"),
        (b"hunter2\xff", 64, "not a text in UTF-8"),
    ],
)
def test_a_url_of_the_state_may_stand_in_a_file_which_is_never_quoted(
    content: bytes, status: int, said: str, policy: str, tmp_path: Path
) -> None:
    file = tmp_path / "url"
    file.write_bytes(content)
    done = run("run", "-c", policy, "--audit", str(tmp_path / "a"), "--state", f"@{file}", "--", "true")
    assert done.returncode == status
    line = one_line(done.stderr)
    assert said in line
    assert "hunter2" not in line


def test_a_url_of_the_state_may_stand_in_the_environment(proxy: StartProxy) -> None:
    counted = "tools: {echo: {rules: [{rate_limit: {max: 1, window: 60}}]}}\n"
    wire = proxy(counted, None, "--state", "env:LIMITS", env={"LIMITS": "memory://"})
    assert text_of(wire.call("echo", {"text": "x"})) == "x"
    assert "rate limit" in denial(wire.call("echo", {"text": "x"}))


@pytest.mark.parametrize("content", [b"", b"defualt: deny\n", b"\x00\x01\x02" * 1000, b"\x7fELF\xff\xfe", b"- a\n"])
def test_a_bad_policy_fails_before_anything_is_started(content: bytes, tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_bytes(content)
    mark = tmp_path / "started"
    done = run("run", "-c", str(bad), "--audit", str(tmp_path / "a"), "--", "touch", str(mark))
    assert done.returncode == 78, done.stderr.decode()
    assert f"{bad}:" in one_line(done.stderr)
    assert not mark.exists()


def test_all_problems_of_a_policy_are_shown_each_on_its_line(tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("defualt: deny\ntools: {a: {rules: [{acton: deny}]}}\n")
    lines = run("run", "-c", str(bad), "--", "true").stderr.decode().splitlines()
    assert len(lines) >= 2
    assert all("bad.yaml:" in line for line in lines)


# ---- the wrapped server


def test_the_server_gets_the_whole_environment(proxy: StartProxy) -> None:
    wire = proxy(ALLOW, env={"SOME_TOKEN": "s3cret"})
    wire.initialize()
    assert "s3cret" in text_of(wire.call("environment", {"name": "SOME_TOKEN"}))


def test_stdout_carries_messages_only_and_stderr_the_rest(proxy: StartProxy) -> None:
    wire = proxy(ALLOW, None, "--log-level", "debug")
    wire.initialize()
    wire.call("echo", {"text": "x"})
    assert wire.finish() == 0
    assert "started the server" in wire.stderr()


@pytest.mark.parametrize("code", [0, 3, 77])
def test_an_upstream_that_exits_at_once_passes_its_code_on(code: int, proxy: StartProxy) -> None:
    wire = proxy(ALLOW, bad_server("exit-at-once", str(code)))
    wire.start("initialize", {})
    assert wire.wait() == code
    wire.assert_no_survivors()


@pytest.mark.parametrize(("mode", "status"), [("dies-mid-call", 7), ("killed-mid-call", 137), ("half-answer", 0)])
def test_when_the_upstream_dies_every_request_is_answered_and_the_proxy_ends(
    mode: str, status: int, proxy: StartProxy
) -> None:
    wire = proxy(ALLOW, bad_server(mode))
    wire.initialize()
    idents = [wire.new_id() for _ in range(5)]
    calls = [{"jsonrpc": "2.0", "id": ident, "method": "tools/call", "params": {"name": "echo"}} for ident in idents]
    wire.send_raw(b"".join(json.dumps(one).encode() + b"\n" for one in calls))  # together: the first ends the server
    for ident in idents:
        answer = wire.answer_to(ident)
        assert "the server ended" in answer["error"]["message"]
    assert wire.wait() == status
    wire.assert_no_survivors()


def test_an_upstream_that_closes_its_output_is_ended(proxy: StartProxy) -> None:
    wire = proxy(ALLOW, bad_server("closes-stdout"))
    wire.initialize()
    assert "the server ended" in wire.call("echo", {"text": "x"})["error"]["message"]
    wire.wait()
    wire.assert_no_survivors()


@pytest.mark.parametrize("mode", ["noise", "double-answer", "unknown-ids"])
def test_what_a_server_says_beyond_the_protocol_is_dropped(mode: str, proxy: StartProxy) -> None:
    wire = proxy(ALLOW, bad_server(mode))
    wire.initialize()
    for number in range(3):
        assert text_of(wire.call("echo", {"text": f"t{number}"})) == f"t{number}"
    assert wire.finish() == 0
    assert [message for message in wire.others if "id" in message] == []


def test_a_flood_without_a_line_end_neither_grows_the_proxy_nor_stops_it_from_ending(proxy: StartProxy) -> None:
    wire = proxy(ALLOW, bad_server("flood", str(200 * MIB)))
    wire.initialize()
    assert text_of(wire.call("echo", {"text": "after the flood"})) == "after the flood"
    status = Path(f"/proc/{wire.process.pid}/status").read_text()
    assert int(status.partition("VmHWM:")[2].split()[0]) < 150 * 1024
    assert wire.finish() == 0


def test_an_endless_flood_ends_with_the_client(proxy: StartProxy) -> None:
    wire = proxy(ALLOW, bad_server("flood"))
    wire.start("initialize", {})
    wire.close_stdin()
    wire.wait()
    wire.assert_no_survivors()


def test_a_client_that_stops_reading_does_not_grow_the_proxy(proxy: StartProxy) -> None:
    wire = proxy(ALLOW, bad_server("flood-lines"))
    wire.recv()
    pages = Path(f"/proc/{wire.process.pid}/statm")
    before = int(pages.read_text().split()[1])
    for _ in range(20):
        wire.recv()  # a few lines now and then; the server would write thousands meanwhile
    assert (int(pages.read_text().split()[1]) - before) * resource.getpagesize() < 30 * MIB
    wire.signal(signal.SIGTERM)
    wire.wait()
    wire.assert_no_survivors()


def test_an_upstream_that_never_answers_is_given_up_after_the_timeout(proxy: StartProxy, audit: Path) -> None:
    wire = proxy(ALLOW, bad_server("silent", "calls"), "--timeout", "0.3")
    wire.initialize()
    assert "did not answer within 0.3 s" in wire.call("echo", {"text": "x"})["error"]["message"]
    assert wire.finish() == 0
    records = [json.loads(line) for line in audit.read_bytes().splitlines()]
    (end,) = (record for record in records if record.get("outcome") == "timeout")
    (decision,) = (record for record in records if record["event"] == "decision" and record["id"] == end["id"])
    assert decision["ts"] < end["ts"]


def test_an_upstream_that_neither_reads_nor_answers_cannot_hold_the_proxy(proxy: StartProxy) -> None:
    wire = proxy(ALLOW, bad_server("deaf"))
    wire.start("initialize", {})
    wire.close_stdin()
    wire.wait()
    wire.assert_no_survivors()


def test_a_result_over_the_bound_fails_its_request_at_once(proxy: StartProxy) -> None:
    wire = proxy(ALLOW, bad_server("huge-result", str(11 * MIB)))
    wire.initialize()
    assert "longer than" in wire.call("echo", {"text": "x"})["error"]["message"]
    assert wire.finish() == 0


def test_a_result_below_the_bound_passes(proxy: StartProxy) -> None:
    wire = proxy(ALLOW, bad_server("huge-result", str(9 * MIB)))
    wire.initialize()
    assert len(text_of(wire.call("echo", {"text": "x"}))) == 9 * MIB
    assert wire.finish() == 0


# ---- the client


def test_a_line_of_100_mb_gets_one_error_and_the_next_one_is_served(proxy: StartProxy) -> None:
    wire = proxy(ALLOW)
    wire.initialize()
    for _ in range(100):
        wire.send_raw(b"x" * 1_000_000)
    wire.send_raw(b"\n")
    error = wire.recv()["error"]
    assert error["code"] == -32600
    assert "longer than" in error["message"]
    assert text_of(wire.call("echo", {"text": "still here"})) == "still here"
    status = Path(f"/proc/{wire.process.pid}/status").read_text()
    assert int(status.partition("VmHWM:")[2].split()[0]) < 100 * 1024
    assert wire.finish() == 0


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xfe\x00\n",
        b"{\n",
        b"[]\n",
        b"null\n",
        b"\x00" * 100 + b"\n",
        b'{"jsonrpc":"2.0","id":1}\n',
        b"[" * 100_000 + b"\n",
    ],
)
def test_garbage_from_the_client_gets_an_error_and_reaches_nobody(data: bytes, proxy: StartProxy, record: Path) -> None:
    wire = proxy(ALLOW)
    wire.send_raw(data)
    assert wire.recv()["error"]["code"] in (-32700, -32600)
    wire.initialize()
    assert wire.finish() == 0
    assert [message["method"] for message in received(record)] == ["initialize", "notifications/initialized"]


def test_a_last_line_without_its_end_is_served(proxy: StartProxy) -> None:
    wire = proxy(ALLOW)
    wire.send_raw(b'{"jsonrpc":"2.0","id":"last","method":"ping"}')
    wire.close_stdin()
    assert [message["id"] for message in wire.recv_all()] == ["last"]
    assert wire.wait() == 0


def test_requests_in_a_file_are_answered_into_a_file(policy: str, tmp_path: Path) -> None:
    asked, answered = tmp_path / "requests.jsonl", tmp_path / "answers.jsonl"
    asked.write_text("".join(f'{{"jsonrpc":"2.0","id":{number},"method":"ping"}}\n' for number in (1, 2)))
    command = proxy_command(policy, echo_server(), "--audit", str(tmp_path / "a.jsonl"))
    with asked.open("rb") as stdin, answered.open("wb") as stdout:
        done = subprocess.run(command, stdin=stdin, stdout=stdout, timeout=20, check=False)
    assert done.returncode == 0
    assert [json.loads(line)["id"] for line in answered.read_bytes().splitlines()] == [1, 2]


@pytest.mark.parametrize("stdout", [subprocess.DEVNULL, subprocess.PIPE])
def test_input_that_ends_at_once_is_the_end(stdout: int, policy: str, tmp_path: Path) -> None:
    command = proxy_command(policy, echo_server(), "--audit", str(tmp_path / "a.jsonl"))
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=stdout, timeout=20, check=False)
    assert (done.returncode, done.stdout or b"") == (0, b"")


def test_what_was_asked_before_the_end_of_input_is_still_answered(proxy: StartProxy) -> None:
    wire = proxy("tools: {echo: {rules: [{validate: {required_args: true}}]}}\n")
    lines = [{"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": "2025-11-25"}}]
    lines += [
        {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": {"name": "echo", "arguments": {"text": "x"}}}
        for number in range(2, 6)
    ]
    wire.send_raw(b"".join(json.dumps(line).encode() + b"\n" for line in lines))
    wire.close_stdin()
    answers = wire.recv_all()
    assert sorted(answer["id"] for answer in answers) == [1, 2, 3, 4, 5]
    assert not any("error" in answer for answer in answers)
    assert wire.wait() == 0


# ---- the end: no orphan, no hang


@pytest.mark.parametrize("mode", ["ignores-eof-and-term", "spawns-grandchild"])
@pytest.mark.parametrize("how", ["eof", "SIGTERM", "SIGINT"])
def test_a_stubborn_server_and_its_children_do_not_outlive_the_proxy(mode: str, how: str, proxy: StartProxy) -> None:
    wire = proxy(ALLOW, bad_server(mode))
    wire.initialize()
    if how == "eof":
        wire.close_stdin()
    else:
        wire.signal(signal.Signals[how])
    status = wire.wait()
    wire.assert_no_survivors()
    if how != "eof":
        assert status == 128 + signal.Signals[how]


def test_a_server_ends_when_its_client_vanishes(proxy: StartProxy) -> None:
    wire = proxy(ALLOW, bad_server("silent"))
    wire.start("initialize", {})
    assert wire.process.stdout is not None
    wire.process.stdout.close()
    wire.close_stdin()
    wire.wait()
    wire.assert_no_survivors()


def test_a_second_signal_changes_nothing(proxy: StartProxy) -> None:
    wire = proxy(ALLOW, bad_server("ignores-eof-and-term"))
    wire.initialize()
    wire.signal(signal.SIGTERM)
    wire.signal(signal.SIGINT)
    wire.signal(signal.SIGTERM)
    assert wire.wait() in (130, 143)  # signals that are pending together come in any order
    wire.assert_no_survivors()


def test_a_client_killed_with_sigkill_leaves_nothing_running(tmp_path: Path, policy: str) -> None:
    """The proxy's client dies without a word; its pipes close, and that must be enough."""
    command = proxy_command(policy, bad_server("ignores-eof-and-term"), "--audit", str(tmp_path / "a.jsonl"))
    client = (
        "import subprocess, sys; p = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE, stdout=subprocess.PIPE);"
        'p.stdin.write(b\'{"jsonrpc":"2.0","id":1,"method":"ping"}\\n\'); p.stdin.flush();'
        "print(p.stdout.readline(), flush=True); sys.stdin.read()"
    )
    with Wire([sys.executable, "-c", client, *command]) as wire:
        assert wire.recv_line() is not None
        os.kill(wire.process.pid, signal.SIGKILL)
        wire.assert_no_survivors()


def test_stdout_closed_by_its_reader_ends_the_proxy_quietly(policy: str, tmp_path: Path) -> None:
    command = " ".join(proxy_command(policy, echo_server(), "--audit", str(tmp_path / "a.jsonl")))
    line = '{"jsonrpc":"2.0","id":"%s","method":"ping"}'
    many = f"(n=0; while printf '{line}\\n' $((n++)); do :; done) 2>/dev/null"
    done = subprocess.run(
        ["bash", "-c", f"{many} | {command} | head -1"],
        capture_output=True,
        timeout=20,
        check=False,
    )
    assert b'"id":"' in done.stdout
    assert b"Traceback" not in done.stderr


# ---- reload


def test_a_changed_policy_is_in_force_for_the_next_call(proxy: StartProxy, tmp_path: Path) -> None:
    wire = proxy(ALLOW)
    wire.initialize()
    assert text_of(wire.call("echo", {"text": "x"})) == "x"
    (tmp_path / "policy.yaml").write_text("default: deny\n")
    wire.signal(signal.SIGHUP)
    _until(wire, "reloaded")
    assert "not listed" in denial(wire.call("echo", {"text": "x"}))
    assert wire.finish() == 0


def test_a_change_is_noticed_without_a_signal(proxy: StartProxy, tmp_path: Path) -> None:
    wire = proxy(ALLOW)
    wire.initialize()
    new = tmp_path / "new.yaml"
    new.write_text("hide: [echo]\n")
    new.replace(tmp_path / "policy.yaml")
    wire.other("notifications/tools/list_changed")
    assert "echo" not in [tool["name"] for tool in wire.list_tools()]
    assert "unknown tool" in denial(wire.call("echo", {"text": "x"}))
    assert wire.finish() == 0


def test_a_bad_policy_keeps_the_one_before_and_says_so(proxy: StartProxy, tmp_path: Path, audit: Path) -> None:
    wire = proxy("tools: {echo: {rules: [{action: deny, reason: not today}]}}\n")
    wire.initialize()
    (tmp_path / "policy.yaml").write_text("tools: [nonsense]\n")
    wire.signal(signal.SIGHUP)
    _until(wire, "stays in force")
    assert "not today" in denial(wire.call("echo", {"text": "x"}))
    assert wire.finish() == 0
    assert [r["accepted"] for r in map(json.loads, audit.read_text().splitlines()) if r["event"] == "reload"] == [False]


def test_reload_can_be_switched_off(proxy: StartProxy, tmp_path: Path) -> None:
    wire = proxy(ALLOW, None, "--no-reload")
    wire.initialize()
    (tmp_path / "policy.yaml").write_text("default: deny\n")
    for _ in range(200):
        assert text_of(wire.call("echo", {"text": "x"})) == "x"
    assert wire.finish() == 0


def _until(wire: Wire, said: str) -> None:
    """Wait until the proxy has said something on stderr; each round trip gives it time."""
    for _ in range(20_000):
        if said in wire.stderr():
            return
        wire.request("ping")
    raise AssertionError(f"the proxy never said {said!r}: {wire.stderr()}")


# ---- the audit file


def test_the_audit_file_is_private_and_verifies(proxy: StartProxy, audit: Path) -> None:
    wire = proxy("tools: {delete_project: {rules: [{action: deny}]}}\n")
    wire.initialize()
    wire.call("echo", {"text": "x"})
    denial(wire.call("delete_project", {"projectId": "p"}))
    assert wire.finish() == 0
    assert audit.stat().st_mode & 0o777 == 0o600
    done = run("audit", "verify", str(audit), "--json")
    assert done.returncode == 0, done.stderr
    lines = audit.read_bytes().splitlines(keepends=True)
    audit.write_bytes(b"".join(lines[:2] + lines[3:]))
    assert run("audit", "verify", str(audit), "--json").returncode == 1


def test_after_kill_9_every_call_the_server_saw_is_on_record(proxy: StartProxy, audit: Path, record: Path) -> None:
    wire = proxy(ALLOW)
    wire.initialize()
    for number in range(200):
        wire.start_call("echo", {"text": str(number)})
    wire.recv()
    wire.signal(signal.SIGKILL)
    wire.wait()
    wire.assert_no_survivors()
    sent = sum(message["method"] == "tools/call" for message in received(record))
    records = [json.loads(line) for line in audit.read_bytes().splitlines()]
    assert 0 < sent <= sum(entry.get("method") == "tools/call" for entry in records)
    assert run("audit", "verify", str(audit)).returncode == 0


def test_a_default_audit_file_is_found_in_the_state_directory(policy: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "intercept_py", "run", "-c", policy, "--", *echo_server()]
    with Wire(command, env={"XDG_STATE_HOME": str(tmp_path / "state")}) as wire:
        wire.initialize()
        assert wire.finish() == 0
    (file,) = (tmp_path / "state" / "intercept-py" / "audit").glob("*.jsonl")
    assert file.parent.stat().st_mode & 0o777 == 0o700


# ---- descriptors and peers that are not what they should be


@pytest.mark.parametrize("closed", ["<&-", ">&-", "<&- >&-", "<&- >&- 2>&-"])
def test_closed_standard_streams_end_in_one_line_and_start_nothing(closed: str, policy: str, tmp_path: Path) -> None:
    mark = tmp_path / "started"
    command = " ".join(proxy_command(policy, ["touch", str(mark)], "--audit", str(tmp_path / "a.jsonl")))
    done = subprocess.run(["bash", "-c", f"{command} {closed}"], capture_output=True, timeout=20, check=False)
    assert done.returncode == 64
    assert not mark.exists()
    if "2>&-" not in closed:
        assert "must be open" in one_line(done.stderr)


def test_with_stderr_closed_the_audit_file_stays_sound(policy: str, tmp_path: Path) -> None:
    audit = tmp_path / "a.jsonl"
    command = " ".join(proxy_command(policy, echo_server(), "--audit", str(audit), "--log-level", "debug"))
    line = b'{"jsonrpc":"2.0","id":1,"method":"ping"}\n'
    done = subprocess.run(["bash", "-c", f"{command} 2>&-"], input=line, capture_output=True, timeout=20, check=False)
    assert b'"id":1' in done.stdout
    assert run("audit", "verify", str(audit)).returncode == 0


def test_a_server_that_stops_reading_is_not_waited_for(proxy: StartProxy) -> None:
    wire = proxy(ALLOW, bad_server("closes-stdin"))
    wire.initialize()
    answer = wire.call("echo", {"text": "x"})
    assert "the server ended" in answer["error"]["message"]
    wire.wait()
    wire.assert_no_survivors()


def test_a_line_that_is_too_long_is_refused_under_its_id(proxy: StartProxy) -> None:
    wire = proxy(ALLOW, None, "--max-message-bytes", "65536")
    wire.send_raw(b'{"jsonrpc":"2.0","id":41,"method":"tools/call","params":{"x":"' + b"y" * 200_000 + b'"}}\n')
    assert wire.recv()["id"] == 41
    assert wire.finish() == 0


@pytest.mark.parametrize(("limit", "kept"), [("1/hour", True), ("{max: 1, window: 3600}", False)])
def test_limits_wider_than_a_session_outlive_the_proxy(limit: str, kept: bool, tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(f"tools:\n  echo:\n    rules:\n      - rate_limit: {limit}\n")
    folder = tmp_path / "state"
    command = [sys.executable, "-m", "intercept_py", "run", "-c", str(policy), "--", *echo_server()]
    denied = []
    for _ in range(2):
        with Wire(command, env={"XDG_STATE_HOME": str(folder)}) as wire:
            wire.initialize()
            answer = wire.call("echo", {"text": "hi"})
            denied.append(answer["result"].get("isError", False))
    assert denied == [False, kept]
    assert (folder / "intercept-py" / "limits.sqlite").exists() == kept
