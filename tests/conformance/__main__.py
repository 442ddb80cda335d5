"""`scripts/conformance`: the official suite, for a server and a client alone and through every pairing of the proxy.

One line for each scenario: how many checks pass and fail alone (`3/0`), and through each pairing `=` if every check is
the same, `expected` if it differs exactly as the protocol demands (`expected.py`), else `DIFFERS` and what differs.
The last line counts. Exit status 0: no difference, and every scenario that the suite requires passes alone; 1: else;
2: something did not run.

Below: suite, pairings, compare. Above: CI.
"""

from __future__ import annotations

import argparse
import itertools
import shlex
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from tests.conformance import suite
from tests.conformance.compare import Check, Verdict, compare, counts
from tests.conformance.expected import EXPECTED, not_run
from tests.conformance.pairings import ALONE, PAIRINGS, server_behind
from tests.support import npm

SIDES = ("server", "client")
# The suite reaches these through an HTTP-stdio proxy; the proxy in question must change nothing of what that one gives.
BESIDE = {("server", "stdio-stdio"): "http-stdio", ("server", "stdio-http"): "http-stdio"}


class Scenario(NamedTuple):
    """One scenario of the suite, for servers or for clients, in one version of the protocol."""

    side: str
    version: str
    name: str


Found = dict[Scenario, list[Check]]


class Run:
    """All that is to be run, and what came of it. `folder` gets the suite's own results."""

    def __init__(self, folder: Path, versions: list[str], pairings: list[str], jobs: int) -> None:
        self.found: dict[str, Found] = {pairing: {} for pairing in (ALONE, *pairings)}
        self.left_out: dict[Scenario, str] = {}
        self.failing: list[str] = []
        self._folder = folder
        self._versions = versions
        self._number = itertools.count()
        self._pool = ThreadPoolExecutor(jobs)
        self._futures: list[Future[None]] = []

    def servers(self) -> None:
        """Run the scenarios for servers."""
        for version, pairing in itertools.product(self._versions, self.found):
            self._later(self._server, version, pairing)

    def clients(self) -> None:
        """Run the scenarios for clients."""
        for version in self._versions:
            for name in suite.client_scenarios(version):
                scenario = Scenario("client", version, name)
                if why := not_run(name):
                    self.left_out[scenario] = why
                    continue
                for pairing in self.found:
                    self._later(self._client, scenario, pairing)

    def wait(self) -> None:
        """Return when all is done. Raises what the first run that failed raised, and starts no other."""
        try:
            for future in self._futures:
                future.result()
        finally:
            self._pool.shutdown(cancel_futures=True)

    def _later(self, function: Callable[..., None], *arguments: object) -> None:
        folder = self._folder / str(next(self._number))
        self._futures.append(self._pool.submit(function, folder, *arguments))

    def _server(self, folder: Path, version: str, pairing: str) -> None:
        (folder / "suite").mkdir(parents=True)
        with server_behind(pairing, folder) as url:
            found, passed = suite.check_server(url, version, folder / "suite")
        for name, checks in found.items():
            self.found[pairing][Scenario("server", version, name)] = checks
        if pairing == ALONE and not passed:
            self.failing.append(version)

    def _client(self, folder: Path, scenario: Scenario, pairing: str) -> None:
        (folder / "suite").mkdir(parents=True)
        command = shlex.join([sys.executable, "-m", "tests.conformance.client", pairing, str(folder)])
        found = suite.check_client(command, scenario.name, scenario.version, folder / "suite")
        self.found[pairing][scenario] = found


def report(run: Run) -> int:
    """Print the comparison; the exit status."""
    pairings = [pairing for pairing in run.found if pairing != ALONE]
    totals: Counter[str] = Counter()
    scenarios = sorted(run.found[ALONE].keys() | run.left_out.keys(), key=lambda it: (it.side != "server", it))
    width = max(len(scenario.name) for scenario in scenarios)
    _row("", "", "scenario".ljust(width), ALONE, *pairings)
    for scenario in scenarios:
        name = scenario.name.ljust(width)
        if scenario in run.left_out:
            _row(scenario.side, scenario.version, name, "not run")
            continue
        verdicts = {pairing: _judge(run, scenario, pairing) for pairing in pairings}
        totals.update(verdict.kind for verdict in verdicts.values())
        cells = [_cell(run, scenario, pairing, verdict) for pairing, verdict in verdicts.items()]
        _row(scenario.side, scenario.version, name, counts(run.found[ALONE][scenario]), *cells)
        for pairing, verdict in verdicts.items():
            for line in verdict.lines:
                print(f"    {pairing}: {line}")
    for why in sorted(set(run.left_out.values())):
        print(f"not run: {why}")
    for version in run.failing:
        print(f"alone, a scenario that the suite requires for {version} fails")
    compared = len(scenarios) - len(run.left_out)
    print(
        f"{compared} scenarios, {totals.total()} comparisons: {totals['same']} the same, {totals['expected']} differ "
        f"as expected, {totals['differs']} differ; {len(run.left_out)} scenarios not run"
    )
    return 1 if totals["differs"] or run.failing else 0


def _judge(run: Run, scenario: Scenario, pairing: str) -> Verdict:
    before = run.found[BESIDE.get((scenario.side, pairing), ALONE)][scenario]
    through = run.found[pairing].get(scenario, [])
    return compare(before, through, EXPECTED.get((scenario.side, pairing, scenario.version, scenario.name)))


def _cell(run: Run, scenario: Scenario, pairing: str, verdict: Verdict) -> str:
    sign = {"same": "=", "expected": "expected", "differs": "DIFFERS"}[verdict.kind]
    return f"{counts(run.found[pairing].get(scenario, []))} {sign}"


def _row(side: str, version: str, name: str, *cells: str) -> None:
    print(f"{side:6} {version:10} {name} {' '.join(cell.ljust(15) for cell in cells)}".rstrip())


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser("scripts/conformance", description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--side", choices=SIDES, help="only the scenarios for servers, or only those for clients")
    parser.add_argument("--version", choices=suite.VERSIONS, help="only this version of the protocol")
    parser.add_argument("--pairing", choices=PAIRINGS, action="append", help="only this pairing (may be repeated)")
    parser.add_argument("--jobs", type=int, default=2, help="how many to run at once (default: 2)")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep the suite's results and all logs there")
    options = parser.parse_args(argv)
    if reason := npm.node_22_missing():
        print(f"scripts/conformance: {reason}", file=sys.stderr)
        return 2
    versions = [options.version] if options.version else list(suite.VERSIONS)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep.resolve() if options.keep else Path(temporary)
        wanted = set(options.pairing or PAIRINGS) | {BESIDE[key] for key in BESIDE if key[1] in (options.pairing or ())}
        run = Run(folder, versions, sorted(wanted), options.jobs)
        if options.side != "client":
            run.servers()
        if options.side != "server":
            run.clients()
        try:
            run.wait()
        except (suite.SuiteError, RuntimeError) as error:
            print(f"scripts/conformance: {error}", file=sys.stderr)
            return 2
        return report(run)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
