"""The results as tables, on the screen and in Markdown."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from benchmarks.labels.comparison import Arm, Mean


def print_tables(compared: dict[str, list[Arm]], budgets: Sequence[int]) -> None:
    console = Console(width=None if Console().is_terminal else 240)
    for pool, arms in compared.items():
        table = Table(
            title=f"{pool}: accuracy in % (label efficiency), {arms[0].seeds} seeds", title_justify="left"
        )
        for column in ("strategy", *(f"{budget:,}" for budget in budgets), "AULC - random", "selection s"):
            table.add_column(column, justify="left" if column == "strategy" else "right")
        for arm in arms:
            cells = (f"{100 * arm.accuracy[b].value:.1f} ({arm.efficiency[b]})" for b in budgets)
            table.add_row(arm.strategy, *cells, points(arm.aulc_minus_random), f"{arm.selection_cpu_s:.1f}")
        console.print(table)


def points(difference: Mean) -> str:
    """In percentage points: `+1.2 [0.8, 1.6]`."""
    return f"{100 * difference.value:+.1f} [{100 * difference.low:.1f}, {100 * difference.high:.1f}]"
