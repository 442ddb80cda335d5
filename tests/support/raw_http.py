"""An HTTP server that answers with the very bytes a test gives it, for what no honest server does; TLS certificates."""

from __future__ import annotations

__all__ = ["Answering", "RawServer", "Seen", "certificates", "json_answer"]

import asyncio
import datetime
import ipaddress
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeAlias

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


class Seen(msgspec.Struct):
    """A request as it came: names of fields in lower case."""

    method: str
    target: str
    fields: list[tuple[str, str]]
    body: bytes

    def field(self, name: str) -> str | None:
        """The only field of that name."""
        values = [value for told, value in self.fields if told == name]
        assert len(values) < 2
        return values[0] if values else None


Answering: TypeAlias = Callable[[Seen, asyncio.StreamWriter], Awaitable[None]]


def json_answer(body: bytes, *lines: str, status: str = "200 OK") -> bytes:
    """An answer that keeps the connection open."""
    head = [f"HTTP/1.1 {status}", "Content-Type: application/json", f"Content-Length: {len(body)}", *lines, "", ""]
    return "\r\n".join(head).encode() + body


class RawServer:
    """Use it as a context. Every request is given to `answer`; then the connection goes on, unless that closed it."""

    def __init__(self, answer: Answering, context: ssl.SSLContext | None = None) -> None:
        self.seen: list[Seen] = []
        self.connections = 0
        self.closed = asyncio.Event()
        """Set whenever a client has closed a connection."""
        self._answer = answer
        self._context = context
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """Where its endpoint is."""
        scheme = "http" if self._context is None else "https"
        return f"{scheme}://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/mcp"

    async def __aenter__(self) -> RawServer:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._context)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while not writer.is_closing():
                seen = await _read(reader)
                self.seen.append(seen)
                await self._answer(seen, writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            self.closed.set()
        finally:
            self._tasks.discard(task)
            writer.close()


async def _read(reader: asyncio.StreamReader) -> Seen:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
    method, target, version = first.split(" ")
    assert version == "HTTP/1.1"
    fields = [(name.lower(), value) for name, value in (line.split(": ", 1) for line in lines)]
    seen = Seen(method, target, fields, b"")
    seen.body = await reader.readexactly(int(seen.field("content-length") or 0))
    return seen


def certificates(folder: Path, host: str) -> tuple[Path, ssl.SSLContext]:
    """A new authority's certificate, and what a server for `host` (an address) needs that it has signed."""
    authority, server = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tests")])
    now = datetime.datetime.now(datetime.UTC)

    def sign(subject: x509.Name, key: ec.EllipticCurvePrivateKey, extension: x509.ExtensionType) -> x509.Certificate:
        certificate = x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
        certificate = certificate.not_valid_before(now - datetime.timedelta(hours=1))
        certificate = certificate.not_valid_after(now + datetime.timedelta(hours=1))
        return certificate.add_extension(extension, critical=True).sign(authority, hashes.SHA256())

    root = sign(issuer, authority, x509.BasicConstraints(ca=True, path_length=None))
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(host))])
    leaf = sign(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)]), server, names)
    pem = serialization.Encoding.PEM
    trusted, chain = folder / "authority.pem", folder / "server.pem"
    trusted.write_bytes(root.public_bytes(pem))
    key = server.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    chain.write_bytes(key + leaf.public_bytes(pem))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    return trusted, context
