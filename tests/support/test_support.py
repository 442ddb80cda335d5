"""The helpers tell the truth: a test that leans on them can fail."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.bad_server import MODES
from tests.support.commands import bad_server, echo_server, received
from tests.support.wire import MODERN_META, Wire, denial, text_of


def test_the_echo_server_speaks_both_eras() -> None:
    with Wire(echo_server()) as wire:
        assert wire.initialize("2025-06-18")["protocolVersion"] == "2025-06-18"
        assert "resultType" not in wire.call("echo", {"text": "plain"})["result"]
        assert wire.call("echo", {"text": "x"}, modern=True)["result"]["resultType"] == "complete"
        assert wire.request("server/discover", {"_meta": MODERN_META})["result"]["supportedVersions"] == ["2026-07-28"]
        assert wire.finish() == 0


@pytest.mark.parametrize(
    "text", ["plain", "", 'a "quoted" text', "back\\slash", "line\nend", "ünïcode \U0001f600", '"}}}']
)
def test_the_short_cut_of_the_echo_server_gives_the_usual_answer(text: str) -> None:
    with Wire(echo_server()) as wire:
        assert text_of(wire.call("echo", {"text": text})) == text
        assert text_of(wire.call("echo", {"text": text, "more": 1})) == text


def test_all_pages_of_the_echo_server_hold_all_tools() -> None:
    with Wire(echo_server("--page-size", "3")) as paged, Wire(echo_server()) as whole:
        assert paged.list_tools() == whole.list_tools()
        assert "nextCursor" in paged.request("tools/list", {})["result"]


def test_the_record_has_every_message_before_its_answer(tmp_path: Path) -> None:
    record = tmp_path / "received.jsonl"
    assert received(record) == []
    with Wire(echo_server(), env={"ECHO_RECORD": str(record)}) as wire:
        wire.call("echo", {"text": "x"})
        assert [message["params"]["arguments"] for message in received(record)] == [{"text": "x"}]


def test_a_result_is_not_taken_for_a_denial() -> None:
    with Wire(echo_server()) as wire, pytest.raises(AssertionError, match="not a denial"):
        denial(wire.call("fail"))


def test_a_wait_ends_at_its_deadline_with_what_the_process_said() -> None:
    with Wire(bad_server("silent")) as wire, pytest.raises(AssertionError, match="before the deadline"):
        wire.request("ping", timeout=0.05)


def test_a_process_that_outlives_its_parent_is_found() -> None:
    with Wire(bad_server("spawns-grandchild")) as wire:
        wire.initialize()
        wire.close_stdin()
        assert wire.wait() == 0
        assert len(wire.survivors()) == 1
        with pytest.raises(AssertionError, match="left running"):
            wire.assert_no_survivors(timeout=0.05)


def test_leaving_a_wire_ends_all_its_processes() -> None:
    with Wire(bad_server("spawns-grandchild")) as wire:
        wire.initialize()
    wire.assert_no_survivors()


def test_exit_codes_and_signals_are_seen() -> None:
    with Wire(bad_server("exit-at-once", "9")) as wire:
        assert wire.finish() == 9
    with Wire(bad_server("killed-mid-call")) as wire:
        wire.start_call("echo")
        assert wire.wait() == -9


def test_every_mode_of_the_bad_server_says_what_it_does() -> None:
    for name, mode in MODES.items():
        assert mode.__doc__, name
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", name)
