"""`intercept-py schema`: the JSON Schema of the policy language, for editors."""

from __future__ import annotations

__all__ = ["main"]

import json
import sys

from intercept_py.cli.arguments import OK, Parser
from intercept_py.policy.schema import json_schema


def main(argv: list[str]) -> int:
    """Print the schema (JSON Schema, draft 2020-12)."""
    Parser("intercept-py schema", "Print the JSON Schema of the policy language.").parse_args(argv)
    sys.stdout.write(json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n")
    return OK
