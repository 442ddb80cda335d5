"""Who is let in, as whom, and what everybody else is told: real keys, real signatures, a real issuer on loopback."""

from __future__ import annotations

import hashlib
import hmac
import json
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from intercept_py import identity
from intercept_py.identity import Authenticator, IdentityError, Settings, Unauthorized, tokens
from intercept_py.model import Caller
from tests.support.issuer import ALGORITHMS, NOW, SigningKey, encoded

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.identity.conftest import Log
    from tests.support.issuer import Clock, Issuer

pytestmark = pytest.mark.anyio

RESOURCE = "https://proxy.example/mcp"
LINK = 'Bearer resource_metadata="https://proxy.example/.well-known/oauth-protected-resource/mcp"'
INVALID = f'{LINK}, error="invalid_token"'


class Door:
    """Builds authenticators for one endpoint, and knocks."""

    def __init__(self, issuer: Issuer, log: Log, clock: Clock, timer: Clock, stack: AsyncExitStack) -> None:
        self.issuer, self._log, self._clock, self._timer, self._stack = issuer, log, clock, timer, stack
        self.authenticator: Authenticator

    def build(self, **more: Any) -> Authenticator:
        of_issuer: dict[str, Any] = {"url": self.issuer.url, "keys": self.issuer.jwks_url}
        of_issuer |= {name: more.pop(name) for name in ("keys", "audience", "untyped") if name in more}
        trusted = identity.Issuer(**of_issuer)
        wanted = Settings(**{"resource": RESOURCE, "issuer": trusted, **more})
        self.authenticator = Authenticator(wanted, self._log, self._clock, self._timer)
        self._stack.push_async_callback(self.authenticator.close)
        return self.authenticator

    async def knock(self, token: str) -> Caller:
        return await self.authenticator.authenticate(f"Bearer {token}", "192.0.2.1")

    async def refusal(self, token: str) -> Unauthorized:
        with pytest.raises(Unauthorized) as caught:
            await self.knock(token)
        return caught.value

    async def why(self, token: str) -> str:
        """The reason in our own log of a refusal that tells the caller nothing."""
        refused = await self.refusal(token)
        assert (refused.status, refused.challenge) == (401, INVALID)
        assert refused.reason not in str(refused)
        assert refused.reason.isprintable()
        assert token not in refused.reason
        return refused.reason


@pytest.fixture
async def door(issuer: Issuer, log: Log, clock: Clock, timer: Clock) -> AsyncIterator[Door]:
    async with AsyncExitStack() as stack:
        one = Door(issuer, log, clock, timer, stack)
        one.build()
        yield one


# -- who is let in -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*ALGORITHMS, "Ed448"])
async def test_a_token_of_the_issuer_is_its_subject_with_its_scopes_and_claims(door: Door, kind: str) -> None:
    door.issuer.keys = [SigningKey("other"), SigningKey("this", kind)]
    caller = await door.knock(door.issuer.sign(door.issuer.keys[1], scope="a b:c a", groups=["x", {"y": 1}]))
    assert (caller.principal, caller.address, caller.session) == (f"{door.issuer.url}#alice", "192.0.2.1", None)
    assert caller.scopes == ("a", "b:c")
    assert caller.claims["groups"] == ["x", {"y": 1}]
    assert caller.claims["client_id"] == "agent"


@pytest.mark.parametrize(
    ("claims", "scopes"),
    [
        ({}, ()),
        ({"scope": ""}, ()),
        ({"scp": "a b"}, ("a", "b")),
        ({"scp": ["a", "b"]}, ("a", "b")),
        ({"scope": "a", "scp": ["b"]}, ("a",)),
    ],
)
async def test_scopes_are_read_as_issuers_write_them(door: Door, claims: Any, scopes: tuple[str, ...]) -> None:
    assert (await door.knock(door.issuer.sign(**claims))).scopes == scopes


@pytest.mark.parametrize("audience", [RESOURCE, ["https://other.example", RESOURCE]])
async def test_a_token_may_be_for_several_resources_if_it_is_for_this_one(door: Door, audience: Any) -> None:
    assert (await door.knock(door.issuer.sign(aud=audience))).principal


