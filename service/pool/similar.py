"""Items like others: found in the similarity index of the score run that is served, shown or queued."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.errors import GoneMeanwhile, Invalid, ItemNotScored, NoScoreRun, SimilarityIndexMissing
from service.pool import items, queues
from service.pool.items import ListedItem, Split, State
from service.pool.queues import Queued
from service.store import similarity_index
from service.store.artifacts import Artifacts
from service.store.ids import public_id
from service.store.similarity_index import Ints, SimilarityIndex
from service.store.tables import Item, Label, Project, QueuedItem, ScoreRun

# The nearest items that are looked at, at first and at most: filters may leave out any of them.
_LOOKED_AT, _LOOKED_AT_MOST = 1_000, 64_000
_ASKED_ABOUT = 1_000  # in one query


@dataclass(frozen=True)
class SimilarItem:
    """similarity: cosine with the nearest positive example in the project's whitened space, 1 at most."""

    listed: ListedItem
    similarity: float


def find(
    session: Session,
    project: Project,
    artifacts: Artifacts,
    positive: Sequence[Item],
    negative: Sequence[Item] = (),
    *,
    state: State | None,
    split: Split,
    limit: int,
) -> list[SimilarItem]:
    """The items most like the positive examples and not nearer to a negative one, most similar first.

    They are sought among the 64,000 nearest. Raises `NoScoreRun`, `SimilarityIndexMissing`, `ItemNotScored`, and
    `Invalid` for an example of both kinds.
    """
    wanted = sa.select(Item.id).where(Item.project_id == project.id, Item.split == split)
    if state is not None:
        wanted = wanted.where(Item.state == state)
    similarities = _nearest(session, project, artifacts, positive, negative, wanted, limit)
    found = items.listed_each(session, project, list(similarities))
    return [SimilarItem(listed, similarities[listed.item.id]) for listed in found]


def queue(
    session: Session,
    project: Project,
    artifacts: Artifacts,
    positive: Sequence[Item],
    negative: Sequence[Item],
    *,
    count: int,
    annotator: str | None,
) -> Queued:
    """Queue the items that `find` gives first, of those that nobody labeled and that stand in no queue."""
    wanted = sa.select(Item.id).where(
        Item.project_id == project.id,
        Item.split == "pool",
        Item.state == "available",
        ~Item.gold,
        ~sa.exists().where(QueuedItem.item_id == Item.id),
        ~sa.exists().where(Label.item_id == Item.id, sa.text("labels.current")),
    )
    found = _nearest(session, project, artifacts, positive, negative, wanted, count)
    return queues.add(session, project, [public_id("i", number) for number in found], annotator)


def _nearest(
    session: Session,
    project: Project,
    artifacts: Artifacts,
    positive: Sequence[Item],
    negative: Sequence[Item],
    wanted: sa.Select[int],
    limit: int,
) -> dict[int, float]:
    """Similarities by item number, highest first: of `limit` items that the query `wanted` lets pass."""
    both = {item.id for item in positive} & {item.id for item in negative}
    if both:
        message = (
            f"item {public_id('i', min(both))!r} is among the positive examples, too. Leave it out of one."
        )
        raise Invalid(field="negative", message=message)
    artifact = _served(session, project)
    if not similarity_index.is_there(artifacts, artifact):
        raise SimilarityIndexMissing
    try:
        index = SimilarityIndex.open(artifacts, artifact)
    except FileNotFoundError:  # another score run is served by now, and this one was removed
        raise GoneMeanwhile from None
    seen, passed = set[int](), dict[int, float]()
    for similar in index.search(_rows(index, positive), _rows(index, negative), n=max(_LOOKED_AT, limit)):
        found = dict(zip(similar.items.tolist(), similar.similarities.tolist(), strict=True))
        new = [number for number in found if number not in seen]
        passed |= {number: found[number] for number in _passed(session, wanted, new)}
        seen.update(new)
        if len(passed) >= limit or len(seen) >= _LOOKED_AT_MOST:
            break
    best = sorted(passed, key=lambda number: (-passed[number], number))
    return {number: passed[number] for number in best[:limit]}


def _served(session: Session, project: Project) -> str:
    """The name of the served score run's arrays."""
    if project.score_run_id is None:
        raise NoScoreRun(project=public_id("p", project.id))
    return str(session.get_one(ScoreRun, project.score_run_id).artifact)


def _rows(index: SimilarityIndex, examples: Sequence[Item]) -> Ints:
    rows = index.rows_of(np.array([item.id for item in examples], np.int64))
    for item, row in zip(examples, rows.tolist(), strict=True):
        if row < 0:
            raise ItemNotScored(id=public_id("i", item.id))
    return rows


def _passed(session: Session, wanted: sa.Select[int], numbers: Sequence[int]) -> Iterator[int]:
    for start in range(0, len(numbers), _ASKED_ABOUT):
        yield from session.scalars(wanted.where(Item.id.in_(numbers[start : start + _ASKED_ABOUT])))
