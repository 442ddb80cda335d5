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
        ("serve --dialect codex --state-dir s --max-running 0", "invalid count value: '0'"),
        ("serve --dialect codex --state-dir s --queue -1", "--queue"),
        ("serve --dialect codex --state-dir s --grace nan", "invalid seconds value: 'nan'"),
        ("serve --dialect codex --state-dir s --job-timeout never", "invalid seconds value: 'never'"),
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


def test_an_address_that_is_taken_is_73(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        options = ["serve", "--dialect", "codex", "--state-dir", str(tmp_path / "state"), "--listen", address]
        status, err = refused(options, capsys)
    assert (status, f"cannot listen on `{address}`: " in err) == (73, True)


def test_the_command_is_listed_and_explained() -> None:
    for arguments, words in (("--help", "\n  jobs "), ("jobs --help", "--dialect NAME")):
        command = [sys.executable, "-m", "intercept_py", *arguments.split()]
        result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
        assert words in result.stdout
