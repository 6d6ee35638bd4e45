"""The time from the last label of a burst until a ranking that knows it is served.

A service and a worker run as processes, as `shortlist up` starts them; the pool is random clusters, written as a
finished score run. An oracle takes a batch of a round's size through HTTP, posts its labels in a burst of ten
requests, and takes its next batch once the served ranking was made with all of them: the time from the last
answer to that batch counts. In between the worker trains the head (and, as there is no test split, measures it by
cross-fitting on the control items) and ranks the pool. The least time between two trainings, which would only add
waiting, is set to 0.

Beside it: the first ranking after an import, and rankings during a pretraining (`benchmarks.first_ranking`).

`make bench-loop`, or `python -m benchmarks.loop --items 8000 100000 --bursts 8`.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa
from rich.console import Console

from benchmarks import first_ranking
from benchmarks.report import Figure, write_report
from benchmarks.running import running, wait
from service.settings import Settings
from service.store import pipeline
from service.store.artifacts import Artifacts
from service.store.ids import public_id, row_number
from service.store.project_settings import ProjectSettings
from service.store.scores import load_scores
from service.store.session import make_engine, read_session, write_session
from service.store.tables import Head, Item, PretextModel, Project, Ranking, ScoreRun
from shortlist_client import Shortlist

CLASSES = [f"class {number}" for number in range(10)]
DIMENSIONS = 192
SKETCH = 28 * 28 + 2
ROUND_SIZE = 50
HEAD = ProjectSettings().head.name
REQUESTS = 10  # that the labels of a burst come in


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--items", type=int, nargs="+", default=[8_000, 100_000], help="sizes of the pool")
    parser.add_argument("--bursts", type=int, default=8, help="bursts of 50 labels, a size")
    parser.add_argument("--head", default=HEAD, help="of the projects; default: %(default)s")
    parser.add_argument("--no-write", action="store_true", help="leave benchmarks/results as it is")
    options = parser.parse_args()
    figures: dict[str, Figure] = first_ranking.measure(options.bursts, options.head)
    for items in options.items:
        figures |= measure(items, options.bursts, f"{items // 1000}k", options.head)
    figures["label_to_ranking_s"] = figures[f"label_to_ranking_s_{max(options.items) // 1000}k"]
    figures |= {"labels_a_burst": ROUND_SIZE, "bursts": options.bursts, "dimensions": DIMENSIONS}
    command = (
        f"python -m benchmarks.loop --items {' '.join(map(str, options.items))} --bursts {options.bursts}"
        f"{'' if options.head == HEAD else f' --head {options.head}'}"
    )
    with tempfile.TemporaryDirectory() as folder:
        write_report("loop", figures, command, *([Path(folder)] if options.no_write else []))


def measure(items: int, bursts: int, name: str, head: str) -> dict[str, Figure]:
    """Median, least and most over the bursts, and the worker's median part in it."""
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory(prefix="shortlist-bench-") as folder:
        settings = Settings(data_dir=Path(folder))
        with running(settings) as client:
            engine = make_engine(settings.database)
            oracle = _Oracle(engine, client, _make_project(client, head))
            oracle.make_pool(settings, items)
            oracle.wait_for_ranking(0)
            oracle.take_batch()
            waits = []
            for burst in range(bursts):
                waits.append(oracle.burst())
                console.print(f"pool of {items}, burst {burst + 1}: {waits[-1]:.2f} s")
            with read_session(engine) as session:
                training = list(session.scalars(sa.select(Head.seconds)))
                ranking = list(session.scalars(sa.select(Ranking.seconds).where(Ranking.labels_used > 0)))
            engine.dispose()
    return {
        f"label_to_ranking_s_{name}": statistics.median(waits),
        f"label_to_ranking_s_{name}_min": min(waits),
        f"label_to_ranking_s_{name}_max": max(waits),
        f"train_head_s_{name}": statistics.median(training),
        f"rank_s_{name}": statistics.median(ranking),
    }


def _make_project(client: Shortlist, head: str) -> str:
    body = {"name": "bench", "classes": CLASSES, "round_size": ROUND_SIZE, "retrain_min_interval_s": 0}
    body |= {"head": head}
    return str(client.post("/projects", body)["id"])


