"""The program that runs one job and ends it with everything it started; standard library only.

    python -I -S -E supervisor.py DIRECTORY CWD GRACE TIMEOUT HEAD TAIL COMMAND...

Its stdin is a lifeline that only the server holds: `cancel`, or `input N` and N bytes for the job; its end says that
the server is gone, and then the job goes too. It reports on stdout, line by line: `started PID` or `failed WHAT ERRNO`,
then `event` and a JSON line of the job (which writes it to its fd 3), last `exit` and the record that DIRECTORY keeps
as `exit.json`. DIRECTORY also gets the output: `head`, and `tail` (how many bytes are missing, LF, the last ones).

The job leads a session of its own. What it starts and leaves becomes the supervisor's child (Linux), so it ends only
when it has no child left. Times are seconds, TIMEOUT `-` is none.

Above: `launch`, which starts it.
"""

from __future__ import annotations

__all__ = ["children", "children_by_parent", "main"]

import ctypes
import os
import select
import signal
import sys
import time
from collections.abc import Callable

_CHUNK = 65536
_TICK = 0.02
"""While it ends: an orphan that becomes our child does not say so."""
_ORPHANED_GRACE = 0.5
"""With the server dead, nobody waits for a long grace."""
_SAVE_SECONDS = 0.1
_EVENT_LINE = 16 * 1024
_EVENTS = 10_000
_EVENT_BURST = 1000
_EVENTS_PER_SECOND = 100
_REPORT_BUFFER = 4 * 1024 * 1024
_DRAIN = 64
_PR_SET_CHILD_SUBREAPER = 36
_LINUX = sys.platform.startswith("linux")
_IGNORED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# Python ignores some, and so does whatever starts a server in the background; a job must inherit none of it.
_DEFAULT = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}


