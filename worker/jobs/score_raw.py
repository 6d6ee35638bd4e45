"""Job score_raw: a first, provisional score run, in seconds after an import and long before a pretext model is there.

Its embeddings are the raw features of the items (`Modality.raw_features`), which cost no training; it has no losses.
A random part of a large pool is scored, with all that is labeled: what is not is served at random until the score run
of the first pretext model takes its place.

Where the modality has a foundation, job score_foundation comes after it, whose score run is provisional, too.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa
import torch
from sqlalchemy.orm import Session
from torch import Tensor

from service.content.contract import Facts
from service.store.pipeline import (
    SCORING,
    queue_delete_artifacts,
    queue_rank,
    queue_remove_score_runs,
    queue_score_foundation,
    queue_score_raw,
    queue_train_head,
)
from service.store.project_settings import ProjectSettings
from service.store.scores import load_duplicates
from service.store.tables import Item, Job, PretextModel, Project, ScoreRun, utc_now
from worker.arrays import Bools, Bytes, Floats, Halves, Ints
from worker.device import use_threads
from worker.jobs.context import JobContext
from worker.jobs.score_pool import SCORED_STATES, earlier_runs, equal_items, store_learned
from worker.jobs.score_pool.find_duplicates import find_duplicates
from worker.jobs.score_pool.foundation import AUTO
from worker.jobs.specs import item_refs, modality_of
from worker.modalities import Modality
from worker.pool.reader import ItemReader, stacked
from worker.scoring.principal_components import principal_components
from worker.scoring.scored_items import open_parts

POOL, TEST = 20_000, 5_000  # items at most
DIMENSIONS = 128
_READ_AT_A_TIME = 512
_FACTS = 512  # items of the sample whose facts decide open settings of the modality
_READING = 0.8  # share of the progress
_COMPARED = 100  # items of the pool that are looked for in the project of a lent pretext model
Values = TypeVar("Values", Floats, Halves)
NOT_NEEDED = "The pool is scored by a pretext model already, or is about to be."


class Overtaken(Exception):
    """A pretext model's score run came while this job read items, or is being copied."""


def run(context: JobContext) -> dict[str, Any]:
    use_threads(context.settings.threads)
    with context.read() as session:
        project = session.get_one(Project, context.job.project_id)
        if is_overtaken(session, project):
            return {"items": 0, "note": NOT_NEEDED}
        served = served_artifact(session, project)
        ids, pool = sample(session, project, POOL, TEST)
        newest = newest_item(session, project)
        known = known_facts(session, ids)
    if not pool.any():
        return {"items": 0, "note": "The pool is empty."}
    wants_foundation = _wants_foundation(context, project)
    if wants_foundation and served is not None and open_parts(context.artifacts, served) is not None:
        passed_on = {
            "items": 0,
            "note": "The pool is scored by pretrained weights, and so will be what is new.",
        }
        with context.finish(passed_on) as session:
            queue_score_foundation(session, session.get_one(Project, project.id))
        return passed_on
    seed = ProjectSettings.model_validate(project.settings).seed
    modality = modality_of(project).for_raw_features(known)

    def features_of(parts: Iterator[Tensor], rng: np.random.Generator) -> Floats:
        features = modality.raw_features(unless_overtaken(context, parts), rng)
        wide = len(features) and features.shape[1] > DIMENSIONS  # none where no item can be read
        return principal_components(features, DIMENSIONS, rng) if wide else features

    try:
        read, features, sketches = read_items(context, modality, ids, seed, features_of)
    except Overtaken:
        return {"items": 0, "note": NOT_NEEDED}
    ids, pool = ids[read], pool[read]
    if not pool.any():
        return {"items": 0, "note": "No item of the pool can be read."}
    score_run = begin(context, project, newest)
    artifact = f"scores/{score_run.id}/arrays-{context.job.token}"
    store(context, artifact, ids, features, sketches)
    return serve(context, score_run, modality, ids, pool, artifact, features.shape[1], wants_foundation)


def known_facts(session: Session, ids: Ints) -> list[Facts]:
    """The facts of the first of these items, by which open settings of a modality are decided."""
    facts = session.scalars(sa.select(Item.facts).where(Item.id.in_(ids[:_FACTS].tolist())))
    return [one for one in facts if one]


