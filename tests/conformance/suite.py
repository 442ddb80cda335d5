"""Runs the official conformance suite and reads what it found.

Below: npm (where it is installed). Above: the run.
"""

from __future__ import annotations

__all__ = ["VERSIONS", "SuiteError", "check_client", "check_server", "client_scenarios"]

import json
import os
import re
import subprocess
from pathlib import Path

from tests.conformance.compare import Check
from tests.support import npm

VERSIONS = ("2026-07-28", "2025-11-25")
TIMEOUT = 180.0
_FOLDER = re.compile(r"server-(?P<scenario>.+)-\d{4}-\d\d-\d\dT[\d-]+Z")
_ENDED = ("Client exited with code", "Client timed out after")


class SuiteError(Exception):
    """The suite itself did not run to its end."""


def check_server(url: str, version: str, folder: Path) -> tuple[dict[str, list[Check]], bool]:
    """All scenarios of `version` for the server at `url`: their checks, and whether every required one passes."""
    done = _run("server", "--url", url, "--requirements", version, "--output-dir", os.fspath(folder))
    found = {}
    for result in folder.iterdir():
        if match := _FOLDER.fullmatch(result.name):
            found[match["scenario"]] = _checks(result)
    if not found:
        raise SuiteError(f"the suite gave no results: {done.stdout}{done.stderr}")
    return found, done.returncode == 0


def check_client(command: str, scenario: str, version: str, folder: Path) -> list[Check]:
    """The checks of one scenario for the client that `command` starts, and one of our own for how the client ended."""
    # A scenario of an extension belongs to no version: the suite leaves it out unless it is forced.
    options = ("--scenario", scenario, "--spec-version", version, "--force", "--output-dir", os.fspath(folder))
    done = _run("client", "--command", command, *options)
    results = [path.parent for path in folder.rglob("checks.json")]
    if len(results) != 1:
        raise SuiteError(f"the suite gave no results for {scenario}: {done.stdout}{done.stderr}")
    said = [line for line in done.stderr.splitlines() if line.startswith(_ENDED)]
    return [*_checks(results[0]), Check("client-ends-well", "FAILURE" if said else "SUCCESS", "; ".join(said))]


def client_scenarios(version: str) -> list[str]:
    """The scenarios for clients that the suite runs for `version`, also those that it does not score."""
    listed = _run("list", "--requirements", version).stdout
    required = listed.split("Client scenarios", 1)[1].split("Run and reported", 1)[0]
    others = re.findall(r"- (\S+) \[client\]", listed)
    return [*re.findall(r"- (\S+)", required), *others]


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        npm.conformance(*arguments), capture_output=True, text=True, timeout=TIMEOUT, check=False, cwd=npm.ROOT
    )


def _checks(folder: Path) -> list[Check]:
    found = json.loads((folder / "checks.json").read_text())
    return [Check(f"{check['id']} {check['name']}", check["status"], check.get("errorMessage", "")) for check in found]
