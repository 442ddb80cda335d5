"""The real servers and clients from npm, as `scripts/npm-install` puts them into .npm/ (versions: package.json)."""

from __future__ import annotations

__all__ = ["everything", "filesystem", "inspector", "missing", "npx_trigger", "required", "trigger"]

import os
import shutil

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
MODULES = os.path.join(ROOT, ".npm", "node_modules")
_TRIGGER_OPTIONS = ("mcp", "--skip-telemetry")


def missing() -> str | None:
    """Why the real servers cannot run here, or None when they can."""
    if shutil.which("node") is None:
        return "Node.js is not installed"
    if not os.path.exists(os.path.join(ROOT, ".npm", ".installed")):
        return "the npm packages are not installed: run scripts/npm-install"
    return None


def required() -> bool:
    """Whether a missing server is a failure (`INTERCEPT_REQUIRE_NODE` is set, as in CI) and not a reason to skip."""
    return bool(os.environ.get("INTERCEPT_REQUIRE_NODE"))


def _node(*path: str) -> list[str]:
    return ["node", os.path.join(MODULES, *path)]


def trigger() -> list[str]:
    """The Trigger.dev MCP server; needs `TriggerApi.environment` and a throw-away HOME."""
    return [*_node("trigger.dev", "dist", "esm", "index.js"), *_TRIGGER_OPTIONS]


def npx_trigger() -> list[str]:
    """The same, started as its documentation says: npx starts a shell, which starts node. Run it in `.npm`."""
    return ["npx", "--no-install", "trigger", *_TRIGGER_OPTIONS]


def everything() -> list[str]:
    """The reference server that uses every feature of the protocol."""
    return [*_node("@modelcontextprotocol", "server-everything", "dist", "index.js"), "stdio"]


def filesystem(directory: str | os.PathLike[str]) -> list[str]:
    """The reference server that gives access to one directory."""
    return [*_node("@modelcontextprotocol", "server-filesystem", "dist", "index.js"), os.fspath(directory)]


def inspector(*arguments: str) -> list[str]:
    """The MCP Inspector as a command-line client."""
    return [*_node("@modelcontextprotocol", "inspector", "cli", "build", "cli.js"), "--cli", *arguments]
