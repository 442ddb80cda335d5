"""The file of hashed tokens, as the command writes it and the proxy reads it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from intercept_py.identity import IdentityError, tokens
from intercept_py.identity.faults import TokenError
from intercept_py.identity.tokens import TokenFile
from intercept_py.model import Caller

if TYPE_CHECKING:
    from tests.identity.conftest import Log
    from tests.support.issuer import Clock

WHEN = datetime(2027, 1, 15, tzinfo=UTC)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "made" / "tokens.json")


def add(path: str, name: str = "ci", *scopes: str, expires: datetime | None = None) -> str:
    return tokens.add(path, name, scopes, WHEN, expires)


def why(file: TokenFile, token: str) -> str:
    with pytest.raises(TokenError) as caught:
        file.caller(token)
    return caught.value.reason


def test_a_token_is_known_by_its_hash_which_is_all_that_is_kept(path: str, log: Log) -> None:
    token = add(path, "ci", "runs:read", "runs:write", "runs:read")
    assert TokenFile(path, log).caller(token) == Caller(principal="ci", scopes=("runs:read", "runs:write"))
    kept = Path(path).read_text()
    assert token not in kept
    assert token[4:-8] not in kept
    assert Path(path).stat().st_mode & 0o777 == 0o600
    assert Path(path).parent.stat().st_mode & 0o777 == 0o700
    assert os.listdir(Path(path).parent) == ["tokens.json"]


def test_tokens_carry_256_random_bits(path: str) -> None:
    first, second = add(path, "a"), add(path, "b")
    assert len(first) == len("ipt_") + 64 + 8
    assert int(first[4:68], 16) != int(second[4:68], 16)


def test_another_token_with_a_good_checksum_is_not_known(path: str, tmp_path: Path, log: Log) -> None:
    add(path)
    foreign = add(str(tmp_path / "other.json"))
    assert why(TokenFile(path, log), foreign) == "the token is not in the token file"


def test_a_mistyped_token_is_told_by_its_checksum(path: str, log: Log) -> None:
    token = add(path)
    file = TokenFile(path, log)
    for wrong in (token[:-1], token + "0", token.upper(), token[:10] + ("0" if token[10] != "0" else "1") + token[11:]):
        assert "checksum" in why(file, wrong)


def test_a_revoked_token_is_refused_at_once_and_a_new_one_known(path: str, log: Log) -> None:
    old = add(path)
    file = TokenFile(path, log)
    assert file.caller(old).principal == "ci"
    tokens.revoke(path, "ci")
    assert why(file, old) == "the token is not in the token file"
    new = add(path)
    assert file.caller(new).principal == "ci"
    assert why(file, old) == "the token is not in the token file"
    assert log == []


def test_a_token_is_good_until_it_expires(path: str, log: Log, clock: Clock) -> None:
    token = add(path, expires=WHEN + timedelta(days=1))
    file = TokenFile(path, log, clock)
    clock.now = (WHEN + timedelta(days=1)).timestamp() - 1
    assert file.caller(token).principal == "ci"
    clock.now += 1
    assert why(file, token) == "the token `ci` has expired"


@pytest.mark.parametrize("break_it", ["remove", "garble"])
def test_nobody_is_let_in_by_a_file_that_is_gone_or_broken_until_it_is_repaired(
    path: str, log: Log, break_it: str
) -> None:
    token = add(path)
    file = TokenFile(path, log)
    good = Path(path).read_bytes()
    if break_it == "remove":
        Path(path).unlink()
    else:
        Path(path).write_bytes(good[:-10])
    for _ in range(3):
        assert why(file, token) == "the token is not in the token file"
    ((level, line),) = log
    assert level == "error"
    assert f"`{path}`" in line
    assert "nobody is let in by it" in line
    Path(path).write_bytes(good)
    assert file.caller(token).principal == "ci"


def test_a_file_that_cannot_be_used_is_told_before_anybody_is_let_in(path: str, log: Log) -> None:
    with pytest.raises(IdentityError, match=r"cannot read the token file `.*`: no such file or directory"):
        TokenFile(path, log)


def entry(**more: Any) -> dict[str, Any]:
    return {"name": "a", "sha256": "0" * 64, "created": "2027-01-15T00:00:00Z", **more}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "it is not JSON in UTF-8"),
        (b'{"version":1,"tokens":[],"tokens":[]}', "it has an object with a duplicate key"),
        ([], "Expected `object`"),
        ({"version": 2, "tokens": []}, "$.version"),
        ({"version": 1}, "missing required field `tokens`"),
        ({"version": 1, "tokens": [entry(scope="x")]}, "unknown field `scope`"),
        ({"version": 1, "tokens": [entry(sha256="0" * 64 + "\n")]}, "$.tokens[0].sha256"),
        ({"version": 1, "tokens": [entry(sha256="A" * 64)]}, "$.tokens[0].sha256"),
        ({"version": 1, "tokens": [entry(created="2027-01-15T00:00:00")]}, "$.tokens[0].created"),
        ({"version": 1, "tokens": [entry(scopes=["a b"])]}, "a scope has 1 to 256 visible ASCII characters"),
        ({"version": 1, "tokens": [entry(name="https://a#b")]}, "a token with a bad name"),
        ({"version": 1, "tokens": [entry(name="a\n")]}, "a token with a bad name"),
        ({"version": 1, "tokens": [entry(), entry(name="b")]}, "the same name or the same hash"),
        ({"version": 1, "tokens": [entry(), entry(sha256="1" * 64)]}, "the same name or the same hash"),
        (b" " * (1024 * 1024 + 1), "more than 1048576 bytes"),
    ],
)
def test_a_file_is_read_strictly(tmp_path: Path, content: Any, words: str) -> None:
    path = tmp_path / "tokens.json"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    with pytest.raises(IdentityError) as caught:
        tokens.read(str(path))
    assert words in str(caught.value)
    assert str(caught.value).isprintable()


def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path, words in ((fifo, "not a regular file"), (tmp_path, "is a directory")):
        with pytest.raises(IdentityError, match=words):
            tokens.read(str(path))


@pytest.mark.parametrize("name", ["", "a b", "a/b", "a:b", "a#b", "-a", "é", "a" * 65, "a\n"])
def test_names_that_could_be_taken_for_something_else_are_refused(path: str, name: str) -> None:
    with pytest.raises(IdentityError, match="cannot have this name"):
        add(path, name)
    assert not os.path.exists(path)


def test_a_name_is_used_once_and_only_a_known_one_is_revoked(path: str) -> None:
    add(path)
    with pytest.raises(IdentityError, match="has a token `ci` already"):
        add(path)
    with pytest.raises(IdentityError, match="has no token of that name; it has `ci`"):
        tokens.revoke(path, "other")
    assert [one.name for one in tokens.read(path)] == ["ci"]


def test_a_symbolic_link_stays_one(path: str, tmp_path: Path, log: Log) -> None:
    add(path)
    link = tmp_path / "link.json"
    link.symlink_to(path)
    token = add(str(link), "other")
    assert link.is_symlink()
    assert TokenFile(path, log).caller(token).principal == "other"


def test_commands_at_the_same_time_lose_no_token_and_no_reader_sees_half_a_file(path: str, log: Log) -> None:
    add(path, "first")
    file = TokenFile(path, log)
    code = (
        "import sys; from datetime import datetime, UTC; from intercept_py.identity import tokens\n"
        "for number in range(10): tokens.add(sys.argv[1], f'{sys.argv[2]}-{number}', (), datetime.now(UTC), None)"
    )
    adders = [subprocess.Popen([sys.executable, "-c", code, path, str(number)]) for number in range(4)]
    while any(adder.poll() is None for adder in adders):
        assert any(one.name == "first" for one in tokens.read(path))
        why(file, "ipt_")
    assert [adder.returncode for adder in adders] == [0] * 4
    names = {f"{one}-{other}" for one in range(4) for other in range(10)}
    assert {one.name for one in tokens.read(path)} == names | {"first"}
    assert log == []


def test_who_else_may_write_the_file_is_told(path: str, log: Log) -> None:
    add(path)
    assert TokenFile(path, log).warnings() == []
    Path(path).chmod(0o666)
    assert "may be written by other users" in TokenFile(path, log).warnings()[0]
