"""What people see of `demo` on a terminal: a live table of jobs, or a progress bar. Text from strangers is escaped.

Below: `scenario`, `scale` (what is shown), `render`. Above: `demo`.
"""

from __future__ import annotations

__all__ = ["Meter", "Theatre"]

from types import TracebackType

from rich import box
from rich.console import Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.spinner import Spinner
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from intercept_py.cli.findings import Check, Findings
from intercept_py.cli.render import console
from intercept_py.cli.scale import AT_ONCE, Tally
from intercept_py.cli.scenario import Row, Scene
from intercept_py.cli.text import printable

_VERDICTS = {
    "": Text("waiting", style="dim"),
    "cancelled": Text("✓ cancelled", style="green"),
    "denied": Text("✗ denied by policy", style="bold yellow"),
    "failed": Text("! failed", style="bold red"),
}


class Theatre:
    """Shows the story as a live table. A context: the cursor comes back however the play ends."""

    pause = 0.12

    def __init__(self, policy: str) -> None:
        self._console = console()
        self._console.print()
        code = Syntax(_printable_lines(policy), "yaml", background_color="default", word_wrap=True)
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
        self._console.print(_verdict(scene, seconds))

    def _draw(self, scene: Scene) -> RenderableType:
        parts: list[RenderableType] = []
        if scene.rows:
            parts.append(_jobs(scene.rows))
        if scene.checks:
            parts.append(_checks(scene.checks))
        if scene.doing:
            self._spinner.update(text=Text(scene.doing, style="dim"))
            parts.append(Padding(self._spinner, (0, 1)))
        return Group(*parts)


class Meter:
    """Shows how far the jobs are. A context like `Theatre`."""

    pause = 0.0

    def __init__(self, jobs: int) -> None:
        self._console = console()
        self._console.print(Text(f"\n {jobs} jobs, {AT_ONCE} at once, every call through the proxy\n"))
        self._progress = Progress(
            SpinnerColumn(style="cyan", finished_text=Text("✓", style="green")),
            BarColumn(bar_width=None, complete_style="cyan", finished_style="green"),
            MofNCompleteColumn(),
            TextColumn("[dim]{task.fields[told]}"),
            TimeElapsedColumn(),
            console=self._console,
            expand=True,
        )
        self._bar = self._progress.add_task("", total=jobs, told="")

    def __enter__(self) -> Meter:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def show(self, tally: Tally) -> None:
        """Move the bar."""
        told = f"{tally.calls} calls, {tally.jobs_per_second:.1f} jobs/s"
        self._progress.update(self._bar, completed=tally.ended, told=told if tally.ended else tally.doing)

    def end(self, tally: Tally, seconds: float) -> None:
        """Show the books."""
        self._console.print(_statuses(tally))
        self._console.print(_checks(tally.checks))
        self._console.print(_verdict(tally, seconds))


def _jobs(rows: tuple[Row, ...]) -> RenderableType:
    table = Table(box=box.SIMPLE_HEAD, header_style="dim", pad_edge=False, expand=True)
    table.add_column("job", justify="right", no_wrap=True)
    table.add_column("runs", no_wrap=True, ratio=2)
    table.add_column("process", justify="right", no_wrap=True)
    table.add_column("cancelling it", no_wrap=True, ratio=3)
    table.add_column("its processes", no_wrap=True, ratio=2)
    for row in rows:
        state = Text("● running", style="bold cyan") if row.alive else Text("○ gone", style="dim")
        table.add_row(str(row.number), printable(row.recipe), str(row.pid), _VERDICTS[row.verdict], state)
    return table


def _statuses(tally: Tally) -> RenderableType:
    table = Table(box=box.SIMPLE_HEAD, header_style="dim", pad_edge=False)
    table.add_column("the server says")
    table.add_column("jobs", justify="right")
    for status, number in sorted(tally.statuses.items()):
        table.add_row(printable(status), str(number))
    return table


def _checks(checks: tuple[Check, ...]) -> RenderableType:
    """Each check and what was seen: nothing is cut, however narrow the terminal."""
    table = Table(box=None, show_header=False, pad_edge=False, expand=True, padding=(0, 1))
    table.add_column(width=1)
    table.add_column(overflow="fold")
    table.add_column(ratio=1, style="dim", overflow="fold")
    for check in checks:
        mark = Text("✓", style="bold green") if check.held else Text("✗", style="bold red")
        table.add_row(mark, Text(check.name), Text(check.seen))
    return Padding(table, (0, 0, 1, 1))


def _verdict(found: Findings, seconds: float) -> RenderableType:
    mark, style = ("✓", "bold green") if found.held else ("✗", "bold red")
    return Padding(Text(f"{mark} {found.summary(seconds)}", style=style), (0, 1, 1, 1))


def _printable_lines(text: str) -> str:
    """`printable`, but the line ends stay."""
    return "\n".join(printable(line) for line in text.split("\n")).rstrip()
