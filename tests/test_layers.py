"""Imports point down, and the pure layers stay pure: the shape of the package, read from its source."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "intercept_py"

# Bottom to top. A module may import from rows below its own and from its own package, never sideways or up.
ROWS = [
    ["errors"],
    ["log", "model", "private_files"],
    ["policy", "wire", "audit.chain", "audit.record"],
    ["processes", "policy_file"],
    ["observing"],
    ["state", "audit", "transports", "identity"],
    ["enforcer", "jobs", "metrics", "telemetry"],
    ["proxy", "upstreams", "gateway_file"],
    ["gateway"],
    ["cli"],
    ["__main__"],
]

PURE = ("errors", "model", "policy", "wire", "audit.chain", "audit.record", "transports.lines")
IMPURE = {
    "asyncio", "fcntl", "http", "httpx", "limits", "multiprocessing", "os", "pathlib", "platform", "random", "secrets",
    "select", "selectors", "signal", "socket", "sqlite3", "ssl", "subprocess", "sys", "tempfile", "threading", "time",
    "urllib", "uuid",
}  # fmt: skip

MODULES = sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    """`policy.loader` for intercept_py/policy/loader.py, `policy` for its __init__."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def row_of(module: str) -> int:
    """The row of the longest entry that names the module or a package around it."""
    rows = {entry: number for number, row in enumerate(ROWS) for entry in row}
    while module:
        if module in rows:
            return rows[module]
        module = module.rpartition(".")[0]
    return -1


def imports(path: Path) -> set[str]:
    """Every module that the source imports, wherever in the file, with the names of `from` imports that are modules."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    return found


def test_every_module_belongs_to_a_row() -> None:
    assert [name for name in map(name_of, MODULES) if name and row_of(name) < 0] == []


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_point_down(path: Path) -> None:
    module = name_of(path)
    if not module:
        return
    known = {name_of(other) for other in MODULES}
    for imported in imports(path):
        target = imported.removeprefix("intercept_py.")
        if target in (imported, module) or target not in known:
            continue
        same_package = target.split(".")[0] == module.split(".")[0]
        assert row_of(target) < row_of(module) or same_package, f"{module} must not import {target}"


def is_pure(path: Path) -> bool:
    """Whether the module or a package around it is pure."""
    return any(f"{name_of(path)}.".startswith(f"{pure}.") for pure in PURE)


@pytest.mark.parametrize("path", [path for path in MODULES if is_pure(path)], ids=name_of)
def test_pure_layers_import_no_clock_no_randomness_and_no_io(path: Path) -> None:
    assert {imported.split(".")[0] for imported in imports(path)} & IMPURE == set()
