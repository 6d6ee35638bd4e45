"""Simulated annotators that know the truth. They see only what the API hands out."""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from service.demo.client import Client, DemoFailed
from service.demo.curves import Point

ANNOTATORS = ("ann", "bob")
_PATIENCE_S = 120.0


def label_rounds(
    client: Client,
    project: str,
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
            partial(ranking_is_current, client, project),
            f"a ranking for round {number} of project {project}",
        )
        shares = [round_size // len(ANNOTATORS)] * len(ANNOTATORS)
        shares[0] += round_size - sum(shares)
        with ThreadPoolExecutor(len(ANNOTATORS)) as pool:
            list(
                pool.map(
                    lambda who: _annotate(client, project, truth, *who), zip(ANNOTATORS, shares, strict=True)
                )
            )
        _wait_until(
            partial(_measured, client, project, number), f"the metrics of round {number} of {project}"
        )
        done()
    return learning_curve(client, project)


def learning_curve(client: Client, project: str) -> list[Point]:
    rounds = client.pages(f"/projects/{project}/rounds")
    return [
        Point(round_["labels_used"], metrics["accuracy"], metrics["accuracy_low"], metrics["accuracy_high"])
        for round_ in sorted(rounds, key=lambda round_: int(round_["number"]))
        if (metrics := round_["metrics"]) and metrics["accuracy"] is not None
    ]


def _annotate(client: Client, project: str, truth: Mapping[str, str], annotator: str, size: int) -> None:
    batch = client.post(f"/projects/{project}/next-batch", {"annotator": annotator, "size": size})
    if len(batch["items"]) != size:
        raise DemoFailed(
            f"{annotator} asked for {size} items and got {len(batch['items'])}: {batch['reason']}"
        )
    labels = [
        {"item": item["id"], "class": truth[item["key"]], "annotator": annotator, "batch": batch["batch"]}
        for item in batch["items"]
    ]
    client.post(f"/projects/{project}/labels", {"labels": labels})


def ranking_is_current(client: Client, project: str) -> bool:
    """True if it was made of the served score run and of all labels."""
    metrics = client.get(f"/projects/{project}/metrics")
    ranking = metrics["ranking"]
    if ranking is None or ranking["score_run"] != metrics["score_run"]["id"]:
        return False  # a provisional one is served until the first by the pretext model is there
    return bool(ranking["labels_used"] == metrics["labels_used"])


def _measured(client: Client, project: str, number: int) -> bool:
    metrics = client.get(f"/projects/{project}/rounds/{number}")["metrics"]
    return bool(metrics) and metrics["accuracy"] is not None


def _wait_until(ready: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not ready():
        if time.monotonic() > deadline:
            raise DemoFailed(f"waited {_PATIENCE_S:.0f} s in vain for {what}; see the worker's log")
        time.sleep(0.1)
