"""What a gateway file names and is somewhere else: policies, and the rest of what servers need to be reached.

All that is missing is told at once, at the place in the file that names it. Below: `model`. Above: `cli.serve`.
"""

from __future__ import annotations

__all__ = ["Resolved", "read_policies", "resolve"]

import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeVar

import msgspec

from intercept_py import policy_file, processes, state
from intercept_py.errors import InterceptError, PolicyError, Problem
from intercept_py.gateway_file.model import Auth, Command, Gateway, Reference, Remote, Values
from intercept_py.identity import tokens
from intercept_py.identity.secret_source import read_secret
from intercept_py.identity.watched_file import read_file
from intercept_py.policy import loader
from intercept_py.policy.rules import Policy
from intercept_py.transports.http_address import parse_fields

T = TypeVar("T")


class Resolved(msgspec.Struct, frozen=True):
    """Secrets included: never shown. `state` is the URL of the counters, None if the file names none.

    By the names of servers: the whole environment of those that are started, the header fields of the others. What the
    file has from variables of our environment is in that of a server only if the file gives it to that server.
    """

    state: str | None
    environments: Mapping[str, Mapping[str, str]]
    headers: Mapping[str, tuple[tuple[str, str], ...]]


def read_policies(gateway: Gateway) -> tuple[dict[str, Policy], list[Problem]]:
    """The policies of all servers that may be used, by the servers' names; and what is wrong with the others."""
    found, problems = {}, []
    for server in gateway.servers:
        path = server.policy.target
        try:
            text = policy_file.read_bytes(path)
        except PolicyError as exc:
            why = exc.problems[0].message.replace("the policy", f"the policy `{path}`", 1)
            problems.append(server.policy.problem(gateway.source, why))
            continue
        try:
            found[server.name] = loader.load(text, path)
        except PolicyError as exc:
            problems += exc.problems
    return found, sorted(set(problems))


def resolve(gateway: Gateway) -> tuple[Resolved, list[Problem]]:
    """What the file leads to; and what is missing, or cannot be meant."""
    seeker = _Seeker(gateway.source)
    url = None if gateway.state is None else seeker.follow(gateway.state)
    if gateway.state is not None and url is not None:
        seeker.attempt(gateway.state, lambda: state.check(url))
    if gateway.auth is not None:
        seeker.look_for_keys(gateway.auth)
    started: dict[str, dict[str, str]] = {}
    headers = {}
    for server in gateway.servers:
        if isinstance(server.upstream, Command):
            started[server.name] = seeker.environment(server.upstream)
        else:
            headers[server.name] = seeker.fields(server.upstream)
    # One server's secrets, and the gateway's own, are no business of the others.
    common = {name: value for name, value in os.environ.items() if name not in seeker.variables}
    environments = {name: {**common, **own} for name, own in started.items()}
    return Resolved(url, environments, headers), sorted(seeker.problems)


class _Seeker:
    """Looks for things one after the other; collects the problems, and the environment variables that hold secrets."""

    def __init__(self, file: str) -> None:
        self._file = file
        self.problems: list[Problem] = []
        self.variables: set[str] = set()

    def attempt(self, reference: Reference, act: Callable[[], T]) -> T | None:
        """What `act` returns; None if it raised one of our faults, which is told at the reference's place."""
        try:
            return act()
        except InterceptError as exc:
            self.problems.append(reference.problem(self._file, str(exc)))
            return None

    def follow(self, reference: Reference) -> str | None:
        """The secret that a reference leads to; any other target as it is."""
        if not reference.target.startswith(("env:", "@")):
            return reference.target
        variable = reference.target.removeprefix("env:")
        if variable != reference.target:
            self.variables.add(variable)
            if not os.environ.get(variable):
                why = f"the environment variable `{variable}` is not set, or empty: the gateway must be started with it"
                self.problems.append(reference.problem(self._file, why))
                return None
        return self.attempt(reference, lambda: read_secret(reference.target))

    def look_for_keys(self, auth: Auth) -> None:
        """That callers can be known by what the file names."""
        file = auth.tokens
        if file is not None and not os.path.lexists(file.target):
            make = "make it with `intercept-py tokens add`, or correct its path"
            self.problems.append(file.problem(self._file, f"there is no token file `{file.target}`: {make}"))
        elif file is not None:
            self.attempt(file, lambda: tokens.read(file.target))
        keys = None if auth.issuer is None else auth.issuer.keys
        if keys is not None and "://" not in keys.target:
            self.attempt(keys, lambda: read_file(keys.target, "the issuer's keys in"))

    def environment(self, server: Command) -> dict[str, str]:
        """What its environment has of its own; and that the program is there."""
        self.attempt(server.program, lambda: processes.find(server.program.target))
        return self._texts(server.environment)

    def fields(self, server: Remote) -> tuple[tuple[str, str], ...]:
        """The header fields of every request to it; and that there is a secret to get tokens with."""
        if server.oauth is not None:
            self.follow(server.oauth.client_secret)
        found = self._texts(server.headers)
        for name, value in server.headers.items():
            if value.secret is not None and name in found:
                self.attempt(value.secret, partial(parse_fields, [(name, found[name])]))
        return tuple(found.items())

    def _texts(self, values: Values) -> dict[str, str]:
        found = {}
        for name, value in values.items():
            secret = "" if value.secret is None else self.follow(value.secret)
            if secret is not None:
                found[name] = value.text + secret
        return found
