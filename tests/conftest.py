"""Fixtures that several test modules share."""

from __future__ import annotations

import gc
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support import npm
from tests.support.commands import echo_server
from tests.support.wire import StartDirect, StartProxy, Wire, proxy_command


def pytest_configure(config: pytest.Config) -> None:
    """No test touches the state of the user who runs it."""
    folder = tempfile.mkdtemp(prefix="intercept-tests-")
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
    os.environ["XDG_STATE_HOME"] = folder


def pytest_collection_finish() -> None:
    """What was imported stays, and is not looked at again whenever somebody looks for garbage."""
    gc.freeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tests marked `node` need the real servers; without them they skip, or fail if `INTERCEPT_REQUIRE_NODE` is set."""
    if item.get_closest_marker("node") and (reason := npm.missing()):
        if npm.required():
            pytest.fail(f"{reason}, and INTERCEPT_REQUIRE_NODE is set", pytrace=False)
        pytest.skip(reason)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say so, apart from the list of skipped tests, where the real servers were not used."""
    reason = npm.missing()
    if reason and any(reason in str(report.longrepr) for report in terminalreporter.getreports("skipped")):
        terminalreporter.write_line(f"NOT TESTED against the real npm servers: {reason}", yellow=True, bold=True)


@pytest.fixture
def anyio_backend() -> str:
    """Tests that use the SDK run on asyncio."""
    return "asyncio"


@pytest.fixture
def record(tmp_path: Path) -> Path:
    """Where the echo server behind `proxy` records what it receives, see `commands.received`."""
    return tmp_path / "received.jsonl"


@pytest.fixture
def audit(tmp_path: Path) -> Path:
    """The audit file of the proxy that `proxy` starts."""
    return tmp_path / "audit.jsonl"


@pytest.fixture
def proxy(tmp_path: Path, record: Path, audit: Path) -> Iterator[StartProxy]:
    """Start `intercept-py run` with a policy (a path, or its text) in front of a command (the echo server if omitted).

    Counters are in memory and the audit goes to `audit`. All processes are stopped when the test ends.
    """
    with ExitStack() as stack:

        def start(
            policy: str | Path,
            command: Sequence[str] | None = None,
            *options: str,
            env: Mapping[str, str] | None = None,
            cwd: Path | None = None,
        ) -> Wire:
            if isinstance(policy, str):
                text, policy = policy, tmp_path / "policy.yaml"
                policy.write_text(text)
            usual = ("--state", "memory://", "--audit", str(audit))
            argv = proxy_command(policy, command or echo_server(), *usual, *options)
            environment = {"ECHO_RECORD": str(record), **(env or {})}
            return stack.enter_context(Wire(argv, env=environment, cwd=cwd))

        yield start


@pytest.fixture
def direct() -> Iterator[StartDirect]:
    """Start a server with nothing in front of it, to compare with what `proxy` gives."""
    with ExitStack() as stack:

        def start(command: Sequence[str], env: Mapping[str, str] | None = None, cwd: Path | None = None) -> Wire:
            return stack.enter_context(Wire(command, env=env, cwd=cwd))

        yield start
