"""What a tool's input schema says about a call's arguments: their names and their validity.

Everything is compiled once per schema object and remembered by its identity. Below: `model`. Above: `argument_types`,
`loader` (inline schemas) and `pdp`. Reasons are one line for the agent; they name arguments, never their values.
"""

from __future__ import annotations

__all__ = [
    "Declared",
    "Remembered",
    "Steps",
    "blank",
    "compile_schema",
    "declare",
    "fold",
    "located",
    "printable",
    "resolve",
]

import unicodedata
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeAlias, TypeVar

import msgspec

from intercept_py.model import Json, JsonObject

Built = TypeVar("Built")
Steps: TypeAlias = tuple[str | int, ...]

SCHEMAS = 1024
"""How many schemas are remembered; a server that lists again and again must not fill the memory."""


class Remembered(Generic[Built]):
    """`build(schema)`, once per schema object. The schema is kept with its result, so an id cannot be used twice."""

    def __init__(self, build: Callable[[JsonObject], Built]) -> None:
        self._build = build
        self._built: dict[int, tuple[JsonObject, Built]] = {}

    def __call__(self, schema: JsonObject) -> Built:
        """The result for this very object."""
        known = self._built.get(id(schema))
        if known is not None:
            return known[1]
        built = self._build(schema)
        if len(self._built) >= SCHEMAS:
            self._built.clear()
        self._built[id(schema)] = (schema, built)
        return built


# -- text --------------------------------------------------------------------------------------------------------------


def printable(text: str, limit: int = 128) -> str:
    """A stranger's text for one line: clipped, with control, bidi and quoting characters escaped."""
    clipped = text if len(text) <= limit else text[: limit - 1] + "…"
    if clipped.isprintable() and "`" not in clipped:
        return clipped
    return "".join(char if char.isprintable() and char != "`" else _escaped(char) for char in clipped)


def _escaped(char: str) -> str:
    return f"\\u{ord(char):04x}" if ord(char) < 0x10000 else f"\\U{ord(char):08x}"


def located(steps: Steps) -> str:
    """The dotted name of an argument, made of keys that a stranger chose."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps[:16])
    return printable(text.removeprefix("."))


def fold(key: str) -> str:
    """The spelling under which a lenient server could take one key for another: NFKC, case folding, no format marks."""
    if key.isascii():
        return key.lower()
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", key).casefold())
    return "".join(char for char in folded if unicodedata.category(char) != "Cf")


def blank(value: Json) -> bool:
    """Present but empty: null, `""`, or nothing but white space."""
    return value is None or (isinstance(value, str) and not value.strip())


# -- declared names ----------------------------------------------------------------------------------------------------


class Declared(msgspec.Struct, frozen=True):
    """The top-level arguments of a schema, also those in its branches. `required` are those of every branch."""

    properties: frozenset[str]
    folded: frozenset[str]
    required: tuple[str, ...]


def declare(schema: JsonObject) -> Declared:
    """Read the names. Patterns declare none: `unknown_args: deny` denies what they alone would allow."""
    properties: set[str] = set()
    required: dict[str, None] = {}
    seen: set[tuple[int, bool]] = set()
    pending = [(schema, True)]
    while pending:
        node, always = pending.pop()
        if (id(node), always) in seen:
            continue
        seen.add((id(node), always))
        properties.update(_dict(node.get("properties")))
        if always:
            required.update(dict.fromkeys(name for name in _list(node.get("required")) if isinstance(name, str)))
        pending.extend((branch, always and unconditional) for branch, unconditional in _branches(schema, node))
    return Declared(frozenset(properties), frozenset(map(fold, properties)), tuple(required))


def _branches(root: JsonObject, node: JsonObject) -> Iterator[tuple[JsonObject, bool]]:
    """Subschemas for the same value, and whether the value must satisfy them in every case."""
    target = resolve(root, node.get("$ref"))
    if target is not None:
        yield target, True
    yield from ((branch, True) for branch in _list(node.get("allOf")) if isinstance(branch, dict))
    for keyword in ("anyOf", "oneOf"):
        yield from ((branch, False) for branch in _list(node.get(keyword)) if isinstance(branch, dict))
    yield from ((node[keyword], False) for keyword in ("then", "else") if isinstance(node.get(keyword), dict))


def resolve(root: JsonObject, reference: Json) -> JsonObject | None:
    """The target of a local reference (`#/$defs/x`), None for all others. Percent-encoded ones are not looked up."""
    if not isinstance(reference, str) or not (reference == "#" or reference.startswith("#/")) or "%" in reference:
        return None
    node: Json = root
    for token in reference.split("/")[1:]:
        token = token.replace("~1", "/").replace("~0", "~")
        if isinstance(node, dict) and (node is root or not isinstance(node.get("$id"), str)):
            node = node.get(token)
        elif isinstance(node, list) and token.isdecimal() and token.isascii() and len(token) < 6:
            node = node[int(token)] if int(token) < len(node) else None
        else:
            return None
    return node if isinstance(node, dict) else None


def _dict(value: Json) -> JsonObject:
    return value if isinstance(value, dict) else {}


def _list(value: Json) -> list[Json]:
    return value if isinstance(value, list) else []


# -- validity ----------------------------------------------------------------------------------------------------------

BACKTRACKS = 10_000
"""Steps a regex with look-around may try again before its value counts as invalid."""


def compile_schema(schema: Json) -> Callable[[Json], str | None]:
    """A full JSON Schema validation that fetches nothing and takes bounded time. Raises ValueError, one line."""
    if not isinstance(schema, (dict, bool)):
        raise ValueError("a JSON Schema is an object, true or false")
    validator = _validator(schema)

    def invalid(value: Json) -> str | None:
        try:
            if validator.is_valid(value):
                return None
            validator.validate(value)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # a panic of the Rust library is no Exception
            return _invalid(error)
        return "the arguments do not match the schema"

    return invalid


def _validator(schema: JsonObject | bool) -> Any:
    # 27 ms that only policies with `validate.schema` pay.
    import jsonschema_rs

    def build(patterns: jsonschema_rs.RegexOptions | jsonschema_rs.FancyRegexOptions) -> jsonschema_rs.Validator:
        return jsonschema_rs.validator_for(schema, offline=True, mask="the value", pattern_options=patterns)

    try:
        try:
            return build(jsonschema_rs.RegexOptions())
        except ValueError:
            # Generators write look-aheads (zod's e-mail). The limit bounds their time; a value beyond it is invalid.
            return build(jsonschema_rs.FancyRegexOptions(backtrack_limit=BACKTRACKS))
    except Exception as error:
        raise ValueError(f"the JSON Schema cannot be used: {printable(_message(error), 200)}") from None


def _invalid(error: BaseException) -> str:
    """Values are masked by the validator; what is left are names, types and the schema's own words."""
    reason = printable(_message(error), 200)
    steps = tuple(getattr(error, "instance_path", ()))
    return f"argument `{located(steps)}`: {reason}" if steps else f"arguments: {reason}"


def _message(error: BaseException) -> str:
    """The first line of what the validator says; the rest repeats the schema."""
    text = str(getattr(error, "message", "")) or str(error) or type(error).__name__
    return text.partition("\n")[0]
