"""One exchange with an issuer: what is trusted, and when it ends."""

from __future__ import annotations

import datetime
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from intercept_py.identity.faults import IdentityError
from intercept_py.identity.fetch import fetch

pytestmark = pytest.mark.anyio

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


def certificate(folder: Path) -> Path:
    """A file with the key and the certificate of 127.0.0.1."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "issuer")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - datetime.timedelta(1)).not_valid_after(now + datetime.timedelta(1))
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    builder = builder.add_extension(x509.SubjectAlternativeName([address]), critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file = folder / "certificate.pem"
    file.write_bytes(private + builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    return file


@contextmanager
def listening(talk: Callable[[socket.socket], None], tls: Path | None = None) -> Iterator[str]:
    """Where a server listens that says to everybody what `talk` says."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if tls is not None:
        context.load_cert_chain(tls)

    def serve() -> None:
        while True:
            try:
                connection = listener.accept()[0]
            except OSError:
                return
            with suppress(OSError), connection:
                talk(connection if tls is None else context.wrap_socket(connection, server_side=True))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"{'http' if tls is None else 'https'}://127.0.0.1:{listener.getsockname()[1]}/x"
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(20)
    assert not thread.is_alive()


def answer(connection: socket.socket) -> None:
    with connection:
        connection.recv(65_536)
        connection.sendall(ANSWER)


async def test_a_certificate_must_be_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = certificate(tmp_path)
    with listening(answer, file) as url:
        with pytest.raises(IdentityError, match="its certificate is not trusted: self-signed certificate"):
            await fetch(url)
        monkeypatch.setenv("SSL_CERT_FILE", str(file))
        assert await fetch(url) == b"{}"
        with pytest.raises(IdentityError, match="its certificate is not trusted: Hostname mismatch"):
            await fetch(url.replace("127.0.0.1", "localhost"))


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"])
async def test_a_server_that_drips_is_left(monkeypatch: pytest.MonkeyPatch, head: bytes) -> None:
    monkeypatch.setattr("intercept_py.identity.fetch.SECONDS", 0.3)
    hung_up = threading.Event()

    def drip(connection: socket.socket) -> None:
        try:
            connection.sendall(head)
            while True:
                connection.sendall(b"x")
                time.sleep(0.01)
        finally:
            hung_up.set()

    with listening(drip) as url:
        with pytest.raises(IdentityError, match=r"no complete answer within 0\.3 s"):
            await fetch(url)
        assert hung_up.wait(20)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (b"", "remote end closed connection without response"),
        (b"ipt_secret\r\n\r\n", r"the answer is no HTTP \(BadStatusLine\)"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70_000 + b"\r\n\r\n", r"the answer is no HTTP \(LineTooLong\)"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", "the answer has status 204"),
        (b"HTTP/1.1 301 Moved\r\nLocation: http://127.0.0.1/\r\n\r\n", "the answer has status 301"),
    ],
)
async def test_what_is_no_good_answer_is_told_in_a_line_that_does_not_repeat_it(said: bytes, words: str) -> None:
    def say(connection: socket.socket) -> None:
        connection.recv(65_536)
        connection.sendall(said)

    with listening(say) as url:
        with pytest.raises(IdentityError, match=words) as caught:
            await fetch(url)
        assert "secret" not in str(caught.value)


async def test_nothing_is_asked_of_other_machines_without_tls() -> None:
    with pytest.raises(IdentityError, match="use `https://` beyond this machine"):
        await fetch("http://192.0.2.1/keys")
