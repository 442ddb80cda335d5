"""`intercept-py demo`: what it claims is checked, what differs is named, and nothing of it survives."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from intercept_py.cli import demo
from intercept_py.cli.scenario import POLICY

COMMAND = [sys.executable, "-m", "intercept_py", "demo"]
MARK = "INTERCEPT_DEMO_TEST"
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


@pytest.fixture
def mark() -> Iterator[str]:
    """Marks every process of the test by its environment, and ends what is left of them."""
    mark = uuid.uuid4().hex
    yield mark
    for pid in marked(mark):
        os.kill(pid, signal.SIGKILL)


def marked(mark: str) -> list[int]:
    """The processes that carry the mark."""
    needle = f"{MARK}={mark}".encode()
    found = []
    for name in os.listdir("/proc"):
        try:
            if name.isdigit() and needle in Path(f"/proc/{name}/environ").read_bytes().split(b"\0"):
                found.append(int(name))
        except OSError:
            continue
    return found


def environment(mark: str) -> dict[str, str]:
    return {**os.environ, MARK: mark, "TERM": "xterm-256color"}


def run(mark: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, env=environment(mark), stdin=subprocess.DEVNULL
    )


def start(mark: str) -> subprocess.Popen[str]:
    """A demo whose twelve runs are running."""
    process = subprocess.Popen(
        COMMAND,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(mark),
        start_new_session=True,
    )
    read_until(process.stdout, "12 runs are real processes")
    return process


def read_until(stream: IO[str] | None, words: str) -> None:
    assert stream is not None
    for line in stream:
        if words in line:
            return
    pytest.fail(f"`{words}` was never printed")


def test_the_policy_of_the_demo_holds_the_published_rule_word_for_word() -> None:
    assert THE_PUBLISHED_RULE in POLICY


def test_ten_of_twelve_cancels_pass_and_programs_can_read_it(mark: str) -> None:
    result = run(mark, "--json")
    assert result.returncode == 0, result.stdout + result.stderr
    summary = json.loads(result.stdout)
    assert summary["ok"] is True
    assert [check for check in summary["checks"] if not check["held"]] == []
    assert len(summary["checks"]) == 10
    assert [row["verdict"] for row in summary["rows"]] == ["cancelled"] * 10 + ["denied"] * 2
    assert [row["alive"] for row in summary["rows"]] == [False] * 10 + [True] * 2
    assert summary["told"].startswith("[INTERCEPT POLICY DENIED] ")
    assert summary["seconds"] < 10
    assert marked(mark) == []


def test_without_a_terminal_the_story_is_told_in_plain_lines(mark: str) -> None:
    result = run(mark)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.isascii()
    assert THE_PUBLISHED_RULE in "".join(line[4:] for line in result.stdout.splitlines(keepends=True))
    assert result.stdout.count("still running\n") == 2
    assert result.stdout.count("\nok   ") == 10
    assert "\nall 10 expectations held, " in result.stdout
    assert result.stderr == ""


def test_on_a_terminal_it_is_a_live_table(mark: str) -> None:
    ours, theirs = pty.openpty()
    size = {**environment(mark), "COLUMNS": "80", "LINES": "40"}
    with subprocess.Popen(COMMAND, stdin=theirs, stdout=theirs, stderr=theirs, env=size) as process:
        os.close(theirs)
        output = b""
        while chunk := _read(ours):
            output += chunk
    os.close(ours)
    assert process.returncode == 0, output.decode()
    assert "✗ denied by policy" in output.decode()
    assert "● running" in output.decode()
    assert "✓ all 10 expectations held" in output.decode()
    assert b"\x1b[?25h" in output  # the cursor is back


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # how Linux says that nobody holds the other end any more
        return b""


def test_expectations_that_do_not_hold_are_named_and_fail_the_demo(mark: str, tmp_path: Path) -> None:
    policy = tmp_path / "eleven.yaml"
    policy.write_text(POLICY.replace("max: 10", "max: 11").replace("hide: [purge_runs]", "hide: []"))
    result = run(mark, "-c", str(policy), "--json")
    assert result.returncode == 1
    summary = json.loads(result.stdout)
    assert summary["ok"] is False
    assert [check["name"] for check in summary["checks"] if not check["held"]] == [
        "`purge_runs` is hidden from the list",
        "the 11th and 12th cancel are denied",
        "the 11th and 12th run go on",
        "it tells the same story",
    ]
    assert marked(mark) == []


def test_a_policy_under_which_the_demo_cannot_go_on_fails_it_with_the_reason(mark: str, tmp_path: Path) -> None:
    policy = tmp_path / "nothing.yaml"
    policy.write_text("default: deny\ntools: {list_runs: {}}\n")
    result = run(mark, "-c", str(policy))
    assert result.returncode == 1
    assert "FAIL the demo runs to its end: a call that must pass was refused: [INTERCEPT" in result.stdout
    assert marked(mark) == []


def test_files_in_the_current_directory_are_not_run(mark: str, tmp_path: Path) -> None:
    for name in ("json.py", "mcp.py", "intercept_py.py"):
        (tmp_path / name).write_text("raise SystemExit('a stranger was run')")
    command = [sys.executable, "-P", *COMMAND[1:], "--json"]
    result = subprocess.run(command, capture_output=True, text=True, env=environment(mark), cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr


def test_a_bad_policy_is_refused_before_anything_is_started(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], mark: str
) -> None:
    policy = tmp_path / "bad.yaml"
    policy.write_text("defualt: deny\n")
    assert demo.main(["-c", str(policy)]) == 78
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"{policy}:1:1: $.defualt: unknown field `defualt`: did you mean `default`?\n"


def test_the_audit_log_can_be_kept_and_is_never_overwritten(mark: str, tmp_path: Path) -> None:
    audit = tmp_path / "audit.jsonl"
    assert run(mark, "--audit", str(audit)).returncode == 0
    verify = [sys.executable, "-m", "intercept_py", "audit", "verify", str(audit)]
    assert subprocess.run(verify, capture_output=True).returncode == 0
    again = run(mark, "--audit", str(audit))
    assert again.returncode == 64
    assert again.stderr.count("\n") == 1
    assert "name a new file" in again.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_demo_leaves_nothing_behind(mark: str, number: signal.Signals) -> None:
    with start(mark) as process:
        process.send_signal(number)
        _, err = process.communicate()
        assert process.returncode == {signal.SIGINT: 130}.get(number, -number)
        assert err == (
            "intercept-py demo: interrupted, everything it started has ended\n" if number == signal.SIGINT else ""
        )
        if number == signal.SIGINT:
            assert marked(mark) == []
        for pid in marked(mark):
            wait_for_the_end(pid)


def wait_for_the_end(pid: int) -> None:
    """Return when the process is gone; the test's time limit bounds it."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    select.select([descriptor], [], [])
    os.close(descriptor)
