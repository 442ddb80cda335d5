"""`intercept-py tokens` in processes of its own."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from intercept_py.identity.tokens import TokenFile


class Done(NamedTuple):
    code: int
    out: str
    err: str


def run(*arguments: str) -> Done:
    command = [sys.executable, "-m", "intercept_py", "tokens", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def file(tmp_path: Path) -> str:
    return str(tmp_path / "tokens.json")


def test_a_token_is_printed_alone_and_once(file: str) -> None:
    added = run("add", "ci", "--scope", "runs:read", "--scope", "runs:write", "--expires", "90d", "--file", file)
    assert added.code == 0
    assert re.fullmatch(r"ipt_[0-9a-f]{72}\n", added.out)
    assert "`ci`, good until 2" in added.err
    assert added.out.strip() not in added.err
    token = added.out.strip()
    caller = TokenFile(file, lambda level, line: None).caller(token)
    assert (caller.principal, caller.scopes) == ("ci", ("runs:read", "runs:write"))
    for listed in (run("list", "--file", file), run("list", "--json", "--file", file)):
        assert listed.code == 0
        assert token not in listed.out
        assert not re.search("[0-9a-f]{32}", listed.out)


def test_what_is_listed(file: str) -> None:
    run("add", "zoe", "--file", file)
    run("add", "ci", "--scope", "a", "--expires", "1d", "--file", file)
    first, second = run("list", "--file", file).out.splitlines()
    assert re.fullmatch(r"ci: valid, scopes a, created \S+, expires \S+ \d\d:\d\d UTC", first)
    assert re.fullmatch(r"zoe: valid, scopes none, created \S+, expires never", second)
    ci, zoe = json.loads(run("list", "--json", "--file", file).out)["tokens"]
    assert (ci["name"], ci["scopes"], ci["expired"]) == ("ci", ["a"], False)
    assert (zoe["name"], zoe["scopes"], zoe["expires"]) == ("zoe", [], None)
    assert set(ci) == {"name", "scopes", "created", "expires", "expired"}


def test_an_expired_token_is_told(file: str) -> None:
    run("add", "ci", "--expires", "1s", "--file", file)
    document = json.loads(Path(file).read_text())
    document["tokens"][0]["expires"] = "2020-01-01T00:00:00Z"
    Path(file).write_text(json.dumps(document))
    assert run("list", "--file", file).out.startswith("ci: expired, ")
    assert json.loads(run("list", "--json", "--file", file).out)["tokens"][0]["expired"] is True


def test_a_revoked_token_is_gone(file: str) -> None:
    run("add", "ci", "--file", file)
    assert run("revoke", "ci", "--file", file) == Done(0, "revoked `ci`: its token is refused from now on\n", "")
    assert run("list", "--file", file).out == ""
    gone = run("revoke", "ci", "--file", file)
    assert (gone.code, gone.out) == (73, "")
    assert gone.err == f"intercept-py tokens: the token file `{file}` has no token of that name; it has none\n"


def test_on_a_terminal_there_is_a_table(file: str) -> None:
    run("add", "ci", "--scope", "a", "--file", file)
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "intercept_py", "tokens", "list", "--file", file]
    done = subprocess.run(command, stdout=theirs, timeout=30, check=False)
    os.close(theirs)
    shown = b""
    while chunk := _read(ours):
        shown += chunk
    os.close(ours)
    text = re.sub(r"\x1b\[[0-9;]*m", "", shown.decode())
    assert done.returncode == 0
    assert re.search(r"name +scopes +created +expires +state", text)
    assert re.search(r"ci +a +\S+ +never +valid", text)


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, 65_536)
    except OSError:  # Linux says so where the other end is closed
        return b""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["add", "--file", "f"], "`add` whose token? name it"),
        (["revoke", "--file", "f"], "`revoke` whose token? name it"),
        (["list", "ci", "--file", "f"], "`list` takes no name"),
        (["add", "ci"], "required: --file"),
        (["add", "ci", "--json", "--file", "f"], "--json is for `tokens list`"),
        (["list", "--scope", "a", "--file", "f"], "--scope and --expires are for `tokens add`"),
        (["revoke", "ci", "--expires", "1d", "--file", "f"], "--scope and --expires are for `tokens add`"),
        (["add", "ci", "--expires", "soon", "--file", "f"], "`soon` is no span: write 90d, 12h, 30m or 45s"),
        (["add", "ci", "--expires", "0d", "--file", "f"], "`0d` is no span"),
        (["add", "ci", "--expires", "3651d", "--file", "f"], "at most 3650d"),
        (["rotate", "ci", "--file", "f"], "invalid choice"),
        (["add", "a/b", "--file", "f"], "a token cannot have this name"),
        (["add", "ci", "--scope", "a b", "--file", "f"], "a scope has 1 to 256 visible ASCII characters"),
    ],
)
def test_wrong_usage_is_one_line(arguments: list[str], words: str, tmp_path: Path) -> None:
    done = run(*[str(tmp_path / "f") if one == "f" else one for one in arguments])
    assert (done.code, done.out) == (64, "")
    assert words in done.err
    assert done.err.count("\n") == 1
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["list"], "no such file or directory"),
        (["revoke", "ci"], "has no token of that name"),
    ],
)
def test_what_cannot_be_done_is_one_line(arguments: list[str], words: str, file: str) -> None:
    done = run(*arguments, "--file", file)
    assert (done.code, done.out) == (73, "")
    assert words in done.err
    assert done.err.count("\n") == 1
    assert not os.path.exists(file)


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    done = run("add", "ci", "--file", str(tmp_path / "taken" / "tokens.json"))
    assert (done.code, done.out) == (73, "")
    assert "not a directory" in done.err
    assert done.err.count("\n") == 1