async def test_the_audience_may_have_a_name_of_its_own(door: Door) -> None:
    door.build(audience="api://proxy")
    assert (await door.knock(door.issuer.sign(aud="api://proxy"))).principal
    assert await door.why(door.issuer.sign()) == "the token is for another audience"


@pytest.mark.parametrize("header", [{"typ": "AT+JWT"}, {"typ": "application/at+jwt"}])
async def test_the_type_is_a_media_type_in_any_case(door: Door, header: Any) -> None:
    assert (await door.knock(door.issuer.sign(header=header))).principal


@pytest.mark.parametrize("typ", ["JWT", None])
async def test_tokens_without_the_type_of_an_access_token_are_let_in_only_where_that_is_said(
    door: Door, typ: str | None
) -> None:
    token = door.issuer.sign(header={"typ": typ})
    assert "`typ`" in await door.why(token)
    door.build(untyped=True)
    assert (await door.knock(token)).principal
    assert "`typ`" in await door.why(door.issuer.sign(header={"typ": "logout+jwt"}))


async def test_clocks_may_differ_by_a_minute(door: Door, clock: Clock) -> None:
    assert (await door.knock(door.issuer.sign(exp=NOW - 59))).principal
    assert await door.why(door.issuer.sign(exp=NOW - 60)) == "the token has expired"
    assert (await door.knock(door.issuer.sign(nbf=NOW + 60, iat=NOW + 60.5 - 0.5))).principal
    assert await door.why(door.issuer.sign(nbf=NOW + 61)) == "the token is of the future: see its `nbf`"
    assert await door.why(door.issuer.sign(iat=NOW + 61)) == "the token is of the future: see its `iat`"


async def test_our_own_tokens_and_those_of_an_issuer_work_side_by_side(door: Door, tmp_path: Path) -> None:
    path = str(tmp_path / "tokens.json")
    own = tokens.add(path, "ci", ("a",), datetime(2027, 1, 1, tzinfo=UTC), None)
    door.build(tokens=path)
    assert await door.knock(own) == Caller(principal="ci", address="192.0.2.1", scopes=("a",))
    assert (await door.knock(door.issuer.sign(sub="ci"))).principal == f"{door.issuer.url}#ci"
    tokens.revoke(path, "ci")
    assert await door.why(own) == "the token is not in the token file"


async def test_without_an_issuer_its_tokens_are_none(door: Door, tmp_path: Path) -> None:
    path = str(tmp_path / "tokens.json")
    tokens.add(path, "ci", (), datetime(2027, 1, 1, tzinfo=UTC), None)
    door.build(tokens=path, issuer=None)
    refused = await door.refusal(door.issuer.sign())
    assert (refused.status, refused.challenge) == (401, 'Bearer realm="mcp", error="invalid_token"')
    assert door.authenticator.metadata is None
    assert door.issuer.seen == []


async def test_where_no_token_is_demanded_everybody_is_an_address(log: Log) -> None:
    anyone = Authenticator(Settings("http://127.0.0.1:8080/mcp"), log)
    assert not anyone.demands_token
    assert await anyone.authenticate("Bearer whatever", "127.0.0.1") == Caller(address="127.0.0.1")
    assert anyone.metadata is None
    assert anyone.warnings() == []
    await anyone.close()


