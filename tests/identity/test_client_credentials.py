"""The proxy's own tokens for a server, from a real token endpoint."""

from __future__ import annotations

import asyncio
import json
from base64 import b64decode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote_plus

import pytest

from intercept_py.identity.client_credentials import ClientCredentials, Grant
from intercept_py.identity.faults import IdentityError

if TYPE_CHECKING:
    from tests.identity.conftest import Log
    from tests.support.issuer import Clock, Issuer

pytestmark = pytest.mark.anyio

SECRET = "s:e c/r+e&t=%ü"


class Client:
    """Credentials for the issuer's endpoint, whose answers are set here."""

    def __init__(self, issuer: Issuer, log: Log, timer: Clock) -> None:
        self.issuer, self._log, self._timer = issuer, log, timer
        self.credentials = self.build()

    def build(self, **more: Any) -> ClientCredentials:
        grant: dict[str, Any] = {"token_url": f"{self.issuer.url}/token", "client_id": "a:b", "secret": "env:S"}
        self.credentials = ClientCredentials(Grant(**{**grant, **more}), self._log, self._timer)
        return self.credentials

    def gives(self, token: str = "t1", **members: Any) -> None:
        self.answers({"access_token": token, "token_type": "Bearer", "expires_in": 100, **members})

    def answers(self, document: Any, status: int = 200) -> None:
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        self.issuer.answers["/token"] = (status, {"Content-Type": "application/json"}, body)

    @property
    def asked(self) -> int:
        return len(self.issuer.seen)


@pytest.fixture
async def client(issuer: Issuer, log: Log, timer: Clock, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Client]:
    monkeypatch.setenv("S", SECRET)
    one = Client(issuer, log, timer)
    one.gives()
    yield one
    await one.credentials.close()


async def test_the_request_is_that_of_rfc_6749(client: Client) -> None:
    client.build(scopes=("a", "b:c"), resource="https://server.example/mcp")
    assert await client.credentials.authorization() == "Bearer t1"
    (seen,) = client.issuer.seen
    assert (seen.method, seen.path) == ("POST", "/token")
    assert seen.headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert parse_qs(seen.body.decode(), strict_parsing=True) == {
        "grant_type": ["client_credentials"],
        "scope": ["a b:c"],
        "resource": ["https://server.example/mcp"],
    }
    scheme, _, pair = seen.headers["Authorization"].partition(" ")
    name, _, secret = b64decode(pair).decode().partition(":")
    assert (scheme, unquote_plus(name), unquote_plus(secret)) == ("Basic", "a:b", SECRET)


async def test_a_token_is_used_until_it_is_time_to_renew_it(client: Client, timer: Clock) -> None:
    for now in (0, 50, 79):
        timer.now = now
        assert await client.credentials.authorization() == "Bearer t1"
    assert client.asked == 1


async def test_a_token_is_renewed_before_it_expires_and_nobody_waits(client: Client, timer: Clock) -> None:
    assert await client.credentials.authorization() == "Bearer t1"
    client.gives("t2")
    client.issuer.go.clear()
    timer.now = 80
    async with asyncio.timeout(5):  # the endpoint does not answer yet
        assert await client.credentials.authorization() == "Bearer t1"
        assert await client.credentials.authorization() == "Bearer t1"
    client.issuer.go.set()
    timer.now = 100
    assert await client.credentials.authorization() == "Bearer t2"
    assert client.asked == 2


async def test_all_who_need_a_token_at_once_wait_for_one_request(client: Client) -> None:
    client.issuer.go.clear()
    asking = [asyncio.ensure_future(client.credentials.authorization()) for _ in range(20)]
    gives_up = asyncio.ensure_future(client.credentials.authorization())
    await asyncio.sleep(0)
    gives_up.cancel()
    await asyncio.wait([gives_up])
    client.issuer.go.set()
    assert await asyncio.gather(*asking) == ["Bearer t1"] * 20
    assert client.asked == 1


async def test_a_token_that_the_server_refused_is_replaced_but_not_again_and_again(
    client: Client, timer: Clock
) -> None:
    first = await client.credentials.authorization()
    client.gives("t2")
    timer.now = 10
    client.credentials.refused(first)
    client.credentials.refused(first)
    second = await client.credentials.authorization()
    assert second == "Bearer t2"
    client.credentials.refused(first)  # an answer that was late
    assert await client.credentials.authorization() == second
    client.credentials.refused(second)
    with pytest.raises(IdentityError, match="the server refused the last one"):
        await client.credentials.authorization()
    assert client.asked == 2
    timer.now += ClientCredentials.PAUSE
    assert await client.credentials.authorization() == second
    assert client.asked == 3


