"""Tables and verdicts on the terminal: what was measured, what was wanted, whether it is."""

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
        table = Table(title=title, title_justify="left")
        for number, column in enumerate(columns):
            table.add_column(column, justify="left" if number == 0 else "right")
        for row in rows:
            table.add_row(*row)
        self.console.print(table)

    def verdict(self, what: str, figure: float, wanted: str, *, ok: bool) -> None:
        mark = "[green]reached[/]" if ok else "[red]missed[/]"
        self.console.print(f"  {what}: [bold]{figure:.2f}[/] (wanted {wanted}) {mark}\n")
        if not ok:
            self.failed.append(what)
