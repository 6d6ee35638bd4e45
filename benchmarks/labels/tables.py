"""The results as tables, on the screen and in Markdown."""

from collections.abc import Iterator

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from benchmarks.labels.comparison import Arm, Compared, Mean
from benchmarks.labels.simulation import OWN
from benchmarks.labels.summary import Summary, role_of, summarise
from service.demo.curves import Efficiency

_HEADINGS = (10, 20, 50, 100, 200, 500, 1_000, 2_000)  # budgets that Markdown has columns for
_LOST = 0.95  # label efficiency below which a strategy did not keep up with random
_PEERS_LEFT_OUT = ("random", "shortlist")


def print_tables(compared: Compared) -> None:
    """On one line an arm, however narrow the screen: for reading and for `less -S`."""
    for pool, by_judge in compared.items():
        for judge, arms in by_judge.items():
            budgets = list(arms[0].accuracy)
            title = f"{pool} ({role_of(pool)}), judge {judge}: {_kind(arms)} in % (label efficiency), "
            title += f"{arms[0].seeds} seeds"
            table = Table(title=title, title_justify="left", box=SIMPLE, padding=(0, 1, 0, 0))
            for column in ("strategy", *(f"{budget:,}" for budget in budgets), "AULC - random", "selection"):
                table.add_column(column, justify="left" if column == "strategy" else "right", no_wrap=True)
            for arm in arms:
                table.add_row(
                    arm.strategy,
                    *(_cell(arm, b) for b in budgets),
                    points(arm.aulc_minus_random),
                    f"{arm.selection_cpu_s:.1f} s",
                )
            Console(width=max(60, len(title)) + 12 * len(budgets)).print(table)
    for line in summary_lines(compared):
        Console().print(line, markup=False)


def summary_lines(compared: Compared) -> Iterator[str]:
    """A sentence a strategy and role of pools."""
    for role in ("development", "confirmation"):
        for one in summarise(compared, role):
            below = f"{len(one.below)}: {'; '.join(one.below)}" if one.below else "none"
            yield (
                f"{one.strategy}, pools for {role}: {100 * one.mean:+.2f} points above random over {one.pairs} pairs "
                f"of pool and judge; surely below it in {below}."
            )


def markdown(compared: Compared, command: str, machine: str) -> str:
    parts = [_introduction(command, machine)]
    for role in ("development", "confirmation"):
        found = summarise(compared, role)
        if found:
            parts.append(f"## Area above random, pools for {role}\n\n" + "\n".join(_summary(found)) + "\n")
            pools = {pool: by_judge for pool, by_judge in compared.items() if role_of(pool) == role}
            parts.append("\n".join(_areas(pools)) + "\n")
    for pool, by_judge in compared.items():
        parts.append(f"## {pool} ({role_of(pool)})\n")
        for judge, arms in by_judge.items():
            parts.append(
                f"By judge `{judge}`: test {_kind(arms)} in %, in brackets the label efficiency; "
                f"{arms[0].seeds} seeds.\n"
            )
            parts.append("\n".join(_table(arms)) + "\n")
        arms = by_judge[OWN]
        last = list(arms[0].accuracy)[-1]
        if any(arm.junk[last] for arm in arms):
            parts.append(f"Of {last:,} picks, on average:\n\n" + "\n".join(_spoilt(arms, last)) + "\n")
    parts.append("## Where `shortlist` loses\n\n" + "\n".join(losses(compared)) + "\n")
    return "\n".join(parts)


def losses(compared: Compared) -> Iterator[str]:
    """A line of Markdown for each pool and judge: budgets where random needs fewer labels, peers that are better."""
    none = True
    for pool, by_judge in compared.items():
        for judge, arms in by_judge.items():
            own = next((arm for arm in arms if arm.strategy == "shortlist"), None)
            if own is None:
                continue
            behind = [
                f"{budget:,} ({efficiency}, {points(own.minus_random[budget])})"
                for budget, efficiency in own.efficiency.items()
                if _lost(efficiency)
            ]
            if behind:
                none = False
                yield f"- {pool}, {judge}: behind random with {', '.join(behind)} labels (efficiency, points)."
            ahead = [
                f"`{peer.strategy}` {100 * (peer.aulc.value - own.aulc.value):.2f}"
                for peer in arms
                if peer.strategy not in _PEERS_LEFT_OUT and peer.aulc.value > own.aulc.value
            ]
            if ahead:
                none = False
                yield f"- {pool}, {judge}: points more area under the curve have {', '.join(ahead)}."
    if none:
        yield "Nowhere in this run: at no budget behind random, on no pool behind a peer, by no judge."


