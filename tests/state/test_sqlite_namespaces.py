"""Containers that share a file: each has mounts and maybe clocks of its own. `unshare` makes real ones."""

from __future__ import annotations

import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from intercept_py.errors import StateError
from intercept_py.state import open_state, sqlite_file
from intercept_py.state.sqlite_file import prepare
from tests.support.sqlite_store import charge, fits

CHARGE = """
import sys
from intercept_py.errors import StateError
from intercept_py.state import open_state
from tests.support.sqlite_store import charge, fits
try:
    state = open_state(f"sqlite://{sys.argv[1]}")
    print([fits(state, charge(limit=3, seconds=86400)) for _ in range(2)])
    state.close()
except StateError as exc:
    print(exc)
"""
UNSHARE = shutil.which("unshare")


def contained(script: str, *arguments: str | Path, clock: bool = False) -> str:
    """What a shell script prints in namespaces of its own. Skips the test where this user may not make any."""
    if UNSHARE is None:
        pytest.skip("there is no `unshare`")
    options = ["-r", "-m", *(["-T", "--fork", "--boottime", "100000", "--monotonic", "100000"] if clock else [])]
    if subprocess.run([UNSHARE, *options, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this user may not make namespaces")
    command = [UNSHARE, *options, "sh", "-ec", script, sys.executable, *map(str, arguments)]
    return subprocess.run(command, check=True, timeout=60, capture_output=True, text=True).stdout.strip()


def test_a_file_that_is_mounted_alone_is_refused(tmp_path: Path) -> None:
    """Its log would lie beside it in each container, and each would count apart."""
    (tmp_path / "host").mkdir()
    own = tmp_path / "container"
    own.mkdir()
    (own / "limits.sqlite").touch()
    script = 'mount --bind "$1/limits.sqlite" "$2/limits.sqlite"; exec "$0" -c "$3" "$2/limits.sqlite"'
    path = tmp_path / "host" / "limits.sqlite"
    prepare(str(path))
    told = contained(script, path.parent, own, CHARGE)
    expected = (
        f"state file `{own}/limits.sqlite` is mounted alone, so that others who use it would count apart: mount its"
    )
    assert told.startswith(expected)
    assert "\n" not in told


def test_containers_that_mount_the_directory_share_its_file(tmp_path: Path) -> None:
    own = tmp_path / "a container\\of its own"
    for folder in (tmp_path / "host", own):
        folder.mkdir()
    script = 'mount --bind "$1" "$2"; exec "$0" -c "$3" "$2/limits.sqlite"'
    assert contained(script, tmp_path / "host", own, CHARGE) == "[True, True]"
    assert contained(script, tmp_path / "host", own, CHARGE) == "[True, False]"


def test_any_name_of_a_file_that_is_mounted_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a b\\c").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "a b\\c")
    name = f"{tmp_path}/a b\\c/x".replace("\\", "\\134").replace(" ", "\\040")
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"1 2 8:1 / / rw - ext4 /dev/a rw\n1 2 8:1 / {name} rw - ext4 /dev/a rw\n")
    monkeypatch.setattr(sqlite_file, "_MOUNTS", str(mounts))
    with pytest.raises(StateError, match="is mounted alone"):
        prepare(str(tmp_path / "link" / "x"))
    prepare(str(tmp_path / "link" / "y"))
    mounts.unlink()
    prepare(str(tmp_path / "link" / "x"))


def test_a_container_with_a_clock_of_its_own_lives_by_that_of_the_machine(tmp_path: Path) -> None:
    """Else its ticks, which are a day ahead, would end all windows for it."""
    path = tmp_path / "limits.sqlite"
    day = charge(limit=3, seconds=86400)
    with closing(open_state(f"sqlite://{path}")) as state:
        assert fits(state, day)
        assert contained('exec "$0" -c "$1" "$2"', CHARGE, path, clock=True) == "[True, True]"
        assert not fits(state, day)
    assert contained('exec "$0" -c "$1" "$2"', CHARGE, path, clock=True) == "[False, False]"
