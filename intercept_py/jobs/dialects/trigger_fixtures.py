"""What a Trigger.dev account holds besides runs: one organization with one project, said to be local. Pure.

Above: `trigger`, `rest_trigger`.
"""

from __future__ import annotations

__all__ = [
    "DASHBOARD",
    "ORGS",
    "PROJECTS",
    "PROJECT_REF",
    "USER",
    "notes",
    "refusal",
    "run_url",
    "runs_url",
    "setup_guide",
]

from intercept_py.jobs.dialects.trigger_tasks import PARAMETERS

DASHBOARD = "http://localhost:3030"
"""Where a self-hosted Trigger.dev has its dashboard; there is none behind this server, whatever the links say."""

PROJECT_REF = "proj_local"
USER = {"userId": "user_local", "email": "local@example.com", "dashboardUrl": DASHBOARD}

_BEGINNING = "2026-01-01T00:00:00.000Z"
_ORG = {"id": "org_local", "title": "Local job backend", "slug": "local", "createdAt": _BEGINNING}
ORGS = [_ORG]
PROJECTS = [
    {
        "id": "project_local",
        "externalRef": PROJECT_REF,
        "name": "Local jobs",
        "slug": "local-jobs",
        "createdAt": _BEGINNING,
        "organization": _ORG,
    }
]

_NOTES = {
    "Tasks": f"trigger_task takes one of {', '.join(PARAMETERS)} as taskId; each run is a process on this machine.",
    "Payloads": 'The payload {"seconds": 30} of sleep may also be written 30, [30] or {"args": ["30"]}.',
    "Cancelling": "cancel_run stops a run and all processes it started. Until they are gone the run is CANCELED "
    "without a finish time. Runs that have ended are not changed.",
    "Environments": "A run belongs to the environment it was triggered in, dev by default, and is unknown in others.",
    "Waiting": "wait_for_run_to_complete answers when the run has ended or the time is over; the run goes on.",
}


def runs_url(project: str) -> str:
    """Where the dashboard would list runs."""
    return f"{DASHBOARD}/projects/v3/{project}/runs"


def run_url(project: str, run_id: str) -> str:
    """Where the dashboard would show a run."""
    return f"{runs_url(project)}/{run_id}"


def notes(query: str) -> str:
    """The notes that contain every word of the query, or what there are."""
    words = query.lower().split()
    found = [
        f"## {title}\n{text}" for title, text in _NOTES.items() if all(word in (title + text).lower() for word in words)
    ]
    if found:
        return "\n\n".join(found)
    return f"Nothing found. This local server has notes on: {', '.join(_NOTES)}."


def setup_guide(project: str) -> str:
    """What `initialize_project` answers."""
    return (
        "This is a local job backend: nothing needs to be set up, and no project was created.\n"
        f"Use the project ref {project} and the tasks that get_current_worker lists."
    )


def refusal(what: str) -> str:
    """Why a tool that would change an account does nothing."""
    return f"This is a local job backend: it {what}. Nothing was changed."
