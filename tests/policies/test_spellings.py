"""P7: the seed's spelling and the published Intercept's decide alike, over any sequence of calls."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from intercept_py.state.memory import MemoryStorage
from intercept_py.state.quota import Quota
from tests.conversation import Conversation, call

SEEDS = """
default: deny
hide: [purge_runs]
tools:
  cancel_run:
    rules:
      - action: allow
        rate_limit:
          max: 10
          window: 60
        validate:
          required_args: true
  list_runs:
    rules: []
  delete_project:
    rules:
      - action: deny
        reason: Projects are deleted by people only
"""
PUBLISHED = r"""
version: "1"
default: "deny"
hide: ["purge_runs"]
tools:
  cancel_run:
    rules:
      - name: "a run is named"
        action: "evaluate"
        conditions:
          - path: "args.runId"
            op: "regex"
            value: "\\S"
      - name: "ten a minute"
        action: "evaluate"
        rate_limit: 10/minute
  list_runs:
    rules: []
  delete_project:
    rules:
      - name: "people only"
        action: "deny"
        on_deny: "Projects are deleted by people only"
"""
SPELLED_OUT = PUBLISHED.replace("10/minute", "{max: 10, window: minute, per: global, strategy: fixed}")

START = 1_767_225_600.0  # a minute begins
MINUTE = 60.0
RUN_ID = {"type": "object", "required": ["runId"], "properties": {"runId": {"type": "string"}}}
NAMES = ("cancel_run", "list_runs", "delete_project", "purge_runs", "get_run")
LISTED = {"tools": [{"name": name, "inputSchema": RUN_ID if name == "cancel_run" else {}} for name in NAMES]}

Call = tuple[str, dict[str, Any]]
GOOD: Call = ("cancel_run", {"runId": "run_1"})
CALLS = st.sampled_from(
    [
        *[GOOD, ("cancel_run", {"runId": " run_2"})] * 4,  # or no sequence would reach the limit
        ("cancel_run", {}),
        *(("cancel_run", {"runId": blank}) for blank in ("", " ", "\n", None, 7)),
        *((name, {}) for name in NAMES[1:]),
        ("never_existed", {}),
    ]
)
BURSTS = st.lists(st.lists(CALLS, max_size=30), max_size=3)
STEPS = st.lists(st.tuples(st.sampled_from([0, 0, 0, 1, 7, 30, 61]), CALLS), max_size=40)


class Judged:
    """Conversations under some policies that hear the same calls at the same time; `passed` what each let pass."""

    def __init__(self, factory: pytest.TempPathFactory, *policies: str) -> None:
        self.now = START
        self.passed: list[list[int]] = [[] for _ in policies]
        self._count = 0
        self._talks = [
            Conversation(policy, factory.mktemp("talk"), state=Quota(MemoryStorage(clock=lambda: self.now), ""))
            for policy in policies
        ]

    def say(self, tool: str, arguments: dict[str, Any]) -> None:
        self._count += 1
        for talk, passed in zip(self._talks, self.passed, strict=True):
            talk.say(call(self._count, tool, arguments))
            if talk.upstream and talk.upstream[-1]["method"] == "tools/list":
                talk.answer(talk.upstream.pop(), LISTED)
            if not talk.answers(self._count):  # nothing else answers but the proxy's denials
                passed.append(self._count)


def expected(burst: list[Call], first: int) -> list[int]:
    """Which calls of a minute pass, numbered from `first`: ten cancels that name a run, and every list."""
    good = [number for number, (tool, given) in enumerate(burst, first) if tool == "cancel_run" and _names_a_run(given)]
    lists = [number for number, (tool, _) in enumerate(burst, first) if tool == "list_runs"]
    return sorted(good[:10] + lists)


def _names_a_run(arguments: dict[str, Any]) -> bool:
    run = arguments.get("runId")
    return isinstance(run, str) and run.strip() != ""


@settings(max_examples=60, deadline=None)
@given(bursts=BURSTS)
@example(bursts=[[GOOD] * 12, [GOOD] * 12])
def test_p7_both_spellings_let_the_same_calls_pass(
    bursts: list[list[Call]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Within a minute of the clock, and again when a minute without calls has gone by."""
    judged = Judged(tmp_path_factory, SEEDS, PUBLISHED)
    wanted: list[int] = []
    for minute, burst in enumerate(bursts):
        judged.now = START + 2 * minute * MINUTE
        wanted += expected(burst, 1 + sum(map(len, bursts[:minute])))
        for tool, arguments in burst:
            judged.now += MINUTE / 31
            judged.say(tool, arguments)
    assert judged.passed == [wanted, wanted]


@settings(max_examples=60, deadline=None)
@given(steps=STEPS)
def test_p7_the_published_rate_is_short_for_a_mapping_at_any_time(
    steps: list[tuple[int, Call]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    judged = Judged(tmp_path_factory, PUBLISHED, SPELLED_OUT)
    for seconds, (tool, arguments) in steps:
        judged.now += seconds
        judged.say(tool, arguments)
    assert judged.passed[0] == judged.passed[1]


def test_p7_the_spellings_differ_where_a_minute_of_the_clock_begins(tmp_path_factory: pytest.TempPathFactory) -> None:
    """`max` and `window` never let more than ten pass in any 60 seconds; `10/minute` starts anew on the minute."""
    judged = Judged(tmp_path_factory, SEEDS, PUBLISHED)
    for now in (START + 59, START + 60):
        judged.now = now
        for _ in range(10):
            judged.say(*GOOD)
    assert judged.passed == [list(range(1, 11)), list(range(1, 21))]
