"""Job index_items: the similarity index of the served score run, by which the service finds items like others.

Items lie in the whitened space that strategies look in (`worker.selection.spaces`), which holds 256 directions at
most. Large pools are grouped in cells by k-means. The arrays are described in `service.store.similarity_index`. A
score run has one index; a ranking of a score run without one queues this job.

Where the project's head learns from the whole pool, the pool's graph is made too, so that no training waits for it.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from service.store import pipeline
from service.store.project_settings import ProjectSettings
from service.store.similarity_index import EXACT, folder_of, is_there
from service.store.tables import Project, ScoreRun
from worker.arrays import Bytes, Floats, Halves, Ints
from worker.device import use_threads
from worker.heads import heads
from worker.jobs.context import JobContext
from worker.jobs.kept_graph import pool_graph
from worker.jobs.specs import modality_of
from worker.scoring.scored_items import ScoredItems, open_sketches
from worker.selection.index import k_means_centers, nearest
from worker.selection.spaces import WhitenedSpace, of_length_one

_SAMPLE = 20_000  # items that tell the space
_DIRECTIONS = 256
_ITEMS_A_CELL = 40  # that k-means is trained on
_ROWS = 16_384  # at a time
_GROUPED = 0.5  # share of the progress


def run(context: JobContext) -> dict[str, Any]:
    use_threads(context.settings.threads)
    with context.read() as session:
        project = session.get_one(Project, context.job.project_id)
        score_run = session.get(ScoreRun, project.score_run_id) if project.score_run_id is not None else None
    artifact = str(score_run.artifact) if score_run is not None else ""
    if score_run is None or is_there(context.artifacts, artifact):
        nothing = {"items": 0, "note": "There is nothing to index."}
        _finish(context, nothing)
        return nothing
    scored = ScoredItems.open(context.artifacts, artifact)
    sketcher, appearance = modality_of(project).sketcher, None
    if sketcher is not None:
        appearance = sketcher.appearance(open_sketches(context.artifacts, artifact))
    rng = np.random.default_rng(0)
    space = _Space(scored.embeddings, appearance, rng)
    centers = _centers(space, rng)
    cells = _cells(context, space, centers)
    order = np.argsort(cells, kind="stable")
    rows = np.empty(len(order), np.int64)
    rows[order] = np.arange(len(order))
    folder = folder_of(artifact)
    with context.artifacts.writing(f"{folder}/places.npy") as file:
        header = {"descr": "<f2", "fortran_order": False, "shape": (len(order), centers.shape[1])}
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, len(order), _ROWS):
            file.write(space.of(order[start : start + _ROWS]).astype(np.float16).tobytes())
            context.report(_GROUPED + (1 - _GROUPED) * start / len(order), "writing the similarity index")
    starts = np.concatenate([[0], np.cumsum(np.bincount(cells, minlength=len(centers)))])
    arrays: dict[str, npt.NDArray[Any]] = {
        "items": scored.ids[order],
        "rows": rows,
        "centers": centers,
        "starts": starts.astype(np.int64),
    }
    for name, array in arrays.items():  # the starts last: they tell that it is complete
        with context.artifacts.writing(f"{folder}/{name}.npy") as file:
            np.save(file, array, allow_pickle=False)
    head = heads().get(ProjectSettings.model_validate(project.settings).head.name)
    if head is not None and head.asks_pool:
        pool_graph(context, project, score_run, scored)
    result = {"items": len(order), "dimensions": centers.shape[1], "cells": len(centers)}
    _finish(context, result)
    return result


def _finish(context: JobContext, result: dict[str, Any]) -> None:
    with context.finish(result) as session:
        if context.job.payload.get("then_map"):
            pipeline.queue_map_items(session, session.get_one(Project, context.job.project_id))


class _Space:
    """The whitened space of embeddings (n, d) and their appearance (n, f), in no more than 256 directions."""

    def __init__(self, embeddings: Halves, appearance: Bytes | None, rng: np.random.Generator) -> None:
        self._embeddings, self._appearance = embeddings, appearance
        sample = np.sort(rng.choice(len(embeddings), min(len(embeddings), _SAMPLE), replace=False))
        self._space = WhitenedSpace(*self._read(sample))
        self._directions: Floats | None = None
        self.sample = self.of(sample)
        if self.sample.shape[1] > _DIRECTIONS:
            _, directions = np.linalg.eigh(self.sample.T @ self.sample)
            self._directions = np.ascontiguousarray(directions[:, -_DIRECTIONS:])
            self.sample = of_length_one(self.sample @ self._directions)

    def __len__(self) -> int:
        return len(self._embeddings)

    def of(self, rows: Ints) -> Floats:
        """(m,) -> (m, k) float32 of length 1"""
        places = self._space.of(*self._read(rows))
        return places if self._directions is None else of_length_one(places @ self._directions)

    def _read(self, rows: Ints) -> tuple[Halves, Bytes | None]:
        return self._embeddings[rows], None if self._appearance is None else self._appearance[rows]


def _centers(space: _Space, rng: np.random.Generator) -> Floats:
    """(c, k), one for as many items as an exact search takes, else about the square root of their number."""
    cells = round(len(space) ** 0.5)
    if len(space) <= EXACT:
        return np.zeros((1, space.sample.shape[1]), np.float32)
    sample = rng.choice(len(space), min(_ITEMS_A_CELL * cells, len(space)), replace=False)
    return k_means_centers(space.of(np.sort(sample)), cells, rng)


def _cells(context: JobContext, space: _Space, centers: Floats) -> Ints:
    """(n,) the cell of each item"""
    cells = np.zeros(len(space), np.int64)
    if len(centers) == 1:
        return cells
    for start in range(0, len(space), _ROWS):
        rows = np.arange(start, min(start + _ROWS, len(space)))
        cells[rows] = nearest(space.of(rows), centers, 1)[1][:, 0]
        context.report(_GROUPED * start / len(space), "grouping items")
    return cells
