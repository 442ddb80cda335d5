"""Every ready-made policy and every example: editors find its schema, and the schema and the loader agree on it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jsonschema
import pytest
import yaml

from intercept_py import policy_file
from intercept_py.policy.schema import json_schema

ROOT = Path(__file__).resolve().parents[2]
GATEWAYS = set(ROOT.glob("examples/**/gateway.yaml"))
POLICIES = sorted({*ROOT.glob("policies/**/*.yaml"), *ROOT.glob("examples/**/*.yaml")} - GATEWAYS)


def test_every_policy_is_in_the_guide_and_every_policy_there_exists() -> None:
    found = {path.relative_to(ROOT / "policies").as_posix() for path in ROOT.glob("policies/**/*.yaml")}
    guide = (ROOT / "docs/policies.md").read_text()
    assert set(re.findall(r"\]\(\.\./policies/([^)]+)\)", guide)) == found
    assert found


def test_the_schema_beside_the_policies_is_the_one_the_program_prints() -> None:
    assert json.loads((ROOT / "policies/schema.json").read_text()) == json_schema(), (
        "run `intercept-py schema > policies/schema.json`"
    )


@pytest.mark.parametrize("path", POLICIES, ids=lambda path: path.relative_to(ROOT).as_posix())
class TestEveryPolicy:
    def test_starts_with_a_comment_that_leads_editors_to_the_schema(self, path: Path) -> None:
        found = re.match(r"# yaml-language-server: \$schema=(\S+)\n", path.read_text())
        assert found is not None
        assert (path.parent / found[1]).resolve() == ROOT / "policies/schema.json"

    def test_is_loaded(self, path: Path) -> None:
        assert policy_file.read(str(path)).entries

    def test_fits_the_published_schema(self, path: Path) -> None:
        jsonschema.Draft202012Validator(json_schema()).validate(yaml.safe_load(path.read_text()))

    def test_says_what_it_is_for_and_denies_what_it_does_not_list(self, path: Path) -> None:
        policy = policy_file.read(str(path))
        assert policy.description
        assert not policy.default_allow
