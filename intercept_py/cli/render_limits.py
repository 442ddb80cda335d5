"""What people see of `limits show` on a terminal: a bar for every counter. Text from strangers is escaped.

Below: `usage` (what is shown), `render`. Above: `limits`.
"""

from __future__ import annotations

__all__ = ["print_report"]

from itertools import groupby

from rich.console import Console
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from intercept_py.cli.render import console
from intercept_py.cli.text import printable
from intercept_py.cli.usage import Line, Report, Use, describe, fullness, remarks, share, used, when
from intercept_py.model import Charge

_MOST = 20
"""So many counters are shown of a limit and a server: the fullest ones."""


def print_report(report: Report, out: Console | None = None) -> None:
    """Print every limit, a block for each."""
    out = out or console()
    for line in report.lines:
        _print_line(out, line)
    if not report.lines:
        out.print("the policy has no limits")
    for remark in remarks(report):
        out.print(Text(remark, style="dim"))


def _print_line(out: Console, line: Line) -> None:
    budget, charge = line.budget, line.budget.charge
    out.print(Text.assemble((printable(budget.tool), "bold"), "  ", (printable(charge.rule), "cyan")))
    out.print(Text(f"  {describe(budget)}", style="dim"))
    if not line.uses:
        out.print(Text("  not used yet", style="dim"))
    for server, uses in groupby(line.uses, key=lambda use: use.server):
        found = list(uses)
        out.print(Text(f"  {printable(server)}"))
        out.print(_table(charge, found[:_MOST], bar_width=10 if out.width < 100 else 20))
        if len(found) > _MOST:
            out.print(Text(f"    {len(found) - _MOST} more, less full (--json has them all)", style="dim"))
    out.print()


def _table(charge: Charge, uses: list[Use], bar_width: int) -> Table:
    table = Table(box=None, show_header=False, expand=True, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column(width=1)
    table.add_column(width=bar_width)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(ratio=1, overflow="fold")
    for use in uses:
        full = fullness(charge, use.standing)
        style = "red" if full == 1 else "yellow" if full >= 0.75 else "green"
        bar = ProgressBar(total=1, completed=full, complete_style=style, finished_style=style)
        state = Text(when(charge, use.standing), style=style)
        table.add_row("", bar, used(charge, use), state, Text(share(use), style="dim"))
    return table
