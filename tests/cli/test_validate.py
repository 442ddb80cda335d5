"""`intercept-py validate`: all problems at once, one line each, whatever a path turns out to be."""

from __future__ import annotations

import json
import os
import pty
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from intercept_py.cli import schema, validate

ROOT = Path(__file__).resolve().parents[2]
GOOD = "default: deny\ntools:\n  a: {rules: [{action: allow, rate_limit: {max: 1, window: 60}}]}\n  '*': {}\n"
BAD = "defualt: deny\ntools:\n  a: {rules: [{action: alow}]}\n"


@pytest.fixture
def good(tmp_path: Path) -> str:
    path = tmp_path / "good.yaml"
    path.write_text(GOOD)
    return str(path)


@pytest.fixture
def bad(tmp_path: Path) -> str:
    path = tmp_path / "bad.yaml"
    path.write_text(BAD)
    return str(path)


def test_a_good_file_gets_one_line_that_says_how_much_it_governs(good: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert validate.main([good]) == 0
    assert capsys.readouterr() == (f"{good}: ok, 1 tool, 1 rule, 1 limit, unlisted tools denied\n", "")


def test_every_problem_of_every_file_is_reported_with_its_position(
    good: str, bad: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert validate.main([bad, good, bad]) == 1
    lines = capsys.readouterr().out.splitlines()
    problems = [
        f"{bad}:1:1: $.defualt: unknown field `defualt`: did you mean `default`?",
        f"{bad}:3:24: $.tools.a.rules[0].action: ",
    ]
    assert len(lines) == 5
    for found, expected in zip(lines, [*problems, f"{good}: ok", *problems], strict=True):
        assert found.startswith(expected)


def test_the_published_spelling_of_the_argument_is_accepted(good: str, bad: str) -> None:
    assert validate.main(["-c", good]) == 0
    assert validate.main(["--config", good, good]) == 0
    assert validate.main(["-c", good, "-c", bad]) == 1


def test_programs_get_a_report_with_the_same_content(good: str, bad: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert validate.main(["--json", good, bad]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is False
    first, second = report["files"]
    assert first == {
        "ok": True,
        "file": good,
        "problems": [],
        "tools": 1,
        "rules": 1,
        "limits": 1,
        "default": "deny",
        "mode": "enforce",
    }
    assert second["ok"] is False
    assert [(problem["line"], problem["column"], problem["path"]) for problem in second["problems"]] == [
        (1, 1, "$.defualt"),
        (3, 24, "$.tools.a.rules[0].action"),
    ]


class TestWhateverAPathIs:
    """Each gives one line that says what is wrong, and never a traceback or a wait."""

    def check(self, path: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert validate.main([path]) == 1
        out, err = capsys.readouterr()
        assert err == ""
        assert out.endswith("\n")
        (line,) = out.splitlines()
        assert words in line

    def test_missing(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.check(str(tmp_path / "none.yaml"), "none.yaml:1:1: $: cannot read the policy: No such file", capsys)

    def test_a_directory(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.check(str(tmp_path), "it is a directory", capsys)

    def test_a_link_to_nothing(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "link").symlink_to("nowhere")
        self.check(str(tmp_path / "link"), "No such file", capsys)

    def test_a_fifo_that_nobody_writes_to(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        os.mkfifo(tmp_path / "fifo")
        self.check(str(tmp_path / "fifo"), "not a regular file", capsys)

    def test_a_device(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.check("/dev/zero", "not a regular file", capsys)

    def test_an_empty_file(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "p.yaml").touch()
        self.check(str(tmp_path / "p.yaml"), "the file holds no policy", capsys)

    def test_a_binary_file(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        (tmp_path / "p.yaml").write_bytes(b"\x7fELF\x02\x01\x01\0\0")
        self.check(str(tmp_path / "p.yaml"), "NUL", capsys)

    def test_50_megabytes(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = tmp_path / "p.yaml"
        with path.open("wb") as file:
            file.truncate(50_000_000)
        self.check(str(path), "50000000 bytes", capsys)

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
    def test_a_file_that_may_not_be_read(self, good: str, capsys: pytest.CaptureFixture[str]) -> None:
        os.chmod(good, stat.S_IWUSR)
        self.check(good, "Permission denied", capsys)

    def test_a_name_that_would_act_on_the_terminal(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = tmp_path / "\x1b[2Jp\n\u202e.yaml"
        path.write_text(GOOD)
        assert validate.main([str(path)]) == 0
        assert "\\x1b[2Jp\\n\\u202e.yaml: ok" in capsys.readouterr().out

    def test_a_name_that_is_no_text(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.check(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.yaml"), "\\udcff.yaml", capsys)


@pytest.mark.parametrize("arguments", [[], ["--jsno", "p.yaml"], ["-c"]])
def test_a_usage_error_is_one_line_and_exits_64(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        validate.main(arguments)
    assert exit_.value.code == 64
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("intercept-py validate: ")
    assert err.count("\n") == 1


def test_on_a_terminal_the_same_lines_are_in_colour(good: str, bad: str) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "intercept_py", "validate", good, bad]
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "80"}
    with subprocess.Popen(command, stdout=theirs, stdin=theirs, env=environment) as process:
        os.close(theirs)
        output = b""
        while chunk := _read(ours):
            output += chunk
    os.close(ours)
    assert process.returncode == 1
    assert b"\x1b[32m\xe2\x9c\x93" in output
    assert b"did you mean `default`?" in output
    assert b"2 problems in 1 of 2 files" in output


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # how Linux says that nobody holds the other end any more
        return b""


def test_the_schema_is_printed_as_one_json_document(capsys: pytest.CaptureFixture[str]) -> None:
    assert schema.main([]) == 0
    assert json.loads(capsys.readouterr().out)["$schema"] == "https://json-schema.org/draft/2020-12/schema"
