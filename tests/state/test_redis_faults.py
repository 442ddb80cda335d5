"""A Redis that is away, stopped, killed, empty or none at all: calls are denied soon, and limits hold."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from intercept_py.errors import StateError, UnavailableError
from intercept_py.model import Charge, Strategy, Window
from intercept_py.state import State, open_state
from intercept_py.state.quota import Quota
from intercept_py.state.redis import RedisStorage
from tests.support import redis_store
from tests.support.commands import received
from tests.support.redis_store import Server
from tests.support.wire import StartProxy, Wire, denial

ONE = (Charge(("limit", "t"), 1, 10**6, Window(3600), Strategy.MOVING, "r"),)
TEN = "tools: {'*': {rules: [{rate_limit: {max: 10, window: 3600, per: global}}]}}\n"
SOON = 3.0  # several of the waits of 0.25 s, on a busy machine


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with redis_store.server(tmp_path / "redis") as server:
        yield server


def problem(state: State) -> str:
    """What a charge that fails says; fails if it takes long."""
    begun = time.monotonic()
    with pytest.raises(StateError) as caught:
        state.charge("s", ONE)
    assert time.monotonic() - begun < SOON
    assert "hunter2" not in str(caught.value)
    return str(caught.value)


@contextmanager
def speaker(answer: bytes | None) -> Iterator[int]:
    """A port at which each of our messages gets this answer, or none at all; with an empty one it hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=talk, args=(connection,), daemon=True).start()

        def talk(connection: socket.socket) -> None:
            with connection:
                while data := connection.recv(65536):
                    if answer == b"":
                        return
                    if answer is not None:
                        connection.sendall(answer.replace(b"ECHO", data.replace(b"\r\n", b" ")))

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "is not Redis"),
        (b"SSH-2.0-OpenSSH_9.2p1\r\n", "is not Redis"),
        (b"+OK\r\n", "is not Redis"),
        (b":1\r\n", "is not Redis"),
        (b"-ERR unknown command, with args beginning with: ECHO\r\n", "unknown command"),
        (b"", "cannot be reached"),
        (None, "does not answer within 0.25 s"),
    ],
)
@pytest.mark.parametrize("user", ["", ":hunter2@"])
def test_what_is_no_redis_is_told_soon_and_in_one_line(answer: bytes | None, expected: str, user: str) -> None:
    with speaker(answer) as port:
        told = problem(Quota(RedisStorage(f"redis://{user}127.0.0.1:{port}")))
    assert f"127.0.0.1:{port}" in told
    assert "\n" not in told
    assert expected in told or user


@pytest.mark.parametrize(
    ("answer", "unavailable"),
    [
        (b"-BUSY Redis is busy running a script.", True),
        (b"-MISCONF Redis is configured to save RDB snapshots, but is unable to persist", True),
        (b"-ERR Error running script (call to f_0): @user_script:9: -MISCONF Redis is configured", True),
        (b"-LOADING Redis is loading the dataset in memory", True),
        (b"-NOPERM this user has no permissions to run the 'evalsha' command", True),
        (b"-CLUSTERDOWN The cluster is down", True),
        (b"-OOM command not allowed when used memory > 'maxmemory'.", False),
        (b"-ERR unknown command 'EVALSHA', with args beginning with: hunter2 -BUSY ", False),
        (b"-ERR something else", False),
    ],
)
def test_only_what_no_caller_can_bring_about_may_open_limits(answer: bytes, unavailable: bool) -> None:
    with speaker(answer + b"\r\n") as port, pytest.raises(StateError) as caught:
        open_state(f"redis://127.0.0.1:{port}").charge("s", ONE)
    assert isinstance(caught.value, UnavailableError) is unavailable
    assert "hunter2" not in str(caught.value)


def test_where_nobody_listens_the_charge_fails_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert f"Redis at 127.0.0.1:{port} cannot be reached" in problem(open_state(f"redis://127.0.0.1:{port}"))


