"""What the comparison takes for a difference."""

from __future__ import annotations

from tests.conformance.compare import Check, Expected, compare, counts

PASSED = Check("a", "SUCCESS")
FAILED = Check("a", "FAILURE", "it broke")
OTHER = Check("b", "SUCCESS")


def test_the_order_of_checks_is_no_difference() -> None:
    assert compare([PASSED, OTHER], [OTHER, PASSED]).kind == "same"


def test_another_status_is_a_difference_that_is_shown_from_both_sides() -> None:
    verdict = compare([PASSED, OTHER], [FAILED, OTHER])
    assert verdict.kind == "differs"
    assert verdict.lines == ("- a SUCCESS", "+ a FAILURE: it broke")


def test_another_message_is_a_difference() -> None:
    assert compare([FAILED], [FAILED._replace(message="it burnt")]).kind == "differs"


def test_a_check_that_is_missing_or_doubled_is_a_difference() -> None:
    assert compare([PASSED, OTHER], [PASSED]).kind == "differs"
    assert compare([PASSED], [PASSED, PASSED]).kind == "differs"
    assert compare([PASSED], []).kind == "differs"


def test_ports_and_the_log_of_traffic_are_no_difference() -> None:
    before = [FAILED._replace(message="nobody at 127.0.0.1:1234"), Check("incoming-request x", "INFO")]
    after = [FAILED._replace(message="nobody at 127.0.0.1:5678")]
    assert compare(before, after).kind == "same"


def test_how_often_a_check_of_each_message_is_made_is_no_difference_but_what_it_says_is() -> None:
    right, wrong = Check("valid-bearer-token", "SUCCESS"), Check("valid-bearer-token", "FAILURE")
    assert compare([right, right], [right, right, right]).kind == "same"
    assert compare([right], []).kind == "differs"
    assert compare([right, right], [right, wrong]).kind == "differs"


def test_an_expected_difference_is_given_with_its_reason() -> None:
    assert compare([PASSED, OTHER], [FAILED, OTHER], Expected(frozenset("a"), "because")) == ("expected", ("because",))


def test_an_expected_difference_that_is_gone_or_another_one_is_told() -> None:
    expected = Expected(frozenset("a"), "because")
    assert compare([PASSED], [PASSED], expected).kind == "differs"
    assert compare([PASSED, OTHER], [FAILED], expected).kind == "differs"


def test_counts_are_those_of_the_suite() -> None:
    assert counts([PASSED, OTHER, FAILED, Check("c", "WARNING"), Check("d", "INFO")]) == "2/1"
