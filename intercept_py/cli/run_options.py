"""The options of `intercept-py run`, and where they end and the server's command begins.

Imported before the server may be started, so it imports next to nothing.
"""

from __future__ import annotations

__all__ = ["parse"]

import argparse

from intercept_py.cli.arguments import SECONDS, Parser, checked, number, secret
from intercept_py.log import LEVELS

_MIB = 1024 * 1024
_PORT = number(int, "port", 0, 65535)
_WHOLE = number(int, "whole number", 1, 1_000_000_000)
_BYTES = number(int, "number of bytes", 65536, 1024 * _MIB)


def parse(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Our options end at `--` or at the first word that is none: what follows is the server's command, untouched.

    Exits with a usage error for what cannot be meant.
    """
    parser = Parser("intercept-py run", "Put the proxy in front of an MCP server.")
    parser.usage = (
        "intercept-py run -c POLICY [option ...] [--] COMMAND [argument ...]\n"
        "       intercept-py run -c POLICY [option ...] --upstream URL"
    )
    actions = [*_common(parser), *_server(parser), *_clients(parser)]
    valued = {name for action in actions if action.nargs != 0 for name in action.option_strings}
    end = 0
    while end < len(argv) and argv[end] != "--" and argv[end].startswith("-"):
        end += 2 if argv[end] in valued else 1
    options = parser.parse_args(argv[:end])
    command = argv[end + 1 :] if argv[end : end + 1] == ["--"] else argv[end:]
    if options.config is None:
        parser.error("name a policy with -c FILE")
    _settle(parser, options, command)
    return options, command


def _settle(parser: Parser, options: argparse.Namespace, command: list[str]) -> None:
    """Give options that belong together one meaning, and refuse what contradicts itself."""
    if command and options.upstream is not None:
        parser.error("name the server by its command or by --upstream, not by both")
    if not command and options.upstream is None:
        parser.error("name the server's command after the options, e.g. -- npx trigger mcp, or its URL with --upstream")
    if options.transport == "http" and options.listen is None:
        options.listen = (options.bind or "127.0.0.1", 8000 if options.port is None else options.port)
    elif options.bind is not None or options.port is not None:
        parser.error("--bind and --port belong to --transport http; or write --listen HOST:PORT")
    if options.transport == "sse" and options.upstream is None:
        parser.error("--transport sse belongs to --upstream")
    _check_company(parser, options)


def _check_company(parser: Parser, options: argparse.Namespace) -> None:
    """Refuse options that mean nothing without others."""
    if options.oauth_token_url and not (options.oauth_client_id and options.oauth_client_secret):
        parser.error("--oauth-token-url needs --oauth-client-id and --oauth-client-secret")
    if options.issuer and not options.jwks:
        parser.error("--issuer needs --jwks, where its keys are")
    headers = [name.lower() for name, _ in options.header]
    if (twice := next((name for name in headers if headers.count(name) > 1), None)) is not None:
        parser.error(f"--header names `{twice}` twice: a server may take either of them")
    if options.oauth_token_url and "authorization" in headers:
        parser.error("--oauth-token-url brings an `Authorization` header already: leave that --header out, or it")
    for needed, names in _BELONG.items():
        for name in names:
            if getattr(options, name) and getattr(options, needed) is None:
                parser.error(f"--{name.replace('_', '-')} belongs to --{needed}")


_BELONG = {
    "upstream": ("header", "oauth_token_url"),
    "listen": ("tokens", "issuer", "public_url", "allow_host", "allow_origin", "max_sessions", "scope"),
    "issuer": ("jwks", "audience", "untyped"),
}


def _common(parser: Parser) -> list[argparse.Action]:
    add = parser.add_argument
    return [
        add("-c", "--config", metavar="POLICY", help="the policy file"),
        add(
            "--state",
            "--state-dsn",
            type=secret,
            metavar="URL",
            help="where limits are counted: memory:// (for this process alone), sqlite:///FILE, redis://HOST; or "
            "env:NAME or @FILE, which hold the URL (default: sqlite: in the user's state directory if the policy has "
            "limits wider than a session, else memory://)",
        ),
        add("--state-prefix", default="", metavar="TEXT", help="put in front of every counter's name"),
        add(
            "--state-fail-mode",
            default="closed",
            choices=("closed", "open"),
            help="while limits cannot be checked, deny calls that have some (closed, default) or let them go on "
            "uncounted (open); what the policy says for a limit (fail) comes first",
        ),
        add("--audit", metavar="FILE", help="the audit file (default: one a day in the user's state directory)"),
        add("--log-level", default="info", choices=LEVELS, help="what is said on stderr (default: info)"),
        add(
            "--timeout",
            type=SECONDS,
            default=300.0,
            metavar="SECONDS",
            help="how long the server may take to answer (default: 300; 0: for ever)",
        ),
        add(
            "--max-message-bytes",
            type=_BYTES,
            default=10 * _MIB,
            metavar="N",
            help="the longest message that is relayed (default: 10 MiB)",
        ),
        add("--no-reload", action="store_true", help="do not watch the policy file (SIGHUP does nothing then)"),
    ]


def _server(parser: Parser) -> list[argparse.Action]:
    add = parser.add_argument_group("a server that speaks HTTP").add_argument
    return [
        add("--upstream", type=url, metavar="URL", help="where it answers (Streamable HTTP), instead of a command"),
        add(
            "--header",
            action="append",
            default=[],
            metavar="'NAME: VALUE'",
            type=header,
            help="a header for it, e.g. 'Authorization: env:NAME' or 'X-Key: @FILE'; may be repeated",
        ),
        add(
            "--transport",
            choices=("stdio", "http", "sse"),
            default="stdio",
            help="sse: it speaks HTTP+SSE (MCP 2024-11-05); http: serve clients over HTTP, see --listen",
        ),
        add(
            "--oauth-token-url",
            type=token_url,
            metavar="URL",
            help="get an access token for it here (OAuth client credentials)",
        ),
        add("--oauth-client-id", metavar="ID", help="as whom"),
        add("--oauth-client-secret", type=kept_secret, metavar="env:NAME", help="proved how; or @FILE"),
        add("--oauth-scope", metavar="SCOPES", help="for which scopes, separated by blanks"),
    ]


def _clients(parser: Parser) -> list[argparse.Action]:
    add = parser.add_argument_group("clients that speak HTTP").add_argument
    return [
        add(
            "--listen",
            metavar="HOST:PORT",
            type=address,
            help="serve Streamable HTTP at http://HOST:PORT/mcp instead of stdin and stdout; port 0 takes a free one",
        ),
        add("--bind", metavar="HOST", help="with --transport http: the host of --listen (default: 127.0.0.1)"),
        add("--port", metavar="PORT", type=_PORT, help="with --transport http: the port of --listen (default: 8000)"),
        add("--tokens", metavar="FILE", help="who may call: a file of `intercept-py tokens`"),
        add("--issuer", metavar="URL", help="who may call: bearers of this issuer's access tokens (JWT)"),
        add("--jwks", metavar="URL|FILE", help="the issuer's keys"),
        add("--audience", metavar="TEXT", help="what its tokens must be for (default: --public-url)"),
        add("--untyped", action="store_true", help="take tokens of type JWT, not only at+jwt (RFC 9068)"),
        add("--scope", action="append", default=[], metavar="SCOPE", help="what tokens must allow; may be repeated"),
        add("--public-url", metavar="URL", help="the endpoint's URL as clients see it, behind a reverse proxy"),
        add(
            "--allow-host",
            action="append",
            default=[],
            metavar="HOST",
            type=host,
            help="a Host to answer to; may be repeated",
        ),
        add(
            "--allow-origin",
            action="append",
            default=[],
            metavar="ORIGIN",
            type=origin,
            help="web pages that may call and read the answers, e.g. https://app.example; may be repeated",
        ),
        add(
            "--max-sessions",
            type=_WHOLE,
            metavar="N",
            help="sessions at a time (default: 64 with a command, each of which is a process; 10000 with --upstream)",
        ),
        add(
            "--session-idle",
            type=SECONDS,
            default=1800.0,
            metavar="SECONDS",
            help="how long a session may be idle (default: 1800)",
        ),
    ]


def address(text: str) -> tuple[str, int]:
    """An option's value: a host or address (IPv6 in brackets) and a port."""
    host, colon, end = text.rpartition(":")
    if not colon or not host.strip("[]"):
        raise argparse.ArgumentTypeError("write HOST:PORT, e.g. 127.0.0.1:8000")
    return host.strip("[]"), _PORT(end)


# What these need is imported where it is used: between two pipes there are no URLs and no headers.


def host(text: str) -> str:
    """An option's value: a host's name or address."""
    from intercept_py.transports import http_names as names

    if not names.is_host(text):
        raise argparse.ArgumentTypeError(names.BAD_HOST.format(text=text))
    return text


def origin(text: str) -> str:
    """An option's value: an origin of web pages."""
    from intercept_py.transports import http_names as names

    if not names.is_origin(text):
        raise argparse.ArgumentTypeError(names.BAD_ORIGIN.format(text=text))
    return text


def header(text: str) -> tuple[str, str]:
    """An option's value: a header. Its value may be kept elsewhere, see `secret`."""
    from intercept_py.transports.http_address import parse_fields

    name, colon, value = text.partition(":")
    if not colon or not name.strip() or not value.strip():
        raise argparse.ArgumentTypeError("write 'NAME: VALUE', e.g. 'Authorization: env:UPSTREAM_TOKEN'")
    field = name.strip(), secret(value.strip())
    checked(lambda _: parse_fields([field]))(text)
    return field


@checked
def url(text: str) -> None:
    """An option's value: the URL of a server."""
    from intercept_py.transports.http_address import parse_url

    parse_url(text)


@checked
def token_url(text: str) -> None:
    """An option's value: the URL of an issuer's token endpoint."""
    from intercept_py.identity.settings import check_url

    check_url(text, "it")


@checked
def kept_secret(text: str) -> None:
    """An option's value: where a secret is kept. It is read again for every token, and must be there already."""
    from intercept_py.identity.secret_source import read_secret

    read_secret(text)
