"""Area above random: a panel a judge, a row a pool, a dot a strategy."""

from pathlib import Path
from typing import Any

from benchmarks.labels.comparison import Compared
from benchmarks.labels.summary import role_of

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
_APART = 0.11  # rows between the dots of two strategies


def save_plot(compared: Compared, path: Path) -> None:
    """The best-known strategies in colour with their intervals, all others in grey."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    judges = list(dict.fromkeys(judge for by_judge in compared.values() for judge in by_judge))
    size = (3.4 * len(judges) + 2.2, 0.62 * len(compared) + 1.6)
    figure, axes = pyplot.subplots(
        1, len(judges), figsize=size, sharey=True, squeeze=False, layout="constrained"
    )
    dots: dict[str, Any] = {}
    for axis, judge in zip(axes[0], judges, strict=True):
        for row, by_judge in enumerate(compared.values()):
            for arm in by_judge.get(judge, []):
                if arm.strategy == "random":
                    continue
                gain, known = arm.aulc_minus_random, arm.strategy in _COLOURS
                place = row + _APART * (list(_COLOURS).index(arm.strategy) - 2.5) if known else row
                label = arm.strategy if known else "other strategies"
                if known:
                    axis.plot(
                        [100 * gain.low, 100 * gain.high], [place] * 2, color=_COLOURS[label], linewidth=1.2
                    )
                colour, dot = _COLOURS.get(label, _OTHERS), 34 if label == "shortlist" else 16
                dots[label] = axis.scatter(
                    100 * gain.value, place, s=dot, color=colour, zorder=3 if known else 1
                )
        axis.axvline(0, color="#222222", linestyle="--", linewidth=1)
        axis.set_title(f"judge {judge}", fontsize=11)
        axis.set_xlabel("points above random")
        axis.grid(alpha=0.2, axis="x")
        axis.spines[["top", "right"]].set_visible(False)
    names = [pool + ("" if role_of(pool) == "development" else " (confirmation)") for pool in compared]
    axes[0, 0].set_yticks(range(len(names)), names)
    axes[0, 0].invert_yaxis()
    shown = [name for name in (*_COLOURS, "other strategies") if name in dots]
    handles = [dots[name] for name in shown]
    figure.legend(handles, shown, loc="outside lower center", ncols=len(shown), frameon=False)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
