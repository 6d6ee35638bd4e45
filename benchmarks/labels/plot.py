"""Accuracy over labels, and what it is above random, one column a pool."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.labels.comparison import Arm

# Colours that people who see fewer of them can tell apart (Okabe and Ito 2008, https://jfly.uni-koeln.de/color/).
_COLOURS = {
    "shortlist": "#D55E00",
    "uherding": "#0072B2",
    "margin": "#009E73",
    "badge": "#CC79A7",
    "typiclust": "#E69F00",
    "maxherding": "#56B4E9",
}
_OTHERS = "#C8C8C8"
_RANDOM = "#222222"


def save_plot(compared: dict[str, list[Arm]], budgets: Sequence[int], path: Path) -> None:
    """The best-known strategies in colour, all others in grey."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(
        2, len(compared), figsize=(3.6 * len(compared) + 0.6, 6.4), sharex=True, squeeze=False, layout="constrained"
    )  # fmt: skip
    lines: dict[str, Any] = {}
    for column, (pool, arms) in enumerate(compared.items()):
        above, below = axes[0, column], axes[1, column]
        for arm in sorted(arms, key=lambda arm: (arm.strategy in _COLOURS, arm.strategy == "shortlist")):
            label, style = _style(arm.strategy)
            accuracies = [100 * arm.accuracy[b].value for b in budgets]
            (lines[label],) = above.plot(budgets, accuracies, **style)
            if arm.strategy != "random":
                gains = [arm.minus_random[b] for b in budgets]
                below.plot(budgets, [100 * gain.value for gain in gains], **style)
                if arm.strategy == "shortlist":
                    low, high = [100 * gain.low for gain in gains], [100 * gain.high for gain in gains]
                    below.fill_between(budgets, low, high, color=style["color"], alpha=0.15, linewidth=0)
        below.axhline(0, color=_RANDOM, linestyle="--", linewidth=1)
        above.set_title(pool, fontsize=11)
        above.set_xscale("log")
        ticks = [b for b in (10, 30, 100, 300, 1_000) if budgets[0] <= b <= budgets[-1]]
        above.set_xticks(ticks, [f"{b:,}" for b in ticks])
        above.minorticks_off()
        above.set_ylabel("balanced accuracy, %" if arms[0].balanced else "accuracy, %")
        below.set_xlabel("labels")
        below.set_ylabel("points above random")
        for axis in (above, below):
            axis.grid(alpha=0.2)
            axis.spines[["top", "right"]].set_visible(False)
    order = [name for name in ("shortlist", *_COLOURS, "other strategies", "random") if name in lines]
    names = list(dict.fromkeys(order))
    figure.legend(
        [lines[name] for name in names], names, loc="outside lower center", ncols=len(names), frameon=False
    )
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def _style(strategy: str) -> tuple[str, dict[str, Any]]:
    """Name in the legend, and how the line looks."""
    if strategy == "random":
        return strategy, {"color": _RANDOM, "linestyle": "--", "linewidth": 1.4}
    if strategy in _COLOURS:
        return strategy, {"color": _COLOURS[strategy], "linewidth": 2.4 if strategy == "shortlist" else 1.4}
    return "other strategies", {"color": _OTHERS, "linewidth": 0.9}
