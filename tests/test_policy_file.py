"""Reading a policy from disk, and noticing every way in which it can change (security rule 8)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from intercept_py import policy_file
from intercept_py.errors import PolicyError
from intercept_py.policy.rules import Policy

ALLOW = "default: allow\n"
DENY = "default: deny\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "policy.yaml"
    file.write_text(ALLOW)
    return file


def watch(path: Path) -> policy_file.Watch:
    return policy_file.Watch(str(path), policy_file.read(str(path)).revision)


def polled(watched: policy_file.Watch, times: int = 2) -> Policy | None:
    """What so many polls in a row bring, at most one policy."""
    found = [policy for _ in range(times) if (policy := watched.poll()) is not None]
    assert len(found) <= 1
    return found[0] if found else None


def test_an_unchanged_file_is_no_news(path: Path) -> None:
    assert polled(watch(path), times=100) is None


def test_a_file_written_in_place_is_taken_when_two_polls_saw_the_same_bytes(path: Path) -> None:
    watched = watch(path)
    path.write_text(DENY)
    assert watched.poll() is None
    policy = watched.poll()
    assert policy is not None
    assert not policy.default_allow


def test_half_a_file_is_not_taken_even_if_it_is_a_valid_policy(path: Path) -> None:
    watched = watch(path)
    path.write_text("default: deny\n")
    assert watched.poll() is None
    path.write_text("default: deny\nhide: [purge]\n")
    assert watched.poll() is None
    policy = watched.poll()
    assert policy is not None
    assert policy.hide == ("purge",)


def test_a_file_replaced_by_rename_is_taken(path: Path, tmp_path: Path) -> None:
    watched = watch(path)
    other = tmp_path / "new.yaml"
    other.write_text(DENY)
    other.replace(path)
    assert polled(watched) is not None


def test_a_symlink_swap_as_kubernetes_does_it_is_taken(tmp_path: Path) -> None:
    for name, text in (("v1", ALLOW), ("v2", DENY)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "policy.yaml").write_text(text)
    (tmp_path / "data").symlink_to("v1")
    path = tmp_path / "policy.yaml"
    path.symlink_to("data/policy.yaml")
    watched = watch(path)
    (tmp_path / "tmp").symlink_to("v2")
    (tmp_path / "tmp").replace(tmp_path / "data")
    policy = polled(watched)
    assert policy is not None
    assert not policy.default_allow


def test_a_change_that_keeps_size_and_time_stamps_is_found_by_its_content(path: Path) -> None:
    watched = watch(path)
    info = path.stat()
    path.write_text("default: deny \n")
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))
    assert polled(watched) is not None


def test_a_bad_file_is_reported_once_and_the_next_good_one_is_taken(path: Path) -> None:
    watched = watch(path)
    path.write_text("defualt: deny\n")
    assert watched.poll() is None
    with pytest.raises(PolicyError):
        watched.poll()
    assert polled(watched, times=10) is None
    path.write_text(DENY)
    assert polled(watched) is not None


def test_a_file_that_is_missing_for_a_moment_is_no_news(path: Path) -> None:
    watched = watch(path)
    path.unlink()
    assert polled(watched, times=5) is None
    path.write_text(DENY)
    assert polled(watched) is not None


def test_a_forced_look_says_when_the_file_is_missing(path: Path) -> None:
    watched = watch(path)
    path.unlink()
    with pytest.raises(PolicyError, match="No such file"):
        watched.poll(force=True)


def test_a_forced_look_takes_the_file_at_once(path: Path) -> None:
    watched = watch(path)
    path.write_text(DENY)
    assert watched.poll(force=True) is not None


@pytest.mark.parametrize("kind", ["directory", "fifo", "missing", "huge", "device", "nul"])
def test_what_is_no_policy_file_gets_one_clear_line_and_no_wait(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    match kind:
        case "directory":
            path.mkdir()
        case "fifo":
            os.mkfifo(path)
        case "huge":
            with path.open("wb") as file:
                file.truncate(50 * 1024 * 1024)
        case "device":
            path = Path("/dev/zero")
        case "nul":
            path = Path("a\0b")
    with pytest.raises(PolicyError, match="cannot read the policy: ") as refused:
        policy_file.read(str(path))
    assert "\n" not in str(refused.value)


def test_a_policy_that_others_may_write_is_warned_about(path: Path) -> None:
    path.chmod(0o666)
    path.parent.chmod(0o777)
    assert policy_file.warnings(str(path)) == [
        f"the policy `{path}` may be written by other users: `chmod go-w` it",
        f"the policy's directory `{path.parent}` may be written by other users: `chmod go-w` it",
    ]
    path.chmod(0o600)
    path.parent.chmod(0o700)
    assert policy_file.warnings(str(path)) == []


@pytest.mark.parametrize(("per", "warned"), [("", True), (", per: session", True), (", per: principal", False)])
def test_limits_that_every_session_has_anew_are_worth_a_word(tmp_path: Path, per: str, warned: bool) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(f"tools: {{echo: {{rules: [{{rate_limit: {{max: 2, window: hour{per}}}}}]}}}}\n")
    warning = policy_file.warning_of_sessions("p.yaml", policy_file.read(str(path)))
    assert (warning is not None) == warned
    if warning is not None:
        assert warning.startswith("policy `p.yaml` has limits per session, and clients over HTTP begin a session")
