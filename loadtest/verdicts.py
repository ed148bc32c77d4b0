"""Tables and verdicts on the terminal: what was measured, what was wanted, and the verdict."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table


@dataclass(slots=True)
class Report:
    """Verdicts of a run, printed as they come."""

    console: Console = field(default_factory=Console)
    failed: list[str] = field(default_factory=list)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print a table; the first column is aligned to the left, the others to the right."""
        table = Table(title=title, title_justify="left")
        for number, column in enumerate(columns):
            table.add_column(column, justify="left" if number == 0 else "right")
        for row in rows:
            table.add_row(*row)
        self.console.print(table)

    def verdict(self, what: str, figure: float, wanted: str, *, ok: bool) -> None:
        """Print a figure beside the objective, and whether the figure reaches it."""
        mark = "[green]reached[/]" if ok else "[red]missed[/]"
        self.console.print(f"  {what}: [bold]{figure:.2f}[/] (wanted {wanted}) {mark}\n")
        if not ok:
            self.failed.append(what)

    def at_most(self, what: str, figure: float, limit: float, *, unit: str = "") -> None:
        """The verdict on a figure that must not exceed a limit."""
        wanted = f"at most {limit:g}{unit}"
        self.verdict(what, figure, wanted, ok=figure <= limit)

    def none(self, what: str, count: int) -> None:
        """The verdict on a count that must be 0."""
        self.verdict(what, count, "0", ok=count == 0)

    def status(self) -> int:
        """Name what was missed, and give the exit status: 1 if anything was, else 0."""
        if self.failed:
            self.console.print(f"[red]missed:[/] {', '.join(self.failed)}")
        return 1 if self.failed else 0
