"""The file of the counters: where it is, who may touch it, and what is said when it cannot be used."""

from __future__ import annotations

import os
import shutil
import socket
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from intercept_py import state
from intercept_py.errors import StateError, UnavailableError
from intercept_py.state import check, open_state
from intercept_py.state.quota import Quota
from intercept_py.state.sqlite import SqliteStorage
from intercept_py.state.sqlite_file import path_of
from tests.support.sqlite_store import charge, fits, full_disk, value
from tests.support.wire import StartProxy, denial, text_of

ONE_A_DAY = charge(limit=1, seconds=86400)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "limits.sqlite"


@pytest.fixture
def quota(path: Path) -> Iterator[Quota]:
    """Counters in the file."""
    with closing(Quota(SqliteStorage(f"sqlite://{path}", patience=0.2))) as quota:
        yield quota


def fault(work: Callable[[], object], kind: type[StateError] = StateError) -> str:
    """The one line of the fault of this kind that this raises."""
    with pytest.raises(kind) as caught:
        work()
    text = str(caught.value)
    assert "\n" not in text
    return text


def opening(path: Path | str) -> str:
    """The fault of opening this file."""
    return fault(lambda: SqliteStorage(f"sqlite://{path}", patience=0.2))


# Where it is.


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///var/lib/x.db", "/var/lib/x.db"),
        ("sqlite:////var/lib/x.db", "/var/lib/x.db"),
        ("sqlite:/var/lib/../x.db", "/var/x.db"),
        ("sqlite:///a%20b%3F%23%25.db", "/a b?#%.db"),
        ("sqlite:x.db", f"{os.getcwd()}/x.db"),
    ],
)
def test_a_url_names_a_file(url: str, path: str) -> None:
    assert path_of(url) == path