class Output:
    """Keeps the first `head` and the last `tail` bytes in files that can be read at any time."""

    def __init__(self, directory: str, head: int, tail: int) -> None:
        self._fd = os.open(f"{directory}/head", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        self._room = head
        self._path = f"{directory}/tail"
        self._size = tail
        self._tail = bytearray()
        self._dropped = 0
        self._save_at: float | None = None

    def add(self, data: bytes) -> None:
        """Take what the job printed. A full disk costs output, never the job."""
        if self._room:
            try:
                written = os.write(self._fd, data[: self._room])
            except OSError:
                written = self._room = 0
            self._room -= written
            data = data[written:]
        if data:
            self._tail += data
            if len(self._tail) > 2 * self._size:
                self._trim()
            if self._save_at is None:
                self._save_at = time.monotonic() + _SAVE_SECONDS

    def due(self) -> float | None:
        """When `save` should be called."""
        return self._save_at

    def save(self) -> None:
        """Bring the file with the tail up to date."""
        if self._save_at is None:
            return
        self._save_at = None
        self._trim()
        _replace(self._path, b"%d\n" % self._dropped + self._tail, sync=False)

    def _trim(self) -> None:
        excess = max(0, len(self._tail) - self._size)
        del self._tail[:excess]
        self._dropped += excess


class Reports:
    """Lines for the server, which may be slow: nothing waits for it but the end."""

    def __init__(self) -> None:
        os.set_blocking(1, False)
        self.waiting = bytearray()

    def add(self, line: bytes) -> bool:
        """Send a line, or keep it until the server reads; False if too many are kept."""
        if len(self.waiting) + len(line) > _REPORT_BUFFER:
            return False
        self.waiting += line + b"\n"
        self.flush()
        return True

    def last(self, line: bytes) -> None:
        """Send everything and this line, however long the server takes."""
        os.set_blocking(1, True)
        self.waiting += line + b"\n"
        while self.waiting:
            self.flush()

    def flush(self) -> None:
        """Send what the server takes."""
        try:
            del self.waiting[: os.write(1, self.waiting)]
        except BlockingIOError:
            pass
        except OSError:
            self.waiting.clear()  # nobody will ever read it


class Events:
    """Splits what comes out of the job's fd 3 into lines, so few and short ones that no job can drown the server."""

    def __init__(self, reports: Reports) -> None:
        self._reports = reports
        self._rest = b""
        self._too_long = False
        self._left = _EVENTS
        self._tokens = float(_EVENT_BURST)
        self._at = time.monotonic()
        self.dropped = 0

    def add(self, data: bytes) -> None:
        """Take a piece."""
        *lines, rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._line(line)
        self._rest = rest
        if len(rest) > _EVENT_LINE:
            self._too_long, self._rest = True, b""

    def _line(self, line: bytes) -> None:
        too_long, self._too_long = self._too_long or len(line) > _EVENT_LINE, False
        if not too_long and self._allowed() and self._reports.add(b"event " + line):
            self._left -= 1
            self._tokens -= 1
        else:
            self.dropped += 1

    def _allowed(self) -> bool:
        now = time.monotonic()
        self._tokens = min(_EVENT_BURST, self._tokens + (now - self._at) * _EVENTS_PER_SECOND)
        self._at = now
        return self._left > 0 and self._tokens >= 1


class Job:
    """The job's processes: the leader, its group, and what escaped from the group and became our child."""

    def __init__(self, command: list[str], stdin: int, stdout: int, events: int) -> None:
        actions = [(os.POSIX_SPAWN_DUP2, ours, theirs) for ours, theirs in ((stdin, 0), (stdout, 1), (stdout, 2))]
        actions.append((os.POSIX_SPAWN_DUP2, events, 3))
        self.pid = os.posix_spawnp(
            command[0], command, os.environ, file_actions=actions, setsid=True, setsigmask=(), setsigdef=_DEFAULT
        )
        self.code: int | None = None
        self.signal: int | None = None
        self._exited = False
        self._reaped = False
        self._told: set[int] = set()

    def exited(self) -> bool:
        """Whether the leader has ended. It stays a zombie: nobody else can get the number of its group meanwhile."""
        if not self._exited:
            ended = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended is not None:
                self._exited = True
                if ended.si_code == os.CLD_EXITED:
                    self.code = ended.si_status
                else:
                    self.signal = ended.si_status
        return self._exited

    def reap_orphans(self) -> list[int]:
        """Reap those that became our children and have ended; the others."""
        return [pid for pid in children() if pid != self.pid and not _reap(pid)]

    def gone(self) -> bool:
        """Reap what has ended; whether no process is left. The leader goes last."""
        if self.reap_orphans() or not self.exited():
            return False
        if not self._reaped:
            self._reaped = _reap(self.pid)
        # The list above may lack some: only the kernel's answer that there is no child is final.
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return _LINUX or not self._signal_group(0)
        return False

    def signal_all(self, signum: int) -> None:
        """Signal every process that can be found, and wake the stopped ones."""
        self._signal_group(signum)
        for pid in children():
            self._tell(pid, signum)

    def signal_new(self, signum: int) -> None:
        """Signal those that escaped from the group and have not been told yet."""
        for pid in children():
            if pid not in self._told:
                self._tell(pid, signum)

    def _tell(self, pid: int, signum: int) -> None:
        self._told.add(pid)
        if pid != self.pid:
            _quietly(os.kill, pid, signum)
            _quietly(os.kill, pid, signal.SIGCONT)

    def _signal_group(self, signum: int) -> bool:
        if self._reaped and _LINUX:
            return False  # the number may be somebody else's; children are signalled one by one
        return _quietly(os.killpg, self.pid, signum) and (not signum or _quietly(os.killpg, self.pid, signal.SIGCONT))


class Supervisor:
    """One job from its start to the end of its last process."""

    def __init__(self, directory: str, cwd: str, grace: str, timeout: str, head: str, tail: str) -> None:
        self._directory = directory
        self._cwd = cwd
        self._grace = float(grace)
        self._deadline = None if timeout == "-" else time.monotonic() + float(timeout)
        self._limits = int(head), int(tail)
        self._reports = Reports()
        self._events = Events(self._reports)
        self._control = b""
        self._input = bytearray()
        self._poll = select.poll()
        self._readers: dict[int, Callable[[], object]] = {}
        self._ended_by: str | None = None
        self._asked = False
        self._killed = False
        self._resend_at: float | None = None
        self._kill_at: float | None = None

    def run(self, command: list[str]) -> None:
        """Start the job, and return when it is gone and its record written."""
        if not self._start(command):
            return
        while True:
            for fd, _ in self._poll.poll(self._patience()):
                if fd in self._readers:
                    self._readers[fd]()
            self._flush()
            if self._step():
                break
        self._finish()

    def _start(self, command: list[str]) -> bool:
        what = "output"
        try:
            self._output = Output(self._directory, *self._limits)
            stdin, self._stdin = os.pipe()
            self._stdout, stdout = os.pipe()
            self._fd3, events = os.pipe()
            self._ended = _child_signals()
            self._watch(self._ended, self._read_ended)
            what = "chdir"
            os.chdir(self._cwd)
            if os.getcwd() != self._cwd:
                what = "cwd"
                raise OSError  # it was checked under this name, and has become a link to another place since
            what = "exec"
            self._job = Job(command, stdin, stdout, events)
        except OSError as exc:
            self._reports.add(f"failed {what} {exc.errno or 0}".encode())
            return False
        for fd in (stdin, stdout, events):
            os.close(fd)
        self._reports.add(b"started %d" % self._job.pid)
        self._watch(0, self._read_control)
        self._watch(self._stdout, lambda: self._pump(self._stdout, self._output.add))
        self._watch(self._fd3, lambda: self._pump(self._fd3, self._events.add))
        os.set_blocking(self._stdin, False)
        return True

    def _watch(self, fd: int, read: Callable[[], object]) -> None:
        os.set_blocking(fd, False)
        self._readers[fd] = read
        self._poll.register(fd, select.POLLIN)

    def _unwatch(self, fd: int) -> None:
        if self._readers.pop(fd, None):
            self._poll.unregister(fd)

    def _patience(self) -> float | None:
        """Milliseconds until something must be done without being asked."""
        times = [at for at in (self._output.due(), self._deadline, self._resend_at, self._kill_at) if at is not None]
        now = time.monotonic()
        if self._ended_by is not None:
            times.append(now + _TICK)
        return max(0.0, (min(times) - now) * 1000) + 0.5 if times else None

    def _step(self) -> bool:
        """Do what is due; whether no process is left."""
        now = time.monotonic()
        if (due := self._output.due()) is not None and now >= due:
            self._output.save()
        if self._ended_by is None:
            if self._job.exited():
                self._end("exit")
            elif self._deadline is not None and now >= self._deadline:
                self._end("timeout")
        if self._ended_by is None:
            return False
        if self._job.gone():
            return True
        self._insist(now)
        return False

    def _end(self, why: str) -> None:
        """Ask all of the job to end, for the first reason. If the leader ended by itself before, that is the reason."""
        if self._ended_by is not None:
            return
        self._ended_by = "exit" if self._job.exited() else why
        self._deadline = None
        now = time.monotonic()
        self._resend_at, self._kill_at = now + self._grace / 2, now + self._grace
        self._job.signal_all(signal.SIGTERM)

    def _insist(self, now: float) -> None:
        if self._kill_at is None or now >= self._kill_at:
            self._resend_at = self._kill_at = None
            self._killed = True
            self._job.signal_all(signal.SIGKILL)
        elif self._resend_at is not None and now >= self._resend_at:
            self._resend_at = None
            self._job.signal_all(signal.SIGTERM)  # it may have been stopped since, or started more
        else:
            self._job.signal_new(signal.SIGTERM)

    def _read_ended(self) -> None:
        _read(self._ended)
        self._job.reap_orphans()

    def _read_control(self) -> None:
        data = _read(0)
        if data is None:
            return
        if not data:
            self._unwatch(0)
            self._end("server_died")
            if self._kill_at is not None:
                self._kill_at = min(self._kill_at, time.monotonic() + _ORPHANED_GRACE)
            return
        self._control += data
        while self._command():
            pass

    def _command(self) -> bool:
        """Carry out the first command that has come in completely; False if there is none."""
        line, end, rest = self._control.partition(b"\n")
        if not end:
            return False
        word, _, size = line.partition(b" ")
        if word == b"input":
            if len(rest) < int(size):
                return False
            self._input += rest[: int(size)]
            rest = rest[int(size) :]
        else:
            self._asked = True
            self._end("cancel")
        self._control = rest
        return True

    def _flush(self) -> None:
        """Pass on what waits for the job and for the server."""
        if self._input:
            try:
                del self._input[: os.write(self._stdin, self._input)]
            except BlockingIOError:
                pass
            except OSError:
                self._input.clear()  # the job closed its stdin
        if self._reports.waiting:
            self._reports.flush()
        for fd, waiting in ((self._stdin, self._input), (1, self._reports.waiting)):
            if waiting:
                self._poll.register(fd, select.POLLOUT)
            else:
                _quietly(self._poll.unregister, fd)

    def _pump(self, fd: int, add: Callable[[bytes], None]) -> bool:
        """Pass on what the job wrote; whether there may be more."""
        data = _read(fd)
        if data:
            add(data)
        elif data is not None:
            self._unwatch(fd)
        return bool(data)

    def _finish(self) -> None:
        # Whoever got hold of a pipe without being a descendant may keep it open: take what is there, and no more.
        for fd, add in ((self._stdout, self._output.add), (self._fd3, self._events.add)):
            for _ in range(_DRAIN):
                if fd not in self._readers or not self._pump(fd, add):
                    break
        self._output.save()
        record = (
            f'{{"code":{_json(self._job.code)},"signal":{_json(self._job.signal)},"asked":{_json(self._asked)},'
            f'"killed":{_json(self._killed)},"ended_by":"{self._ended_by}","events_dropped":{self._events.dropped}}}'
        ).encode()
        _replace(f"{self._directory}/exit.json", record, sync=True)
        self._reports.last(b"exit " + record)


def children() -> list[int]:
    """The processes that must be waited for by us. May lack some while others end (proc(5))."""
    try:
        with open(f"/proc/self/task/{os.getpid()}/children", "rb") as file:
            return [int(pid) for pid in file.read().split()]
    except OSError:
        return children_by_parent() if _LINUX else []


def children_by_parent() -> list[int]:
    """The same from the table of all processes, for kernels that keep no lists."""
    found = []
    try:
        names = os.listdir("/proc")
    except OSError:
        return []  # another time
    for name in names:
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    parent = int(file.read().rpartition(b")")[2].split()[1])
            except OSError:
                continue
            if parent == os.getpid():
                found.append(int(name))
    return found


def _reap(pid: int) -> bool:
    """Whether this child is gone, now or before."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True


def _quietly(call: Callable[..., None], *arguments: int) -> bool:
    """Whether it was possible."""
    try:
        call(*arguments)
    except (OSError, KeyError):
        return False
    return True


def _read(fd: int) -> bytes | None:
    """Some bytes; none at the end; None if there are none yet."""
    try:
        return os.read(fd, _CHUNK)
    except BlockingIOError:
        return None
    except OSError:
        return b""


def _replace(path: str, data: bytes, *, sync: bool) -> None:
    """Write a file that is complete whenever seen. A full disk leaves the one before; the server is told anyway."""
    try:
        fd = os.open(f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            if os.write(fd, data) == len(data):
                if sync:
                    os.fsync(fd)
                os.replace(f"{path}.new", path)
        finally:
            os.close(fd)
    except OSError:
        pass


def _json(value: int | None) -> str:
    return "null" if value is None else str(value).lower()


def _child_signals() -> int:
    """A descriptor that becomes readable when a child has ended."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    return reading


def main() -> None:
    """Run the job that the command line describes."""
    for signum in _IGNORED:
        signal.signal(signum, signal.SIG_IGN)  # whoever ends the server ends the job through it
    if _LINUX:
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    Supervisor(*sys.argv[1:7]).run(sys.argv[7:])
    os._exit(0)  # nothing is left to tidy up, and somebody waits


if __name__ == "__main__":
    main()
