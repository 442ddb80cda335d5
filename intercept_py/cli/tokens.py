"""`intercept-py tokens`: make, list and revoke the tokens by which the proxy knows HTTP clients.

Below: `identity.tokens`. Above: `__main__`.
"""

from __future__ import annotations

__all__ = ["Row", "described", "main"]

import argparse
import json
import re
import sys
import time
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec

from intercept_py.cli.arguments import CANNOT_CREATE, OK, Parser, checked
from intercept_py.cli.text import printable
from intercept_py.identity import tokens
from intercept_py.identity.faults import IdentityError
from intercept_py.identity.settings import check_scopes
from intercept_py.identity.tokens import Token

_SPAN: Final = re.compile("([1-9][0-9]{0,7})([smhd])")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_LONGEST_DAYS: Final = 3650


class Row(msgspec.Struct, frozen=True):
    """What people see of a token. `state` is `valid` or `expired`."""

    name: str
    scopes: str
    created: str
    expires: str
    state: str


def main(argv: list[str]) -> int:
    """Add, list or revoke. 0: done, 64: wrong usage, 73: the file cannot be used, or not for this."""
    options = _parse(argv)
    try:
        if options.command == "add":
            _add(options)
        elif options.command == "revoke":
            tokens.revoke(options.file, options.name)
            sys.stdout.write(f"revoked `{options.name}`: its token is refused from now on\n")
        else:
            _list(options)
    except IdentityError as exc:
        sys.stderr.write(f"intercept-py tokens: {printable(str(exc))}\n")
        return CANNOT_CREATE
    return OK


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = Parser("intercept-py tokens", "Make, list and revoke the tokens by which HTTP clients are known.")
    parser.usage = (
        "intercept-py tokens add NAME --file FILE [--scope SCOPE ...] [--expires SPAN]\n"
        "       intercept-py tokens list --file FILE [--json]\n"
        "       intercept-py tokens revoke NAME --file FILE"
    )
    add = parser.add_argument
    add("command", choices=["add", "list", "revoke"], help="add prints the token, once: only its hash is kept")
    add(
        "name",
        nargs="?",
        type=checked(tokens.check_name),
        metavar="NAME",
        help="who has the token; policies know it as caller.principal",
    )
    add("--file", required=True, metavar="FILE", help="the token file, 0600; made if need be")
    scope = checked(lambda text: check_scopes((text,)))
    add(
        "--scope",
        action="append",
        default=[],
        type=scope,
        metavar="SCOPE",
        help="add: what policies see in caller.scopes",
    )
    add("--expires", type=span, metavar="SPAN", help="add: how long it is good for, such as 90d, 12h, 30m or 45s")
    add("--json", action="store_true", help="list: print one JSON document")
    options = parser.parse_args(argv)
    if (options.command == "list") is (options.name is not None):
        parser.error(
            "`list` takes no name" if options.name is not None else f"`{options.command}` whose token? name it"
        )
    if options.command != "add" and (options.scope or options.expires is not None):
        parser.error("--scope and --expires are for `tokens add`")
    if options.command != "list" and options.json:
        parser.error("--json is for `tokens list`")
    return options


def span(text: str) -> timedelta:
    """An option's value: a whole number of seconds, minutes, hours or days, at most ten years."""
    found = _SPAN.fullmatch(text)
    length = timedelta(seconds=int(found[1]) * _SECONDS[found[2]]) if found is not None else timedelta()
    if not timedelta() < length <= timedelta(days=_LONGEST_DAYS):
        raise argparse.ArgumentTypeError(f"`{text}` is no span: write 90d, 12h, 30m or 45s, at most {_LONGEST_DAYS}d")
    return length


def _add(options: argparse.Namespace) -> None:
    """Print the token alone on stdout, for scripts; what a person should know goes to stderr."""
    now = datetime.now(UTC).replace(microsecond=0)
    expires = None if options.expires is None else now + options.expires
    token = tokens.add(options.file, options.name, tuple(options.scope), now, expires)
    sys.stdout.write(f"{token}\n")
    until = "until it is revoked" if expires is None else f"until {expires.isoformat()}"
    sys.stderr.write(f"token for `{options.name}`, good {until}; it is shown this once: keep it now\n")


def _list(options: argparse.Namespace) -> None:
    found = tokens.read(options.file)
    now = time.time()
    if options.json:
        sys.stdout.write(json.dumps({"tokens": [_member(one, now) for one in found]}, indent=2) + "\n")
    elif sys.stdout.isatty():
        # Only a terminal has a use for rich, which is slow to import.
        from intercept_py.cli import render_tokens

        render_tokens.print_tokens([described(one, now) for one in found])
    else:
        sys.stdout.writelines(f"{_line(described(one, now))}\n" for one in found)


def _member(token: Token, now: float) -> dict[str, object]:
    return {
        "name": token.name,
        "scopes": token.scopes,
        "created": token.created.isoformat(),
        "expires": None if token.expires is None else token.expires.isoformat(),
        "expired": token.expired(now),
    }


def described(token: Token, now: float) -> Row:
    """A token for people; `now` is seconds since the epoch."""
    return Row(
        name=token.name,
        scopes=" ".join(token.scopes) or "none",
        created=f"{token.created:%Y-%m-%d}",
        expires="never" if token.expires is None else f"{token.expires:%Y-%m-%d %H:%M} UTC",
        state="expired" if token.expired(now) else "valid",
    )


def _line(row: Row) -> str:
    return f"{row.name}: {row.state}, scopes {row.scopes}, created {row.created}, expires {row.expires}"
