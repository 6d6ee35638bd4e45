"""The results as tables, on the screen and in Markdown."""

from collections.abc import Iterator, Sequence

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from benchmarks.labels.comparison import Arm, Mean

Compared = dict[str, list[Arm]]  # by pool

_HEADINGS = (10, 20, 50, 100, 200, 500, 1_000, 2_000)  # budgets that Markdown has columns for
_LOST = 0.95  # label efficiency below which a strategy did not keep up with random
_PEERS_LEFT_OUT = ("random", "shortlist")


def print_tables(compared: Compared, budgets: Sequence[int]) -> None:
    """On one line an arm, however narrow the screen: for reading and for `less -S`."""
    console = Console(width=60 + 12 * len(budgets))
    for pool, arms in compared.items():
        title = f"{pool}: accuracy in % (label efficiency), {arms[0].seeds} seeds"
        table = Table(title=title, title_justify="left", box=SIMPLE, padding=(0, 1, 0, 0))
        for column in ("strategy", *(f"{budget:,}" for budget in budgets), "AULC - random", "selection"):
            table.add_column(column, justify="left" if column == "strategy" else "right", no_wrap=True)
        for arm in arms:
            cells = (f"{100 * arm.accuracy[b].value:.1f} ({arm.efficiency[b]})" for b in budgets)
            table.add_row(
                arm.strategy, *cells, points(arm.aulc_minus_random), f"{arm.selection_cpu_s:.1f} s"
            )  # fmt: skip
        console.print(table)


def markdown(compared: Compared, budgets: Sequence[int], command: str, machine: str) -> str:
    columns = [budget for budget in _HEADINGS if budget in budgets]
    parts = [_introduction(command, machine)]
    for pool, arms in compared.items():
        kind = "balanced accuracy" if arms[0].balanced else "accuracy"
        parts.append(
            f"## {pool}\n\nTest {kind} in %, in brackets the label efficiency; {arms[0].seeds} seeds.\n"
        )
        parts.append("\n".join(_table(arms, columns)) + "\n")
        last = budgets[-1]
        if any(arm.junk[last] for arm in arms):
            parts.append(f"Of {last:,} picks, on average:\n\n" + "\n".join(_spoilt(arms, last)) + "\n")
    parts.append("## Where `shortlist` loses\n\n" + "\n".join(losses(compared, budgets)) + "\n")
    return "\n".join(parts)


def losses(compared: Compared, budgets: Sequence[int]) -> Iterator[str]:
    """A line of Markdown for each: budgets where random needs fewer labels, pools where a peer is better overall."""
    none = True
    for pool, arms in compared.items():
        by_name = {arm.strategy: arm for arm in arms}
        own = by_name.get("shortlist")
        if own is None:
            continue
        for budget in budgets:
            if own.efficiency[budget].value < _LOST or own.efficiency[budget].bound == "<":
                none = False
                difference = points(own.minus_random[budget])
                yield (
                    f"- {pool}, {budget:,} labels: efficiency {own.efficiency[budget]}, "
                    f"{difference} points against random."
                )
        for peer in arms:
            if peer.strategy not in _PEERS_LEFT_OUT and peer.aulc.value > own.aulc.value:
                none = False
                behind = 100 * (peer.aulc.value - own.aulc.value)
                yield f"- {pool}: `{peer.strategy}` has {behind:.2f} points more area under the curve."
    if none:
        yield "Nowhere in this run: at no budget behind random, on no pool behind a peer."


def points(difference: Mean) -> str:
    """In percentage points: `+1.2 [0.8, 1.6]`."""
    return f"{100 * difference.value:+.1f} [{100 * difference.low:.1f}, {100 * difference.high:.1f}]"


def _introduction(command: str, machine: str) -> str:
    return f"""# Label efficiency

Made by `{command}` on {machine}; do not edit. The same embeddings (rotation, backbone `small`, trained on the very
pool), the same head (`linear`) and the same seeds for all arms; only the picks differ. Each budget is a round, after
which the head is trained anew. Strategies that need a head begin with random items.

*Label efficiency*: labels random selection needs ÷ labels used, at equal accuracy, read from random's own mean curve;
`>` where even the end of that curve is worse, `<` where its beginning is better. *AULC − random*: mean difference of
accuracy over ln(labels) to random with the same seed, in points, with its 95 % interval (Student's t over seeds; they
differ in the picks and the folds of the head, not in the pool). *Selection*: CPU seconds of all rounds of a run.
"""


def _table(arms: list[Arm], budgets: list[int]) -> Iterator[str]:
    yield f"| strategy | {' | '.join(f'{b:,}' for b in budgets)} | AULC − random | selection |"
    yield f"|---|{'---|' * len(budgets)}---|---|"
    for arm in arms:
        cells = (f"{100 * arm.accuracy[b].value:.1f} ({arm.efficiency[b]})" for b in budgets)
        difference = "" if arm.strategy == "random" else points(arm.aulc_minus_random)
        yield f"| `{arm.strategy}` | {' | '.join(cells)} | {difference} | {arm.selection_cpu_s:.1f} s |"


def _spoilt(arms: list[Arm], budget: int) -> Iterator[str]:
    yield "| strategy | junk | near-duplicates of earlier picks |"
    yield "|---|---|---|"
    for arm in sorted(arms, key=lambda arm: arm.junk[budget]):
        yield f"| `{arm.strategy}` | {arm.junk[budget]:.0f} | {arm.duplicates[budget]:.0f} |"