# -- who is not --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", [None, "", "Basic YTpi", "bearerish x"])
async def test_without_a_token_the_answer_names_no_error(door: Door, header: str | None) -> None:
    with pytest.raises(Unauthorized) as caught:
        await door.authenticator.authenticate(header, "192.0.2.1")
    assert (caught.value.status, caught.value.challenge) == (401, LINK)


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"iss": "https://evil.example"}, "another issuer"),
        ({"iss": None}, "another issuer"),
        ({"aud": "https://other.example/mcp"}, "another audience"),
        ({"aud": RESOURCE + "/"}, "another audience"),
        ({"aud": [f"{RESOURCE}/x", "x"]}, "another audience"),
        ({"aud": None}, "another audience"),
        ({"aud": {RESOURCE: 1}}, "another audience"),
        ({"exp": None}, "no `exp`"),
        ({"exp": 1}, "has expired"),
        ({"exp": "1900000000"}, "`exp` of the token is no number"),
        ({"exp": True}, "`exp` of the token is no number"),
        ({"nbf": "x"}, "`nbf` of the token is no number"),
        ({"sub": None}, "`sub` of the token"),
        ({"sub": ""}, "`sub` of the token"),
        ({"sub": 7}, "`sub` of the token"),
        ({"sub": "a\u202eb"}, "`sub` of the token"),
        ({"sub": "a" * 256}, "`sub` of the token"),
        ({"scope": 7}, "scopes of the token"),
        ({"scope": ["a", 7]}, "scopes of the token"),
        ({"pad": "a" * 16_384}, "compact JWS"),
    ],
)
async def test_a_token_that_is_signed_but_not_good_is_refused_without_a_hint(
    door: Door, claims: Any, reason: str
) -> None:
    assert reason in await door.why(door.issuer.sign(**claims))


@pytest.mark.parametrize(
    "header",
    [
        {"crit": ["exp"]},
        {"crit": []},
        {"jwk": {"kty": "oct"}},
        {"jku": "https://evil.example/keys"},
        {"x5u": "https://evil.example/chain"},
        {"x5c": []},
        {"zip": "DEF"},
        {"typ": "JWT"},
        {"kid": ""},
        {"kid": "k" * 257},
        {"kid": "unknown"},
    ],
)
async def test_a_header_that_would_choose_its_own_key_or_rules_is_refused(door: Door, header: Any) -> None:
    assert (await door.knock(door.issuer.sign())).principal
    await door.why(door.issuer.sign(header=header))


async def test_a_token_of_a_foreign_key_is_refused_whatever_it_is_called(door: Door) -> None:
    assert await door.why(door.issuer.sign(SigningKey("one"))) == "the signature of the token is not good"
    assert "no key" in await door.why(door.issuer.sign(SigningKey("one", "RS256")))


async def test_an_unsigned_token_is_refused(door: Door) -> None:
    claims = door.issuer.claims()
    for alg in ("none", "None", "NONE", ""):
        for signature in ("", ".", ".AA"):
            token = f"{encoded({'alg': alg, 'typ': 'at+jwt'})}.{encoded(claims)}{signature}"
            await door.why(token)
    good = door.issuer.sign()
    await door.why(good.rpartition(".")[0] + ".")
    await door.why(good.rpartition(".")[0])


@pytest.mark.parametrize("kind", ["RS256", "ES256"])
async def test_a_public_key_is_no_shared_secret(door: Door, kind: str) -> None:
    key = SigningKey("one", kind)
    door.issuer.keys = [key]
    public = key.private.public_key()
    secrets = [
        public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        json.dumps(key.jwk).encode(),
        b"",
    ]
    for secret in secrets:
        text = f"{encoded({'alg': 'HS256', 'typ': 'at+jwt', 'kid': 'one'})}.{encoded(door.issuer.claims())}"
        forged = f"{text}.{encoded(hmac.digest(secret, text.encode(), hashlib.sha256))}"
        assert await door.why(forged) == "the token is not signed with an algorithm that is allowed"