class _Oracle:
    """An annotator that knows the truth, on a pool of random clusters."""

    def __init__(self, engine: sa.Engine, client: Shortlist, project: str) -> None:
        self._engine, self._client, self._project = engine, client, project
        self._project_id = row_number("p", project)
        self._truth: dict[str, str] = {}
        self._items: list[Any] = []
        self._labels = 0

    def make_pool(self, settings: Settings, items: int) -> None:
        """Items, and a finished score run with their embeddings; asks for the first ranking."""
        rng = np.random.default_rng(0)
        truth = rng.integers(len(CLASSES), size=items)
        centers = rng.normal(size=(len(CLASSES), DIMENSIONS)) * 0.35
        embeddings = centers[truth] + rng.normal(size=(items, DIMENSIONS))
        losses = rng.gamma(2, 0.5, items).astype(np.float32)
        artifacts = Artifacts(settings.artifacts, settings.data_dir / "cache")
        with write_session(self._engine) as session:
            rows = [
                {
                    "project_id": self._project_id,
                    "key": f"{number:08}.png",
                    "uri": f"/bench/{number:08}.png",
                    "shuffle": int(place),
                }
                for number, place in enumerate(rng.integers(2**31, size=items))
            ]
            session.execute(sa.insert(Item), rows)
            found = sa.select(Item.id).where(Item.project_id == self._project_id).order_by(Item.id)
            ids = np.fromiter(session.scalars(found), np.int64)
            model = PretextModel(
                project_id=self._project_id,
                version=1,
                state="ready",
                task={"name": "none", "params": {}},
                backbone="none",
                config={},
                history=[],
                diagnostics={},
            )
            session.add(model)
            session.flush()
            run = ScoreRun(
                project_id=self._project_id,
                pretext_model_id=model.id,
                state="complete",
                items=items,
                artifact="scores/bench",
                dimensions=DIMENSIONS,
                last_item_id=int(ids[-1]),
            )
            session.add(run)
            session.flush()
            percentiles = losses.argsort().argsort() / items * 100
            load_scores(session, run.id, ids, losses, percentiles)
            arrays: dict[str, npt.NDArray[Any]] = {
                "ids": ids,
                "losses": losses,
                "embeddings": embeddings.astype(np.float16),
                "sketches": rng.integers(0, 256, (items, SKETCH), np.uint8),
            }
            for name, array in arrays.items():
                with artifacts.writing(f"scores/bench/{name}.npy") as file:
                    np.save(file, array)
            project = session.get_one(Project, self._project_id)
            project.score_run_id = run.id
            pipeline.queue_rank(session, project)
        names = (CLASSES[index] for index in truth)
        self._truth = {public_id("i", int(number)): name for number, name in zip(ids, names, strict=True)}

    def burst(self) -> float:
        """Seconds from the answer to the last label until the next batch is there, ranked with all labels."""
        part = len(self._items) // REQUESTS
        for start in range(0, len(self._items), part):
            labels = [
                {"item": item["id"], "class": self._truth[item["id"]], "annotator": "oracle"}
                for item in self._items[start : start + part]
            ]
            self._client.post(f"/projects/{self._project}/labels", {"labels": labels})
        answered = time.perf_counter()
        self._labels += len(self._items)
        self.wait_for_ranking(self._labels)
        self.take_batch()
        return time.perf_counter() - answered

    def wait_for_ranking(self, labels: int) -> None:
        """Until a ranking that knows so many labels is served."""

        def served() -> bool:
            with read_session(self._engine) as session:
                query = sa.select(Ranking.labels_used).join(Project, Project.ranking_id == Ranking.id)
                return session.scalar(query) == labels

        wait(served)

    def take_batch(self) -> None:
        body = {"annotator": "oracle", "size": ROUND_SIZE}
        self._items = self._client.post(f"/projects/{self._project}/next-batch", body)["items"]
        with read_session(self._engine) as session:
            version = session.scalar(
                sa.select(Ranking.version).join(Project, Project.ranking_id == Ranking.id)
            )
        if {item["why"]["ranking"] for item in self._items if item["arm"] == "selected"} != {version}:
            sys.exit("The batch does not come from the newest ranking.")


if __name__ == "__main__":
    main()
