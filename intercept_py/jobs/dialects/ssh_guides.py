"""The ssh dialect's prompts and resources: what a client may read beside the tools. Data and pure functions.

Below: `ssh_hosts`. Above: `ssh`. Names and addresses are mcp-ssh-orchestrator's, the texts are ours.
"""

from __future__ import annotations

__all__ = ["PROMPTS", "RESOURCES", "TEMPLATES", "read"]

import re
from collections.abc import Callable
from typing import Final

from mcp_types import Prompt, Resource, ResourceTemplate

from intercept_py.jobs.dialects import ssh_inputs
from intercept_py.jobs.dialects.ssh_hosts import LOCAL, Host, Inventory
from intercept_py.model import JsonObject

PROMPTS: Final[dict[str, tuple[Prompt, str]]] = {
    name: (Prompt(name=name, description=description), text)
    for name, description, text in (
        (
            "ssh_orchestrator_usage",
            "How to use the tools of the SSH Orchestrator",
            "You run commands through the SSH Orchestrator.\n"
            "1. ssh_list_hosts gives the aliases; ssh_describe_host says what a host is for.\n"
            "2. ssh_plan says whether a command is allowed, and its limits. Plan before you run.\n"
            "3. ssh_run waits for the end; ssh_cancel stops what it waits for. For anything longer than a few seconds\n"
            "   use ssh_run_async, look with ssh_get_task_status and ssh_get_task_output, fetch the end with\n"
            "   ssh_get_task_result, and stop it with ssh_cancel_async_task.\n"
            "4. Cancelling answers `signaled`: it is done when the status says `cancelled`.\n"
            "5. A text that starts with `Error:` or a result with status `denied` means that nothing was run.",
        ),
        (
            "ssh_policy_denied_guidance",
            "What to do when a command is denied by policy",
            "The SSH Orchestrator denied the command by policy, and nothing was run. Do not try variants of it to get\n"
            "around the policy. Read `hint`, ask ssh_plan what is allowed, and use that if it serves the purpose.\n"
            "Otherwise tell the user which command was denied on which host and why it is needed: only a person can\n"
            "change the policy.",
        ),
        (
            "ssh_network_denied_guidance",
            "What to do when a host is denied by the network rules",
            "The SSH Orchestrator denied the host by its network policy, and nothing was run. This build runs\n"
            "commands on hosts whose `host` in servers.yml is `local` and reaches no other. Choose such a host with\n"
            "ssh_list_hosts and ssh_describe_host, or tell the user which host cannot be reached.",
        ),
        (
            "ssh_missing_host_guidance",
            "What to do when an alias is unknown",
            "The alias is not in servers.yml. Call ssh_list_hosts and use an alias exactly as it stands there. If the\n"
            "host is missing, ask the user to add it to servers.yml, then call ssh_reload_config over ssh once.",
        ),
        (
            "ssh_missing_credentials_guidance",
            "What to do when credentials are missing",
            "Hosts whose `host` is `local` need no credentials, so ssh commands on them never ask for a username or a\n"
            "key, and this build reads no credentials.yml. Never ask the user for a password in the conversation, and\n"
            "never put one into a command.",
        ),
        (
            "ssh_config_change_workflow",
            "How to change the configuration of the SSH Orchestrator",
            "Propose a change of the SSH Orchestrator's configuration as a diff, and let a person make it: hosts and\n"
            "tags stand in servers.yml; this build has no credentials.yml and no policy.yml, what may be run is fixed\n"
            "when the server starts. After a change call ssh_reload_config; an error names file and line, and the old\n"
            "hosts stay in use. Check the result with ssh_list_hosts and ssh_plan.",
        ),
    )
}

_JSON: Final = "application/json"

RESOURCES: Final = (
    Resource(uri="ssh://hosts", name="hosts", description="All hosts, without credentials.", mime_type=_JSON),
)
TEMPLATES: Final = tuple(
    ResourceTemplate(uri_template=f"ssh://host/{{alias}}{path}", name=name, description=description, mime_type=_JSON)
    for path, name, description in (
        ("", "host", "One host, without credentials."),
        ("/tags", "host_tags", "The tags of one host."),
        ("/capabilities", "host_capabilities", "The limits of one host and what it can do."),
    )
)

_HOST: Final = re.compile("ssh://host/(?P<alias>[^/]*)(?P<part>|/tags|/capabilities)")


def read(uri: str, inventory: Inventory, limits: JsonObject) -> JsonObject | None:
    """What stands at `uri`; None if nothing can. A host that is unknown is `{"error": ...}`."""
    if uri == "ssh://hosts":
        hosts = [host_record(host) for host in inventory.hosts.values()]
        return {"count": len(hosts), "hosts": hosts}
    match = _HOST.fullmatch(uri)
    if match is None:
        return None
    try:
        alias = ssh_inputs.alias(match["alias"])
    except ssh_inputs.InputError as exc:
        return {"error": str(exc)}
    host = inventory.hosts.get(alias)
    return {"error": f"Host alias not found: {alias}"} if host is None else _PARTS[match["part"]](host, limits)


def host_record(host: Host) -> JsonObject:
    """A host as it may be shown."""
    facts = {"alias": host.alias, "host": host.host, "description": host.description, "tags": list(host.tags)}
    return {**facts, "has_credentials_ref": False}


def _capabilities(host: Host, limits: JsonObject) -> JsonObject:
    features = {"supports_async": True, "supports_cancel": True, "runs_commands": host.host == LOCAL}
    return {"alias": host.alias, "limits": limits, "features": features}


_PARTS: Final[dict[str, Callable[[Host, JsonObject], JsonObject]]] = {
    "": lambda host, _: host_record(host),
    "/tags": lambda host, _: {"alias": host.alias, "tags": list(host.tags)},
    "/capabilities": _capabilities,
}
