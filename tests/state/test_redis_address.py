"""What URLs of a Redis mean, and how mistakes in them are told: without the password, and before anything starts."""

from __future__ import annotations

import subprocess
import sys

import pytest

from intercept_py import state
from intercept_py.errors import StateError
from intercept_py.state.redis_address import Address, Group, Options, parse
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


@pytest.mark.parametrize(
    ("url", "kind", "place", "options", "group"),
    [
        (
            "redis+sentinel://u:p@a,b:1/main?db=2",
            "tcp",
            "`main` (sentinels a:26379, b:1)",
            {"username": "u", "password": "p", "db": 2},
            Group((("a", 26379), ("b", 1)), "main", {"username": "u", "password": "p"}, 1),
        ),
        (
            "rediss+sentinel://:p@[::1]:1/main?sentinel_password=&ssl_ca_certs=/ca.pem&replicas=2",
            "tls",
            "`main` (sentinels [::1]:1)",
            {"password": "p", "db": 0, "ssl_ca_certs": "/ca.pem"},
            Group((("::1", 1),), "main", {}, 2),
        ),
        (
            "redis+cluster://:p%2C@a,[::1]:2/?failover=may-forget",
            "tcp",
            "a:6379, [::1]:2",
            {"password": "p,"},
            Group((("a", 6379), ("::1", 2)), None, {"password": "p,"}, 0),
        ),
        ("rediss+cluster://a:7", "tls", "a:7", {}, Group((("a", 7),), None, {}, 1)),
    ],
)
def test_a_url_names_servers_that_take_over_from_each_other(
    url: str, kind: str, place: str, options: Options, group: Group
) -> None:
    address = parse(url)
    assert (address.kind, address.place, address.options, address.group) == (kind, place, options, group)


def test_no_password_is_shown() -> None:
    address = parse("redis+sentinel://:hunter2@a/main?sentinel_password=hunter3")
    assert address.without_secrets("refused hunter2 and hunter3") == "refused … and …"


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
        ("redis://:hunter2@db,other", "names no server"),
        ("redis+cluster://:hunter2@", r"names no server: write `redis\+cluster://HOST:PORT,HOST:PORT`"),
        ("redis+cluster://:hunter2@db/1", "names no server"),
        ("redis+cluster://:hunter2@db,", "names no server"),
        (
            "redis+cluster://:hunter2@db?db=1",
            "`db` in the URL of the state is not .* there are `timeout`, `failover`, `re",
        ),
        (
            "redis+cluster://:hunter2@db?sentinel_password=hunter2",
            "`sentinel_password` in the URL of the state is not an",
        ),
        ("redis+cluster://:hunter2@db?failover=closed", "can only be `may-forget`: then limits go on at once when"),
        ("redis+cluster://:hunter2@db?replicas=0", "`replicas` in the URL of the state must be a number from 1 to 9"),
        ("redis+sentinel://:hunter2@db", r"names no server: write `redis\+sentinel://HOST:PORT,HOST:PORT/SERVICE`"),
        ("redis+sentinel://:hunter2@db/a/b", "names no server"),
        ("redis+sentinel://:hunter2@db:1,db:port/a", r"is not understood: write `redis\+sentinel:"),
        (
            "rediss+sentinel://:hunter2@db/a?x=1",
            "`x` in .* `db`, `failover`, `replicas`, `sentinel_password`, `ssl_ca_ce",
        ),
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
