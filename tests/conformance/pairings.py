"""Starts servers and proxies: what stands between the suite and the server, or the client, that it checks.

A pairing is named after what the proxy speaks on its client side and on its server side. The suite itself speaks HTTP
only, so that a pairing with stdio has another proxy beside it, which is a pairing of its own in the comparison.

Below: commands. Above: the run, and the tests of SDK clients.
"""

from __future__ import annotations

__all__ = [
    "ALONE",
    "EVERYTHING",
    "PAIRINGS",
    "Proxies",
    "Server",
    "for_client",
    "for_sdk",
    "listening",
    "server_behind",
]

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from mcp import StdioServerParameters

from tests.support.npm import ROOT

ALONE = "alone"
PAIRINGS = ("http-http", "http-stdio", "stdio-stdio", "stdio-http")
POLICY = Path(ROOT, "tests", "conformance", "policy.yaml")
EVERYTHING = (sys.executable, "-m", "tests.support.everything_server")
START_SECONDS = 30.0
END_SECONDS = 15.0

Server = str | list[str]  # a URL, or a command that speaks over stdin and stdout

_LISTENING = re.compile(rb"listening on (http://\S+)")


class Proxies:
    """Proxies under one policy, which keep their counters and their audit file in `folder`.

    `credentials`: options of those that reach their server at a URL.
    """

    def __init__(self, policy: Path, folder: Path, credentials: Sequence[str] = ()) -> None:
        self.log = folder / "log"
        self._credentials = credentials
        kept = ("--audit", os.fspath(folder / "audit.jsonl"), "--state", f"sqlite:///{folder}/state.db")
        self._run = (sys.executable, "-m", "intercept_py", "run", "-c", os.fspath(policy), *kept)

    def command(self, server: Server, *, listen: bool) -> list[str]:
        """The command line of a proxy in front of `server`, which listens or speaks over stdin and stdout."""
        front = ("--listen", "127.0.0.1:0") if listen else ()
        back = ("--upstream", server, *self._credentials) if isinstance(server, str) else ("--", *server)
        return [*self._run, *front, *back]

    @contextmanager
    def pairing(self, name: str, server: Server) -> Iterator[Server]:
        """What a client connects to in order to reach `server`, which must be what the pairing has on that side."""
        command = self.command(server, listen=name.startswith("http"))
        if name.startswith("http"):
            with listening(command, self.log) as url:
                yield url
        else:
            yield command


@contextmanager
def listening(command: Sequence[str], log: Path) -> Iterator[str]:
    """Start a server (or proxy) that says on stderr where it is `listening on`: its URL. It ends with the block.

    What it says goes to `log`. Raises RuntimeError if it does not start, or if SIGTERM does not end it.
    """
    said = threading.Event()
    urls: list[str] = []

    def read() -> None:
        assert process.stderr is not None
        with log.open("ab") as file:
            for line in process.stderr:
                file.write(line)
                file.flush()
                if match := _LISTENING.search(line):
                    urls.append(match[1].decode())
                    said.set()
        said.set()

    process = subprocess.Popen(
        list(command),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        cwd=ROOT,  # in our process group: what ends us from outside ends it, too
    )
    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        if not said.wait(START_SECONDS) or not urls:
            raise RuntimeError(f"it does not listen: {' '.join(command)}\n{log.read_text()}")
        yield urls[0]
        process.terminate()
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"SIGTERM did not end it: {' '.join(command)}\n{log.read_text()}") from None
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        reader.join(END_SECONDS)
        if process.stderr is not None:
            process.stderr.close()


def for_sdk(server: Server) -> str | StdioServerParameters:
    """The same for a client on the Python SDK, with our whole environment."""
    if isinstance(server, str):
        return server
    return StdioServerParameters(command=server[0], args=server[1:], env=dict(os.environ))


@contextmanager
def server_behind(pairing: str, folder: Path) -> Iterator[str]:
    """The URL at which the suite finds the everything server, alone or through a pairing."""
    proxies = Proxies(POLICY, folder)
    with ExitStack() as stack:

        def listen(command: Sequence[str]) -> str:
            return stack.enter_context(listening(command, proxies.log))

        server: Server = [*EVERYTHING, "stdio"] if pairing.endswith("stdio") else listen([*EVERYTHING, "http"])
        front = server if pairing == ALONE else stack.enter_context(proxies.pairing(pairing, server))
        yield front if isinstance(front, str) else listen(proxies.command(front, listen=True))


@contextmanager
def for_client(pairing: str, url: str, folder: Path, credentials: Sequence[str]) -> Iterator[Server]:
    """What a client connects to in order to reach `url` through a pairing, which has `credentials` for it."""
    proxies = Proxies(POLICY, folder, credentials)
    with proxies.pairing(pairing, proxies.command(url, listen=False) if pairing.endswith("stdio") else url) as front:
        yield front