def points(difference: Mean) -> str:
    """In percentage points: `+1.2 [0.8, 1.6]`."""
    return f"{100 * difference.value:+.1f} [{100 * difference.low:.1f}, {100 * difference.high:.1f}]"


def _lost(efficiency: Efficiency) -> bool:
    return efficiency.value < _LOST or efficiency.bound == "<"


def _kind(arms: list[Arm]) -> str:
    return "balanced accuracy" if arms[0].balanced else "accuracy"


def _cell(arm: Arm, budget: int) -> str:
    efficiency = f" ({arm.efficiency[budget]})" if budget in arm.efficiency else ""
    return f"{100 * arm.accuracy[budget].value:.1f}{efficiency}"


def _introduction(command: str, machine: str) -> str:
    return f"""# Label efficiency

Made by `{command}` on {machine}; do not edit. All arms select on the same embeddings (rotation, backbone `small`,
trained on the very pool), with the same head (`linear`) and the same seeds; only the picks differ. Each budget is a
round, after which the head is trained anew. Strategies that need a head begin with random items.

*Judges* are trained on the picks and tested: `own`, the head that the strategy selected with; and models that took no
part in the choice: `hog`, logistic regression (C = 10) on gradients and a thumbnail; `pretrained`, the same on features
of EfficientNet-Lite2, learned on ImageNet; `network`, a small network from scratch with augmentation, at few budgets.

*Pools* for development are those that strategies may be tuned on; those for confirmation are not, and are looked at
once. Each seed works on its own random 80 % of the pool. Test items of Fashion-MNIST and CIFAR-10 are 2,000 of their
test sets; those of junk pools and photographs are a quarter of the pool, drawn anew by each seed, whole groups of
near-duplicates (tracks of traffic signs) at a time: so they look like the pool, near-duplicates among themselves
included, and hold none of an item that may be picked. The embeddings saw them, without labels.

*Label efficiency*: labels random selection needs ÷ labels used, at equal accuracy, read from random's own mean curve;
`>` where even the end of that curve is worse, `<` where its beginning is better. *AULC − random*: mean difference of
accuracy over ln(labels) to random with the same seed, in points, with its 95 % interval (Student's t over seeds, which
differ in the picks, the part of the pool and the folds of the head). *Selection*: CPU seconds of all rounds of a run.
"""


def _summary(found: list[Summary]) -> Iterator[str]:
    """Mean over pools and judges, and the pairs that are surely below random."""
    judges = list(found[0].by_judge)
    yield f"| strategy | mean of {found[0].pairs} pairs | {' | '.join(judges)} | pairs surely below random |"
    yield f"|---|---|{'---|' * len(judges)}---|"
    for one in found:
        cells = " | ".join(f"{100 * one.by_judge[judge]:+.2f}" for judge in judges)
        yield f"| `{one.strategy}` | {100 * one.mean:+.2f} | {cells} | {len(one.below)} |"


def _areas(pools: Compared) -> Iterator[str]:
    """Areas of `shortlist` and of the best other strategy, by pool and judge."""
    yield "| pool | judge | `shortlist` | best other |"
    yield "|---|---|---|---|"
    for pool, by_judge in pools.items():
        for judge, arms in by_judge.items():
            own = next((points(arm.aulc_minus_random) for arm in arms if arm.strategy == "shortlist"), "")
            other = next((arm for arm in arms if arm.strategy not in _PEERS_LEFT_OUT), None)
            best = f"`{other.strategy}` {points(other.aulc_minus_random)}" if other else ""
            yield f"| {pool} | {judge} | {own} | {best} |"


def _table(arms: list[Arm]) -> Iterator[str]:
    budgets = [budget for budget in arms[0].accuracy if budget in _HEADINGS]
    yield f"| strategy | {' | '.join(f'{b:,}' for b in budgets)} | AULC − random | selection |"
    yield f"|---|{'---|' * len(budgets)}---|---|"
    for arm in arms:
        cells = " | ".join(_cell(arm, b) for b in budgets)
        difference = "" if arm.strategy == "random" else points(arm.aulc_minus_random)
        yield f"| `{arm.strategy}` | {cells} | {difference} | {arm.selection_cpu_s:.1f} s |"


def _spoilt(arms: list[Arm], budget: int) -> Iterator[str]:
    yield "| strategy | junk | near-duplicates of earlier picks |"
    yield "|---|---|---|"
    for arm in sorted(arms, key=lambda arm: arm.junk[budget]):
        yield f"| `{arm.strategy}` | {arm.junk[budget]:.0f} | {arm.duplicates[budget]:.0f} |"
