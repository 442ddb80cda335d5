"""Headers and documents of bearer authentication."""

from __future__ import annotations

import json

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp.client.auth.utils import (
    build_protected_resource_metadata_discovery_urls,
    extract_field_from_www_auth,
    extract_scope_from_www_auth,
)
from mcp.shared.auth import ProtectedResourceMetadata

from intercept_py.identity import Issuer, Settings
from intercept_py.identity.bearer import Challenges, metadata, metadata_path, token_of

RESOURCE = "https://proxy.example:8443/github/mcp"
ISSUER = Issuer("https://issuer.example/tenant", keys="keys.json")


@pytest.mark.parametrize(
    ("header", "token"),
    [
        (None, None),
        ("", None),
        ("Basic YTpi", None),
        ("Bearerx abc", None),
        ("Bearer abc.d-e_f~g+h/i==", "abc.d-e_f~g+h/i=="),
        ("bEARER   abc", "abc"),
        ("Bearer", ""),
        ("Bearer ", ""),
        ("Bearer a b", ""),
        ("Bearer a,b", ""),
        ("Bearer abc ", ""),
        ("Bearer abc\n", ""),
        ("Bearer\tabc", None),
        ("Bearer a=b", ""),
        ("Bearer ä", ""),
        ("Bearer " + "a" * 16_384, "a" * 16_384),
        ("Bearer " + "a" * 16_385, ""),
    ],
)
def test_the_token_is_what_rfc_6750_says_it_is(header: str | None, token: str | None) -> None:
    assert token_of(header) == token


@given(st.text())
def test_whatever_a_header_holds_a_token_has_nothing_but_the_characters_of_one(header: str) -> None:
    token = token_of(f"Bearer {header}")
    assert token == "" or (token == header.lstrip(" ") and token.isascii() and token.isprintable() and " " not in token)


def test_where_an_issuer_gives_out_tokens_challenges_link_to_the_metadata() -> None:
    settings = Settings(RESOURCE, issuer=ISSUER, scopes=("mcp:call", "mcp:list"))
    link = 'resource_metadata="https://proxy.example:8443/.well-known/oauth-protected-resource/github/mcp"'
    assert Challenges.of(settings) == Challenges(
        missing=f'Bearer {link}, scope="mcp:call mcp:list"',
        invalid=f'Bearer {link}, scope="mcp:call mcp:list", error="invalid_token"',
        insufficient=f'Bearer {link}, scope="mcp:call mcp:list", error="insufficient_scope"',
    )


def test_with_our_own_tokens_alone_a_client_is_sent_to_no_issuer() -> None:
    challenges = Challenges.of(Settings(RESOURCE, tokens="tokens.json"))
    assert challenges.missing == 'Bearer realm="mcp"'
    assert challenges.invalid == 'Bearer realm="mcp", error="invalid_token"'
    assert metadata(Settings(RESOURCE, tokens="tokens.json")) is None


@pytest.mark.parametrize(
    ("resource", "path"),
    [
        ("https://h/mcp", "/.well-known/oauth-protected-resource/mcp"),
        ("https://h/a/mcp/", "/.well-known/oauth-protected-resource/a/mcp"),
        ("https://h/", "/.well-known/oauth-protected-resource"),
        ("https://h", "/.well-known/oauth-protected-resource"),
    ],
)
def test_the_well_known_path_goes_between_host_and_path(resource: str, path: str) -> None:
    assert metadata_path(resource) == path


def test_the_metadata_name_the_resource_and_its_issuer() -> None:
    document = metadata(Settings(RESOURCE, issuer=ISSUER, scopes=("mcp:call",)))
    assert document is not None
    assert json.loads(document) == {
        "resource": RESOURCE,
        "authorization_servers": ["https://issuer.example/tenant"],
        "bearer_methods_supported": ["header"],
        "scopes_supported": ["mcp:call"],
    }


def test_the_sdk_finds_the_metadata_by_our_challenge_and_by_itself() -> None:
    settings = Settings(RESOURCE, issuer=ISSUER, scopes=("mcp:call", "mcp:list"))
    challenges = Challenges.of(settings)
    for challenge in (challenges.missing, challenges.invalid, challenges.insufficient):
        response = httpx2.Response(401, headers={"WWW-Authenticate": challenge})
        link = extract_field_from_www_auth(response, "resource_metadata")
        assert link == f"https://proxy.example:8443{metadata_path(RESOURCE)}"
        assert link == build_protected_resource_metadata_discovery_urls(None, RESOURCE)[0]
        assert extract_scope_from_www_auth(response) == "mcp:call mcp:list"
    read = ProtectedResourceMetadata.model_validate_json(metadata(settings) or b"")
    assert str(read.resource) == RESOURCE
    assert [str(server) for server in read.authorization_servers] == [ISSUER.url]
    assert read.scopes_supported == ["mcp:call", "mcp:list"]
