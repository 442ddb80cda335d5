"""servers.yml: which hosts the ssh tools may name. Bytes in; an inventory, or every mistake with its place, out.

Below: `policy.source` reads YAML strictly. Above: `ssh`. Hosts are a mapping from alias to host, or the list of
mcp-ssh-orchestrator, whose items carry `alias`. What only a real connection needs (`port`, `credentials`) may stand
in the file and is not used.
"""

from __future__ import annotations

__all__ = ["LOCAL", "Host", "HostsError", "Inventory", "load", "read"]

import os
from collections.abc import Iterator
from typing import Final

import msgspec

from intercept_py.errors import Problem
from intercept_py.jobs.dialects import ssh_inputs
from intercept_py.policy import messages as say
from intercept_py.policy import source
from intercept_py.policy.section import describe
from intercept_py.policy.tree import Array, Broken, Node, Object, Problems, Scalar, member

LOCAL: Final = "local"
"""The `host` that this build can run on."""

_FIELDS: Final = ("host", "description", "tags", "port", "credentials")
_NO_HOSTS = "the file holds no hosts: start with `hosts:`"


class Host(msgspec.Struct, frozen=True):
    """One host. `host` is `LOCAL` or an address of which nothing is known here."""

    alias: str
    host: str = LOCAL
    description: str = ""
    tags: tuple[str, ...] = ()


class Inventory(msgspec.Struct, frozen=True):
    """All hosts by alias, in file order."""

    hosts: dict[str, Host]

    def tagged(self, tag: str) -> list[Host]:
        """The hosts that carry a tag."""
        return [host for host in self.hosts.values() if tag in host.tags]


class HostsError(Exception):
    """A servers.yml that may not be used; `problems` is never empty, and `str()` has a line for each."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


def load(path: str | None) -> Inventory:
    """The inventory at `path`; without one, the single host `local`. Messages name the file without its directories."""
    if path is None:
        return Inventory({LOCAL: Host(LOCAL, description="this machine")})
    name = os.path.basename(path)
    if not os.path.isfile(path):
        raise _unusable(name, "there is no such file: name a YAML file that lists `hosts`")
    try:
        with open(path, "rb") as file:
            return read(file.read(source.MAX_BYTES + 1), name)
    except OSError as exc:
        raise _unusable(name, f"cannot read the file: {exc.strerror}") from None


def read(text: bytes, name: str) -> Inventory:
    """The inventory in `text`; `name` names the file in messages. Raises `HostsError` with all problems at once."""
    if not text.strip():
        raise _unusable(name, _NO_HOSTS)
    root, problems = source.read(text, name, "hosts", "hosts")
    hosts = _hosts(root, problems) if root else {}
    found = problems.sorted()
    if found:
        raise HostsError(found)
    return Inventory(hosts)


def _unusable(name: str, why: str) -> HostsError:
    return HostsError((Problem(name, 1, 1, "$", why),))


def _hosts(root: Node, problems: Problems) -> dict[str, Host]:
    if not isinstance(root, Object):
        problems.add(root, "$", say.NOT_A_MAPPING, what="the file", got=describe(root))
        return {}
    _check_fields(root, "$", "the file", ("hosts",), problems)
    if "hosts" not in root.members:
        problems.add(root, "$", _NO_HOSTS)
        return {}
    hosts: dict[str, Host] = {}
    for entry in _entries(root.members["hosts"].node, problems):
        alias, host = entry.alias(), entry.host()
        if alias in hosts:
            problems.add(entry.node, entry.path, say.REPEATED, text=alias)
        elif alias and host:
            hosts[alias] = msgspec.structs.replace(host, alias=alias)
    return hosts


def _entries(node: Node, problems: Problems) -> Iterator[_Entry]:
    """Every host of the mapping or the list; what is no mapping itself is reported."""
    entries: list[tuple[str, Node | None, Node]] = []
    fields: tuple[str, ...] = _FIELDS
    if isinstance(node, Object):
        entries = [(member("$.hosts", alias), found.key, found.node) for alias, found in node.members.items()]
    elif isinstance(node, Array):
        fields = ("alias", *_FIELDS)
        entries = [(f"$.hosts[{index}]", None, item) for index, item in enumerate(node.items)]
    else:
        values = "a mapping from alias to host"
        problems.add(node, "$.hosts", say.WRONG_TYPE, name="hosts", values=values, got=describe(node))
    for path, alias, entry in entries:
        if isinstance(entry, Object):
            _check_fields(entry, path, "a host", fields, problems)
            yield _Entry(entry, path, alias, problems)
        elif not isinstance(entry, Broken):
            problems.add(entry, path, say.NOT_A_MAPPING, what="a host", got=describe(entry))


def _check_fields(node: Object, path: str, what: str, fields: tuple[str, ...], problems: Problems) -> None:
    for name, found in node.members.items():
        if name not in fields:
            names = ", ".join(fields)
            problems.add(found.key, member(path, name), say.UNKNOWN_FIELD, name=name, what=what, names=names)


class _Entry:
    """One host as it stands in the file. A getter that reports a mistake returns None."""

    def __init__(self, node: Object, path: str, key: Node | None, problems: Problems) -> None:
        self.node, self.path = node, path
        self._key, self._problems = key, problems

    def alias(self) -> str | None:
        """The key of a mapping, the field of a list's item."""
        node = self._key or self._field("alias", "text")
        return None if node is None else self._name("alias", node, self.path)

    def host(self) -> Host | None:
        """Everything but the alias."""
        address = self._text("host", "`local` or an address")
        description = self._text("description") or ""
        tags = tuple(self._tags())
        return None if address is None else Host("", address, description, tags)

    def _field(self, name: str, required: str = "") -> Node | None:
        found = self.node.members.get(name)
        if found is None and required:
            self._problems.add(self.node, self.path, say.MISSING_FIELD, name=name, values=required)
        return None if found is None or isinstance(found.node, Broken) else found.node

    def _text(self, name: str, required: str = "") -> str | None:
        node = self._field(name, required)
        path = member(self.path, name)
        if node is None:
            return None
        if not isinstance(node, Scalar) or not isinstance(node.value, str):
            self._problems.add(node, path, say.WRONG_TYPE, name=name, values="text", got=describe(node))
        elif not node.value.strip():
            self._problems.add(node, path, say.BLANK, name=name)
        else:
            return node.value.strip()
        return None

    def _tags(self) -> Iterator[str]:
        node = self._field("tags")
        path = member(self.path, "tags")
        if isinstance(node, Array):
            for index, item in enumerate(node.items):
                tag = self._name("tags", item, f"{path}[{index}]")
                if tag:
                    yield tag
        elif node is not None:
            self._problems.add(node, path, say.WRONG_TYPE, name="tags", values="a list of text", got=describe(node))

    def _name(self, what: str, node: Node, path: str) -> str | None:
        """A text that the tools accept as alias or tag."""
        if not isinstance(node, Scalar) or not isinstance(node.value, str):
            self._problems.add(node, path, say.WRONG_TYPE, name=what, values="text", got=describe(node))
            return None
        try:
            return ssh_inputs.tag(node.value) if what == "tags" else ssh_inputs.alias(node.value)
        except ssh_inputs.InputError as exc:
            self._problems.add(node, path, say.REFUSED, detail=str(exc))
            return None
