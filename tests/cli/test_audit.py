from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from intercept_py.audit.chain import encode
from intercept_py.audit.log import AuditLog
from intercept_py.cli import audit, render_audit
from intercept_py.cli.audit import Checked


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "audit.jsonl"
    log = AuditLog.open(str(path), lambda: 1767225600.0)
    for second, effect in enumerate(("allow", "deny", "allow")):
        log.append(encode({"ts": f"2026-01-01T00:00:0{second}.000000Z", "event": "decision", "effect": effect}))
    log.append(encode({"ts": "2026-01-01T00:00:03.000000Z", "event": "outcome", "outcome": "ok"}))
    log.close()
    return path


def remove_line(path: Path, number: int) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[: number - 1] + lines[number:]))


def report(capsys: pytest.CaptureFixture[str], *argv: str) -> dict[str, Any]:
    audit.main(["verify", "--json", *argv])
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def test_a_sound_file_exits_0_and_says_what_it_holds(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert audit.main(["verify", str(path)]) == 0
    out = capsys.readouterr().out
    assert f"{path}: ok: 4 records, none changed, removed, inserted or moved" in out
    assert "decisions: 2 allowed, 1 denied; outcomes: 1" in out
    assert "from 2026-01-01T00:00:00.000000Z to 2026-01-01T00:00:03.000000Z" in out
    assert "head" not in out


def test_a_fault_exits_1_and_names_file_line_and_kind(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    remove_line(path, 2)
    assert audit.main(["verify", str(path)]) == 1
    out = capsys.readouterr().out
    assert "NOT SOUND: 1 fault in 3 records" in out
    assert f"{path}:2: removed: record 2 is missing before this line" in out


def test_records_missing_at_the_end_are_a_fault(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    remove_line(path, 4)
    remove_line(path, 3)
    assert audit.main(["verify", str(path)]) == 1
    assert f"{path}:3: removed: 2 records were removed from the end" in capsys.readouterr().out


def test_without_a_head_file_the_summary_says_that_the_end_is_unchecked(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(f"{path}.head").unlink()
    remove_line(path, 4)
    assert audit.main(["verify", str(path)]) == 0
    assert "it could not be checked whether records are missing at the end" in capsys.readouterr().out
    assert report(capsys, str(path))["files"][0]["head"] == "absent"


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda path: None, "no such file or directory"),
        (Path.mkdir, "is a directory"),
        (os.mkfifo, "it is not a regular file"),
    ],
)
def test_what_cannot_be_read_exits_66_and_never_hangs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], make: Callable[[Path], None], problem: str
) -> None:
    make(tmp_path / "x")
    assert audit.main(["verify", str(tmp_path / "x")]) == 66
    assert capsys.readouterr().out == f"{tmp_path / 'x'}: not verified: {problem}\n"


@pytest.mark.parametrize("argv", [[], ["verify"], ["check", "x"], ["verify", "--jso", "x"], ["verify", "--bad", "x"]])
def test_a_wrong_command_line_exits_64(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        audit.main(argv)
    assert exit_.value.code == 64
    assert capsys.readouterr().err.count("\n") == 1


def test_faults_in_one_of_several_files_outweigh_a_missing_one(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = path.with_name("other.jsonl")
    other.write_bytes(path.read_bytes())
    remove_line(other, 1)
    missing = path.with_name("missing.jsonl")
    assert audit.main(["verify", str(path), str(missing)]) == 66
    assert audit.main(["verify", str(path), str(missing), str(other)]) == 1
    capsys.readouterr()
    files = report(capsys, str(path), str(missing), str(other))
    assert files["ok"] is False
    assert [one["ok"] for one in files["files"]] == [True, False, False]


def test_json_holds_everything(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    assert report(capsys, str(path)) == {
        "ok": True,
        "files": [
            {
                "file": str(path),
                "ok": True,
                "problem": None,
                "records": 4,
                "allowed": 2,
                "denied": 1,
                "outcomes": 1,
                "first_ts": "2026-01-01T00:00:00.000000Z",
                "last_ts": "2026-01-01T00:00:03.000000Z",
                "first_hash": lines[0]["hash"],
                "last_hash": lines[-1]["hash"],
                "head": "matches",
                "continues": [],
                "faults": [],
                "fault_count": 0,
            }
        ],
    }


def test_a_file_name_that_is_no_utf_8_can_be_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = os.fsdecode(os.fsencode(tmp_path) + b"/\xff")
    assert report(capsys, name)["files"][0]["file"] == f"{tmp_path}/\ufffd"
    audit.main(["verify", name])
    assert "\\udcff: not verified" in capsys.readouterr().out


def test_text_from_a_file_cannot_command_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "audit.jsonl"
    log = AuditLog.open(str(path), lambda: 0.0)
    log.append(encode({"ts": "\x1b[2J\u202e\n", "event": "rotated", "continues": "\x1b]0;x\x07"}))
    log.close()
    audit.main(["verify", str(path)])
    out = capsys.readouterr().out
    show(path)
    for text in (out, show(path)):
        assert "\x1b" not in text
        assert "\u202e" not in text
        assert "\\x1b[2J\\u202e\\n" in text


def test_a_file_that_is_being_written_is_verified_as_far_as_it_was_when_it_was_opened(path: Path) -> None:
    log = AuditLog.open(str(path), lambda: 1767225600.0)
    log.append(encode({"ts": "t", "event": "stop"}))
    log.flush()
    assert audit.main(["verify", "--json", str(path)]) == 0
    log.close()


def test_the_terminal_shows_the_verdict_and_every_fault(path: Path) -> None:
    assert "✓" in show(path)
    remove_line(path, 2)
    text = show(path)
    assert "✗" in text
    assert "removed" in text
    assert "record 2 is missing before this line" in text
    assert "not verified: gone" in show_one(Checked("x", problem="gone"))


def test_faults_that_are_not_listed_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"\n" * 1500)
    audit.main(["verify", str(path)])
    assert "500 more faults are not listed" in capsys.readouterr().out
    assert "500 more faults are not listed" in show(path)


def show(path: Path) -> str:
    return show_one(audit.check(str(path)))


def show_one(checked: Checked) -> str:
    console = Console(file=io.StringIO(), width=200, highlight=False)
    render_audit.print_checked([checked], console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()
