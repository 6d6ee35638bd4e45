"""The docs page, docs/kinds-measured.md with its plot, from results/modalities.json. Made anew after every pool; by
itself: `python -m benchmarks.modalities.page`.
"""

import json
from pathlib import Path
from typing import Any

from benchmarks.report import RESULTS, Figure

Figures = dict[str, Figure]
DOCS = Path(__file__).parents[2] / "docs"

BUDGETS = (20, 50, 100, 200, 500, 1_000)
STRATEGIES = ("shortlist", "uherding", "typiclust", "margin", "pt4al")
_POOLS = {
    "subjectivity": "Subjectivity, sentences",
    "ag_news": "AG News, texts",
    "spoken_digits": "spoken digits",
    "spoken_digits_by_speaker": "… of two speakers that the pool has not",
    "moving_fashion": "moving Fashion-MNIST, videos",
    "mutag": "MUTAG, graphs",
    "proteins": "PROTEINS, graphs",
    "emoji": "emoji and their names, pairs",
}
# Colours that people who see fewer of them can tell apart (Okabe and Ito 2008, https://jfly.uni-koeln.de/color/).
_COLOURS = dict(zip(STRATEGIES, ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#999999"), strict=True))


def measured(figures: Figures) -> list[str]:
    """The pools of which there are figures."""
    return [pool for pool in _POOLS if f"aulc_minus_random_{pool}" in figures]


def write_page(figures: Figures, docs: Path = DOCS) -> None:
    save_plot(figures, docs / "kinds-measured.png")
    (docs / "kinds-measured.md").write_text(page(figures), encoding="utf-8")


def page(figures: Figures) -> str:
    pools = measured(figures)
    lines = [
        "# Kinds of items, measured",
        "",
        "Written by `make bench-modalities` ([figures](../benchmarks/results/modalities.json)), a pool at a time, with "
        "the default pretext task and network of each kind, as a project has them. What is no better than random, or "
        "than features that nobody trained, stands here, too.",
        "",
        "![Label efficiency by the number of labels, a pool each](kinds-measured.png)",
        "",
        "## Is it worth training?",
        "",
        "Test accuracy of logistic regression on raw features, on the network before training, and on the pretext "
        "model, with all labels of the pool and with 100 of them. *ρ*: Spearman's correlation of an item's pretext "
        "loss with the loss of a supervised network that never saw it, and how accurate that network is.",
        "",
        "| pool | task | raw | untrained | trained | with 100: raw | untrained | trained | ρ |",
        "|---|---|---:|---:|---:|---:|---:|---:|---|",
    ]
    for pool in pools:
        probes = [
            _percent(figures.get(f"probe_{pool}_{what}{few}"))
            for few in ("", "_100")
            for what in ("raw", "untrained", "trained")
        ]
        rho, right = figures.get(f"rho_supervised_{pool}"), figures.get(f"supervised_accuracy_{pool}")
        task = f"`{figures[f'task_{pool}']}`, {figures[f'epochs_{pool}']} epochs"
        lines.append(f"| {_POOLS[pool]} | {task} | {' | '.join(probes)} | {rho:.2f} ({_percent(right)} %) |")
    lines += [
        "",
        "## Are the picks better than random ones?",
        "",
        "Labels that random picks need for the same accuracy, divided by the labels used (so 2 means half the labels), "
        "judged by the head `linear`, mean of the seeds; and the area between `shortlist`'s learning curve and "
        "random's, in points with its 95 % interval. “>”: random did not get there with the labels there are.",
        "",
        f"| pool | {' | '.join(f'{budget:,}' for budget in BUDGETS)} | mean | area | best peer: area |",
        f"|---|{'---:|' * (len(BUDGETS) + 1)}---|---|",
    ]
    for pool in pools:
        cells = [_efficiency(figures, pool, budget) for budget in BUDGETS]
        found = [float(figures[key]) for b in BUDGETS if (key := f"label_efficiency_{pool}_{b}") in figures]  # type: ignore[arg-type]
        peers = [one for one in STRATEGIES[1:] if f"aulc_minus_random_{one}_{pool}" in figures]
        best = max(peers, key=lambda one: float(figures[f"aulc_minus_random_{one}_{pool}"] or 0))
        lines.append(
            f"| {_POOLS[pool]} | {' | '.join(cells)} | {sum(found) / len(found):.1f} | {_area(figures, pool)} "
            f"| `{best}` {_area(figures, f'{best}_{pool}')} |"
        )
    tried = [(pool, name) for pool in pools for name in _other_tasks(figures, pool)]
    if tried:
        lines += [
            "",
            "## Other pretext tasks",
            "",
            "| pool | task | all labels | 100 labels |",
            "|---|---|---:|---:|",
        ]
        lines += [
            f"| {_POOLS[pool]} | `{name}` | {_percent(figures[f'probe_{pool}_{name}'])} "
            f"| {_percent(figures.get(f'probe_{pool}_{name}_100'))} |"
            for pool, name in tried
        ]
    lines += [
        "",
        "Commands (pools without one are of a run with `--quick`: fewer epochs, budgets and strategies):",
        "",
    ]
    lines += [
        f"- {_POOLS[pool]}: `{figures[f'command_{pool}']}`" for pool in pools if f"command_{pool}" in figures
    ]
    return "\n".join(lines) + "\n"


def _other_tasks(figures: Figures, pool: str) -> list[str]:
    known = {"raw", "untrained", "trained", "pretrained"}
    longer = tuple(f"probe_{one}_" for one in _POOLS if one.startswith(f"{pool}_"))
    start = f"probe_{pool}_"
    probes = [
        key.removeprefix(start) for key in figures if key.startswith(start) and not key.startswith(longer)
    ]
    return [name for name in probes if not name[-1].isdigit() and name not in known]


def _percent(value: Any) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def _efficiency(figures: Figures, pool: str, budget: int) -> str:
    value = figures.get(f"label_efficiency_{pool}_{budget}")
    bound = figures.get(f"label_efficiency_{pool}_{budget}_is_a_bound", "")
    return "" if value is None else f"{bound}{value:.1f}"


def _area(figures: Figures, of: str) -> str:
    gain, low, high = (figures[f"aulc_minus_random_{of}{end}"] for end in ("", "_low", "_high"))
    return f"{gain:+.1f} [{low:.1f}, {high:.1f}]"


def save_plot(figures: Figures, path: Path) -> None:
    """Label efficiency by budget, a panel a pool; 1 is random."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    pools = measured(figures)
    columns = min(len(pools), 3)
    rows = -(-len(pools) // columns)
    figure, axes = pyplot.subplots(
        rows, columns, figsize=(4.4 * columns, 3.4 * rows), squeeze=False, layout="constrained"
    )
    for axis in axes.flat[len(pools) :]:
        axis.set_visible(False)
    for axis, pool in zip(axes.flat, pools, strict=False):
        for strategy in STRATEGIES[::-1]:
            of = pool if strategy == "shortlist" else f"{strategy}_{pool}"
            found = {b: figures[key] for b in BUDGETS if (key := f"label_efficiency_{of}_{b}") in figures}
            width = 2.4 if strategy == "shortlist" else 1.2
            axis.plot(
                list(found),
                list(found.values()),
                "o-",
                ms=3,
                color=_COLOURS[strategy],
                lw=width,
                label=strategy,
            )
        axis.axhline(1, color="#222222", linestyle="--", linewidth=0.8)
        axis.set(xscale="log", yscale="log", ylim=(0.2, 8), title=_POOLS[pool])
        axis.set_xticks(BUDGETS, [f"{b:,}" for b in BUDGETS], fontsize=8)
        axis.set_yticks((0.25, 0.5, 1, 2, 4, 8), ("¼", "½", "1", "2", "4", "8"))
        axis.minorticks_off()
        axis.grid(alpha=0.2)
        axis.spines[["top", "right"]].set_visible(False)
        axis.title.set_fontsize(10)
    figure.supxlabel("labels", fontsize=10)
    figure.supylabel("label efficiency against random", fontsize=10)
    handles, names = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles[::-1], names[::-1], loc="outside upper center", ncols=len(names), frameon=False)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


if __name__ == "__main__":
    write_page(json.loads((RESULTS / "modalities.json").read_text()))
