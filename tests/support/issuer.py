"""A real issuer of access tokens on loopback: RSA, EC and Ed25519 keys, a JWK set over HTTP, and a token endpoint.

It signs whatever it is asked to. What its endpoints answer can be replaced, held back, or redirected.
"""

from __future__ import annotations

__all__ = ["ALGORITHMS", "Clock", "Issuer", "Seen", "SigningKey", "encoded", "running"]

import json
import threading
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

NOW = 1_800_000_000.0
ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
_CURVES: dict[str, Callable[[], ec.EllipticCurve]] = {
    "ES256": ec.SECP256R1,
    "ES384": ec.SECP384R1,
    "ES512": ec.SECP521R1,
}


class Clock:
    """Seconds that go on when a test says so."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class SigningKey:
    """A private key, and its public half as a JWK. `kind`: an algorithm, `Ed448`, or `RSA-<bits>`."""

    def __init__(self, kid: str | None, kind: str = "ES256") -> None:
        self.kid = kid
        self.private: Any
        if kind in _CURVES:
            self.alg, self.private = kind, ec.generate_private_key(_CURVES[kind]())
            public = ECAlgorithm.to_jwk(self.private.public_key(), as_dict=True)
        elif kind in ("EdDSA", "Ed448"):
            self.alg = "EdDSA"
            self.private = (ed25519.Ed25519PrivateKey if kind == "EdDSA" else ed448.Ed448PrivateKey).generate()
            public = OKPAlgorithm.to_jwk(self.private.public_key(), as_dict=True)
        else:
            bits = int(kind.removeprefix("RSA-")) if kind.startswith("RSA-") else 2048
            self.alg = "RS256" if kind.startswith("RSA-") else kind
            self.private = rsa.generate_private_key(65537, bits)
            public = RSAAlgorithm.to_jwk(self.private.public_key(), as_dict=True)
        public.pop("key_ops", None)
        self.jwk: dict[str, Any] = {**public, "use": "sig"} | ({} if kid is None else {"kid": kid})

    def seal(self, header: object, payload: object) -> str:
        """A compact JWS of any header and payload: bytes as they are, all else as JSON."""
        text = f"{encoded(header)}.{encoded(payload)}"
        return f"{text}.{encoded(jwt.get_algorithm_by_name(self.alg).sign(text.encode(), self.private))}"


def encoded(value: object) -> str:
    """A segment of a JWS."""
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return urlsafe_b64encode(data).rstrip(b"=").decode()


class Seen(NamedTuple):
    """A request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Issuer:
    """`keys` are published at `<url>/jwks`. `answers` replaces what a path answers: status, headers, body."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.keys = [SigningKey("one")]
        self.answers: dict[str, tuple[int, dict[str, str], bytes]] = {}
        self.seen: list[Seen] = []
        self.go = threading.Event()
        self.go.set()

    @property
    def jwks_url(self) -> str:
        return f"{self.url}/jwks"

    def jwks(self) -> bytes:
        return json.dumps({"keys": [key.jwk for key in self.keys]}).encode()

    def sign(self, key: SigningKey | None = None, header: dict[str, Any] | None = None, **claims: Any) -> str:
        """A good access token for `https://proxy.example/mcp`, but for what is said otherwise; None leaves it out."""
        key = key or self.keys[0]
        head = {"alg": key.alg, "typ": "at+jwt", "kid": key.kid, **(header or {})}
        return key.seal(_without_none(head), _without_none({**self.claims(), **claims}))

    def claims(self) -> dict[str, Any]:
        """What a good token says."""
        return {
            "iss": self.url,
            "aud": "https://proxy.example/mcp",
            "sub": "alice",
            "client_id": "agent",
            "iat": int(NOW),
            "exp": int(NOW) + 600,
        }

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        if path in self.answers:
            return self.answers[path]
        return (200, {}, self.jwks()) if path == "/jwks" else (404, {}, b"")


def _without_none(members: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}


@contextmanager
def running() -> Iterator[Issuer]:
    """An issuer on a free port. While `go` is not set, requests are held."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            issuer.seen.append(Seen(self.command, self.path, dict(self.headers), body))
            issuer.go.wait(20)
            status, headers, answer = issuer.answer(self.path)
            try:
                self.send_response(status)
                for name, value in {"Content-Length": str(len(answer)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(answer)
            except OSError:  # the proxy has given up
                pass

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        issuer = Issuer(server.server_address[1])
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield issuer
        finally:
            issuer.go.set()
            server.shutdown()
            thread.join()
