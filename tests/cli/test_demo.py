"""`intercept-py demo`: what it claims is checked, what differs is named, and nothing of it survives."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest
import yaml

from intercept_py.cli import demo
from intercept_py.cli.demo_dialects import DEFAULT, DIALECTS, policy, scale_policy
from tests.support.jobs import gone

COMMAND = [sys.executable, "-m", "intercept_py", "demo"]
MARK = "INTERCEPT_DEMO_TEST"
SEEDS = Path(__file__).resolve().parents[2] / "policies/seeds"
SEED_OF = {
    "trigger": "trigger-dev",
    "orchestration": "orchestration",
    "codex": "codex",
    "ssh": "ssh-cancel-async-task",
}
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
INTERRUPTED = "intercept-py demo: interrupted, everything it started has ended\n"


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Marks every process of the test by its environment, and ends what is left of them."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # a demo that is killed cannot remove its directory
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


def summary_of(result: subprocess.CompletedProcess[str], status: int = 0) -> dict[str, Any]:
    """The document of a demo that ended with this exit status."""
    assert result.returncode == status, result.stdout + result.stderr
    summary: dict[str, Any] = json.loads(result.stdout)
    assert summary["ok"] is (status == 0)
    return summary


def broken(summary: dict[str, Any]) -> list[str]:
    """The names of the checks that did not hold."""
    return [check["name"] for check in summary["checks"] if not check["held"]]


def on_a_terminal(mark: str, *arguments: str) -> str:
    """What a demo that succeeds writes to a terminal of 80 columns."""
    ours, theirs = pty.openpty()
    size = {**environment(mark), "COLUMNS": "80", "LINES": "40"}
    with subprocess.Popen([*COMMAND, *arguments], stdin=theirs, stdout=theirs, stderr=theirs, env=size) as process:
        os.close(theirs)
        output = b""
        while chunk := _read(ours):
            output += chunk
    os.close(ours)
    assert process.returncode == 0, output.decode()
    assert b"\x1b[?25h" in output  # the cursor is back
    return output.decode()


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # how Linux says that nobody holds the other end any more
        return b""


# The story


def test_the_policy_of_the_demo_holds_the_published_rule_word_for_word() -> None:
    assert THE_PUBLISHED_RULE in policy(DIALECTS[DEFAULT])


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_rule_of_each_dialect_is_the_one_of_its_ready_made_policy(dialect: str) -> None:
    cancel = DIALECTS[dialect].cancel
    ready_made = yaml.safe_load((SEEDS / f"{SEED_OF[dialect]}.yaml").read_text())["tools"][cancel]["rules"][0]
    assert yaml.safe_load(policy(DIALECTS[dialect]))["tools"][cancel]["rules"] == [ready_made]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_ten_of_twelve_cancels_pass_and_programs_can_read_it(mark: str, dialect: str) -> None:
    summary = summary_of(run(mark, "--json", "--dialect", dialect))
    assert len(summary["checks"]) == 10
    assert [row["verdict"] for row in summary["rows"]] == ["cancelled"] * 10 + ["denied"] * 2
    assert [row["alive"] for row in summary["rows"]] == [False] * 10 + [True] * 2
    assert summary["told"].startswith("[INTERCEPT POLICY DENIED] ")
    assert f"`{DIALECTS[dialect].cancel}[0]`" in summary["told"]
    assert marked(mark) == []


def test_without_a_terminal_the_story_is_told_in_plain_lines_and_the_audit_log_can_be_kept(
    mark: str, tmp_path: Path
) -> None:
    audit = tmp_path / "audit.jsonl"
    result = run(mark, "--audit", str(audit))
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.isascii()
    assert THE_PUBLISHED_RULE in "".join(line[4:] for line in result.stdout.splitlines(keepends=True))
    assert result.stdout.count("still running\n") == 2
    assert result.stdout.count("\nok   ") == 10
    assert "\nall 10 expectations held, " in result.stdout
    assert result.stderr == ""
    verify = [sys.executable, "-m", "intercept_py", "audit", "verify", str(audit)]
    assert subprocess.run(verify, capture_output=True).returncode == 0


def test_an_audit_log_is_never_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    audit = tmp_path / "audit.jsonl"
    audit.touch()
    with pytest.raises(SystemExit, match="64"):
        demo.main(["--audit", str(audit)])
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "name a new file" in told


def test_on_a_terminal_it_is_a_live_table_in_which_nothing_is_cut(mark: str) -> None:
    output = on_a_terminal(mark)
    assert "✗ denied by policy" in output
    assert "● running" in output
    assert "✓ all 10 expectations held" in output
    assert "…" not in output


def test_expectations_that_do_not_hold_are_named_and_fail_the_demo(mark: str, tmp_path: Path) -> None:
    text = policy(DIALECTS["trigger"]).partition("        validate:")[0]
    lax = tmp_path / "lax.yaml"
    lax.write_text(text.replace("max: 10", "max: 12").replace("hide: [deploy]", "hide: []"))
    assert broken(summary_of(run(mark, "-c", str(lax), "--json"), status=1)) == [
        "`deploy` is hidden from the list",
        "a call without `runId` is refused",
        "the 11th and 12th cancel are denied",
        "the 11th and 12th job go on",
        "it tells the same story",
    ]
    assert marked(mark) == []


def test_a_policy_under_which_the_demo_cannot_go_on_fails_it_with_the_reason(mark: str, tmp_path: Path) -> None:
    nothing = tmp_path / "nothing.yaml"
    nothing.write_text("default: deny\ntools: {list_runs: {}}\n")
    result = run(mark, "-c", str(nothing))
    assert result.returncode == 1
    assert "FAIL the demo runs to its end: a call that must pass was refused: [INTERCEPT" in result.stdout
    assert marked(mark) == []


def test_a_bad_policy_is_refused_before_anything_is_started(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("defualt: deny\n")
    assert demo.main(["-c", str(bad)]) == 78
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"{bad}:1:1: $.defualt: unknown field `defualt`: did you mean `default`?\n"


# Many jobs


def test_thirty_jobs_end_as_they_should_and_the_books_agree(mark: str, tmp_path: Path) -> None:
    audit = tmp_path / "audit.jsonl"
    summary = summary_of(run(mark, "--scale", "30", "--json", "--audit", str(audit), "--dialect", "orchestration"))
    assert len(summary["checks"]) == 5
    assert summary["statuses"] == {"completed": 18, "failed": 3, "cancelled": 9}
    assert (summary["started"], summary["denials"], summary["survivors"]) == (30, 0, 0)
    records = [json.loads(line) for line in audit.read_text().splitlines()]
    assert summary["records"] == len(records)
    assert summary["calls"] == sum("tool" in record for record in records) > 60
    assert marked(mark) == []


def test_jobs_that_may_not_be_started_or_cancelled_are_counted_and_fail_the_demo(mark: str, tmp_path: Path) -> None:
    strict = tmp_path / "strict.yaml"
    strict.write_text(scale_policy(DIALECTS["trigger"]).replace("100000/hour", "6/hour", 1).replace("100000/", "1/"))
    result = run(mark, "--scale", "12", "-c", str(strict))
    assert result.returncode == 1
    assert "FAIL 12 jobs end as they should: 1 canceled, 3 completed, 1 failed; expected " in result.stdout
    assert "FAIL no call is denied: 7 of " in result.stdout
    assert result.stdout.count("\nok   ") == 3
    assert marked(mark) == []


def test_on_a_terminal_many_jobs_are_a_bar_and_a_table(mark: str) -> None:
    output = on_a_terminal(mark, "--scale", "10", "--dialect", "codex")
    assert "10/10" in output
    assert "the server says" in output
    assert "✓ all 5 expectations held" in output


def test_files_in_the_current_directory_are_not_run(mark: str, tmp_path: Path) -> None:
    for name in ("json.py", "mcp.py", "intercept_py.py"):
        (tmp_path / name).write_text("raise SystemExit('a stranger was run')")
    command = [sys.executable, "-P", *COMMAND[1:], "--scale", "10", "--dialect", "ssh"]
    result = subprocess.run(command, capture_output=True, text=True, env=environment(mark), cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "ok   10 jobs end as they should: 3 cancelled, 6 completed, 1 failed\n" in result.stdout


@pytest.mark.parametrize("number", ["0", "10001", "-1", "many"])
def test_a_number_of_jobs_out_of_range_is_a_usage_error(number: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="64"):
        demo.main([f"--scale={number}"])
    assert f"argument --scale: `{number}` is no number from 1 to 10000; see " in capsys.readouterr().err


# Interrupted


@pytest.mark.parametrize(
    ("arguments", "words", "number"),
    [
        ((), "12 jobs are real processes", signal.SIGINT),
        ((), "12 jobs are real processes", signal.SIGKILL),
        (("--scale", "100"), "jobs have ended", signal.SIGINT),
    ],
    ids=["interrupt", "kill", "interrupt many"],
)
def test_an_interrupted_demo_leaves_nothing_behind(
    mark: str, tmp_path: Path, arguments: tuple[str, ...], words: str, number: signal.Signals
) -> None:
    with subprocess.Popen(
        [*COMMAND, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(mark),
        start_new_session=True,
    ) as process:
        read_until(process.stdout, words)
        process.send_signal(number)
        _, err = process.communicate()
        if number == signal.SIGINT:
            assert (process.returncode, err) == (130, INTERRUPTED)
            assert marked(mark) == []
            assert list(tmp_path.iterdir()) == []
        else:
            assert (process.returncode, err) == (-number, "")
        for pid in marked(mark):
            gone(pid)


def read_until(stream: IO[str] | None, words: str) -> None:
    assert stream is not None
    for line in stream:
        if words in line:
            return
    pytest.fail(f"`{words}` was never printed")
