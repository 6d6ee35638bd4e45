"""Job score_own: a score run of embeddings that were uploaded (`service/models/own_embeddings.py`).

Nothing is computed but sketches, for near-duplicates and appearance. Items without an embedding, and those that cannot
be read, are not of the run: they are served at random. In a project that took the embeddings over from another an item
gets those of the item with the same content there.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa
from sqlalchemy.orm import Session
from torch import Tensor

from service.store.project_settings import ProjectSettings
from service.store.tables import Item, PretextModel, Project, ScoreRun
from worker.arrays import Bools, Floats, Ints
from worker.device import use_threads
from worker.errors import JobFailed
from worker.jobs.context import JobContext
from worker.jobs.score_pool import SCORED_STATES, begin, equal_items, serve
from worker.jobs.score_raw import known_facts, read_items
from worker.jobs.specs import modality_of

_ROWS = 4_096  # in memory at a time


def run(context: JobContext) -> dict[str, Any]:
    use_threads(context.settings.threads)
    score_run, model = begin(context)
    source = str(model.artifact)
    uploaded = np.load(context.artifacts.local_path(f"{source}/ids.npy"))
    with context.read() as session:
        project = session.get_one(Project, score_run.project_id)
        ids, pool, rows = _items(session, score_run, model, uploaded)
        modality = modality_of(project).for_raw_features(known_facts(session, ids))
    seed = ProjectSettings.model_validate(project.settings).seed
    read, _, sketches = read_items(context, modality, ids, seed, _no_features)
    ids, pool, rows = ids[read], pool[read], rows[read]
    if not pool.any():
        raise JobFailed("No item of the pool that has an embedding can be read.")
    artifact = f"scores/{score_run.id}/arrays-{context.job.token}"
    losses = None
    if model.config["has_losses"]:
        losses = np.load(context.artifacts.local_path(f"{source}/losses.npy"))[rows]
    nothing = np.zeros(len(ids), np.float32)
    arrays: dict[str, npt.NDArray[Any]] = {
        "ids": ids,
        "losses": nothing if losses is None else losses,
        "spreads": nothing,
        "sketches": sketches,
    }
    for name, array in arrays.items():
        with context.artifacts.writing(f"{artifact}/{name}.npy") as file:
            np.save(file, array, allow_pickle=False)
    embeddings = np.load(context.artifacts.local_path(f"{source}/embeddings.npy"), mmap_mode="r")
    with context.artifacts.writing(f"{artifact}/embeddings.npy") as file:
        header = {"descr": "<f2", "fortran_order": False, "shape": (len(rows), embeddings.shape[1])}
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, len(rows), _ROWS):
            file.write(embeddings[rows[start : start + _ROWS]].tobytes())
    return serve(
        context,
        score_run,
        artifact,
        modality,
        seed,
        ids=ids,
        pool=pool,
        losses=losses,
        spreads=None,
        dimensions=int(embeddings.shape[1]),
    )


def _items(
    session: Session, score_run: ScoreRun, model: PretextModel, uploaded: Ints
) -> tuple[Ints, Bools, Ints]:
    """Ids (n,), ascending, of the items that have an embedding; which of them are of the pool (n,); and their rows (n,)
    in the upload.
    """
    mine = (
        Item.project_id == score_run.project_id,
        Item.state.in_(SCORED_STATES),
        Item.id <= score_run.last_item_id,
    )
    found = np.array(
        [
            (row.id, row.split == "pool")
            for row in session.execute(sa.select(Item.id, Item.split).where(*mine))
        ],
        np.int64,
    ).reshape(-1, 2)
    found = found[np.argsort(found[:, 0])]
    wanted = found[:, 0]
    if model.project_id != score_run.project_id:
        wanted = equal_items(session, wanted, model.project_id)
    order = np.argsort(uploaded)
    places = np.minimum(np.searchsorted(uploaded, wanted, sorter=order), len(uploaded) - 1)
    rows = order[places]
    there = uploaded[rows] == wanted
    return found[there, 0], found[there, 1].astype(np.bool_), rows[there]


def _no_features(parts: Iterator[Tensor], rng: np.random.Generator) -> Floats:
    return np.zeros((sum(map(len, parts)), 0), np.float32)
