"""Simulated annotators that know the truth. They see only what the API hands out."""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from service.demo import DemoFailed
from service.demo.curves import Point
from shortlist_client import Label, Metrics, Project

ANNOTATORS = ("ann", "bob")
_PATIENCE_S = 120.0


def label_rounds(
    project: Project,
    truth: Mapping[str, str],
    *,
    round_size: int,
    rounds: int,
    done: Callable[[], object],
) -> list[Point]:
    """Label `rounds` rounds, all annotators in parallel, and return the learning curve.

    truth: item key -> class. done() is called after each measured round.
    """
    for number in range(1, rounds + 1):
        _wait_until(
            lambda: ranking_is_current(project.metrics()), f"a ranking for round {number} of {project.name}"
        )
        shares = [round_size // len(ANNOTATORS)] * len(ANNOTATORS)
        shares[0] += round_size - sum(shares)
        with ThreadPoolExecutor(len(ANNOTATORS)) as pool:
            list(pool.map(partial(_annotate, project, truth), ANNOTATORS, shares))
        _wait_until(partial(_measured, project, number), f"the metrics of round {number} of {project.name}")
        done()
    return [
        Point(point.labels_used, point.accuracy, point.accuracy_low or 0.0, point.accuracy_high or 1.0)
        for point in project.curve()
        if point.accuracy is not None
    ]


def _annotate(project: Project, truth: Mapping[str, str], annotator: str, size: int) -> None:
    batch = project.next_batch(annotator, size=size)
    if len(batch.items) != size:
        raise DemoFailed(f"{annotator} asked for {size} items and got {len(batch.items)}: {batch.reason}")
    project.label(
        Label(item=item.id, class_name=truth[item.key], annotator=annotator, batch=batch.batch)
        for item in batch.items
    )


def ranking_is_current(metrics: Metrics) -> bool:
    """True if it was made of the served score run and of all labels."""
    ranking, score_run = metrics.ranking, metrics.score_run
    if ranking is None or score_run is None or ranking["score_run"] != score_run["id"]:
        return False  # a provisional one is served until the first by the pretext model is there
    return bool(ranking["labels_used"] == metrics.labels_used)


def _measured(project: Project, number: int) -> bool:
    return number in {point.round for point in project.curve()}


def _wait_until(ready: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not ready():
        if time.monotonic() > deadline:
            raise DemoFailed(f"waited {_PATIENCE_S:.0f} s in vain for {what}; see the worker's log")
        time.sleep(0.1)