@pytest.mark.parametrize("url", ["sqlite:", "sqlite://", "sqlite:///"])
def test_without_a_path_the_file_is_where_this_platform_keeps_state(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/var/state")
    assert path_of(url).endswith("intercept-py/limits.sqlite")
    if sys.platform == "linux":
        assert path_of(url) == "/var/state/intercept-py/limits.sqlite"


@pytest.mark.parametrize(
    "url", ["sqlite://host/x", "sqlite:///x?mode=ro", "sqlite:///x#y", "sqlite:///%00", "sqlite://x"]
)
def test_a_url_that_names_no_file_is_refused_and_says_how_to_write_it(url: str) -> None:
    assert "write `sqlite:///path/to/file`" in fault(lambda: state.check(url))


def test_odd_names_of_files_are_only_names(tmp_path: Path) -> None:
    for name in ("a%3Fmode=memory", "%23", "%25", "x%26y", "é", "file:x"):
        with closing(open_state(f"sqlite://{tmp_path}/{name}")) as opened:
            assert fits(opened, ONE_A_DAY)
    assert {file.name for file in tmp_path.iterdir()} == {"a?mode=memory", "#", "%", "x&y", "é", "file:x"}


# Who may touch it.


def test_the_file_and_its_directories_are_for_this_user_alone(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "limits.sqlite"
    umask = os.umask(0)
    try:
        with closing(open_state(f"sqlite://{path}")) as opened:
            fits(opened, ONE_A_DAY)
            files = list(path.parent.iterdir())
    finally:
        os.umask(umask)
    assert sorted(file.name for file in files) == ["limits.sqlite", "limits.sqlite-shm", "limits.sqlite-wal"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [stat.S_IMODE(folder.stat().st_mode) for folder in (path.parent, path.parent.parent)] == [0o700] * 2


def test_the_files_beside_it_have_its_mode(path: Path, quota: Quota) -> None:
    fits(quota, ONE_A_DAY)
    for file in path.parent.glob("limits.sqlite*"):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm"])
def test_a_symbolic_link_is_refused(path: Path, tmp_path: Path, suffix: str) -> None:
    (tmp_path / "elsewhere").touch()
    Path(f"{path}{suffix}").symlink_to(tmp_path / "elsewhere")
    assert f"`{path}{suffix}` is a symbolic link: name the file that it points to" in opening(path)
    assert (tmp_path / "elsewhere").stat().st_size == 0


def test_who_else_may_change_the_counters_is_told(path: Path) -> None:
    url = f"sqlite://{path}"
    assert state.warnings(url) == []
    path.chmod(0o620)
    path.parent.chmod(0o777)
    try:
        file, folder = state.warnings(url)
    finally:
        path.parent.chmod(0o700)
    assert file == f"state file `{path}` may be written by other users: `chmod go-w` it"
    assert folder == f"directory of the state file `{path.parent}` may be written by other users: `chmod go-w` it"
    assert state.warnings("memory:") == []


# What is there already.


def test_a_directory_is_refused(tmp_path: Path) -> None:
    assert f"state file `{tmp_path}` is a directory: name a regular file" in opening(tmp_path)


def test_what_is_no_regular_file_is_refused(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        assert "is not a regular file" in opening(path)


def test_a_file_below_a_file_is_refused(path: Path) -> None:
    path.touch()
    assert f"cannot open state file `{path}/x`" in opening(f"{path}/x")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
def test_a_file_that_may_only_be_read_is_refused(path: Path, quota: Quota) -> None:
    quota.close()
    path.chmod(0o400)
    assert "name a file that this user may write" in opening(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
def test_a_directory_that_may_only_be_read_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        assert "permission denied: name a file that this user may write" in opening(tmp_path / "a" / "x")
    finally:
        tmp_path.chmod(0o700)


def test_an_empty_file_becomes_a_store(path: Path) -> None:
    path.touch(0o600)
    with closing(open_state(f"sqlite://{path}")) as opened:
        assert fits(opened, ONE_A_DAY)


def test_a_file_of_something_else_is_refused_and_stays_as_it_is(path: Path) -> None:
    path.write_bytes(b"dear diary, " * 1000)
    before = path.read_bytes()
    assert f"state file `{path}` holds something else than limits: name another file" in opening(path)
    assert path.read_bytes() == before


def test_a_database_of_something_else_is_refused_and_stays_as_it_is(path: Path) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE diary (entry)")
    before = path.read_bytes()
    assert f"`{path}` holds something else than limits: name another file" in opening(path)
    assert path.read_bytes() == before


def test_a_file_of_a_newer_version_is_refused_and_stays_as_it_is(path: Path, quota: Quota) -> None:
    quota.close()
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA user_version = 2")
    before = path.read_bytes()
    assert f"state file `{path}` was written by a newer version (format 2, here 1 is known): use that" in opening(path)
    assert path.read_bytes() == before


def test_a_file_with_tables_that_are_not_ours_is_refused(path: Path, quota: Quota) -> None:
    quota.close()
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TRIGGER t AFTER UPDATE ON counter BEGIN UPDATE counter SET value = 0; END")
    assert f"state file `{path}` is damaged: move it away and start again" in opening(path)


@pytest.mark.parametrize("at", [0, 100, 1024, 2048, 3072])
def test_a_damaged_file_is_a_fault_of_the_opening_or_of_the_charge(path: Path, quota: Quota, at: int) -> None:
    assert fits(quota, ONE_A_DAY)
    quota.close()
    data = bytearray(path.read_bytes())
    data[at : at + 300] = b"\xff" * 300
    path.write_bytes(data)

    def use() -> None:
        with closing(open_state(f"sqlite://{path}")) as opened:
            opened.charge("s", (ONE_A_DAY, charge("new")))
            opened.commit()

    assert str(path) in fault(use)


@pytest.mark.parametrize("kept", ["nonsense", "1e", b"\0", 0.5])
def test_a_number_that_is_none_is_a_fault(path: Path, quota: Quota, kept: object) -> None:
    assert fits(quota, ONE_A_DAY)
    quota.close()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("UPDATE counter SET value = ?", (kept,))
    with closing(open_state(f"sqlite://{path}")) as opened:
        fault(lambda: opened.charge("s", (ONE_A_DAY,)))
        opened.commit()
        assert fits(opened, charge("another"))


# What happens to it meanwhile. What an agent could bring about by the values that it chooses opens no limit.


def test_a_file_that_another_process_holds_is_waited_for_no_longer_than_the_patience(path: Path, quota: Quota) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        locked = f"state file `{path}` has been locked by another process for over 0.2 s: end that one, or name another"
        for _ in range(2):
            with pytest.raises(StateError) as caught:
                quota.charge("s", (ONE_A_DAY,))
            assert locked in str(caught.value)
            assert not isinstance(caught.value, UnavailableError), "an agent can bring it about, and no limit may open"
        quota.commit()
        other.execute("COMMIT")
        assert fits(quota, ONE_A_DAY)


def test_a_file_that_is_locked_as_a_whole_is_waited_for_when_it_is_opened(path: Path, quota: Quota) -> None:
    quota.close()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN IMMEDIATE")
        before = time.monotonic()
        assert "has been locked by another process for over 0.2 s" in opening(path)
        assert time.monotonic() - before < 20


def test_a_full_disk_denies_and_undoes_and_is_over_when_there_is_room(quota: Quota) -> None:
    with full_disk():
        for _ in range(3):
            quota.charge("s", (ONE_A_DAY,))
            assert "state file" in fault(quota.commit)
    assert fits(quota, ONE_A_DAY)
    assert not fits(quota, ONE_A_DAY)


def test_a_full_disk_is_a_fault_of_the_opening(path: Path) -> None:
    with full_disk():
        assert str(path) in opening(path)
    with closing(open_state(f"sqlite://{path}")) as opened:
        assert fits(opened, ONE_A_DAY)


@pytest.mark.parametrize("gone", ["limits.sqlite", "limits.sqlite-wal", "limits.sqlite-shm"])
def test_a_file_that_is_gone_stops_every_charge_until_it_is_back(path: Path, quota: Quota, gone: str) -> None:
    """Others may count in another file by now. This is noticed within a quarter of a second."""
    file = path.with_name(gone)
    assert value(quota, charge()) == 0
    file.rename(file.with_suffix(".away"))
    time.sleep(0.3)
    for _ in range(2):
        text = fault(lambda: quota.charge("s", (charge(),)), UnavailableError)
        assert "was removed or replaced while in use: put it back, or start the proxy again" in text
        quota.commit()
    file.with_suffix(".away").rename(file)
    assert fits(quota, charge())


def test_a_file_that_was_emptied_stops_every_charge(path: Path, quota: Quota) -> None:
    assert fits(quota, ONE_A_DAY)
    os.truncate(path, 0)
    time.sleep(0.3)
    assert "was removed or replaced while in use" in fault(lambda: quota.charge("s", (ONE_A_DAY,)), UnavailableError)


def test_a_file_with_two_names_is_refused(path: Path, quota: Quota) -> None:
    """Each name would have a log of its own beside it, and so a count of its own."""
    quota.close()
    os.link(path, path.with_name("other.sqlite"))
    assert "has another name, under which others would count apart: remove one" in opening(path)


def test_a_file_that_was_replaced_stops_every_charge_and_closing_the_old_one_leaves_the_new_one_alone(
    path: Path, quota: Quota
) -> None:
    assert fits(quota, ONE_A_DAY)
    for file in list(path.parent.iterdir()):
        file.unlink()
    with closing(open_state(f"sqlite://{path}")) as new:
        assert fits(new, ONE_A_DAY)
        time.sleep(0.3)
        assert "was removed or replaced" in fault(lambda: quota.charge("s", (ONE_A_DAY,)))
        quota.close()
        with closing(open_state(f"sqlite://{path}")) as other:
            assert not fits(other, ONE_A_DAY)
        assert not fits(new, ONE_A_DAY)


def test_a_copy_made_while_in_use_is_a_store_as_well(path: Path, quota: Quota, tmp_path: Path) -> None:
    assert fits(quota, ONE_A_DAY)
    for suffix in ("", "-wal"):
        shutil.copy(f"{path}{suffix}", f"{tmp_path}/copy{suffix}")
    with closing(open_state(f"sqlite://{tmp_path}/copy")) as opened:
        assert not fits(opened, ONE_A_DAY)


# In front of a server.

LIMITED = "default: allow\ntools: {echo: {rules: [{rate_limit: {max: 2, window: 86400, per: global}}]}}\n"


def test_a_proxy_that_starts_again_goes_on_with_its_counters(proxy: StartProxy, path: Path) -> None:
    answers = []
    for _ in range(3):
        wire = proxy(LIMITED, None, "--state", f"sqlite://{path}")
        wire.initialize()
        answers.append(wire.call("echo", {"text": "x"}))
        assert wire.finish() == 0
    assert [text_of(answer) for answer in answers[:2]] == ["x", "x"]
    assert "rate limit of 2 per 86400 s reached" in denial(answers[2])


def test_a_state_file_that_cannot_be_used_is_said_before_the_server_starts(proxy: StartProxy, tmp_path: Path) -> None:
    wire = proxy(LIMITED, None, "--state", f"sqlite://{tmp_path}")
    assert wire.wait() == 73
    assert f"state file `{tmp_path}` is a directory: name a regular file" in wire.stderr()
    assert "Traceback" not in wire.stderr()


def test_a_damaged_state_file_denies_limited_calls_and_no_others(proxy: StartProxy, path: Path) -> None:
    path.write_bytes(b"SQLite format 3\0" + b"and nothing like it" * 100)
    path.chmod(0o622)
    wire = proxy(LIMITED, None, "--state", f"sqlite://{path}")
    wire.initialize()
    reason = denial(wire.call("echo", {"text": "x"}))
    assert f"the limits cannot be checked: state file `{path}` " in reason
    assert "result" in wire.call("measure", {"value": 1})
    assert wire.finish() == 0
    assert f"state file `{path}` may be written by other users" in wire.stderr()
    assert "Traceback" not in wire.stderr()


def test_a_file_that_is_no_database_starts_nothing(path: Path) -> None:
    path.write_text("tools: {}")
    with pytest.raises(StateError, match="holds something else than limits: name another file"):
        check(f"sqlite://{path}")


def test_a_file_that_stays_locked_denies_and_stops_nobody_for_long(proxy: StartProxy, path: Path) -> None:
    with closing(open_state(f"sqlite://{path}")):
        pass
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        wire = proxy(LIMITED, None, "--state", f"sqlite://{path}")
        wire.initialize()
        for _ in range(50):  # only the first waits two seconds
            assert "has been locked by another process for over 2 s" in denial(wire.call("echo", {"text": "x"}))
        other.execute("COMMIT")
        assert text_of(wire.call("echo", {"text": "now"})) == "now"
        assert wire.finish() == 0


def test_nothing_of_sqlite_or_limits_is_imported_for_a_look_at_the_url(path: Path) -> None:
    program = (
        "import sys; from intercept_py import state; state.check(sys.argv[1]); state.warnings(sys.argv[1]); "
        "assert not {'limits', 'sqlite3', 'platformdirs', 'urllib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program, f"sqlite://{path}"], check=True, timeout=60)
