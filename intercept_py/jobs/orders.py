"""Whether an order can be met at all. Raises `JobError` with the remedy; asks the file system, changes nothing.

Below: `model`. Above: the engine.
"""

from __future__ import annotations

__all__ = ["check", "check_cwd", "check_data", "check_text", "seconds"]

import math
import os

import msgspec

from intercept_py.jobs.model import JobError, Order, Settings
from intercept_py.model import JsonObject

_TEXT_LIMIT = 1024 * 1024
_ARGUMENT_LIMIT = 128 * 1024 - 1
"""Linux: the longest single argument of a command."""
_ID_LIMIT = 1024
_TTL_LIMIT = 366 * 86_400.0


def check(order: Order, job_id: str, settings: Settings) -> None:
    """Raises `JobError`: `bad_text`, `too_large`, `timeout`, and those of `check_cwd`."""
    check_text("id", job_id, _ID_LIMIT)
    check_text("text", order.text)
    for argument in order.argv:
        check_text("argument", argument, _ARGUMENT_LIMIT)
    if not order.argv:
        raise JobError("bad_text", "the command is empty")
    check_data("what is to be kept with the job", order.meta)
    _check_seconds("timeout", order.timeout, settings.timeout or _TTL_LIMIT)
    _check_seconds("ttl", order.ttl, _TTL_LIMIT)
    check_cwd(order.cwd, settings.root)


def check_cwd(cwd: str, root: str) -> str:
    """The real path of a directory in which a job may run.

    Raises `JobError`: `cwd_relative`, `cwd_missing`, `cwd_not_directory`, `cwd_outside`.
    """
    shown = _shown(cwd)
    if not os.path.isabs(cwd):
        raise JobError("cwd_relative", f"cwd `{shown}` must be an absolute path")
    try:
        real, home = os.path.realpath(cwd, strict=True), os.path.realpath(root)
    except (OSError, ValueError) as exc:
        reason = exc.strerror.lower() if isinstance(exc, OSError) and exc.strerror else "no such path"
        if isinstance(exc, NotADirectoryError):
            raise JobError("cwd_not_directory", f"cwd `{shown}` is not a directory") from None
        raise JobError("cwd_missing", f"cwd `{shown}` cannot be used: {reason}") from None
    if real != home and not real.startswith(home.rstrip("/") + "/"):
        raise JobError("cwd_outside", f"cwd `{shown}` is outside of `{root}`, where jobs may run")
    if not os.path.isdir(real):
        raise JobError("cwd_not_directory", f"cwd `{shown}` is not a directory")
    return real


def seconds(value: float) -> float:
    """How long to wait if somebody says so: never a negative time, never more than a day."""
    return min(max(value, 0.0), 86_400.0) if value == value else 0.0


def check_text(what: str, text: str, limit: int = _TEXT_LIMIT) -> None:
    """Raises `JobError`: `bad_text`, or `too_large` if it is longer than `limit` bytes in UTF-8."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise JobError("bad_text", f"the {what} is not valid Unicode") from None
    if size > limit:
        raise JobError("too_large", f"the {what} is {size} bytes long: {limit} are allowed")
    if "\0" in text:
        raise JobError("bad_text", f"the {what} contains a NUL")


def check_data(what: str, data: JsonObject) -> None:
    """Raises `JobError`: `bad_text`, or `too_large` if it is longer than 1 MiB as JSON."""
    try:
        size = len(msgspec.json.encode(data))
    except UnicodeEncodeError:
        raise JobError("bad_text", f"{what} is not valid Unicode") from None
    except RecursionError:
        raise JobError("bad_text", f"{what} is nested too deeply") from None
    if size > _TEXT_LIMIT:
        raise JobError("too_large", f"{what} is {size} bytes long: {_TEXT_LIMIT} are allowed")


def _check_seconds(what: str, value: float | None, most: float) -> None:
    if value is not None and not (math.isfinite(value) and 0 < value <= most):
        raise JobError("timeout", f"{what} `{value:g}` must be a number of seconds above 0, and {most:.10g} at most")


def _shown(text: str) -> str:
    text = text.encode(errors="replace").decode().replace("\0", "\\0").replace("\n", "\\n")
    return text if len(text) <= 200 else f"{text[:200]}..."
