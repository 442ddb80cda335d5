"""Every condition operator: a checked operand in, a total test of one JSON value out.

JSON types are strict: a string is never a number, `1` is not `true`, `1` equals `1.0`, numbers compare exactly as
decimals. One leniency is kept from dialect B: a canonical decimal string (`"12.50"`) counts as its number where it is
compared with a number. Below: `model`. Above: `loader` compiles operands, `pdp` asks the tests.

A test never raises, whatever the value. It is not asked about a missing value, except `exists`, which sees it as null.
"""

from __future__ import annotations

__all__ = ["OPERATORS", "TYPES", "Operator", "Test", "equal", "numeric"]

import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from math import isfinite
from typing import Any, TypeAlias

import msgspec

from intercept_py.model import Json

Test: TypeAlias = Callable[[Json], bool]

REGEX_INPUT = 65_536
"""Longest string, in code points, that a regex is asked about; beyond it `regex` and `not_regex` both fail."""

TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "number": (int, float),
    "integer": (int, float),
    "boolean": (bool,),
    "object": (dict,),
    "array": (list,),
    "null": (type(None),),
}
"""JSON type names and the Python types that carry them; `integer` also asks for an integral value."""

_CANONICAL = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?")
_ENCODED = re.compile("%(?:2[ef5]|5c|00)", re.IGNORECASE)


class Operator(msgspec.Struct, frozen=True):
    """One row of the table. `compile` raises ValueError, one line, for an operand that cannot work.

    `negative` operators hold for most values, so re-typing an argument could dodge them (security rule 4).
    """

    compile: Callable[[Json], Test]
    negative: bool = False


def numeric(value: Json) -> int | Decimal | None:
    """The exact number of a finite JSON number or of a canonical decimal string (at most 64 characters), else None."""
    if type(value) is str:
        return Decimal(value) if len(value) <= 64 and _CANONICAL.fullmatch(value) else None
    return _number(value)


def equal(left: Json, right: Json) -> bool:
    """Strict, deep JSON equality; iterative, so no nesting is too deep for it."""
    pending = [(left, right)]
    while pending:
        a, b = pending.pop()
        if isinstance(a, dict):
            if not isinstance(b, dict) or a.keys() != b.keys():
                return False
            pending.extend((item, b[key]) for key, item in a.items())
        elif isinstance(a, list):
            if not isinstance(b, list) or len(a) != len(b):
                return False
            pending.extend(zip(a, b, strict=True))
        elif not _equal_scalars(a, b):
            return False
    return True


def _equal_scalars(a: Json, b: Json) -> bool:
    if type(a) is type(b):
        return bool(a == b)
    number = _number(a)
    return number is not None and number == _number(b)


def _number(value: Json) -> int | Decimal | None:
    """The shortest decimal that denotes a float is what JSON showed, so `0.1` is exactly one tenth. A bool is none."""
    if type(value) is int:
        return value
    if type(value) is float:
        return Decimal(repr(value)) if isfinite(value) else None
    if isinstance(value, Decimal) and value.is_finite():
        return value
    return None


# -- operands ----------------------------------------------------------------------------------------------------------


def _finite(operand: Json) -> None:
    """Refuse operands that are no JSON: NaN and Infinity compare as false whatever the author meant."""
    pending = [operand]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            pending.extend(item.values())
        elif isinstance(item, list):
            pending.extend(item)
        elif isinstance(item, float) and not isfinite(item):
            raise ValueError("`value` must be a finite number")


def _items(operand: Json) -> list[Json]:
    if not isinstance(operand, list) or not operand:
        raise ValueError("`value` must be a list of at least one item")
    _finite(operand)
    return operand


def _bound(operand: Json) -> int | Decimal:
    number = numeric(operand)
    if number is None:
        raise ValueError("`value` must be a number")
    return number


def _text(operand: Json) -> str:
    if not isinstance(operand, str) or not operand:
        raise ValueError("`value` must be a string that is not empty")
    return operand


def _texts(operand: Json) -> list[str]:
    """One string or a list of them."""
    return [_text(item) for item in (_items(operand) if isinstance(operand, list) else [operand])]


# -- equality and order ------------------------------------------------------------------------------------------------


def _eq(operand: Json) -> Test:
    _finite(operand)
    if isinstance(operand, str):
        return lambda value: value == operand
    number = _number(operand)
    if number is not None:
        return lambda value: numeric(value) == number
    return lambda value: equal(value, operand)


