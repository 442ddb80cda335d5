"""What people see of `validate` on a terminal, and the console that `render_demo` shares.

The `render` modules are the only use of rich. Text from strangers is escaped.
"""

from __future__ import annotations

__all__ = ["console", "print_reports"]

from rich.console import Console
from rich.text import Text

from intercept_py.cli.text import printable
from intercept_py.cli.validate import Report, counts

_WIDTH = 100
"""Lines longer than this are hard to read, however wide the terminal is."""


def console() -> Console:
    """A console for stdout, as wide as can be read."""
    made = Console(highlight=False)
    made.width = min(made.width, _WIDTH)
    return made


def print_reports(reports: list[Report]) -> None:
    """The outcome of `validate`: one line for a good file, one for each problem of a bad one, links kept whole."""
    out = console()
    out.soft_wrap = True
    for report in reports:
        for problem in report.problems:
            place = f"{problem.file}:{problem.line}:{problem.column}:"
            out.print(
                Text.assemble(
                    (printable(place), "bold"),
                    " ",
                    (printable(problem.path), "cyan"),
                    ": ",
                    (printable(problem.message), "red"),
                )
            )
        if not report.problems:
            out.print(Text.assemble(("✓ ", "green"), (printable(report.file), "bold"), f" {counts(report)}"))
    bad = [report for report in reports if report.problems]
    if bad:
        number = sum(len(report.problems) for report in bad)
        out.print(Text(f"{number} problem{'s'[: number > 1]} in {len(bad)} of {len(reports)} files", style="bold red"))
