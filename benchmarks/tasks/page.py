"""The docs page, docs/pretext-tasks.md with its plot, and the same table on the screen."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.tasks.measure import REFERENCES, Row

Found = dict[str, list[Row]]  # by pool
Shown = dict[str, tuple[str, Callable[[Row], float]]]  # by what they say: colour and value

_COLUMNS: dict[str, Callable[[Row], float]] = {
    "linear probe, %": lambda row: 100 * row.linear,
    "kNN, %": lambda row: 100 * row.knn,
    "RankMe": lambda row: row.rank_me,
    "ρ supervised": lambda row: row.rho_supervised,
    "ρ variance": lambda row: row.rho_variance,
    "minutes": lambda row: row.minutes if row.task not in REFERENCES else math.nan,
    "scored/s": lambda row: row.scored_per_s,
}
_DIGITS = {"ρ supervised": 2, "ρ variance": 2, "scored/s": 0}
# Colours that people who see fewer of them can tell apart (Okabe and Ito 2008, https://jfly.uni-koeln.de/color/).
_INK = "#222222"
_ACCURACIES: Shown = {
    "linear probe": ("#0072B2", lambda row: 100 * row.linear),
    "kNN": ("#56B4E9", lambda row: 100 * row.knn),
}
_CORRELATIONS: Shown = {
    "with the supervised loss": ("#D55E00", lambda row: row.rho_supervised),
    "with the variance of the pixels": ("#C8C8C8", lambda row: row.rho_variance),
}


@dataclass(frozen=True, kw_only=True)
class Setting:
    items: int
    epochs: int
    batch_size: int
    supervised_epochs: int
    supervised_accuracy: dict[str, float]  # by pool
    threads: int
    command: str
    machine: str


def print_table(found: Found) -> None:
    for pool, rows in found.items():
        table = Table(title=pool)
        table.add_column("task", no_wrap=True)
        for column in _COLUMNS:
            table.add_column(column, justify="right", min_width=5)
        for row in _ordered(rows):
            table.add_row(_name(row), *_cells(row))
        Console(width=max(100, Console().width)).print(table)  # narrower, figures would be cut off


def write_page(found: Found, setting: Setting, docs: Path) -> None:
    docs.mkdir(parents=True, exist_ok=True)
    save_plot(found, docs / "pretext-tasks.png")
    (docs / "pretext-tasks.md").write_text(page(found, setting), encoding="utf-8")


def page(found: Found, setting: Setting) -> str:
    steps = setting.epochs * math.ceil(setting.items / setting.batch_size)
    supervised = " and ".join(
        f"{100 * value:.1f} % on {pool}" for pool, value in setting.supervised_accuracy.items()
    )
    lines = [
        "# Pretext tasks, measured",
        "",
        f"Written by `{setting.command}` on {setting.machine}; what the tasks are: [catalogue](catalogue.md).",
        "",
        f"Every task had the same budget: {setting.epochs} epochs over {setting.items:,} unlabeled images, {steps:,} "
        f"steps of {setting.batch_size}, backbone `small`, one seed, each with its default parameters and the rate "
        "that a project has by default. A step is not equally much work for all, which is what the minutes say. "
        "One seed tells differences of a few points, not of tenths.",
        "",
        "- *linear probe, kNN*: accuracy on test images of a logistic regression, and of 20 nearest neighbours by "
        "cosine, on the embeddings and classes of the whole pool. Before training the accuracy is that of "
        "`untrained`, the same backbone with the same random weights.",
        "- *RankMe*: effective rank of 2,048 embeddings, at most the 192 dimensions that they have.",
        "- *ρ supervised*: Spearman's correlation of an item's pretext loss with the loss of a supervised network of "
        f"the same shape that never saw the item (trained on the other half of the pool for "
        f"{setting.supervised_epochs} epochs; right for {supervised}).",
        "- *ρ variance*: the same with the variance of the item's pixels, which costs nothing to know.",
        f"- *minutes* of training, *scored/s*: images a second, losses over all fixed views and embeddings. Both by "
        f"the CPU time of {setting.threads} thread{'s' if setting.threads > 1 else ''}, so what else the machine did "
        "hardly counts.",
        "",
        "![Accuracy of linear probe and kNN, and correlations of the losses, by task](pretext-tasks.png)",
    ]
    for pool, rows in found.items():
        lines += [
            "",
            f"## {pool}",
            "",
            f"| task | {' | '.join(_COLUMNS)} |",
            f"|---|{'---:|' * len(_COLUMNS)}",
        ]
        lines += [f"| {_name(row)} | {' | '.join(_cells(row))} |" for row in _ordered(rows)]
    return "\n".join(lines) + "\n"


def _ordered(rows: Sequence[Row]) -> list[Row]:
    """The best linear probe first."""
    return sorted(rows, key=lambda row: -row.linear)


def _name(row: Row) -> str:
    return row.task + (" (collapsed)" if row.collapsed else "")


def _cells(row: Row) -> list[str]:
    values = {column: value(row) for column, value in _COLUMNS.items()}
    return [
        "" if math.isnan(value) else f"{value:,.{_DIGITS.get(column, 1)}f}"
        for column, value in values.items()
    ]


def save_plot(found: Found, path: Path) -> None:
    """A column a pool; above accuracies, below correlations of the losses."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(
        2, len(found), figsize=(6.4 * len(found), 8.4), squeeze=False, layout="constrained"
    )
    for column, (pool, rows) in enumerate(found.items()):
        ordered = _ordered(rows)[::-1]
        trained = [row for row in ordered if row.task not in REFERENCES]
        above, below = axes[0, column], axes[1, column]
        for label, (colour, value) in _ACCURACIES.items():
            above.plot([value(row) for row in trained], range(len(trained)), "o", color=colour, label=label)
        _finish(above, trained)
        for row in ordered:
            if row.task in REFERENCES:
                above.axvline(
                    100 * row.linear, color=_INK, linestyle="--" if row.task == "untrained" else ":"
                )
                above.text(100 * row.linear, len(trained) - 0.4, f" {row.task}", fontsize=8, va="bottom")
        above.set_title(f"{pool}\n", fontsize=11)
        above.set_ylim(-0.6, len(trained) - 0.4)
        above.set_xlabel("test accuracy, % (lines: linear probe)")
        for place, (label, (colour, value)) in enumerate(_CORRELATIONS.items()):
            positions = [number + 0.2 - 0.4 * place for number in range(len(trained))]
            values = [0 if math.isnan(value(row)) else value(row) for row in trained]
            below.barh(positions, values, height=0.4, color=colour, label=label)
        _finish(below, trained)
        below.axvline(0, color=_INK, linewidth=0.8)
        below.set_xlabel("Spearman correlation of the pretext loss")
        for axis in (above, below):
            axis.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=2)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def _finish(axis: Any, rows: Sequence[Row]) -> None:
    axis.set_yticks(range(len(rows)), [row.task for row in rows], fontsize=8)
    axis.grid(alpha=0.2)
    axis.spines[["top", "right"]].set_visible(False)