def served_artifact(session: Session, project: Project) -> str | None:
    return session.scalar(sa.select(ScoreRun.artifact).where(ScoreRun.id == project.score_run_id))


def _wants_foundation(context: JobContext, project: Project) -> bool:
    """True if a provisional score run by pretrained weights may follow."""
    settings = ProjectSettings.model_validate(project.settings)
    has_one = modality_of(project).foundation is not None
    return has_one and settings.backbone == AUTO and context.settings.pretrained != "off"


def newest_item(session: Session, project: Project) -> int:
    """The highest id; what comes later belongs to the next run."""
    return session.scalar(sa.select(sa.func.max(Item.id)).where(Item.project_id == project.id)) or 0


def serve(
    context: JobContext,
    score_run: ScoreRun,
    modality: Modality,
    ids: Ints,
    pool: Bools,
    artifact: str,
    dimensions: int,
    then_foundation: bool = False,
    more: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Finds duplicates, then switches to the stored run of items (n,), unless a pretext model's came meanwhile."""
    with context.read() as session:
        settings = session.get_one(Project, score_run.project_id).settings
    seed = ProjectSettings.model_validate(settings).seed
    copies, largest = find_duplicates(context, modality, seed, ids, pool, artifact)
    if len(copies):
        with context.publish() as session:
            load_duplicates(session, score_run.id, copies)
    result = {
        "items": len(ids),
        "pool": int(pool.sum()),
        "duplicates": len(copies),
        "duplicate_threshold": largest,
        **(more or {}),
    }
    with context.finish(result) as session:
        project = session.get_one(Project, context.job.project_id)
        row = session.get_one(ScoreRun, score_run.id)
        if not is_provisional(session, project):  # a pretext model came meanwhile
            session.delete(row)
            queue_delete_artifacts(session, [f"scores/{row.id}"], later=True)
            return result
        row.state, row.artifact, row.finished_at = "complete", artifact, utc_now()
        row.items, row.dimensions = len(ids), dimensions
        before, project.score_run_id = project.score_run_id, row.id
        if before is not None:
            queue_remove_score_runs(session, project)
        queue_rank(session, project)
        if project.labels_used >= ProjectSettings.model_validate(project.settings).retrain_min_labels:
            queue_train_head(session, project, at_once=True)
        came_since = sa.exists().where(
            Item.project_id == project.id, Item.id > row.last_item_id, Item.state.in_(SCORED_STATES)
        )
        if session.scalar(sa.select(came_since)):
            queue_score_raw(session, project)
        if then_foundation:
            queue_score_foundation(session, project)
    return result


def is_provisional(session: Session, project: Project) -> bool:
    """True if the project has no score run, or one without a pretext model."""
    if project.score_run_id is None:
        return True
    return session.get_one(ScoreRun, project.score_run_id).pretext_model_id is None


def is_overtaken(session: Session, project: Project) -> bool:
    """True if the project is served a pretext model's scores, or a running job copies to it those that a lent one has
    made elsewhere of the same bytes: that takes no longer than raw features. One that waits may wait for hours.
    """
    if not is_provisional(session, project):
        return True
    running = SCORING.where(Job.project_id == project.id, Job.state == "running").limit(1)
    model = session.get(PretextModel, session.scalar(running) or 0)
    if model is None or model.project_id == project.id:
        return False
    lent = [run for run in earlier_runs(session, project.id, model) if run.project_id == model.project_id]
    some = sa.select(Item.id).where(
        Item.project_id == project.id, sa.text("items.state = 'available' AND items.split = 'pool'")
    )
    ids = np.array(session.scalars(some.order_by(Item.shuffle).limit(_COMPARED)).all(), np.int64)
    if not lent or not len(ids):
        return False
    theirs = equal_items(session, ids, model.project_id)
    return bool(((theirs >= 0) & (theirs <= lent[0].last_item_id)).all())


def sample(session: Session, project: Project, most: int, most_of_test: int) -> tuple[Ints, Bools]:
    """Ids (n,), ascending, and which of them are of the pool (n,): those that come first in the random order that
    items have, and all that are labeled.
    """
    mine = (Item.project_id == project.id, Item.state.in_(SCORED_STATES))
    of_pool = sa.select(Item.id).where(*mine, Item.split == "pool")
    labeled = sa.select(Item.id).where(
        Item.project_id == project.id, sa.text("items.state = 'done' AND items.split = 'pool'")
    )
    of_test = sa.select(Item.id).where(*mine, Item.split == "test")
    pool = set(session.scalars(of_pool.order_by(Item.shuffle).limit(most))) | set(
        session.scalars(labeled.limit(most))
    )
    test = set(session.scalars(of_test.order_by(Item.shuffle).limit(most_of_test)))
    ids = np.array(sorted(pool | test), np.int64)
    return ids, np.isin(ids, np.array(sorted(pool), np.int64))


def read_items(
    context: JobContext,
    modality: Modality,
    ids: Ints,
    seed: int,
    features_of: Callable[[Iterator[Tensor], np.random.Generator], Values],
) -> tuple[Bools, Values, Bytes]:
    """A mask (n,) of the items that can be read; of these (m,) the features (m, d) and the sketches (m, f). What
    reading tells that the database does not know yet is stored.
    """
    read, sketches = np.zeros(len(ids), np.bool_), list[Bytes]()

    def parts() -> Iterator[Tensor]:
        for start in range(0, len(ids), _READ_AT_A_TIME):
            some = ids[start : start + _READ_AT_A_TIME]
            with context.read() as session:
                refs = item_refs(session, some)
            decoded = reader.decode_items(refs, modality)
            learned = {
                ref.id: replace(one, item=None)
                for ref, one in zip(refs, decoded, strict=True)
                if one.fetched and (one.item is None or ref.content_hash is None)
            }
            if learned:
                with context.publish() as session:
                    store_learned(session, learned)
            good = {ref.id: one.item for ref, one in zip(refs, decoded, strict=True) if one.item is not None}
            read[start : start + len(some)] = np.isin(some, np.array(list(good), np.int64))
            context.report(_READING * start / len(ids), f"reading items, {start:,} of {len(ids):,}")
            if good:
                items = stacked(list(good.values()), modality)
                if modality.sketcher is not None:
                    sketches.append(modality.sketcher.sketch(items))
                yield items

    rng = np.random.default_rng(seed)
    reader: ItemReader
    with ItemReader(context.settings) as reader, torch.no_grad():
        features = features_of(parts(), rng)
    return read, features, np.concatenate(sketches) if sketches else np.empty((len(features), 0), np.uint8)


def unless_overtaken(context: JobContext, parts: Iterator[Tensor]) -> Iterator[Tensor]:
    """The same parts, looking before each: what is left would hold the short lane for nothing. Raises `Overtaken`."""
    for part in parts:
        with context.read() as session:
            if is_overtaken(session, session.get_one(Project, context.job.project_id)):
                raise Overtaken
        yield part


def begin(context: JobContext, project: Project, newest: int) -> ScoreRun:
    """Begin a score run; one that an earlier attempt of this job began is deleted, as it takes seconds."""
    with context.publish() as session:
        mine = sa.select(ScoreRun).where(ScoreRun.job_id == context.job.id, ScoreRun.state == "running")
        for begun in session.scalars(mine).all():
            session.delete(begun)
            queue_delete_artifacts(session, [f"scores/{begun.id}"], later=True)
        score_run = ScoreRun(
            project_id=project.id, state="running", job_id=context.job.id, last_item_id=newest
        )
        session.add(score_run)
    return score_run


def store(
    context: JobContext,
    artifact: str,
    ids: Ints,
    features: Floats | Halves,
    sketches: Bytes,
    more: dict[str, npt.NDArray[Any]] | None = None,
) -> None:
    """As score_pool stores arrays, and those of `more`; the losses are 0."""
    nothing = np.zeros(len(ids), np.float32)
    arrays: dict[str, npt.NDArray[Any]] = {
        "ids": ids,
        "losses": nothing,
        "spreads": nothing,
        "embeddings": features.astype(np.float16),
        "sketches": sketches,
        **(more or {}),
    }
    for name, array in arrays.items():
        with context.artifacts.writing(f"{artifact}/{name}.npy") as file:
            np.save(file, array, allow_pickle=False)
