"""What people see on a terminal: the only use of rich. Text from strangers is escaped."""

from __future__ import annotations

__all__ = ["Theatre", "print_reports"]

from types import TracebackType

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.panel import Panel
from rich.spinner import Spinner
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from intercept_py.cli.scenario import Check, Row, Scene
from intercept_py.cli.text import printable
from intercept_py.cli.validate import Report, counts

_WIDTH = 100
"""Lines longer than this are hard to read, however wide the terminal is."""

_VERDICTS = {
    "": Text("waiting", style="dim"),
    "cancelled": Text("✓ cancelled", style="green"),
    "denied": Text("✗ denied by policy", style="bold yellow"),
    "failed": Text("! failed", style="bold red"),
}


def _console() -> Console:
    console = Console(highlight=False)
    console.width = min(console.width, _WIDTH)
    return console


class Theatre:
    """Shows the demo as a live table. A context: the cursor comes back however the play ends."""

    pause = 0.12

    def __init__(self, policy: str) -> None:
        self._console = _console()
        self._console.print()
        code = Syntax(printable_lines(policy), "yaml", background_color="default", word_wrap=True)
        self._console.print(Panel(code, title="the policy", title_align="left", border_style="dim", box=box.ROUNDED))
        self._spinner = Spinner("dots", style="cyan")
        self._live = Live(self._draw(Scene()), console=self._console, refresh_per_second=12)

    def __enter__(self) -> Theatre:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def show(self, scene: Scene) -> None:
        """Draw the newest scene."""
        self._live.update(self._draw(scene), refresh=True)

    def end(self, scene: Scene, seconds: float) -> None:
        """Say what the agent was told, and how it went."""
        if scene.told:
            told = Text(scene.told)
            self._console.print(
                Panel(told, title="what the agent is told", title_align="left", border_style="yellow", box=box.ROUNDED)
            )
        style = "green" if scene.held else "red"
        mark = "✓" if scene.held else "✗"
        self._console.print(Padding(Text(f"{mark} {scene.summary(seconds)}", style=f"bold {style}"), (0, 1, 1, 1)))

    def _draw(self, scene: Scene) -> RenderableType:
        parts: list[RenderableType] = []
        if scene.rows:
            parts.append(_runs(scene.rows))
        if scene.checks:
            parts.append(_checks(scene.checks))
        if scene.doing:
            self._spinner.update(text=Text(scene.doing, style="dim"))
            parts.append(Padding(self._spinner, (0, 1)))
        return Group(*parts)


def _runs(rows: tuple[Row, ...]) -> RenderableType:
    table = Table(box=box.SIMPLE_HEAD, header_style="dim", pad_edge=False, expand=True)
    table.add_column("run", justify="right", no_wrap=True)
    table.add_column("task", no_wrap=True, ratio=3)
    table.add_column("process", justify="right", no_wrap=True)
    table.add_column("cancel_run", no_wrap=True, ratio=3)
    table.add_column("its process", no_wrap=True, ratio=2)
    for row in rows:
        state = Text("● running", style="bold cyan") if row.alive else Text("○ gone", style="dim")
        table.add_row(str(row.number), printable(row.task), str(row.pid), _VERDICTS[row.verdict], state)
    return table


def _checks(checks: tuple[Check, ...]) -> RenderableType:
    table = Table(box=None, show_header=False, pad_edge=False, expand=True, padding=(0, 1))
    table.add_column(width=1)
    table.add_column(no_wrap=True)
    table.add_column(ratio=1, style="dim")
    for check in checks:
        mark = Text("✓", style="bold green") if check.held else Text("✗", style="bold red")
        # What was expected fits on its line or is cut; what was not is shown in full.
        seen = Text(check.seen, no_wrap=check.held, overflow="ellipsis" if check.held else "fold")
        table.add_row(mark, Text(check.name), seen)
    return Padding(table, (0, 0, 1, 1))


def print_reports(reports: list[Report]) -> None:
    """The outcome of `validate`: one line for a good file, one for each problem of a bad one, links kept whole."""
    console = _console()
    console.soft_wrap = True
    for report in reports:
        for problem in report.problems:
            place = f"{problem.file}:{problem.line}:{problem.column}:"
            console.print(
                Text.assemble(
                    (printable(place), "bold"),
                    " ",
                    (printable(problem.path), "cyan"),
                    ": ",
                    (printable(problem.message), "red"),
                )
            )
        if not report.problems:
            console.print(Text.assemble(("✓ ", "green"), (printable(report.file), "bold"), f" {counts(report)}"))
    bad = [report for report in reports if report.problems]
    if bad:
        number = sum(len(report.problems) for report in bad)
        console.print(
            Text(f"{number} problem{'s'[: number > 1]} in {len(bad)} of {len(reports)} files", style="bold red")
        )


def printable_lines(text: str) -> str:
    """`printable`, but the line ends stay."""
    return "\n".join(printable(line) for line in text.split("\n")).rstrip()
