"""What people see of `tokens list` on a terminal.

Below: `tokens` (what is shown), `render`. Above: `tokens`.
"""

from __future__ import annotations

__all__ = ["print_tokens"]

from rich.console import Console
from rich.table import Table
from rich.text import Text

from intercept_py.cli.render import console
from intercept_py.cli.text import printable
from intercept_py.cli.tokens import Row


def print_tokens(rows: list[Row], out: Console | None = None) -> None:
    """Print every token, one a line."""
    out = out or console()
    if not rows:
        out.print("the file has no tokens")
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("name", "scopes", "created", "expires", "state"):
        table.add_column(name, overflow="fold", no_wrap=name in ("created", "state"))
    for row in rows:
        style = "red" if row.state == "expired" else "green"
        table.add_row(
            Text(row.name, style="bold"),
            Text(printable(row.scopes)),
            Text(row.created, style="dim"),
            Text(row.expires),
            Text(row.state, style=style),
        )
    out.print(table)
