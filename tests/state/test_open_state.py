from __future__ import annotations

import subprocess
import sys
from decimal import Decimal

import pytest

from intercept_py.errors import StateError
from intercept_py.model import Charge, Strategy, Window
from intercept_py.state import check, open_state

ONE = (Charge(("limit", "t"), Decimal(1), Decimal(1), Window(60), Strategy.MOVING, "r"),)


@pytest.mark.parametrize("url", ["memory:", "memory://"])
def test_state_in_memory_charges_and_refunds(url: str) -> None:
    state = open_state(url)
    receipt = state.charge("s", ONE)
    assert state.charge("s", ONE).refused is not None
    state.refund(receipt)
    assert state.charge("s", ONE).refused is None
    state.close()


def test_a_path_is_told_from_a_url() -> None:
    with pytest.raises(StateError, match="write `sqlite://` and the absolute path of the file"):
        check("/var/lib/state")


@pytest.mark.parametrize("url", ["postgres://user:hunter2@db/x", "memory2:", ""])
def test_an_unknown_kind_of_state_names_what_is_supported_and_no_password(url: str) -> None:
    with pytest.raises(StateError, match="is not supported: use `memory:`") as caught:
        open_state(url)
    assert "hunter2" not in str(caught.value)


def test_state_in_memory_has_no_address() -> None:
    with pytest.raises(StateError, match="has no address"):
        open_state("memory://host/1")


def test_limits_is_imported_only_when_state_is_opened() -> None:
    program = (
        "import sys; from intercept_py.state import check, open_state; assert 'limits' not in sys.modules; "
        "open_state('memory:'); assert 'limits' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