async def test_a_secret_in_the_key_set_verifies_nothing(door: Door, tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    secret = {"kty": "oct", "k": encoded(b"s" * 32), "kid": "s", "alg": "HS256"}
    path.write_text(json.dumps({"keys": [secret, door.issuer.keys[0].jwk]}))
    door.build(keys=str(path))
    text = f"{encoded({'alg': 'HS256', 'typ': 'at+jwt', 'kid': 's'})}.{encoded(door.issuer.claims())}"
    await door.why(f"{text}.{encoded(hmac.digest(b's' * 32, text.encode(), hashlib.sha256))}")
    assert (await door.knock(door.issuer.sign())).principal


async def test_a_key_is_used_for_its_own_algorithm_only(door: Door) -> None:
    key = SigningKey("one", "RS256")
    key.jwk["alg"] = "RS256"
    door.issuer.keys = [key]
    assert (await door.knock(door.issuer.sign())).principal
    key.alg = "PS256"
    assert "no key" in await door.why(door.issuer.sign())


@pytest.mark.parametrize(
    ("header", "payload"),
    [
        (b'{"alg":"ES256","alg":"ES256","typ":"at+jwt","kid":"one"}', None),
        (b'{"alg":"none","typ":"at+jwt","kid":"one","al\\u0067":"ES256"}', None),
        (b'["alg","ES256"]', None),
        (b"{", None),
        (b'\xef\xbb\xbf{"alg":"ES256","typ":"at+jwt","kid":"one"}', None),
        (None, b'{"sub":"alice","sub":"admin"}'),
        (None, b'{"sub":"alice","su\\u0062":"admin"}'),
        (None, b"[1]"),
        (None, b"{"),
        (None, b'{"exp":1e999}'),
        (None, b'{"exp":NaN}'),
        (None, b'{"a":' * 70 + b"1" + b"}" * 70),
        (None, b'{"a":' * 3000 + b"1" + b"}" * 3000),
        (None, b'"\xff"'),
    ],
)
async def test_what_two_parsers_could_read_differently_is_refused(
    door: Door, header: bytes | None, payload: bytes | None
) -> None:
    key = door.issuer.keys[0]
    head = header or {"alg": "ES256", "typ": "at+jwt", "kid": "one"}
    await door.why(key.seal(head, payload or door.issuer.claims()))


async def test_a_changed_token_is_refused_also_where_the_good_one_is_remembered(door: Door) -> None:
    good = door.issuer.sign()
    assert (await door.knock(good)).principal
    head, payload, signature = good.split(".")
    claims = door.issuer.claims()
    changed = [
        f"{head}.{encoded({**claims, 'sub': 'admin'})}.{signature}",
        f"{encoded({'alg': 'ES256', 'typ': 'at+jwt', 'kid': 'one', 'cty': 'x'})}.{payload}.{signature}",
        f"{good}=",
        f"{good}.",
        f"{good}.{signature}",
        good[:-2] + ("A" if good[-2] != "A" else "B") + good[-1],
    ]
    for token in changed:
        await door.why(token)
    assert (await door.knock(good)).principal


async def test_a_token_without_a_key_id_needs_a_key_that_can_only_be_meant(door: Door, timer: Clock) -> None:
    door.issuer.keys = [SigningKey(None), SigningKey("rsa", "RS256")]
    assert (await door.knock(door.issuer.sign())).principal
    door.issuer.keys.append(SigningKey("two"))
    door.build()
    assert "no key" in await door.why(door.issuer.sign())


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.text(max_size=80) | st.from_regex(r"Bearer [A-Za-z0-9_.~+/=-]{0,80}", fullmatch=True) | st.just("Bearer ipt_")
)
async def test_no_header_does_anything_but_let_in_or_refuse(door: Door, header: str) -> None:
    with pytest.raises(Unauthorized) as caught:
        await door.authenticator.authenticate(header, "192.0.2.1")
    assert caught.value.challenge in (LINK, INVALID)


# -- scopes that everybody must have -----------------------------------------------------------------------------------


async def test_a_good_token_without_the_scopes_is_told_which(door: Door) -> None:
    door.build(scopes=("mcp", "runs"))
    challenge = f'{LINK}, scope="mcp runs", error='
    refused = await door.refusal(door.issuer.sign(scope="mcp"))
    assert (refused.status, refused.challenge) == (403, f'{challenge}"insufficient_scope"')
    refused = await door.refusal(door.issuer.sign(SigningKey("one"), scope="mcp runs"))
    assert (refused.status, refused.challenge) == (401, f'{challenge}"invalid_token"')
    assert (await door.knock(door.issuer.sign(scope="runs mcp x"))).scopes == ("runs", "mcp", "x")


# -- what is remembered ------------------------------------------------------------------------------------------------


