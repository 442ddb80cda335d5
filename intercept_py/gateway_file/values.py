"""Texts that may lead elsewhere: to files beside the gateway file, and to secrets, which it does not hold itself.

Below: `section`, `model`. Above: `upstreams`, `loader`.
"""

from __future__ import annotations

__all__ = ["SCHEMES", "VARIABLE", "Values"]

import os
import re
from typing import Final

from intercept_py.gateway_file import messages as say
from intercept_py.gateway_file.model import Reference, Value
from intercept_py.gateway_file.section import Section
from intercept_py.policy.section import describe
from intercept_py.policy.tree import Broken, Node, Problems, Scalar

SCHEMES: Final = "(?i:(?:bearer|basic|token) +)?"
"""What stands before the secret in most `Authorization` headers."""

VARIABLE: Final = re.compile("[A-Za-z_][A-Za-z0-9_]*")
_WORDS: Final = re.compile("[^A-Za-z0-9]+|(?<=[a-z])(?=[A-Z])")
_SECRET_NAMES: Final = frozenset(
    (
        "apikey", "auth", "authorization", "cookie", "credential", "credentials", "key", "passphrase", "passwd",
        "password", "pat", "pwd", "secret", "token",
    )
)  # fmt: skip
# What a header for authorization holds, tokens whose issuers mark them (ours too), JWTs, and passwords in URLs.
_SECRET_VALUE: Final = re.compile(
    r"(?i:bearer|basic|token) +\S|ipt_|sk[-_]|gh[opsu]_|github_pat_|glpat-|xox[abprs]-|AKIA[0-9A-Z]{16}"
    r"|eyJ[\w-]+\.[\w-]|[a-z][a-z0-9+]*://[^/@]*:[^/@]+@"
)


class Values:
    """Reads values of one file; `folder` is where its relative paths begin."""

    def __init__(self, folder: str, problems: Problems) -> None:
        self._folder = folder
        self._problems = problems

    def file(self, section: Section, name: str) -> Reference | None:
        """The path that the field holds."""
        text, node = section.clean(name), section.value(name)
        if text is None or node is None:
            return None
        return Reference(self._absolute(text), node.line, node.column, section.at(name))

    def address(self, section: Section, name: str) -> Reference | None:
        """The URL that the field holds, or leads to if it is a secret."""
        text, node = section.clean(name), section.value(name)
        value = None if text is None or node is None else self.value(name, node, section.at(name))
        if value is None or node is None:
            return None
        return value.secret or Reference(value.text, node.line, node.column, section.at(name))

    def secret(self, section: Section, name: str) -> Reference | None:
        """Where the secret is that the field is about; it cannot be written down."""
        text, node = section.clean(name), section.value(name)
        if text is None or node is None:
            return None
        if text.startswith(("env:", "@")):
            return self._reference(text, node, section.at(name))
        section.report(name, say.NOT_A_SECRET, name=name)
        return None

    def value(self, name: str, node: Node, path: str, schemes: str = "") -> Value | None:
        """A text, which may lead to a secret; reported if it is none, or is a secret itself. `name` is what it is of.

        `schemes` is a pattern of what may stand before `env:` and `@`.
        """
        text = node.value if isinstance(node, Scalar) else None
        if isinstance(node, Broken):
            return None
        if not isinstance(text, str):
            self._problems.add(node, path, say.NOT_TEXT, name=name, got=describe(node))
        elif "\0" in text:
            self._problems.add(node, path, say.NUL, name=name)
        elif match := re.fullmatch(f"({schemes})((?:env:|@).*)", text, re.DOTALL):
            secret = self._reference(match[2], node, path)
            return None if secret is None else Value(match[1], secret)
        elif _looks_secret(name, text):
            self._problems.add(node, path, say.LITERAL_SECRET, name=name)
        else:
            return Value(text)
        return None

    def _reference(self, text: str, node: Node, path: str) -> Reference | None:
        if text.startswith("@") and text[1:].strip() and text.isprintable():
            target = "@" + self._absolute(text[1:])
        elif VARIABLE.fullmatch(text.removeprefix("env:")):
            target = text
        else:
            self._problems.add(node, path, say.BAD_REFERENCE, text=text)
            return None
        return Reference(target, node.line, node.column, path)

    def _absolute(self, path: str) -> str:
        return os.path.normpath(os.path.join(self._folder, os.path.expanduser(path)))


def _looks_secret(name: str, text: str) -> bool:
    """Whether a text is one by the last word of its name, or by itself."""
    if not text:
        return False
    return _WORDS.split(name)[-1].lower() in _SECRET_NAMES or _SECRET_VALUE.match(text) is not None
