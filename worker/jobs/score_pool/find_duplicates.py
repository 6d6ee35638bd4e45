"""A step of job score_pool: which items of the pool are duplicates or near-duplicates of another."""

import numpy as np
import sqlalchemy as sa
import torch

from service.store.tables import Item
from worker.arrays import Bools, Ints
from worker.jobs.context import JobContext
from worker.jobs.specs import item_ids, item_refs
from worker.modalities import Modality, Sketcher
from worker.pool.reader import ItemReader
from worker.scoring.duplicates import representatives, threshold
from worker.scoring.scored_items import open_sketches

_SAMPLE = 256  # items whose slightly changed views set the threshold


def find_duplicates(
    context: JobContext, modality: Modality, seed: int, ids: Ints, pool: Bools, artifact: str
) -> tuple[Ints, float]:
    """Pairs (m, 2) of item ids, a duplicate and the representative of its group (a labeled item, where there is
    one; else the lowest id), by rising id of the duplicates; and the largest difference of sketches in a group.

    ids       (n,) all items of the run
    pool      (n,) those of the pool; the test split is never grouped
    artifact  of the run, with the sketches
    """
    with context.read() as session:
        labeled = np.isin(ids, item_ids(session, context.job.project_id, "done"))
    rows = np.flatnonzero(pool)
    rows = rows[np.argsort(~labeled[rows], kind="stable")]  # the first of a group represents it
    sketcher = modality.sketcher
    largest = (
        _largest_difference(context, modality, sketcher, seed, ids[rows]) if sketcher is not None else 0.0
    )
    sketches = open_sketches(context.artifacts, artifact)[rows]
    represented = representatives(sketcher, sketches, _contents(context, ids[rows]), largest)
    copies = np.flatnonzero(represented != np.arange(len(rows)))
    pairs = np.column_stack([ids[rows[copies]], ids[rows[represented[copies]]]])
    return pairs[np.argsort(pairs[:, 0])], largest


def _largest_difference(
    context: JobContext, modality: Modality, sketcher: Sketcher, seed: int, ids: Ints
) -> float:
    """The threshold, from two slightly changed versions of each of a few items."""
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    sample = np.sort(rng.choice(ids, min(_SAMPLE, len(ids)), replace=False))
    with context.read() as session:
        uris = [item.uri for item in item_refs(session, sample)]
    with ItemReader(context.settings) as reader:
        items = reader.stack(uris, modality)
    if not len(items):
        return 0.0
    versions = [sketcher.sketch(sketcher.changed_slightly(items, generator)) for _ in range(2)]
    own = np.arange(len(items))
    return threshold(
        sketcher,
        sketcher.differences(np.concatenate(versions), own, own[:, None] + len(own))[:, 0],
        sketcher.differences(versions[0], own, np.roll(own, 1)[:, None])[:, 0],
    )


def _contents(context: JobContext, ids: Ints) -> list[str | None]:
    """Content hashes, aligned with ids (n,)."""
    with context.read() as session:
        of_project = sa.select(Item.id, Item.content_hash).where(Item.project_id == context.job.project_id)
        hashes: dict[int, str | None] = dict(session.execute(of_project).all())
    return [hashes[item_id] for item_id in ids.tolist()]
