"""Real Redis servers that take over from each other: a primary and two replicas.

with by_hand(tmp_path) as group:                    # or `sentinel`, or `cluster`, which take longer
    storage = RedisStorage(group.url)
    group.servers[0].kill()
    group.promote(1)
"""

from __future__ import annotations

__all__ = ["Group", "Teller", "by_hand", "cluster", "sentinel", "teller", "wait_until"]

import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

import redis

from tests.support.redis_store import Server

SERVICE = "limits"
_SLOTS = 16_384
_PATIENCE = 60.0


def wait_until(holds: Callable[[], Any], what: str) -> None:
    """Until it holds, which it does not where a server is away."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            if holds():
                return
        except redis.RedisError:
            pass
        assert time.monotonic() < deadline, f"not within {_PATIENCE:g} s: {what}"
        time.sleep(0.02)


class Group:
    """`servers[0]` is the primary at first, the others are its replicas. `url`: how a storage finds the primary."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.servers = [Server(folder / f"server-{number}") for number in range(3)]
        self.url = ""

    def start(self) -> None:
        """All of them, empty."""
        self.servers[0].start(*self.options(0))
        for number in (1, 2):
            self.servers[number].start(*self.options(number))
            self.follow(number, 0)

    def options(self, number: int) -> tuple[str, ...]:
        """Of the command line. A sentinel prefers the lower priority."""
        return ("--repl-diskless-sync", "no", "--replica-priority", str(1 + number))

    def follow(self, number: int, primary: int) -> None:
        """Have a server be the replica of another one, and wait until it knows what that knows."""
        self.servers[number].client.replicaof("127.0.0.1", self.servers[primary].port)
        self.wait_for_replica(number, primary)

    def wait_for_replica(self, number: int, primary: int) -> None:
        """Until it knows what that primary knows."""
        port = self.servers[primary].port
        connected = {"role": "slave", "master_port": port, "master_link_status": "up"}
        wait_until(lambda: connected.items() <= self.facts(number).items(), f"server {number} follows {primary}")

    def cut_off(self, *numbers: int) -> None:
        """Stop replicas of the first primary, so that nothing that it does from now on is on the way to them."""
        client: Any = self.servers[0].client
        for number in numbers:
            self.servers[number].signal(signal.SIGSTOP)
        client.client_kill_filter(_type="replica")
        for number in {1, 2}.difference(numbers):
            wait_until(lambda: self._has_replica(number), f"server {number} is back")  # noqa: B023  asked at once

    def _has_replica(self, number: int) -> bool:
        facts = self.facts(0)
        replicas = [facts[f"slave{at}"] for at in range(facts["connected_slaves"])]
        port = self.servers[number].port
        return any((one["port"], one["state"]) == (port, "online") for one in replicas)

    def facts(self, number: int) -> dict[str, Any]:
        """What a server says of its replication."""
        facts: Any = self.servers[number].client.info("replication")
        return dict(facts)

    def promote(self, number: int) -> None:
        """Have a server be a primary; it is one when this returns."""
        self.servers[number].client.replicaof("NO", "ONE")

    def stop(self) -> None:
        """Kill all."""
        for server in self.servers:
            server.kill()
            server.client.close()


class Teller:
    """A sentinel that names the server at this port, if any. `heard`: all that it was asked, with passwords."""

    def __init__(self, listener: socket.socket, port: int | None) -> None:
        self.url = f"redis+sentinel://127.0.0.1:{listener.getsockname()[1]}/{SERVICE}"
        self.port = port
        self.heard: list[bytes] = []
        self._listener = listener

    def serve(self) -> None:
        """Until the listener is shut down."""
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                with connection:
                    while data := connection.recv(65536):
                        self.heard.append(data)
                        asked = b"GET-MASTER-ADDR-BY-NAME" in data
                        connection.sendall(self._answer() if asked else b"+OK\r\n" * data.count(b"*"))

    def _answer(self) -> bytes:
        port = str(self.port)
        return f"*2\r\n$9\r\n127.0.0.1\r\n${len(port)}\r\n{port}\r\n".encode() if self.port else b"*-1\r\n"


