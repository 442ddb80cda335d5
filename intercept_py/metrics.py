"""Prometheus metrics: what `/metrics` tells, and the observer that counts it. `docs/operations.md` lists them.

Label values come from a bounded number: policies, what the server lists (see `Names`), and our own words; never from
arguments. Below: `prometheus_client`, `state.limit_use`. Above: the gateway. `run` without HTTP does not import this.
"""

from __future__ import annotations

__all__ = ["MEDIA_TYPE", "Metrics", "ServerMetrics"]

import platform
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from intercept_py.model import Finding, Outcome
from intercept_py.observing import OTHER, Judged, Names, label
from intercept_py.policy.rules import Policy
from intercept_py.state.limit_use import LimitUse, Share, Store
from intercept_py.wire.messages import KNOWN_METHODS

MEDIA_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4
"""The one format that every collector of metrics reads. Which one a header asks for is not looked at: others bring
nothing, and the library's reading of such headers fails on strange ones."""

_DECIDING: Final = (50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.1, 0.5, 2.5)
_WAITING: Final = (5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60)
_FINE: Final = ("ok", "cancelled", "withdrawn")
"""Outcomes that are no fault of the server's."""
_MOST_SERIES: Final = 20_000
"""Of one metric and server; what would be more is counted as `other`."""
_LIMIT: Final = ("server", "entry", "tool", "rule", "counter", "window", "strategy")


class _Tally:
    """What happens at every call, counted by one thread: the library's counters and histograms cost ten times that."""

    __slots__ = ("number",)

    def __init__(self) -> None:
        self.number = 0


