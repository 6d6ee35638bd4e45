"""The demo's report: `report.html`, one self-contained file, and `learning_curve.png`."""

import base64
import io
import itertools
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import jinja2
import matplotlib as mpl
from matplotlib.figure import Figure

from service.demo.curves import MeanPoint, Point, label_efficiency
from shortlist_client import Project

COLOURS = {"shortlist": "#1f5fbf", "random": "#8a8f98"}
_STYLE: Any = {
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#b8bcc4",
    "axes.grid": True,
    "grid.color": "#eceef1",
    "axes.axisbelow": True,
    "xtick.color": "#555",
    "ytick.color": "#555",
}
_EXTREMES = 12


@dataclass(frozen=True)
class Picture:
    key: str
    pretext_loss: float
    data_uri: str


@dataclass(frozen=True)
class Report:
    """curves: strategy -> one learning curve a seed; means: strategy -> their average."""

    curves: dict[str, list[list[Point]]]
    means: dict[str, list[MeanPoint]]
    histogram: dict[str, list[float]]  # edges (bins + 1), counts (bins)
    highest: list[Picture]
    lowest: list[Picture]
    pool_items: int
    test_items: int
    seconds: float

    @classmethod
    def of(
        cls,
        project: Project,
        curves: dict[str, list[list[Point]]],
        means: dict[str, list[MeanPoint]],
        *,
        seconds: float,
    ) -> "Report":
        histogram = project.client.get(f"/projects/{project.id}/scores")["histogram"]
        return cls(
            curves,
            means,
            histogram,
            _pictures(project, "-pretext_loss"),
            _pictures(project, "pretext_loss"),
            int(sum(histogram["counts"])),
            project.curve()[0].items or 0,
            seconds,
        )

    @property
    def verdict(self) -> str:
        """One sentence from the figures, also where they say that the strategy lost."""
        ours, theirs = self.means["shortlist"], self.means["random"]
        ahead = sum(a.accuracy > b.accuracy for a, b in zip(ours, theirs, strict=True))
        gaps = [100 * (a.accuracy - b.accuracy) for a, b in zip(ours, theirs, strict=True)]
        last = theirs[-1]
        share = label_efficiency(last, ours)  # labels shortlist needs ÷ labels random used
        needed = f"{share.bound.replace('<', 'less than ').replace('>', 'more than ')}{share.value * last.labels:.0f}"
        return (
            f"Against random, shortlist was ahead at {ahead} of {len(ours)} budgets, by {min(gaps):+.1f} to "
            f"{max(gaps):+.1f} points. What random reached with {last.labels} labels "
            f"({100 * last.accuracy:.1f} %), shortlist reached with {needed}."
        )


def _pictures(project: Project, sort: str) -> list[Picture]:
    extremes = islice(project.items(sort=sort, limit=_EXTREMES, split="pool"), _EXTREMES)
    return [
        Picture(item.key, item.pretext_loss or 0.0, _data_uri(project.read(item.id))) for item in extremes
    ]


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


def write_report(report: Report, output: Path) -> None:
    curve = learning_curve_png(report.means)
    (output / "learning_curve.png").write_bytes(curve)
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True)
    html = environment.get_template("report.html.j2").render(
        report=report,
        curve=_data_uri(curve),
        histogram=_data_uri(_histogram_png(report.histogram)),
        rows=[
            (ours, theirs, label_efficiency(ours, report.means["random"]))
            for ours, theirs in zip(report.means["shortlist"], report.means["random"], strict=True)
        ],
        seeds=len(report.curves["shortlist"]),
    )
    (output / "report.html").write_text(html, encoding="utf-8")


def learning_curve_png(means: dict[str, list[MeanPoint]]) -> bytes:
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(7.2, 4.2), layout="constrained")
        axes = figure.subplots()
        for strategy, points in means.items():
            labels = [point.labels for point in points]
            axes.plot(
                labels,
                [100 * point.accuracy for point in points],
                "o-",
                ms=4,
                color=COLOURS[strategy],
                label=strategy,
            )
            axes.fill_between(
                labels,
                [100 * (point.accuracy - point.deviation) for point in points],
                [100 * (point.accuracy + point.deviation) for point in points],
                color=COLOURS[strategy],
                alpha=0.15,
                lw=0,
            )
        axes.set_xlabel("labels used")
        axes.set_ylabel("accuracy on the test split, %")
        axes.legend(frameon=False, loc="lower right")
        return _png(figure)


def _histogram_png(histogram: dict[str, list[float]]) -> bytes:
    edges, counts = histogram["edges"], histogram["counts"]
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(7.2, 2.8), layout="constrained")
        axes = figure.subplots()
        widths = [right - left for left, right in itertools.pairwise(edges)]
        axes.bar(edges[:-1], counts, widths, align="edge", color=COLOURS["shortlist"], alpha=0.75)
        axes.set_yscale("log")  # most losses are tiny, and the tail is what people look for
        axes.set_xlabel("pretext loss")
        axes.set_ylabel("items")
        return _png(figure)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=160)
    return buffer.getvalue()
