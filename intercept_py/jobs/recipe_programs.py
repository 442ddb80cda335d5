"""What the recipes run: `python -I -S recipe_programs.py NAME ARGUMENTS`; standard library only.

A program prints lines, writes structured events to fd 3 as JSON lines, and reads answers from its stdin.

Above: `recipes`, which checks the arguments.
"""

from __future__ import annotations

__all__ = ["main"]

import json
import os
import signal
import sys
import time
from collections.abc import Callable

_PROGRESS_SECONDS = 0.05


def main() -> None:
    """Run the program that the command line names."""
    name, *arguments = sys.argv[1:]
    _PROGRAMS[name](*arguments)


def _say(line: str) -> None:
    os.write(1, os.fsencode(line) + b"\n")  # as it was given, whatever the locale


def _tell(**event: object) -> None:
    os.write(3, json.dumps(event).encode() + b"\n")


def _sleep(seconds: str) -> None:
    time.sleep(float(seconds))


def _count(number: str, seconds: str = "0") -> None:
    last, told = int(number), 0.0
    for done in range(1, last + 1):
        time.sleep(float(seconds))
        _say(str(done))
        if done == last or time.monotonic() - told > _PROGRESS_SECONDS:
            told = time.monotonic()
            _tell(type="progress", done=done, total=last)


def _flood(megabytes: str) -> None:
    line = b"0123456789" * 6 + b"012\n"
    for _ in range(int(megabytes)):
        sys.stdout.buffer.write(line * (1024 * 1024 // len(line)))


def _fail(code: str) -> None:
    _say(f"failing with {code}")
    sys.exit(int(code))


def _stubborn(seconds: str) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _say("ready")
    deadline = time.monotonic() + float(seconds)
    while (left := deadline - time.monotonic()) > 0:
        time.sleep(left)


def _forker(seconds: str) -> None:
    children = [_fork(float(seconds), daemon=False), _fork(float(seconds), daemon=True)]
    _say("child {} daemon {}".format(*children))
    for pid in children:
        os.waitpid(pid, 0)


def _fork(seconds: float, *, daemon: bool) -> int:
    if pid := os.fork():
        return pid
    if daemon:
        os.setsid()
    time.sleep(seconds)
    os._exit(0)


def _ask(question: str) -> None:
    _tell(type="input_required", prompt=question)
    _say(os.fsdecode(sys.stdin.buffer.readline()).rstrip("\n"))


_PROGRAMS: dict[str, Callable[..., None]] = {
    "sleep": _sleep,
    "count": _count,
    "flood": _flood,
    "fail": _fail,
    "stubborn": _stubborn,
    "forker": _forker,
    "ask": _ask,
    "echo": _say,
}


if __name__ == "__main__":
    main()
