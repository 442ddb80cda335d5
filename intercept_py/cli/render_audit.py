"""What `audit verify` shows on a terminal. Every string from a file comes here through `printable`."""

from __future__ import annotations

__all__ = ["print_checked"]

from collections.abc import Iterable

from rich.console import Console
from rich.table import Table
from rich.text import Text

from intercept_py.cli.audit import Checked, facts, verdict
from intercept_py.cli.text import printable


def print_checked(checked: Iterable[Checked], console: Console | None = None) -> None:
    """Print what was found, a block for each file."""
    console = console or Console(highlight=False)
    for one in checked:
        _print_one(console, one)


def _print_one(console: Console, checked: Checked) -> None:
    report = checked.report
    name = Text(printable(checked.file), style="bold")
    if report is None:
        console.print(Text.assemble(("?", "yellow"), " ", name, f": not verified: {printable(checked.problem or '')}"))
        return
    mark = ("✗", "bold red") if report.fault_count else ("✓", "bold green")
    console.print(Text.assemble(mark, " ", name, ": ", (verdict(report), "red" if report.fault_count else "green")))
    for fact in facts(report):
        console.print(Text(f"  {fact}", style="yellow" if fact.startswith("no head file") else "dim"))
    if not report.faults:
        return
    table = Table("line", "kind", "what is wrong", box=None, pad_edge=True, header_style="bold")
    for fault in report.faults:
        table.add_row(Text(str(fault.line)), Text(fault.kind, style="red"), Text(printable(fault.message)))
    console.print(table)
    if report.fault_count > len(report.faults):
        console.print(f"  {report.fault_count - len(report.faults)} more faults are not listed")