async def test_while_the_endpoint_fails_the_old_token_is_used_up(client: Client, timer: Clock, log: Log) -> None:
    assert await client.credentials.authorization() == "Bearer t1"
    client.answers({}, 500)
    for times, now in enumerate((80, 90, 99), 1):
        timer.now = now
        assert await client.credentials.authorization() == "Bearer t1"
        async with asyncio.timeout(20):
            while len(log) < times:
                await asyncio.sleep(0.001)
    timer.now = 200
    for _ in range(10):
        with pytest.raises(IdentityError, match="the answer has status 500"):
            await client.credentials.authorization()
    assert client.asked == 5
    assert {level for level, _ in log} == {"warn"}
    timer.now += ClientCredentials.PAUSE
    client.gives("t2")
    assert await client.credentials.authorization() == "Bearer t2"


@pytest.mark.parametrize(
    ("status", "document", "words"),
    [
        (401, {"error": "invalid_client", "error_description": "secret"}, "has status 401 and says `invalid_client`"),
        (400, {"error": "secret"}, "the answer has status 400$"),
        (302, {}, "the answer has status 302$"),
        (200, [], "is no JSON object"),
        (200, b"secret", "is no JSON object"),
        (200, b'{"access_token":"a","access_token":"b","token_type":"bearer"}', "is no JSON object"),
        (200, {"token_type": "bearer"}, "no access token that could stand in a header"),
        (200, {"access_token": "secret\r\nX: y", "token_type": "bearer"}, "no access token that could stand"),
        (200, {"access_token": "", "token_type": "bearer"}, "no access token that could stand"),
        (200, {"access_token": "a" * 16_385, "token_type": "bearer"}, "no access token that could stand"),
        (200, {"access_token": "secret"}, "no bearer token"),
        (200, {"access_token": "secret", "token_type": "DPoP"}, "no bearer token"),
        (200, {"access_token": "secret", "token_type": "bearer", "expires_in": -1}, "`expires_in`"),
        (200, {"access_token": "secret", "token_type": "bearer", "expires_in": True}, "`expires_in`"),
        (200, {"access_token": "secret", "token_type": "bearer", "expires_in": "soon"}, "`expires_in`"),
    ],
)
async def test_an_answer_without_a_usable_token_is_told_without_repeating_it(
    client: Client, log: Log, status: int, document: Any, words: str
) -> None:
    client.answers(document, status)
    with pytest.raises(IdentityError, match=words) as caught:
        await client.credentials.authorization()
    for line in (str(caught.value), log[0][1]):
        assert "secret" not in line
        assert SECRET not in line
        assert line.isprintable()


@pytest.mark.parametrize("members", [{"expires_in": "100"}, {"expires_in": 100.5}, {"token_type": "BEARER"}])
async def test_what_issuers_write_in_their_own_way_is_understood(client: Client, timer: Clock, members: Any) -> None:
    client.gives(**members)
    assert await client.credentials.authorization() == "Bearer t1"
    timer.now = 79
    assert await client.credentials.authorization() == "Bearer t1"
    assert client.asked == 1


async def test_a_token_of_unknown_life_is_renewed_now_and_then(client: Client, timer: Clock) -> None:
    client.answers({"access_token": "t1", "token_type": "bearer"})
    assert await client.credentials.authorization() == "Bearer t1"
    client.gives("t2")
    timer.now = ClientCredentials.UNKNOWN_LIFE
    assert await client.credentials.authorization() == "Bearer t2"


async def test_a_secret_in_a_file_may_be_replaced(client: Client, timer: Clock, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("old\n")
    client.build(secret=f"@{file}")
    await client.credentials.authorization()
    file.write_text("new\n")
    timer.now = 100
    await client.credentials.authorization()
    pairs = [b64decode(seen.headers["Authorization"].partition(" ")[2]) for seen in client.issuer.seen]
    assert [pair.decode().partition(":")[2] for pair in pairs] == ["old", "new"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"secret": "hunter2"}, "use `env:NAME` or `@FILE`"),
        ({"secret": "env:NOT_SET"}, "the environment variable `NOT_SET` must hold a secret"),
        ({"secret": "@/no/such/file"}, "cannot read the secret in `/no/such/file`"),
        ({"token_url": "http://192.0.2.1/token"}, "use `https://`"),
        ({"token_url": "https://user:hunter2@i.example/"}, "neither credentials nor a fragment"),
        ({"scopes": ("a b",)}, "a scope has"),
        ({"client_id": ""}, "the client id"),
    ],
)
async def test_a_grant_that_cannot_be_used_is_told_before_it_is(client: Client, change: Any, words: str) -> None:
    with pytest.raises(IdentityError) as caught:
        client.build(**change)
    assert words in str(caught.value)
    assert "hunter2" not in str(caught.value)


async def test_nothing_that_can_be_printed_holds_the_secret(client: Client) -> None:
    grant = Grant("https://i.example/token", "a", "env:S")
    assert SECRET not in repr(grant)
    assert SECRET not in repr(vars(client.credentials))


async def test_closing_while_a_token_is_asked_for_leaves_nothing_behind(client: Client) -> None:
    client.issuer.go.clear()
    asking = asyncio.ensure_future(client.credentials.authorization())
    await asyncio.sleep(0)
    await client.credentials.close()
    with pytest.raises(asyncio.CancelledError):
        await asking
