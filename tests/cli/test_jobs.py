"""`intercept-py jobs serve`: what it refuses, in one line and with which status."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from intercept_py.cli import jobs

ROOT = Path(__file__).resolve().parents[2]
URL = "redis://:secret@127.0.0.1:9/0"
"""Nobody listens there."""


def refused(argv: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """The status, and the one line, of a command line that is refused."""
    with pytest.raises(SystemExit) as ended:
        sys.exit(jobs.main(argv))
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("intercept-py jobs: ")
    return int(ended.value.code or 0), err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("", "required: command"),
        ("dance", "invalid choice: 'dance'"),
        ("serve", "name the tools to serve with --dialect, one of orchestration, codex, trigger, ssh, trigger-rest"),
        ("serve --dialect latin", "invalid choice: 'latin'"),
        ("serve --dialect codex", "name a directory to remember jobs in with --state-dir"),
        ("serve --dialect codex --state-dir s --root nowhere", "--root `nowhere` is no directory"),
        (
            "serve --dialect codex --state-dir s --max-running 0",
            "argument --max-running: `0` is no whole number from 1 to 100000",
        ),
        ("serve --dialect codex --state-dir s --queue -1", "--queue"),
        (
            "serve --dialect codex --state-dir s --grace nan",
            "argument --grace: `nan` is no number of seconds from 0 to 604800",
        ),
        ("serve --dialect codex --state-dir s --job-timeout never", "`never` is no number of seconds"),
        ("serve --dialect codex --state-dir s --servers f", "--servers is an option of --dialect ssh"),
        ("serve --dialect ssh --state-dir s --agent-async", "--agent-async is an option of --dialect codex"),
        ("serve --dialect trigger-rest --state-dir s", "say where with --listen HOST:PORT"),
        ("serve --dialect codex --state-dir s --listen nowhere", "give it as HOST:PORT, e.g. 127.0.0.1:8080"),
        ("serve --dialect codex --state-dir s --listen 127.0.0.1:99999", "give it as HOST:PORT"),
        ("serve --dialect codex --state-dir s --dial x", "unrecognized arguments"),
    ],
)
def test_a_bad_option_is_one_line_and_64(
    options: str, words: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    status, err = refused(options.split(), capsys)
    assert status == 64
    assert words in err
    assert os.listdir(tmp_path) == []


def test_a_state_directory_that_cannot_be_used_is_73(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    for state in (tmp_path / "file", tmp_path / "file" / "inner"):
        status, err = refused(["serve", "--dialect", "codex", "--state-dir", str(state)], capsys)
        assert (status, "cannot use state directory" in err) == (73, True)


def test_a_state_directory_that_others_can_write_is_warned_of(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    state.chmod(0o777)
    command = [sys.executable, "-m", "intercept_py", "jobs", "serve", "--dialect", "codex", "--state-dir", str(state)]
    result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=ROOT, check=True)
    assert result.stderr == f"intercept-py jobs: warning: `{state}` can be written by others: chmod go-w it\n"


def test_an_address_that_is_taken_is_73(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        options = ["serve", "--dialect", "codex", "--state-dir", str(tmp_path / "state"), "--listen", address]
        status, err = refused(options, capsys)
    assert (status, f"cannot listen on `{address}`: " in err) == (73, True)


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0"])
def test_to_listen_for_other_machines_is_64_unless_it_is_asked_for(
    address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["serve", "--dialect", "codex", "--state-dir", str(tmp_path / "state"), "--listen", address]
    status, err = refused(argv, capsys)
    assert status == 64
    assert f"--listen `{address}` is open to other machines" in err
    assert "add --insecure-listen" in err
    assert os.listdir(tmp_path) == []
    command = [sys.executable, "-m", "intercept_py", "jobs", *argv, "--insecure-listen"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stderr is not None
        assert "warning: nobody is asked who he is" in process.stderr.readline()
        assert "listening on http://" in process.stderr.readline()
        process.terminate()


@pytest.mark.parametrize("command", ["serve --dialect codex --state-dir s", "worker"])
def test_a_redis_that_is_named_elsewhere_is_64_if_it_is_not_there(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").write_text("\n")
    monkeypatch.delenv("NO_SUCH_REDIS", raising=False)
    for value, words in (
        ("env:NO_SUCH_REDIS", "the environment variable `NO_SUCH_REDIS` is not set"),
        ("@empty", "`empty` must hold one line"),
        ("@nowhere", "cannot read `nowhere`: no such file or directory"),
    ):
        with pytest.raises(SystemExit) as ended:
            sys.exit(jobs.main([*command.split(), "--redis", value]))
        err = capsys.readouterr().err
        assert (ended.value.code, err.count("\n"), words in err) == (64, 1, True)


@pytest.mark.parametrize("command", ["serve --dialect codex --state-dir s", "worker"])
@pytest.mark.parametrize("named", [URL, "env:JOBS_REDIS", "@redis"])
def test_the_redis_can_be_named_without_its_password_in_the_command_line(
    command: str, named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JOBS_REDIS", URL)
    (tmp_path / "redis").write_text(f"{URL}\n")
    status, err = refused([*command.split(), "--redis", named], capsys)
    assert (status, "127.0.0.1:9" in err, "secret" in err) == (73, True, False)


def test_the_command_is_listed_and_explained() -> None:
    for arguments, words in (("--help", "\n  jobs "), ("jobs --help", "--dialect NAME")):
        command = [sys.executable, "-m", "intercept_py", *arguments.split()]
        result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
        assert words in result.stdout
