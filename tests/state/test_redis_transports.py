"""Redis over TLS and over a Unix socket."""

from __future__ import annotations

import datetime
import ipaddress
import select
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from intercept_py.errors import StateError
from intercept_py.model import Charge, Strategy, Window
from intercept_py.state import open_state
from tests.support import redis_store

ONCE = (Charge(("limit", "t"), 1, 1, Window(3600), Strategy.MOVING, "r"),)


def test_over_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "redis.sock"
    with redis_store.server(tmp_path / "redis", "--unixsocket", str(path)) as server:
        state = open_state(f"redis+unix://{path}")
        assert state.charge("s", ONCE).refused is None
        assert open_state(server.url).charge("s", ONCE).refused is not None
        server.kill()
        with pytest.raises(StateError, match=f"Redis at {path} cannot be reached"):
            state.charge("s", ONCE)
        state.close()


def test_over_tls_with_a_certificate_that_is_verified(tmp_path: Path) -> None:
    certificate = certify(tmp_path)
    with redis_store.server(tmp_path / "redis") as server, wrapped(certificate, server.port) as port:
        state = open_state(f"rediss://127.0.0.1:{port}?timeout=5&ssl_ca_certs={certificate}")
        for _ in range(2):
            state.refund(state.charge("s", ONCE))
        assert state.charge("s", ONCE).refused is None
        assert state.charge("s", ONCE).refused is not None
        state.close()
        with pytest.raises(StateError, match=r"cannot be reached: .*CERTIFICATE_VERIFY_FAILED"):
            open_state(f"rediss://127.0.0.1:{port}?timeout=5").charge("s", ONCE)


def certify(path: Path) -> Path:
    """A file with the key and the certificate of 127.0.0.1."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - datetime.timedelta(1)).not_valid_after(now + datetime.timedelta(1))
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    builder = builder.add_extension(x509.SubjectAlternativeName([address]), critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    certificate = builder.sign(key, hashes.SHA256())
    file = path / "certificate.pem"
    encoded = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(encoded + certificate.public_bytes(serialization.Encoding.PEM))
    return file


@contextmanager
def wrapped(certificate: Path, port: int) -> Iterator[int]:
    """A port that speaks TLS and passes on what it hears to another one."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    def talk(connection: socket.socket) -> None:
        with (
            suppress(OSError),
            context.wrap_socket(connection, server_side=True) as inside,
            socket.create_connection(("127.0.0.1", port)) as outside,
        ):
            while True:
                for one in [inside] if inside.pending() else select.select([inside, outside], [], [])[0]:
                    data = one.recv(65536)
                    if not data:
                        return
                    (outside if one is inside else inside).sendall(data)

    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    threading.Thread(target=talk, args=(listener.accept()[0],), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
