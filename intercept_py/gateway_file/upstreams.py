"""How a server is reached, as a gateway file says it: by a command, or by a URL.

Below: `values`, `transports.http_address` (what URLs and header fields may be). Above: `loader`.
"""

from __future__ import annotations

__all__ = ["upstream"]

import json
import re
import shlex
from typing import Final
from urllib.parse import urlsplit

from intercept_py.errors import UpstreamError
from intercept_py.gateway_file import messages as say
from intercept_py.gateway_file.model import Command, OAuth, Reference, Remote, Value
from intercept_py.gateway_file.section import Section
from intercept_py.gateway_file.values import SCHEMES, VARIABLE, Values
from intercept_py.identity.settings import check_url
from intercept_py.policy.section import describe
from intercept_py.policy.tree import Broken, Node, Scalar
from intercept_py.transports.http_address import parse_fields, parse_url

_PLAIN_WORD: Final = re.compile("[A-Za-z][A-Za-z0-9_./-]*")


def upstream(server: Section, values: Values) -> Command | Remote | None:
    """What the server's fields say about it; None if problems were reported."""
    if "command" in server and "url" in server:
        server.report_key("url", say.TWO_UPSTREAMS)
        return None
    if "url" in server:
        _refuse(server, ("env",), say.NEEDS_COMMAND)
        return _remote(server, values)
    if "command" not in server:
        server.problems.add(server.node, server.path, say.NO_UPSTREAM)
        return None
    _refuse(server, ("transport", "headers", "oauth"), say.NEEDS_URL)
    return _command(server, values)


def _refuse(server: Section, names: tuple[str, ...], message: str) -> None:
    for name in names:
        if name in server:
            server.report_key(name, message, name=name)


# ---- commands


def _command(server: Section, values: Values) -> Command | None:
    environment = _environment(server, values)
    node = server.value("command")
    if isinstance(node, Scalar) and isinstance(node.value, str):
        server.report("command", say.COMMAND_IS_TEXT, guess=_as_list(node.value))
        return None
    items = list(server.items("command"))
    if node is not None and not items and not isinstance(node, Scalar):
        server.report("command", say.NO_WORDS)
    words = [_word(server, path, item) for path, item in items]
    if not words or words[0] is None:
        return None
    path, first = items[0]
    if not words[0].strip():
        server.problems.add(first, path, say.NO_PROGRAM)
    program = Reference(words[0], first.line, first.column, path)
    return Command(tuple(word for word in words if word is not None), program, environment)


def _word(server: Section, path: str, item: Node) -> str | None:
    if isinstance(item, Broken):
        return None
    text = item.value if isinstance(item, Scalar) else None
    if not isinstance(text, str):
        server.problems.add(item, path, say.NOT_TEXT, name="command", got=describe(item))
    elif "\0" in text:
        server.problems.add(item, path, say.NUL, name="command")
    else:
        return text
    return None


def _as_list(text: str) -> str:
    """What the author of `command: npx -y server` meant."""
    try:
        words = shlex.split(text)
    except ValueError:
        words = text.split()
    shown = (word if _PLAIN_WORD.fullmatch(word) else json.dumps(word, ensure_ascii=False) for word in words)
    return f"[{', '.join(shown)}]"


def _environment(server: Section, values: Values) -> dict[str, Value]:
    found = {}
    for path, name, member in server.members("env"):
        if not VARIABLE.fullmatch(name):
            server.problems.add(member.key, path, say.BAD_VARIABLE, name=name)
        elif (value := values.value(name, member.node, path)) is not None:
            found[name] = value
    return found


# ---- URLs


def _remote(server: Section, values: Values) -> Remote | None:
    headers = _headers(server, values)
    oauth = _oauth(server, values)
    url = _url(server)
    sse = server.choice("transport") == "sse"
    return None if url is None else Remote(url, sse, headers, oauth)


def _url(server: Section) -> str | None:
    url = server.clean("url")
    if url is not None and _has_credentials(url):
        server.report("url", say.CREDENTIALS_IN_URL)
        return None
    return server.checked("url", parse_url)


def _has_credentials(url: str) -> bool:
    try:
        return "@" in urlsplit(url).netloc
    except ValueError:
        return False


def _headers(server: Section, values: Values) -> dict[str, Value]:
    found: dict[str, Value] = {}
    names: dict[str, str] = {}
    for path, name, member in server.members("headers"):
        value = values.value(name, member.node, path, SCHEMES)
        other = names.setdefault(name.lower(), name)
        if other != name:
            server.problems.add(member.key, path, say.REPEATED_HEADER, name=name, other=other)
        elif name.lower() == "authorization" and "oauth" in server:
            server.problems.add(member.key, path, say.TWO_AUTHORIZATIONS)
        elif value is not None:
            try:
                parse_fields([(name, value.text)])
            except UpstreamError as exc:
                server.problems.add(member.key, path, say.REFUSED, detail=str(exc))
            found[name] = value
    return found


def _oauth(server: Section, values: Values) -> OAuth | None:
    oauth = server.section("oauth", "oauth")
    if oauth is None:
        return None
    url = oauth.checked("token_url", lambda text: check_url(text, "the token URL"))
    client, secret = oauth.clean("client_id"), values.secret(oauth, "client_secret")
    scopes = oauth.scopes()
    if url is None or client is None or secret is None:
        return None
    return OAuth(url, client, secret, scopes)