@contextmanager
def teller(port: int | None) -> Iterator[Teller]:
    """Such a sentinel, one client at a time."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        told = Teller(listener, port)
        threading.Thread(target=told.serve, daemon=True).start()
        yield told
        listener.shutdown(socket.SHUT_RDWR)


class _Told(Group):
    def __init__(self, folder: Path, told: Teller) -> None:
        super().__init__(folder)
        self._told = told
        self.url = told.url
        told.port = self.servers[0].port

    def promote(self, number: int) -> None:
        super().promote(number)
        self._told.port = self.servers[number].port
        for other in {0, 1, 2} - {number}:
            with suppress(redis.RedisError):  # it is away
                self.servers[other].client.replicaof("127.0.0.1", self._told.port)


class _Watched(Group):
    """With a sentinel, which promotes a replica by itself once the primary is gone."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.sentinel = Server(folder / "sentinel")
        self._file = folder / "sentinel.conf"
        self.url = f"redis+sentinel://127.0.0.1:{self.sentinel.port}/{SERVICE}"

    def start(self) -> None:
        super().start()
        lines = [
            f"monitor {SERVICE} 127.0.0.1 {self.servers[0].port} 1",
            f"down-after-milliseconds {SERVICE} 1500",
            f"failover-timeout {SERVICE} 3000",
        ]
        self._file.write_text("".join(f"sentinel {line}\n" for line in lines))
        self.sentinel.start("--sentinel", file=self._file)
        wait_until(lambda: self._known()["num-slaves"] == 2, "the sentinel knows the replicas")

    def _known(self) -> dict[str, Any]:
        known: Any = self.sentinel.client.sentinel_master(SERVICE)
        return dict(known)

    def promote(self, number: int) -> None:
        wait_until(lambda: self.facts(number)["role"] == "master", f"the sentinel promotes server {number}")

    def stop(self) -> None:
        self.sentinel.kill()
        self.sentinel.client.close()
        super().stop()


class _Cluster(Group):
    """A cluster that asks nobody's consent to a failover. Its first seed knows the slots, and has none."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.url = f"redis+cluster://127.0.0.1:{self.servers[2].port},127.0.0.1:{self.servers[1].port}"

    def options(self, number: int) -> tuple[str, ...]:
        own = ("--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--cluster-require-full-coverage", "no")
        return (*super().options(number), *own)

    def start(self) -> None:
        for number, server in enumerate(self.servers):
            server.start(*self.options(number))
        self._cluster(0, "ADDSLOTS", *range(_SLOTS))
        for number in (1, 2):
            self._cluster(0, "MEET", "127.0.0.1", self.servers[number].port)
        for number in (1, 2):
            self.follow(number, 0)
        for number in range(3):
            wait_until(lambda: self._is_ready(number), f"server {number} knows the others")  # noqa: B023  asked at once

    def _is_ready(self, number: int) -> bool:
        info: bytes = self._cluster(number, "INFO")
        return b"cluster_state:ok" in info and b"cluster_known_nodes:3" in info

    def follow(self, number: int, primary: int) -> None:
        name = self._cluster(primary, "MYID").decode()
        wait_until(lambda: self._cluster(number, "REPLICATE", name), f"server {number} knows server {primary}")
        self.wait_for_replica(number, primary)

    def promote(self, number: int) -> None:
        self._cluster(number, "FAILOVER", "TAKEOVER")
        wait_until(lambda: self.facts(number)["role"] == "master", f"server {number} is a primary")

    def _cluster(self, number: int, *words: str | int) -> Any:
        client: Any = self.servers[number].client
        return client.execute_command("CLUSTER", *words)


@contextmanager
def _started(group: Group) -> Iterator[Group]:
    try:
        group.start()
        yield group
    finally:
        group.stop()


@contextmanager
def by_hand(folder: Path) -> Iterator[Group]:
    """Servers that are promoted by hand, and a sentinel that is told of it."""
    with teller(None) as told, _started(_Told(folder, told)) as group:
        yield group


def sentinel(folder: Path) -> AbstractContextManager[Group]:
    """Servers that a sentinel looks after."""
    return _started(_Watched(folder))


def cluster(folder: Path) -> AbstractContextManager[Group]:
    """Nodes of a cluster."""
    return _started(_Cluster(folder))