async def test_a_token_that_was_verified_is_good_until_it_expires_and_no_longer(door: Door, clock: Clock) -> None:
    token = door.issuer.sign()
    first = await door.knock(token)
    clock.now += 600 + 59
    assert await door.knock(token) == first
    clock.now += 1
    assert await door.why(token) == "the token has expired"


async def test_who_is_known_is_recognised_without_waiting(door: Door, tmp_path: Path, timer: Clock) -> None:
    path = str(tmp_path / "tokens.json")
    own = tokens.add(path, "ci", (), datetime(2027, 1, 1, tzinfo=UTC), None)
    door.build(tokens=path, scopes=("mcp",))
    recognise = door.authenticator.recognise
    token = f"Bearer {door.issuer.sign(scope='mcp')}"
    assert recognise(token, "192.0.2.1") is None
    for _ in range(2):  # the first time the keys come along with the answer
        known = await door.authenticator.authenticate(token, "192.0.2.1")
    assert recognise(token, "192.0.2.1") == known
    assert recognise(f"Bearer {door.issuer.sign(SigningKey('one'))}", "192.0.2.1") is None
    for header, status in ((None, 401), ("Bearer ipt_", 401), (f"Bearer {own}", 403)):
        with pytest.raises(Unauthorized) as caught:
            recognise(header, "192.0.2.1")
        assert caught.value.status == status


async def test_the_address_is_that_of_each_request(door: Door) -> None:
    token = f"Bearer {door.issuer.sign()}"
    for address in ("192.0.2.1", "192.0.2.2"):
        assert (await door.authenticator.authenticate(token, address)).address == address


async def test_a_key_that_the_issuer_withdraws_takes_its_tokens_along(door: Door, timer: Clock) -> None:
    old = door.issuer.sign()
    assert (await door.knock(old)).principal
    door.issuer.keys = [SigningKey("two")]
    timer.now += 10  # a token of the new key brings the new set, in which the old key is not any more
    assert (await door.knock(door.issuer.sign())).principal
    assert "no key" in await door.why(old)


async def test_more_tokens_than_are_remembered_are_good_all_the_same(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("intercept_py.identity.access_tokens.REMEMBERED", 3)
    good = [door.issuer.sign(sub=f"s{number}") for number in range(8)]
    for _ in range(2):
        for number, token in enumerate(good):
            assert (await door.knock(token)).principal == f"{door.issuer.url}#s{number}"


# -- settings ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"resource": "proxy.example/mcp"}, "the resource must be an absolute URL"),
        ({"resource": "http://proxy.example/mcp"}, "use `https://` beyond this machine"),
        ({"resource": "https://proxy.example/mcp?x"}, "must be without a query"),
        ({"resource": 'https://proxy.example/"'}, "the resource is no URL"),
        ({"resource": "https://proxy.example/\nx"}, "the resource is no URL"),
        ({"resource": "https://proxy.example:99999/"}, "its host or port is malformed"),
        ({"issuer": identity.Issuer("https://user:secret@i.example", "k")}, "neither credentials nor a fragment"),
        ({"issuer": identity.Issuer("https://i.example#x", "k")}, "neither credentials nor a fragment"),
        ({"issuer": identity.Issuer("https://i.example", "http://i.example/keys")}, "use `https://`"),
        ({"issuer": identity.Issuer("https://i.example", "file:///etc/passwd")}, "must be an absolute URL"),
        ({"issuer": identity.Issuer("https://i.example", "/no/such/file")}, "cannot read the key file"),
        ({"tokens": "/no/such/file"}, "cannot read the token file"),
        ({"scopes": ("a b",)}, "a scope has"),
        ({"scopes": ('a"',)}, "a scope has"),
    ],
)
async def test_settings_that_cannot_be_meant_are_told(log: Log, wanted: Any, words: str) -> None:
    with pytest.raises(IdentityError) as caught:
        Authenticator(Settings(**{"resource": RESOURCE, **wanted}), log)
    assert words in str(caught.value)
    assert "secret" not in str(caught.value)
    assert str(caught.value).isprintable()
