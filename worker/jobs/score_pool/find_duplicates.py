"""A step of job score_pool: which items of the pool are duplicates or near-duplicates of another."""

import numpy as np
import sqlalchemy as sa
import torch

from service.store.tables import Item, PretextModel
from worker.arrays import Bools, Ints
from worker.jobs.context import JobContext
from worker.jobs.specs import item_ids, open_thumbnails
from worker.modalities.image.sketches import changed_slightly, differences, thumbnails
from worker.pool.reader import ItemPixels
from worker.scoring.duplicates import representatives, threshold

_SAMPLE = 256  # items whose slightly changed views set the threshold


def find_duplicates(
    context: JobContext, model: PretextModel, ids: Ints, pool: Bools, artifact: str
) -> tuple[Ints, float]:
    """Pairs (m, 2) of item ids, a duplicate and the representative of its group (a labeled item, where there is
    one; else the lowest id), by rising id of the duplicates; and the largest difference of thumbnails in a group.

    ids       (n,) all items of the run
    pool      (n,) those of the pool; the test split is never grouped
    artifact  of the run, with the thumbnails
    """
    with context.read() as session:
        labeled = np.isin(ids, item_ids(session, context.job.project_id, "done"))
    rows = np.flatnonzero(pool)
    rows = rows[np.argsort(~labeled[rows], kind="stable")]  # the first of a group represents it
    largest = _largest_difference(context, model, ids[rows])
    small = open_thumbnails(context.artifacts, artifact)[rows]
    represented = representatives(small, _contents(context, ids[rows]), largest)
    copies = np.flatnonzero(represented != np.arange(len(rows)))
    pairs = np.column_stack([ids[rows[copies]], ids[rows[represented[copies]]]])
    return pairs[np.argsort(pairs[:, 0])], largest


def _largest_difference(context: JobContext, model: PretextModel, ids: Ints) -> float:
    """The threshold, from two slightly changed views of each of a few items."""
    rng, generator = np.random.default_rng(model.config["seed"]), torch.Generator()
    generator.manual_seed(model.config["seed"])
    sample = rng.choice(ids, min(_SAMPLE, len(ids)), replace=False).tolist()
    with context.read() as session:
        uris = session.scalars(sa.select(Item.uri).where(Item.id.in_(sample)).order_by(Item.id)).all()
    with ItemPixels(context.settings) as item_pixels:
        pixels = item_pixels.stack(uris, model.config["image_size"])
    if not len(pixels):
        return 0.0
    views = [thumbnails(changed_slightly(pixels, generator)) for _ in range(2)]
    own = np.arange(len(pixels))
    return threshold(
        differences(np.concatenate(views), own, own[:, None] + len(own))[:, 0],
        differences(views[0], own, np.roll(own, 1)[:, None])[:, 0],
    )


def _contents(context: JobContext, ids: Ints) -> list[str | None]:
    """Content hashes, aligned with ids (n,)."""
    with context.read() as session:
        of_project = sa.select(Item.id, Item.content_hash).where(Item.project_id == context.job.project_id)
        hashes: dict[int, str | None] = dict(session.execute(of_project).all())
    return [hashes[item_id] for item_id in ids.tolist()]