class _Times:
    """How long something took, in seconds: how often up to each of `bounds`, and beyond; see `_Tally`."""

    __slots__ = ("_bounds", "_numbers", "_total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._numbers = [0] * (len(bounds) + 1)
        self._total = 0.0

    def add(self, seconds: float) -> None:
        self._numbers[bisect_left(self._bounds, seconds)] += 1
        self._total += seconds

    def tell(self, labels: tuple[str, ...], family: HistogramMetricFamily) -> None:
        """Any thread may ask."""
        names = [*(str(float(bound)) for bound in self._bounds), "+Inf"]
        family.add_metric(labels, list(zip(names, accumulate(self._numbers), strict=True)), self._total)


class _Calls(Collector):
    """What is counted at every call, by labels."""

    def __init__(self) -> None:
        self.decisions: dict[tuple[str, ...], _Tally] = {}
        self.deciding: dict[tuple[str, ...], _Times] = {}
        self.waiting: dict[tuple[str, ...], _Times] = {}

    def collect(self) -> Iterator[Metric]:
        decisions = CounterMetricFamily(
            "intercept_decisions",
            "Messages that were judged. `rule` and `code` say why one was denied.",
            labels=("server", "method", "tool", "rule", "effect", "code"),
        )
        for labels, tally in list(self.decisions.items()):
            decisions.add_metric(labels, tally.number)
        deciding = HistogramMetricFamily(
            "intercept_decision_duration_seconds",
            "From when a message was held back until its decision was recorded and its charges were kept.",
            labels=("server",),
        )
        for labels, times in list(self.deciding.items()):
            times.tell(labels, deciding)
        waiting = HistogramMetricFamily(
            "intercept_upstream_duration_seconds",
            "From the decision on a request to its end.",
            labels=("server", "method", "tool", "outcome"),
        )
        for labels, times in list(self.waiting.items()):
            times.tell(labels, waiting)
        yield from (decisions, deciding, waiting)


class Metrics:
    """All metrics of this process. They are kept by the process, and begin with it."""

    def __init__(self, version: str) -> None:
        self._registry = registry = CollectorRegistry()
        self._servers: list[ServerMetrics] = []
        ProcessCollector(registry=registry)
        build = Gauge("intercept_build_info", "What runs.", ("version", "python"), registry=registry)
        build.labels(version, platform.python_version()).set(1)
        self.calls = _Calls()
        registry.register(self.calls)
        self.shadowed = Counter(
            "intercept_shadow_denials",
            "Denials by rules that are only watched.",
            ("server", "method", "tool", "rule", "code"),
            registry=registry,
        )
        self.uncounted = Counter(
            "intercept_uncounted_calls",
            "Calls that went on although their limits, which fail open, could not be counted.",
            ("server",),
            registry=registry,
        )
        self.errors = Counter(
            "intercept_upstream_errors",
            "Requests that the server did not answer, or with an error.",
            ("server", "kind"),
            registry=registry,
        )
        self.failures = Counter(
            "intercept_failures",
            "What decisions need and did not work, by the code of the denials that this causes.",
            ("server", "code"),
            registry=registry,
        )
        self.in_flight = Gauge(
            "intercept_requests_in_flight", "Requests that are at the server.", ("server",), registry=registry
        )
        self.sessions = Gauge("intercept_sessions_open", "Sessions of clients.", ("server",), registry=registry)
        self.policy = Gauge("intercept_policy_info", "The policy in force.", ("server", "revision"), registry=registry)
        self.reloads = Counter(
            "intercept_policy_reloads",
            "Changed policy files that were read, and whether they were taken.",
            ("server", "result"),
            registry=registry,
        )
        registry.register(_Limits(self._servers))

    def watch(self, server: str, policy: Policy) -> ServerMetrics:
        """The observer for one server's conversations, which are judged by this policy."""
        watching = ServerMetrics(self, server, policy)
        self._servers.append(watching)
        return watching

    def render(self) -> bytes:
        """The body of an answer, which is of `MEDIA_TYPE`. Any thread may ask; none waits for a slow store."""
        return generate_latest(_Lean(self._registry))

    def close(self) -> None:
        """Let go of the stores of the limits."""
        for watching in self._servers:
            if watching.limits is not None:
                watching.limits.close()


class ServerMetrics:
    """Counts what becomes of one server's messages, see `Observer`."""

    def __init__(self, metrics: Metrics, server: str, policy: Policy) -> None:
        self.server = server = label(server)
        self._names = Names()
        self.limits: LimitUse | None = None
        self._metrics = metrics
        self._policy = policy
        # By what they are about; their labels take longer to make.
        self._decisions: dict[tuple[str, str, str, str], _Tally] = {}
        self._waiting: dict[tuple[object, Outcome], _Times] = {}
        self._deciding = metrics.calls.deciding.setdefault((server,), _Times(_DECIDING))
        self._uncounted = metrics.uncounted.labels(server)
        self._begun = self._ended = 0
        metrics.in_flight.labels(server).set_function(lambda: self._begun - self._ended)
        for code in ("audit_unavailable", "state_unavailable", "state_error", "internal_error"):
            metrics.failures.labels(server, code)
        for result in ("accepted", "refused"):
            metrics.reloads.labels(server, result)
        self._take(policy)

    # ---- what an observer is told

    def decided(self, judged: Judged) -> object:
        """Count a decision; gives method and tool for its end."""
        message, call, finding = judged.message, judged.call, judged.finding
        method = message.method if message.method in KNOWN_METHODS else OTHER
        tool = "" if call is None else self._names(call.name, call.tool)
        key = (method, tool, "", "") if finding is None else (method, tool, finding.rule or "", finding.code)
        (self._decisions.get(key) or self._decision(key)).number += 1
        self._deciding.add(judged.seconds)
        if judged.shadowed:
            self._shadowed(method, tool, judged.shadowed)
        if finding is None:
            if judged.uncounted:
                self._uncounted.inc()
            if message.id is not None:
                self._begun += 1
        return method, tool

    def ended(self, seen: object, outcome: Outcome, code: int | None, seconds: float) -> None:
        """Count an end. `code` is the server's own choice of a number, so it is no label."""
        self._ended += 1
        (self._waiting.get((seen, outcome)) or self._outcome(seen, outcome)).add(seconds)
        if outcome not in _FINE:
            self._metrics.errors.labels(self.server, outcome).inc()

    def listed(self, names: list[str]) -> None:
        """Take the names of tools."""
        self._names.listed(names)

    def failed(self, code: str) -> None:
        """Count a failure."""
        self._metrics.failures.labels(self.server, code).inc()

    def reloaded(self, policy: Policy | None) -> None:
        """Count it, and show the revision in force."""
        self._metrics.reloads.labels(self.server, "refused" if policy is None else "accepted").inc()
        if policy is not None:
            self._metrics.policy.remove(self.server, self._policy.revision)
            self._take(policy)

    def _decision(self, key: tuple[str, str, str, str]) -> _Tally:
        method, tool, rule, code = key
        effect = "deny" if code else "allow"
        tallies = self._metrics.calls.decisions
        if len(self._decisions) >= _MOST_SERIES:
            # Not kept: there would be as many keys as there were to be series.
            return tallies.setdefault((self.server, method, OTHER, OTHER, effect, code), _Tally())
        tally = tallies.setdefault((self.server, method, tool, label(rule), effect, code), _Tally())
        self._decisions[key] = tally
        return tally

    def _outcome(self, seen: object, outcome: Outcome) -> _Times:
        assert isinstance(seen, tuple)
        times = self._metrics.calls.waiting.setdefault((self.server, *seen, outcome), _Times(_WAITING))
        self._waiting[seen, outcome] = times
        return times

    def _shadowed(self, method: str, tool: str, findings: tuple[Finding, ...]) -> None:
        for finding in findings:
            rule = label(finding.rule or "")
            self._metrics.shadowed.labels(self.server, method, tool, rule, finding.code).inc()

    # ---- what else there is to read

    def count_sessions(self, count: Callable[[], int]) -> None:
        """`count` tells how many sessions are open, to any thread."""
        self._metrics.sessions.labels(self.server).set_function(count)

    def read_limits(self, server: str, store: Store) -> None:
        """Tell what the server's limits have used. `server` is its name in the keys of counters."""
        self.limits = LimitUse(server, lambda: self._policy, self._names.known, store, time.monotonic)

    def _take(self, policy: Policy) -> None:
        self._policy = policy
        self._names.learn(policy)
        self._metrics.policy.labels(self.server, policy.revision).set(1)


class _Limits(Collector):
    """What limits have used, read when it is asked for."""

    def __init__(self, servers: list[ServerMetrics]) -> None:
        self._servers = servers

    def collect(self) -> Iterator[Metric]:
        used = GaugeMetricFamily(
            "intercept_limit_used", "What is used of a limit that all callers share.", labels=_LIMIT
        )
        most = GaugeMetricFamily("intercept_limit_max", "Such a limit.", labels=_LIMIT)
        readable = GaugeMetricFamily(
            "intercept_limits_readable", "Whether the store of the limits can be read.", labels=("server",)
        )
        for watching in self._servers:
            if watching.limits is None:
                continue
            shares = watching.limits.look()
            readable.add_metric((watching.server,), float(shares is not None))
            # Two conditions of a rule may look at one counter: a series must not come twice.
            for labels, share in {_labels(watching.server, share): share for share in reversed(shares or [])}.items():
                used.add_metric(labels, share.used)
                most.add_metric(labels, float(share.charge.limit))
        yield from (used, most, readable)


def _labels(server: str, share: Share) -> tuple[str, ...]:
    charge = share.charge
    window = charge.window.calendar or f"{charge.window.seconds}s"
    named = (label(name) for name in (share.entry, share.tool, charge.rule, share.counter))
    return (server, *named, window, charge.strategy.value)


class _Lean(Collector):
    """A registry without the times at which series began, which the library adds as series of their own."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        for metric in self._registry.collect():
            metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
            yield metric
