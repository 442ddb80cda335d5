"""An issuer's keys as it rotates them: over real HTTP and from a file."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from jwt.algorithms import ECAlgorithm

from intercept_py.identity.faults import IdentityError
from intercept_py.identity.keys import NO_KEYS, KeyFile, RemoteKeys, parse_keys
from tests.support.issuer import SigningKey

if TYPE_CHECKING:
    from tests.identity.conftest import Log
    from tests.support.issuer import Clock, Issuer

pytestmark = pytest.mark.anyio


@pytest.fixture
async def keys(issuer: Issuer, log: Log, timer: Clock) -> AsyncIterator[RemoteKeys]:
    remote = RemoteKeys(issuer.jwks_url, log, timer)
    yield remote
    await remote.close()


async def known(keys: RemoteKeys, kid: str) -> bool:
    return await keys.find(kid, "ES256") is not None


async def settled(keys: RemoteKeys) -> None:
    """Wait for the fetch that is under way: who asks for a key that is not known does."""
    assert not await known(keys, "nobody's")


# -- rotation ----------------------------------------------------------------------------------------------------------


async def test_a_new_key_is_found_when_a_token_names_it(keys: RemoteKeys, issuer: Issuer, timer: Clock) -> None:
    assert await known(keys, "one")
    issuer.keys.append(SigningKey("two"))
    timer.now += RemoteKeys.PAUSE
    assert await known(keys, "two")
    assert await known(keys, "one")
    assert len(issuer.seen) == 2


async def test_unknown_keys_cause_no_more_than_one_fetch_in_a_while(
    keys: RemoteKeys, issuer: Issuer, timer: Clock
) -> None:
    assert await known(keys, "one")
    for number in range(50):
        assert not await known(keys, f"invented-{number}")
    assert len(issuer.seen) == 1
    timer.now += RemoteKeys.PAUSE
    for number in range(50):
        assert not await known(keys, f"invented-{number}")
    assert len(issuer.seen) == 2


async def test_all_who_need_keys_at_once_wait_for_one_fetch(keys: RemoteKeys, issuer: Issuer) -> None:
    issuer.go.clear()
    asking = [asyncio.ensure_future(known(keys, "one")) for _ in range(20)]
    hangs_up = asyncio.ensure_future(known(keys, "one"))
    await asyncio.sleep(0)
    hangs_up.cancel()
    await asyncio.wait([hangs_up])
    issuer.go.set()
    assert await asyncio.gather(*asking) == [True] * 20
    assert len(issuer.seen) == 1


async def test_known_keys_are_used_while_newer_ones_are_fetched(keys: RemoteKeys, issuer: Issuer, timer: Clock) -> None:
    assert await known(keys, "one")
    issuer.keys = [SigningKey("two")]
    issuer.go.clear()
    timer.now += RemoteKeys.FRESH + 1
    async with asyncio.timeout(5):  # the issuer does not answer, and nobody waits for it
        assert await known(keys, "one")
    issuer.go.set()
    await settled(keys)
    assert not await known(keys, "one")
    assert await known(keys, "two")
    assert len(issuer.seen) == 2


async def test_a_set_that_has_not_changed_is_the_same_object(keys: RemoteKeys, issuer: Issuer, timer: Clock) -> None:
    assert await known(keys, "one")
    before = keys.current()
    timer.now += RemoteKeys.FRESH + 1
    keys.current()
    await settled(keys)
    assert len(issuer.seen) == 2
    assert keys.current() is before


# -- an issuer that is away, or up to no good --------------------------------------------------------------------------


async def test_old_keys_stay_in_use_while_the_issuer_is_away_but_not_for_ever(
    keys: RemoteKeys, issuer: Issuer, timer: Clock, log: Log
) -> None:
    assert await known(keys, "one")
    issuer.answers["/jwks"] = (503, {}, b"")
    timer.now += RemoteKeys.OLDEST
    assert await known(keys, "one")
    await settled(keys)
    assert log == [("warn", f"the keys at `{issuer.jwks_url}` could not be had: the answer has status 503")]
    timer.now += 1
    assert not await known(keys, "one")
    assert keys.current() is NO_KEYS
    del issuer.answers["/jwks"]
    timer.now += RemoteKeys.PAUSE
    assert await known(keys, "one")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((302, {"Location": "/other"}, b""), "the answer has status 302"),
        ((200, {}, b"[]"), "it is no JWK set"),
        ((200, {}, b"{"), "it is not JSON in UTF-8"),
        ((200, {}, b'{"keys":[],"keys":[]}'), "duplicate key"),
        ((200, {}, b'{"keys":[]}'), "no public key that could verify"),
        ((200, {}, b" " * (1024 * 1024 + 1)), "more than 1048576 bytes"),
        ((200, {"Content-Length": "99"}, b"{}"), "the answer is cut short"),
        ((200, {"Transfer-Encoding": "chunked"}, b"5\r\n{}"), "the answer is no HTTP (IncompleteRead)"),
        ((200, {"Content-Length": "0", "Content-Encoding": "gzip"}, b""), "it is not JSON in UTF-8"),
    ],
)
async def test_an_answer_that_is_no_key_set_changes_nothing(
    keys: RemoteKeys, issuer: Issuer, timer: Clock, log: Log, answer: Any, words: str
) -> None:
    assert await known(keys, "one")
    issuer.answers["/jwks"] = answer
    issuer.answers["/other"] = (200, {}, issuer.jwks())
    timer.now += RemoteKeys.PAUSE
    assert not await known(keys, "two")
    assert await known(keys, "one")
    ((level, line),) = log
    assert level == "warn"
    assert words in line
    assert [seen.path for seen in issuer.seen] == ["/jwks", "/jwks"]


async def test_an_issuer_that_does_not_answer_is_not_waited_for_long(
    issuer: Issuer, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("intercept_py.identity.fetch.SECONDS", 0.2)
    keys = RemoteKeys(issuer.jwks_url, log)
    issuer.go.clear()
    before = threading.active_count()
    async with asyncio.timeout(10):
        assert not await known(keys, "one")
    assert "no complete answer within 0.2 s" in log[0][1]
    async with asyncio.timeout(10):  # nor does our thread wait for it: only the issuer's own is left
        while threading.active_count() > before + 1:
            await asyncio.sleep(0.01)


async def test_nobody_there_is_told_in_a_line(log: Log, issuer: Issuer) -> None:
    keys = RemoteKeys("http://127.0.0.1:1/jwks", log)
    assert not await known(keys, "one")
    assert log == [("warn", "the keys at `http://127.0.0.1:1/jwks` could not be had: connection refused")]


async def test_closing_while_keys_are_fetched_leaves_nothing_behind(keys: RemoteKeys, issuer: Issuer, log: Log) -> None:
    issuer.go.clear()
    asking = asyncio.ensure_future(known(keys, "one"))
    await asyncio.sleep(0)
    await keys.close()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert log == []


# -- what a set may hold -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"use": "enc"},
        {"key_ops": ["sign"]},
        {"key_ops": "verify"},
        {"alg": "ES384"},
        {"alg": "none"},
        {"alg": 7},
        {"kid": 7},
        {"kty": "oct"},
        {"kty": "RSA"},
        {"kty": ["EC"]},
        {"crv": "secp256k1"},
        {"crv": ["P-256"]},
        {"crv": None},
        {"x": "AAAA"},
        {"x": 7},
        {"d": "AAAA"},
    ],
)
def test_keys_that_must_not_verify_tokens_are_passed_over(change: dict[str, Any]) -> None:
    good, bad = SigningKey("good"), SigningKey("bad")
    found = parse_keys(json.dumps({"keys": [7, {**bad.jwk, **change}, good.jwk]}).encode())
    assert {kid for kid, _, _ in found.uses} == {"good"}


def test_short_rsa_keys_are_passed_over() -> None:
    short, good = SigningKey("short", "RSA-1024"), SigningKey("good", "RSA-2048")
    found = parse_keys(json.dumps({"keys": [short.jwk, good.jwk]}).encode())
    assert {kid for kid, _, _ in found.uses} == {"good"}
    assert {alg for _, alg, _ in found.uses} == {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}


def test_a_private_key_is_nobody_elses_to_have() -> None:
    private, good = SigningKey("private"), SigningKey("good")
    jwk = {**private.jwk, "d": ECAlgorithm.to_jwk(private.private, as_dict=True)["d"]}
    found = parse_keys(json.dumps({"keys": [jwk, good.jwk]}).encode())
    assert {kid for kid, _, _ in found.uses} == {"good"}


def test_a_set_has_a_bound() -> None:
    with pytest.raises(ValueError, match="at most 100 keys"):
        parse_keys(json.dumps({"keys": [SigningKey("k").jwk] * 101}).encode())


def test_two_keys_of_one_name_are_none() -> None:
    found = parse_keys(json.dumps({"keys": [SigningKey("k").jwk, SigningKey("k").jwk]}).encode())
    assert found.find("k", "ES256") is None


# -- from a file -------------------------------------------------------------------------------------------------------


async def test_a_key_file_that_is_replaced_is_read_again(tmp_path: Path, log: Log) -> None:
    path, other = tmp_path / "keys.json", tmp_path / "new.json"
    one, two = SigningKey("one"), SigningKey("two")
    path.write_text(json.dumps({"keys": [one.jwk]}))
    keys = KeyFile(str(path), log)
    assert await keys.find("one", "ES256") is not None
    before = keys.current()
    assert keys.current() is before
    other.write_text(json.dumps({"keys": [two.jwk]}))
    os.replace(other, path)
    assert await keys.find("one", "ES256") is None
    assert await keys.find("two", "ES256") is not None
    path.write_text("{")
    assert await keys.find("two", "ES256") is None
    assert [level for level, _ in log] == ["error"]
    await keys.close()


def test_a_key_file_without_keys_is_told_at_once(tmp_path: Path, log: Log) -> None:
    path = tmp_path / "keys.json"
    path.write_text('{"keys": []}')
    with pytest.raises(IdentityError, match="it has no public key that could verify a token"):
        KeyFile(str(path), log)
