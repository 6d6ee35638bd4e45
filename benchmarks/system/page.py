"""The results as figures, as Markdown and as a plot."""

from pathlib import Path

from benchmarks.report import Figure
from benchmarks.system.arms import OURS, TODAY
from benchmarks.system.needed import GOAL, Curve, Needed, factor, mean_accuracies, mean_needed

Curves = dict[str, dict[int, Curve]]  # by arm and seed

_ABOUT = {
    "today": "random picks, the same network from scratch",
    "random": "random picks, our embeddings, head `propagate`",
    "linear": "`shortlist`, head `linear`",
    "propagate": "`shortlist`, head `propagate`",
    "finetune": "the same picks, head `finetune`",
}
_COLOURS = {
    "today": "#222222",
    "random": "#56B4E9",
    "linear": "#009E73",
    "propagate": "#0072B2",
    "finetune": "#D55E00",
}


def figures(found: Curves) -> dict[str, Figure]:
    goal = round(100 * GOAL)
    made: dict[str, Figure] = {"seeds": len(found["today"])}
    for arm in _ABOUT:
        made[f"labels_to_{goal}_{arm}"] = _text(mean_needed(found[arm]))
        for labels, mean in mean_accuracies(found[arm]).items():
            made[f"accuracy_{arm}_{labels}"] = round(mean.value, 4)
    for arm in ("propagate", "finetune", "linear", "random"):
        mean, bound = factor(found["today"], found[arm])
        made |= {
            f"times_fewer_labels_{arm}": round(mean.value, 2),
            f"times_fewer_labels_{arm}_low": round(mean.low, 2),
            f"times_fewer_labels_{arm}_high": round(mean.high, 2),
            f"times_fewer_labels_{arm}_bound": bound,
        }
    return made


def _text(needed: Needed) -> float | str:
    return f"{needed.bound}{needed.labels:.0f}" if needed.bound else round(needed.labels, 1)


def markdown(found: Curves, command: str, machine: str, seconds: dict[str, float]) -> str:
    seeds, goal = len(found["today"]), round(100 * GOAL)
    columns = sorted({*TODAY, *OURS})
    means = {arm: mean_accuracies(found[arm]) for arm in _ABOUT}
    lines = [
        "# The whole system against what a team does today",
        "",
        f"Made by `{command}` on {machine}; do not edit. Fashion-MNIST, a pool of",
        f"20,000, accuracy in % on the 10,000 test items by labels, mean of {seeds} seeds. What the arms are:",
        "`benchmarks/system/arms.py`.",
        "",
        f"| arm | {' | '.join(f'{labels:,}' for labels in columns)} | labels to {goal} % | times fewer |",
        f"|---|{'---|' * len(columns)}---|---|",
    ]
    for arm, about in _ABOUT.items():
        cells = (f"{100 * means[arm][b].value:.1f}" if b in means[arm] else "" for b in columns)
        fewer = "1"
        if arm != "today":
            mean, bound = factor(found["today"], found[arm])
            fewer = f"{bound}{mean.value:.1f} [{mean.low:.1f}, {mean.high:.1f}]"
        lines.append(f"| {about} | {' | '.join(cells)} | {_text(mean_needed(found[arm]))} | {fewer} |")
    lines += [
        "",
        f"*Labels to {goal} %*: where a seed's curve first reaches it, interpolated over ln(labels); geometric mean.",
        "*Times fewer*: paired by seed, geometric mean with its 95 % interval (Student's t over the seeds, which share",
        "pool and pretext model). The pretext model saw the pool's images; the network from scratch, as today, only",
        "those that were labeled. `<` and `>`: where a curve is too short to know.",
        "",
        "Seconds on one core to train a classifier, mean over seeds: "
        + ", ".join(f"{name} {value:.0f}" for name, value in seconds.items())
        + ".",
        "",
    ]
    return "\n".join(lines)


def save_plot(found: Curves, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7.2, 4.6), layout="constrained")
    for arm, about in _ABOUT.items():
        means = mean_accuracies(found[arm])
        labels, values = list(means), list(means.values())
        axes.plot(
            labels,
            [100 * one.value for one in values],
            color=_COLOURS[arm],
            label=about.replace("`", ""),
            marker="o",
            markersize=3,
            linestyle="--" if arm == "today" else "-",
        )
        axes.fill_between(
            labels,
            [100 * one.low for one in values],
            [100 * one.high for one in values],
            color=_COLOURS[arm],
            alpha=0.12,
            linewidth=0,
        )
    axes.axhline(100 * GOAL, color="#999999", linewidth=0.8)
    axes.set_xscale("log")
    ticks = [20, 50, 100, 300, 1_000, 5_000]
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("labels")
    axes.set_ylabel("accuracy on Fashion-MNIST, %")
    axes.grid(alpha=0.2)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
