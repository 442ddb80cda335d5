"""One HTTP exchange with an issuer, in a thread of its own: no redirects, bounded in time and size.

Rare, and never on the way of a call, so the standard library will do. TLS is verified with the system's certificates
(`SSL_CERT_FILE` names others). Above: `keys`, `client_credentials`.
"""

from __future__ import annotations

__all__ = ["MAX_BYTES", "SECONDS", "Answer", "exchange", "fetch"]

import asyncio
import socket
import ssl
import threading
from collections.abc import Mapping
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Final

import msgspec

from intercept_py.identity.faults import IdentityError
from intercept_py.identity.settings import check_url

MAX_BYTES: Final = 1024 * 1024
SECONDS = 10.0
"""For all of an exchange."""


class Answer(msgspec.Struct, frozen=True):
    """What came back."""

    status: int
    body: bytes


async def fetch(url: str) -> bytes:
    """The body of a GET that is answered 200. Raises `IdentityError`."""
    answer = await exchange("GET", url, {"Accept": "application/json"})
    if answer.status != 200:
        raise IdentityError(f"the answer has status {answer.status}")
    return answer.body


async def exchange(method: str, url: str, headers: Mapping[str, str], body: bytes | None = None) -> Answer:
    """Send one request and read its answer. Raises `IdentityError` for no answer, and for one that is too large."""
    request = _Request(method, url, headers, body)
    try:
        async with asyncio.timeout(SECONDS):
            return await request.answer()
    except TimeoutError:
        raise IdentityError(f"no complete answer within {SECONDS:g} s") from None
    finally:
        request.end()


class _Request:
    """A request and the thread that makes it, which ends soon after `end`."""

    def __init__(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> None:
        self._parts = check_url(url, "the URL")
        self._method = method
        self._headers = headers
        self._body = body
        self._socket: socket.socket | None = None  # a connection forgets it before the answer is read
        self._ended = False

    async def answer(self) -> Answer:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()

        def settle(answer: Answer | None, problem: str) -> None:
            if future.done():  # nobody waits any more
                return
            if answer is None:
                future.set_exception(IdentityError(problem))
            else:
                future.set_result(answer)

        def run() -> None:
            answer, problem = None, ""
            try:
                answer = self._exchange()
            except (IdentityError, OSError, HTTPException, ValueError) as exc:
                problem = _why(exc)
            with suppress(RuntimeError):  # the loop is closed: nobody is left to be told
                loop.call_soon_threadsafe(settle, answer, problem)

        # Not a thread of the loop's pool: that one is waited for when the program ends.
        threading.Thread(target=run, daemon=True).start()
        return await future

    def _exchange(self) -> Answer:
        connection = self._connect()
        try:
            self._socket = connection.sock
            if self._ended:
                raise IdentityError("nobody waits for the answer any more")
            target = (self._parts.path or "/") + (f"?{self._parts.query}" if self._parts.query else "")
            connection.request(self._method, target, self._body, dict(self._headers))
            response = connection.getresponse()
            body = response.read(MAX_BYTES + 1)
        finally:
            connection.close()
        if len(body) > MAX_BYTES:
            raise IdentityError(f"the answer has more than {MAX_BYTES} bytes")
        if response.length:
            raise IdentityError("the answer is cut short")
        return Answer(response.status, body)

    def _connect(self) -> HTTPConnection:
        if self._parts.scheme == "https":
            # Reads all certificates of the system, which takes too long for the loop.
            context = ssl.create_default_context()
            connection: HTTPConnection = HTTPSConnection(self._parts.netloc, timeout=SECONDS, context=context)
        else:
            connection = HTTPConnection(self._parts.netloc, timeout=SECONDS)
        connection.connect()
        return connection

    def end(self) -> None:
        """Whatever the thread waits for, it waits no longer. A server that drips would keep it for ever otherwise."""
        self._ended = True
        if self._socket is not None:
            with suppress(OSError):
                # Not the method of an SSL socket, which is in use by the thread.
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


def _why(exc: Exception) -> str:
    """One line; none of it is what the server sent."""
    if isinstance(exc, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {exc.verify_message}"
    if isinstance(exc, OSError):
        return (exc.strerror or str(exc) or type(exc).__name__).lower()
    return str(exc) if isinstance(exc, IdentityError) else f"the answer is no HTTP ({type(exc).__name__})"
