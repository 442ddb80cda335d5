"""servers.yml: both of its forms, and every mistake with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from intercept_py.jobs.dialects.ssh_hosts import Host, HostsError, Inventory, load, read

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "servers.yml"


def mistakes(text: str) -> str:
    """What is wrong with a file, one mistake a line."""
    with pytest.raises(HostsError) as refused:
        read(text.encode(), "servers.yml")
    return str(refused.value)


def test_without_a_file_there_is_one_local_host() -> None:
    assert list(load(None).hosts) == ["local"]
    assert load(None).hosts["local"].host == "local"


def test_the_example_holds_local_hosts_and_tags() -> None:
    inventory = load(str(EXAMPLE))
    assert {host.host for host in inventory.hosts.values()} == {"local"}
    assert inventory.tagged("web")
    assert inventory.tagged("nothing") == []


def test_hosts_are_a_mapping_or_a_list_with_aliases() -> None:
    mapping = "hosts:\n  web.1: {host: local, description: A web server, tags: [web, prod]}\n  db: {host: 10.0.0.1}\n"
    listed = (
        "hosts:\n  - {alias: web.1, host: local, description: A web server, tags: [web, prod]}\n"
        "  - {alias: db, host: 10.0.0.1, port: 2222, credentials: ops}\n"
    )
    expected = Inventory(
        {"web.1": Host("web.1", "local", "A web server", ("web", "prod")), "db": Host("db", "10.0.0.1")}
    )
    assert read(mapping.encode(), "a.yml") == expected
    assert read(listed.encode(), "a.yml") == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "servers.yml:1:1: $: the file holds no hosts: start with `hosts:`"),
        ("# nothing\n", "servers.yml:1:1: $: the file holds no hosts: start with `hosts:`"),
        ("{}", "servers.yml:1:1: $: the file holds no hosts: start with `hosts:`"),
        ("- a", "servers.yml:1:1: $: the file is a mapping of fields, not a list"),
        ("hosts: 3", "servers.yml:1:8: $.hosts: `hosts` takes a mapping from alias to host, not the number `3`"),
        ("hosts: {}\nhost: {}", "servers.yml:2:1: $.host: unknown field `host`: the file has hosts"),
        ("hosts:\n  a: 1", "servers.yml:2:6: $.hosts.a: a host is a mapping of fields, not the number `1`"),
        ("hosts:\n  a: {}", "servers.yml:2:6: $.hosts.a: `host` is missing: it takes `local` or an address"),
        (
            "hosts:\n  a: {host: ' '}",
            "servers.yml:2:13: $.hosts.a.host: `host` is blank: write something, or delete it",
        ),
        ("hosts:\n  a: {host: 1}", "servers.yml:2:13: $.hosts.a.host: `host` takes text, not the number `1`"),
        (
            "hosts:\n  a: {host: local, alias: b}",
            "servers.yml:2:20: $.hosts.a.alias: unknown field `alias`: a host has host, description, tags, port, "
            "credentials",
        ),
        (
            "hosts:\n  a b: {host: local}",
            'servers.yml:2:3: $.hosts["a b"]: alias contains invalid characters (only alphanumeric, dash, underscore, '
            "dot allowed)",
        ),
        ("hosts:\n  - {host: local}", "servers.yml:2:5: $.hosts[0]: `alias` is missing: it takes text"),
        (
            "hosts:\n  - {alias: a, host: local}\n  - {alias: a, host: local}",
            "servers.yml:3:5: $.hosts[1]: `a` is listed twice: keep one",
        ),
        (
            "hosts:\n  a: {host: local, tags: web}",
            "servers.yml:2:26: $.hosts.a.tags: `tags` takes a list of text, not the text `web`",
        ),
        (
            "hosts:\n  a: {host: local, tags: [a, 1]}",
            "servers.yml:2:30: $.hosts.a.tags[1]: `tags` takes text, not the number `1`",
        ),
        (
            "hosts:\n  a: {host: local}\n  a: {host: local}",
            "servers.yml:3:3: $.hosts.a: `a` was given on line 2 already: keep one",
        ),
        ("hosts: [", "servers.yml:2:1: $.hosts[0]: not valid YAML"),
    ],
)
def test_a_mistake_is_told_with_file_line_and_remedy(text: str, expected: str) -> None:
    assert mistakes(text).startswith(expected)


def test_all_mistakes_are_told_at_once() -> None:
    assert len(mistakes("hosts:\n  a: {}\n  b: {host: local, tag: x}\n").splitlines()) == 2


def test_a_file_that_cannot_be_read_is_named_without_its_directories(tmp_path: Path) -> None:
    for path in (tmp_path / "none.yml", tmp_path):
        with pytest.raises(HostsError, match="there is no such file") as refused:
            load(str(path))
        assert str(tmp_path.parent) not in str(refused.value)