def _in(operand: Json) -> Test:
    items = _items(operand)
    texts = frozenset(item for item in items if isinstance(item, str))
    numbers = frozenset(number for number in map(_number, items) if number is not None)
    others = tuple(item for item in items if not isinstance(item, str) and _number(item) is None)

    def holds(value: Json) -> bool:
        if type(value) is str and value in texts:
            return True
        number = numeric(value) if numbers else None
        if number is not None:
            return number in numbers
        return any(equal(value, other) for other in others)

    return holds


def _lt(operand: Json) -> Test:
    bound = _bound(operand)
    return lambda value: (number := numeric(value)) is not None and number < bound


def _lte(operand: Json) -> Test:
    bound = _bound(operand)
    return lambda value: (number := numeric(value)) is not None and number <= bound


def _gt(operand: Json) -> Test:
    bound = _bound(operand)
    return lambda value: (number := numeric(value)) is not None and number > bound


def _gte(operand: Json) -> Test:
    bound = _bound(operand)
    return lambda value: (number := numeric(value)) is not None and number >= bound


def _negation(compile_positive: Callable[[Json], Test]) -> Callable[[Json], Test]:
    """The plain opposite: a value of another type differs, so the negative holds."""

    def compile_negative(operand: Json) -> Test:
        positive = compile_positive(operand)
        return lambda value: not positive(value)

    return compile_negative


# -- text --------------------------------------------------------------------------------------------------------------


def _search(operand: Json) -> Callable[[Json], bool | None]:
    """True or False for a string that may be searched, None for anything else, so that both directions can fail."""
    if not isinstance(operand, str):
        raise ValueError("`value` must be a regular expression, written as a string")
    # Policies without a regex do not pay for loading RE2.
    import re2

    try:
        search: Callable[[bytes], Any] = re2.compile(operand, _re2_options()).search
    except (re2.error, UnicodeEncodeError) as error:
        raise ValueError(f"`value` is no regular expression in RE2 syntax: {_detail(error)}") from None

    def found(value: Json) -> bool | None:
        if type(value) is not str or len(value) > REGEX_INPUT:
            return None
        try:
            return search(value.encode()) is not None
        except UnicodeEncodeError:
            return None

    return found


def _re2_options() -> Any:
    import re2

    options = re2.Options()
    options.log_errors = False
    options.never_capture = True
    return options


def _detail(error: Exception) -> str:
    """RE2 reports in bytes; one printable line of bounded length is left of it."""
    detail = error.args[0] if error.args else error
    text = detail.decode("utf-8", "replace") if isinstance(detail, bytes) else str(detail)
    return "".join(char if char.isprintable() else "?" for char in text)[:120]


def _regex(operand: Json) -> Test:
    """True for a string with a match.

    A set of one pattern answers in half the time of a search, since it does not say where; where RE2 runs out of
    memory it answers no, which here is a denial.
    """
    _search(operand)  # says what is wrong with the pattern
    import re2

    patterns = re2.Set.SearchSet(_re2_options())
    patterns.Add(operand)
    patterns.Compile()
    match: Callable[[bytes], list[int]] = patterns.Match

    def matches(value: Json) -> bool:
        if type(value) is not str or len(value) > REGEX_INPUT:
            return False
        try:
            return bool(match(value.encode()))
        except UnicodeEncodeError:
            return False

    return matches


def _not_regex(operand: Json) -> Test:
    """A value that cannot be searched fails this too: what was not looked at is not known to be free of a match."""
    found = _search(operand)
    return lambda value: found(value) is False


def _starts_with(operand: Json) -> Test:
    prefix = _text(operand)
    return lambda value: isinstance(value, str) and value.startswith(prefix)


def _ends_with(operand: Json) -> Test:
    suffix = _text(operand)
    return lambda value: isinstance(value, str) and value.endswith(suffix)


# -- collections and size ----------------------------------------------------------------------------------------------


def _within(operand: Json) -> Callable[[Json], bool | None]:
    """Substring of a string or element of a list; None where the value can contain no such thing."""
    _finite(operand)

    def contained(value: Json) -> bool | None:
        if isinstance(value, list):
            return any(equal(item, operand) for item in value)
        if isinstance(value, str) and isinstance(operand, str):
            return operand in value
        return None

    return contained


def _contains(operand: Json) -> Test:
    contained = _within(operand)
    return lambda value: contained(value) is True


def _not_contains(operand: Json) -> Test:
    contained = _within(operand)
    return lambda value: contained(value) is False


