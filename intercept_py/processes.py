"""Start, signal and reap one child process that leads its own session, so that its whole group can be ended.

`subprocess` would do, but importing it costs a tenth of the proxy's start-up budget; `os.posix_spawnp` is what it
wraps.
"""

from __future__ import annotations

__all__ = ["Child", "exit_status", "find", "start"]

import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress

from intercept_py.errors import UpstreamError

# Python ignores SIGPIPE and SIGXFSZ; a child must not inherit that.
_DEFAULT_SIGNALS = tuple(s for s in (signal.SIGPIPE, getattr(signal, "SIGXFSZ", None)) if s is not None)


class Child:
    """A running child. `stdin` and `stdout` are our non-blocking ends of its pipes; its stderr is ours."""

    def __init__(self, pid: int, stdin: int, stdout: int) -> None:
        self.pid = pid
        self.stdin = stdin
        self.stdout = stdout
        self.status: int | None = None
        self._stdin_open = True

    def poll(self) -> int | None:
        """Reap the child if it has ended; its exit status as a shell would say it, None while it runs."""
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = exit_status(status)
        return self.status

    def close_stdin(self) -> None:
        """Let the child see the end of its input (MCP, stdio: the first step of a shutdown). Idempotent."""
        if self._stdin_open:
            self._stdin_open = False
            os.close(self.stdin)

    def kill_group(self, signum: int) -> None:
        """Signal every process of the child's group, also after the child itself has gone."""
        # PermissionError: on some systems all that is left of the group are zombies.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signum)

    def group_alive(self) -> bool:
        """Whether any process of the group is left (a zombie that someone else must reap counts as well)."""
        try:
            os.killpg(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True


def find(program: str) -> None:
    """Look for what `start` would start. Raises `UpstreamError` with the remedy."""
    import shutil  # what starts its server at once has no use for it

    if shutil.which(program) is None:
        where = " on PATH; install it, or correct its spelling"
        remedy = "; correct its path, or make it executable" if os.path.dirname(program) else where
        raise UpstreamError(f"cannot start `{program}`: no such program{remedy}")


def start(command: Sequence[str], environment: Mapping[str, str]) -> Child:
    """Start `command` (looked up on PATH) in a session of its own, with pipes for stdin and stdout.

    The whole environment is passed: wrapped servers find their secrets there. Raises `UpstreamError` with the remedy.
    """
    try:
        child_in, our_out = os.pipe()
    except OSError as exc:
        raise UpstreamError(_why(command[0], exc)) from None
    try:
        our_in, child_out = os.pipe()
    except OSError as exc:
        os.close(child_in)
        os.close(our_out)
        raise UpstreamError(_why(command[0], exc)) from None
    actions = ((os.POSIX_SPAWN_DUP2, child_in, 0), (os.POSIX_SPAWN_DUP2, child_out, 1))
    try:
        pid = os.posix_spawnp(
            command[0], list(command), environment, file_actions=actions, setsid=True, setsigdef=_DEFAULT_SIGNALS
        )
    except (OSError, ValueError) as exc:
        os.close(our_out)
        os.close(our_in)
        raise UpstreamError(_why(command[0], exc)) from None
    finally:
        os.close(child_in)
        os.close(child_out)
    os.set_blocking(our_out, False)
    os.set_blocking(our_in, False)
    return Child(pid, our_out, our_in)


def _why(program: str, exc: OSError | ValueError) -> str:
    if isinstance(exc, FileNotFoundError):
        return f"cannot start `{program}`: no such command; check its spelling and PATH"
    if isinstance(exc, PermissionError):
        return f"cannot start `{program}`: not executable; check its permissions"
    reason = exc.strerror if isinstance(exc, OSError) else "its arguments or environment contain a NUL"
    return f"cannot start `{program}`: {reason}"


def exit_status(status: int) -> int:
    """A wait status as a shell reports it: the exit code, or 128 plus the signal's number."""
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code