@pytest.mark.parametrize("user", ["", ":hunter2@", "nobody:hunter2@"])
def test_a_wrong_password_is_told_without_it(server: Server, user: str) -> None:
    server.client.config_set("requirepass", "right")
    told = problem(open_state(server.url.replace("//", f"//{user}")))
    assert told.endswith("refuses the user name or password in the URL of the state")
    open_state(server.url.replace("//", "//:right@")).charge("s", ONE)


def test_a_stopped_redis_stalls_one_call_and_not_each(server: Server) -> None:
    state = open_state(server.url)
    state.charge("s", ONE)
    server.signal(signal.SIGSTOP)
    begun = time.monotonic()
    problems = {problem(state) for _ in range(1000)}
    assert time.monotonic() - begun < SOON
    assert problems == {f"Redis at 127.0.0.1:{server.port} does not answer within 0.25 s"}
    server.signal(signal.SIGCONT)


def test_a_restarted_redis_costs_one_denied_call_that_says_so(server: Server) -> None:
    state = open_state(server.url)
    receipt = state.charge("s", ONE)
    server.kill()
    assert "cannot be reached" in problem(state)
    server.start()
    deadline = time.monotonic() + 20
    while "has lost its counters" not in (told := problem(state)):
        assert "cannot be reached" in told
        assert time.monotonic() < deadline
        time.sleep(0.02)
    state.refund(receipt)
    assert state.charge("s", ONE).refused is None


# Through the proxy.


def start(proxy: StartProxy, server: Server, **env: str) -> Wire:
    wire = proxy(TEN, None, "--state", server.url, env=env or None)
    wire.initialize()
    return wire


def allowed(wire: Wire) -> bool:
    """Whether a call is allowed; it is answered soon."""
    return bool("isError" not in wire.call("echo", {"text": "x"}, timeout=SOON)["result"])


def test_while_redis_is_stopped_every_call_is_answered_and_denied_and_then_the_limit_holds(
    proxy: StartProxy, server: Server
) -> None:
    wire = start(proxy, server)
    before = [allowed(wire) for _ in range(2)]
    server.signal(signal.SIGSTOP)
    stopped = []
    until = time.monotonic() + 2
    while time.monotonic() < until:
        stopped.append(denial(wire.call("echo", {"text": "x"}, timeout=SOON)))
    server.signal(signal.SIGCONT)
    assert before == [True, True]
    assert all("the limits cannot be checked: Redis at" in reason for reason in stopped)
    assert len(stopped) > 10
    deadline = time.monotonic() + 20
    while not (again := allowed(wire)):
        assert time.monotonic() < deadline, "it never recovered"
        time.sleep(0.05)
    after = [again, *[allowed(wire) for _ in range(20)]]
    # Charges that Redis made after we had given up on them count, although their calls were denied.
    assert 6 <= sum(after) <= 8
    wire.finish()


def test_when_redis_is_killed_in_a_burst_every_call_is_answered_and_none_beyond_the_limit_passes(
    proxy: StartProxy, server: Server, record: Path
) -> None:
    wire = start(proxy, server)
    assert allowed(wire)
    idents = [wire.start_call("echo", {"text": "x"}) for _ in range(5)]
    server.kill()
    idents += [wire.start_call("echo", {"text": "x"}) for _ in range(30)]
    answers = [wire.answer_to(ident) for ident in idents]
    assert all("result" in answer for answer in answers)
    passed = sum(message.get("method") == "tools/call" for message in received(record))
    assert 1 <= passed <= 6
    server.start()
    deadline = time.monotonic() + 20
    while not allowed(wire):
        assert time.monotonic() < deadline, "it never recovered"
        time.sleep(0.05)
    assert "has lost its counters (restarted, flushed or replaced), so that limits begin anew" in wire.stderr()
    wire.finish()


def test_two_proxies_share_one_limit(proxy: StartProxy, server: Server) -> None:
    wires = [start(proxy, server) for _ in range(2)]
    idents = [(wire, wire.start_call("echo", {"text": "x"})) for _ in range(8) for wire in wires]
    answers = [wire.answer_to(ident) for wire, ident in idents]
    assert sum("isError" not in answer["result"] for answer in answers) == 10