def _subset_of(operand: Json) -> Test:
    """Element equality is strict here: a list of numbers written as strings is another list."""
    items = _items(operand)
    texts = frozenset(item for item in items if isinstance(item, str))
    others = tuple(item for item in items if not isinstance(item, str))

    def known(item: Json) -> bool:
        return item in texts if type(item) is str else any(equal(item, other) for other in others)

    return lambda value: isinstance(value, list) and all(map(known, value))


def _length_lte(operand: Json) -> Test:
    if type(operand) is not int or operand < 0:
        raise ValueError("`value` must be a whole number of at least 0")
    return lambda value: isinstance(value, (str, list, dict)) and len(value) <= operand


def _exists(operand: Json) -> Test:
    """Null counts as absent, as in dialect B."""
    if not isinstance(operand, bool):
        raise ValueError("`value` must be true or false")
    return lambda value: (value is not None) is operand


def _is_type(operand: Json) -> Test:
    names = _texts(operand)
    for name in names:
        if name not in TYPES:
            raise ValueError(f"`{_detail(ValueError(name))}` is no JSON type: the types are {', '.join(TYPES)}")
    fractional = "number" in names
    accepted = frozenset(kind for name in names for kind in TYPES[name])

    def holds(value: Json) -> bool:
        if type(value) not in accepted:
            return False
        return fractional or not isinstance(value, float) or value.is_integer()

    return holds


# -- addresses and files -----------------------------------------------------------------------------------------------


def _cidr_in(operand: Json) -> Test:
    """Meant for allowing: a host name or an address written in another way is simply not in any network."""
    texts = _texts(operand)
    # Only policies that name networks pay for loading the parser.
    import ipaddress

    networks: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
    for text in texts:
        try:
            network = ipaddress.ip_network(text)
        except ValueError as error:
            raise ValueError(f"`value` must be an IP network: {_detail(error)}") from None
        if isinstance(network, ipaddress.IPv6Network) and network.network_address.ipv4_mapped is not None:
            raise ValueError(f"`{text}` maps IPv4 addresses: write the IPv4 network itself")
        networks.append(network)

    def holds(value: Json) -> bool:
        # The longest address has 45 characters; a zone (`%eth0`) means another network on every host.
        if not isinstance(value, str) or len(value) > 45 or "%" in value:
            return False
        try:
            address = ipaddress.ip_address(value)
        except ValueError:
            return False
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            return any(address.ipv4_mapped in network for network in networks)
        return any(address in network for network in networks)

    return holds


def _segments(path: str) -> tuple[str, ...] | None:
    """The lexically normal form, an absolute path starting with `""`; None for a path that could mean another one."""
    if not path or "\0" in path or "\\" in path or "~" in path or _ENCODED.search(path):
        return None
    segments = [segment for segment in path.split("/") if segment not in ("", ".")]
    if ".." in segments:
        return None
    return ("", *segments) if path.startswith("/") else tuple(segments)


def _path_under(operand: Json) -> Test:
    """Lexical only: what a symbolic link inside the directory points to is for the server to know."""
    directories: list[tuple[str, ...]] = []
    for text in _texts(operand):
        directory = _segments(text)
        if directory is None:
            raise ValueError(
                "`value` must be a plain POSIX directory, without `..`, `~`, backslash or percent-encoding"
            )
        directories.append(directory)

    def holds(value: Json) -> bool:
        path = _segments(value) if isinstance(value, str) else None
        if path is None:
            return False
        # `""` leads absolute paths only, so a relative directory must not take an absolute path for its own.
        absolute = path[:1] == ("",)
        return any(
            absolute == (directory[:1] == ("",)) and path[: len(directory)] == directory for directory in directories
        )

    return holds


OPERATORS: Mapping[str, Operator] = {
    "eq": Operator(_eq),
    "neq": Operator(_negation(_eq), negative=True),
    "in": Operator(_in),
    "not_in": Operator(_negation(_in), negative=True),
    "lt": Operator(_lt),
    "lte": Operator(_lte),
    "gt": Operator(_gt),
    "gte": Operator(_gte),
    "regex": Operator(_regex),
    "contains": Operator(_contains),
    "exists": Operator(_exists),
    "starts_with": Operator(_starts_with),
    "ends_with": Operator(_ends_with),
    "not_regex": Operator(_not_regex, negative=True),
    "not_contains": Operator(_not_contains, negative=True),
    "length_lte": Operator(_length_lte),
    "is_type": Operator(_is_type),
    "subset_of": Operator(_subset_of),
    "cidr_in": Operator(_cidr_in),
    "path_under": Operator(_path_under),
}
"""The whole language of conditions. A new operator is one function and one row; dialect B ends with `exists`."""
