"""What URLs of a Redis mean, and how mistakes in them are told: without the password, and before anything starts."""

from __future__ import annotations

import subprocess
import sys

import pytest

from intercept_py import state
from intercept_py.errors import StateError
from intercept_py.state.redis_address import Address, parse
from tests.support.wire import StartProxy


@pytest.mark.parametrize(
    ("url", "kind", "place", "options"),
    [
        ("redis://db", "tcp", "db:6379", {"host": "db", "port": 6379, "db": 0}),
        ("redis://[::1]:1/2", "tcp", "[::1]:1", {"host": "::1", "port": 1, "db": 2}),
        ("redis://u%40:p%2F%40@db:1", "tcp", "db:1", {"username": "u@", "password": "p/@"}),
        ("redis://:secret@db?db=3", "tcp", "db:6379", {"password": "secret", "db": 3}),
        ("rediss://db?ssl_ca_certs=/ca.pem", "tls", "db:6379", {"ssl_ca_certs": "/ca.pem"}),
        ("redis+unix:///run/redis.sock?db=1", "unix", "/run/redis.sock", {"path": "/run/redis.sock", "db": 1}),
        ("unix://:secret@/run/redis.sock", "unix", "/run/redis.sock", {"password": "secret", "db": 0}),
    ],
)
def test_a_url_names_a_server_and_how_to_talk_to_it(
    url: str, kind: str, place: str, options: dict[str, str | int]
) -> None:
    address = parse(url)
    assert (address.kind, address.place, address.timeout) == (kind, place, 0.25)
    assert options.items() <= address.options.items()


def test_a_timeout_is_given_in_seconds() -> None:
    assert parse("redis://db?timeout=1.5") == Address("tcp", "db:6379", {"host": "db", "port": 6379, "db": 0}, 1.5)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("redis:", "names no server: write `redis://HOST:PORT/DATABASE`"),
        ("redis:///0", "names no server"),
        ("redis://u:hunter2@", "names no server"),
        ("redis+unix:", "names no server"),
        ("redis://u:hunter2@db:port", "is not understood"),
        ("redis://u:hunter2@db:99999", "is not understood"),
        ("redis://u:hunter2@[db", "is not understood"),
        ("redis://u:hunter2#@db", "is not understood"),
        ("redis://u:hunter2@db/zero", "must be a number"),
        ("redis://u:hunter2@db?timeout=0", "`timeout` in the URL of the state must be seconds"),
        ("redis://u:hunter2@db?timeout=nan", "`timeout` in the URL of the state must be seconds"),
        ("redis://u:hunter2@db?socket_timeout=1", "`socket_timeout` .* there are `timeout`, `db`$"),
        ("rediss://db?ssl_cert_reqs=maybe", "`ssl_cert_reqs` in the URL of the state has a value that it cannot"),
        ("redis+cluster://:hunter2@db", "on one node: name a Redis that stands alone"),
        ("redis+sentinel://:hunter2@db", "name the primary, with `redis:`"),
        ("memcached://db", "cannot charge several counters at once, and holds no exact decimals: use `redis:`"),
        ("REDIS://:hunter2@db", "of kind `REDIS` is not supported: use .*`redis:`"),
    ],
)
def test_a_bad_url_is_told_in_one_line_without_the_password(url: str, problem: str) -> None:
    with pytest.raises(StateError, match=problem) as caught:
        state.check(url)
    assert "hunter2" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_proxy_does_not_start_with_a_bad_url(proxy: StartProxy) -> None:
    wire = proxy("default: allow\n", None, "--state", "redis://u:hunter2@db?x=1")
    assert wire.wait() == 73
    assert "`x` in the URL of the state is not an option of it" in wire.stderr()
    assert "hunter2" not in wire.stderr()


def test_a_missing_package_is_told_with_the_command_that_installs_it() -> None:
    program = (
        "import sys; sys.modules['redis'] = None\n"
        "from intercept_py import state\n"
        "from intercept_py.errors import StateError\n"
        "try: state.check('redis://db')\n"
        "except StateError as exc: print(exc)"
    )
    told = subprocess.run([sys.executable, "-c", program], check=True, timeout=60, capture_output=True, text=True)
    assert told.stdout.strip() == "limits in Redis need the package `redis`: pip install redis"


def test_redis_is_imported_only_for_counters_in_redis() -> None:
    program = (
        "import sys; from intercept_py.state import check, open_state; open_state('memory:'); check('redis://db'); "
        "assert 'redis' not in sys.modules; open_state('redis://db'); assert 'redis' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
