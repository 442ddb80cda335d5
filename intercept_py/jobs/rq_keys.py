"""What an engine and the workers that run its jobs elsewhere say to each other through Redis.

Both hold a lease on a job, a key that expires: `engine` and `worker`. A worker that sees the engine's lease run out, or
that could not renew its own in time (by its own clock, whatever Redis does), lets the job's lifeline go; the job has
ended `KILL` seconds later. An engine that sees the worker's lease run out waits for so long, and then knows.

`control` is a list: `cancel`, or `input` and a text. `reports` is a stream whose entries have one field: `started` (a
process id; always the first), `failed` (why it could not be started), `event` (a JSON line of the job), `head` (a piece
of output), `tail` (as the file has it), `exit` (the supervisor's record; always the last).

Above: `rq_launch` on the engine's side, `rq_worker` on the other.
"""

from __future__ import annotations

__all__ = ["BEAT", "KEPT", "KILL", "LEASE", "PLACE", "PYTHON", "RECIPES", "SUPERVISE", "Keys", "job_id"]

from hashlib import sha256

BEAT = 0.5
"""Seconds between two renewals of a lease."""
LEASE = 3
"""Seconds for which one lasts."""
KILL = 2.0
"""Seconds that a supervisor takes at most to end its job once the lifeline has gone."""
KEPT = 3600
"""Seconds after which Redis forgets a job, whatever happened."""

PLACE = "intercept-jobs:place"
"""The key that holds this Redis' own name."""
SUPERVISE = "intercept_py.jobs.rq_worker.supervise"

# Stand for what has another path on every machine. No argument of a command can hold a NUL.
PYTHON = "\0python"
RECIPES = "\0recipes"


class Keys:
    """The names of what belongs to the job with this mark."""

    def __init__(self, mark: str) -> None:
        prefix = f"intercept-jobs:{mark}"
        self.engine = f"{prefix}:engine"
        self.worker = f"{prefix}:worker"
        self.control = f"{prefix}:control"
        self.reports = f"{prefix}:reports"


def job_id(mark: str) -> str:
    """RQ's id for the job with this mark: letters, digits and dashes are all that it takes."""
    return f"intercept-{sha256(mark.encode()).hexdigest()[:32]}"
