"""`intercept-py jobs worker`: runs jobs that a job server elsewhere hands out through Redis."""

from __future__ import annotations

__all__ = ["main"]

import os
import sys

from intercept_py.cli.arguments import CANNOT_CREATE, OK, Parser, secret
from intercept_py.cli.text import printable
from intercept_py.jobs import placing
from intercept_py.jobs.model import JobError

REDIS_VARIABLE = "INTERCEPT_JOBS_REDIS"


def main(argv: list[str]) -> int:
    """Work until SIGTERM or SIGINT, which let a running job end; a second one ends it."""
    parser = Parser("intercept-py jobs worker", "Run jobs that job servers with the same --redis hand out.")
    parser.usage = "intercept-py jobs worker [--redis URL] [--worker-queue NAME]"
    parser.add_argument(
        "--redis",
        type=secret,
        metavar="URL",
        help=f"redis://HOST:6379/0, or env:NAME or @FILE, which hold the URL (default: ${REDIS_VARIABLE})",
    )
    parser.add_argument("--worker-queue", default=placing.QUEUE, metavar="NAME", help="whose jobs")
    options = parser.parse_args(argv)
    url = options.redis or os.environ.get(REDIS_VARIABLE)
    if not url:
        parser.error(f"name the Redis that hands out jobs with --redis URL or in ${REDIS_VARIABLE}")
    try:
        placing.work(placing.Placing(url, options.worker_queue))
    except JobError as exc:
        sys.stderr.write(f"intercept-py jobs: {printable(str(exc))}\n")
        return CANNOT_CREATE
    return OK
