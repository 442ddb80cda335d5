"""One mapping of a gateway file, read field by field like one of a policy, and the kinds of values that only it has.

Below: `policy.section`, `fields`. Above: `values`, `upstreams`, `loader`.
"""

from __future__ import annotations

__all__ = ["Section"]

import re
from collections.abc import Callable
from typing import Final

from intercept_py.errors import InterceptError
from intercept_py.gateway_file import messages as say
from intercept_py.gateway_file.fields import FIELDS_OF, PLACES
from intercept_py.identity.settings import check_scopes
from intercept_py.policy import section
from intercept_py.policy.section import is_clean
from intercept_py.policy.tree import Scalar

_SPAN: Final = re.compile("([1-9][0-9]{0,7})([smhd])")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_WEEK: Final = 7 * 86_400


class Section(section.Section):
    """See the module."""

    __slots__ = ()

    FIELDS_OF = FIELDS_OF
    PLACES = PLACES

    def clean(self, name: str) -> str | None:
        """The field's text: not blank, not padded, printable."""
        text, node = self.text(name), self.value(name)
        if text is None or node is None or not is_clean(text, node, self.at(name), self.problems):
            return None
        return text

    def checked(self, name: str, check: Callable[[str], object]) -> str | None:
        """The field's text, unless `check` raises one of our faults, which is reported."""
        text = self.clean(name)
        if text is None:
            return None
        try:
            check(text)
        except InterceptError as exc:
            self.report(name, say.REFUSED, detail=str(exc))
            return None
        return text

    def boolean(self, name: str) -> bool:
        """True or false; false if absent."""
        scalar = self.scalar(name)
        if scalar is None or isinstance(scalar.value, bool):
            return scalar is not None and scalar.value is True
        self.wrong_type(name)
        return False

    def whole(self, name: str, least: int, most: int) -> int | None:
        """A whole number in a range, which the table of fields tells people."""
        scalar = self.scalar(name)
        if scalar is None:
            return None
        if type(scalar.value) is not int:
            self.wrong_type(name)
        elif not least <= scalar.value <= most:
            self.report(name, say.OUT_OF_RANGE, name=name, text=scalar.text, values=self._fields[name].values)
        else:
            return scalar.value
        return None

    def span(self, name: str, default: float, *, least: int) -> float:
        """Seconds, from `least` to a week."""
        scalar = self.scalar(name)
        if scalar is None:
            return default
        value = scalar.value
        if isinstance(value, str):
            match = _SPAN.fullmatch(value)
            if match is None:
                self.report(name, say.BAD_SPAN, text=value)
                return default
            value = int(match[1]) * _SECONDS[match[2]]
        if value is None or isinstance(value, bool):
            self.wrong_type(name)
        elif not least <= value <= _WEEK:
            self.report(name, say.SPAN_RANGE, name=name, text=scalar.text, least=f"{least}s")
        else:
            return float(value)
        return default

    def listed(self, name: str, is_good: Callable[[str], bool], message: str) -> tuple[str, ...]:
        """A list of distinct names; `message` is reported where one is not good."""
        found = self.names(name)
        for path, item in self.items(name):
            if isinstance(item, Scalar) and item.value in found and not is_good(item.text):
                self.problems.add(item, path, message, text=item.text)
        return found

    def scopes(self, name: str = "scopes") -> tuple[str, ...]:
        """A list of OAuth scopes."""
        return self.listed(name, _is_scope, say.BAD_SCOPE)


def _is_scope(text: str) -> bool:
    try:
        check_scopes([text])
    except InterceptError:
        return False
    return True
