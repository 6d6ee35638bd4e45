"""Job score_pool: one pass of a pretext model over a project's items: losses and embeddings.

The items are cut into shards by id. A shard is scored, stored as an immutable artifact and recorded in a row;
what has a row is not done again, so a crash repeats only what is missing. What earlier runs of the same model
know is copied: those of this project by item, those of the model's own project by equal content. At the end
stand, in the order of the item ids and for both splits,

    <artifact>/ids.npy          (n,) int64
    <artifact>/losses.npy       (n,) float32, the mean over the task's views
    <artifact>/spreads.npy      (n,) float32, their standard deviation; 0 where there is one view
    <artifact>/embeddings.npy   (n, d) float16, in the space of the pretext model
    <artifact>/sketches.npy     (n, f) uint8
    <artifact>/marks.npy        (n, k, 2) int32, where losses are of tokens (`service.store.marks`)

where there is a foundation beside the pretext model, what the space is made of,

    <artifact>/trained.npy      (n, d) float16
    <artifact>/pretrained.npy   (n, p) float16

and the `Score` and `Duplicate` rows; then one transaction switches what is served. What nothing needs of earlier runs
is removed by job remove_score_runs.
"""

import time
from collections.abc import Mapping
from contextlib import ExitStack, closing
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased

from service.store.jobs import progressed
from service.store.marks import Spans, store_marks
from service.store.pipeline import (
    queue_delete_artifacts,
    queue_rank,
    queue_remove_score_runs,
    queue_score_new_items,
    queue_train_head,
)
from service.store.project_settings import ProjectSettings
from service.store.scores import load_duplicates, load_scores
from service.store.tables import Item, PretextModel, Project, ScoreRun, ScoreShard, utc_now
from worker.arrays import Bools, Floats, Ints
from worker.device import choose_device, use_threads
from worker.engines import Engine, engines
from worker.errors import JobFailed
from worker.jobs.context import JobContext
from worker.jobs.score_pool.find_duplicates import find_duplicates
from worker.jobs.score_pool.foundation import settle_foundation, settle_frame, weights_of
from worker.jobs.score_pool.layer_choice import settle_layer
from worker.jobs.specs import cache_names, half_of, of_other_half, spec_of
from worker.modalities import Modality
from worker.pool.reader import Decoded
from worker.pretraining.loop import about
from worker.scoring.pool_scoring import PoolScoring, Shard, ShardItem, StoredShard
from worker.scoring.scored_items import open_parts, open_spreads

SCORED_STATES = ("available", "done", "broken")
_ROWS_A_TRANSACTION = 20_000
_EQUAL_AT_ONCE = 2_000
_HISTOGRAM_BINS = 50
_SCORING, _DUPLICATES = 0.95, 0.97  # progress before storing the scores, before looking for duplicates


def run(context: JobContext) -> dict[str, Any]:
    use_threads(context.settings.threads)
    device = choose_device(context.settings.device)
    score_run, model = begin(context)
    numbers = _shard_numbers(context, score_run)
    missing = _missing(context, score_run, numbers)
    if missing:
        begun = time.monotonic()
        model = settle_foundation(context, settle_layer(context, model, device))
        with context.read() as session:
            earlier = earlier_runs(session, score_run.project_id, model)
        items = _to_compute(context, score_run, earlier, missing)
        work = work_of(context, score_run, model, earlier, items)
        shards = (shard_of(context, score_run, earlier, number) for number in missing)
        engine = _engine(context.settings.engine)
        settings = context.settings
        mapped = engine.map(work, shards, device=settings.device, processes=settings.devices)
        with closing(mapped) as finished:
            for done, stored in enumerate(finished, 1):
                _record(context, score_run, stored)
                left = about((time.monotonic() - begun) / done * (len(missing) - done))
                share = 1 - (len(missing) - done) / len(numbers)
                context.report(_SCORING * share, f"scored {share:.0%} of the items, {left} left")
    return _switch(context, score_run, model)


def _engine(name: str) -> Engine:
    kind = engines().get(name)
    if kind is None:
        known = ", ".join(engines())
        raise JobFailed(f"This worker knows no engine {name!r}. Set SHORTLIST_ENGINE to one of {known}.")
    return kind()


def begin(context: JobContext) -> tuple[ScoreRun, PretextModel]:
    """The run that this very job began, or a new one, over the items there are now.

    While the job waited for another try, items may have come, and the wish to score with a newer pretext model: such
    wishes go to the job that waits.
    """
    with context.publish() as session:
        model = session.get(PretextModel, context.job.payload["pretext_model_id"])
        if model is None or model.artifact is None:
            raise JobFailed("The pretext model is not there any more, or was never finished: pretrain again.")
        mine = sa.select(ScoreRun).where(
            ScoreRun.project_id == context.job.project_id,
            ScoreRun.job_id == context.job.id,
            ScoreRun.state == "running",
        )
        score_run = None
        for begun in session.scalars(mine).all():
            if begun.pretext_model_id == model.id:
                score_run = begun
            else:
                session.delete(begun)
                queue_delete_artifacts(session, [f"scores/{begun.id}"], later=True)
        scored = (Item.project_id == context.job.project_id, Item.state.in_(SCORED_STATES))
        last = session.scalar(sa.select(sa.func.max(Item.id)).where(*scored))
        if score_run is not None and last is not None and last > score_run.last_item_id:
            open_end = ScoreShard.last_item_id >= score_run.last_item_id  # it may have got more items
            session.execute(sa.delete(ScoreShard).where(ScoreShard.score_run_id == score_run.id, open_end))
            score_run.last_item_id = last
        if score_run is None:
            if session.scalar(sa.select(Item.id).where(*scored, Item.split == "pool").limit(1)) is None:
                raise JobFailed("There is nothing to score: the pool is empty. Import a source first.")
            score_run = ScoreRun(
                project_id=context.job.project_id,
                pretext_model_id=model.id,
                state="running",
                job_id=context.job.id,
                last_item_id=last,
            )
            session.add(score_run)
    return score_run, model


def _shard_numbers(context: JobContext, score_run: ScoreRun) -> list[int]:
    """Numbers of the shards in which the project has items; cuts at multiples of `shard_size` never move."""
    number = (Item.id - 1) // context.settings.shard_size
    with context.read() as session:
        return list(
            session.scalars(
                sa.select(number)
                .where(Item.project_id == score_run.project_id, Item.id <= score_run.last_item_id)
                .group_by(number)
                .order_by(number)
            )
        )


def _range(context: JobContext, number: int) -> tuple[int, int]:
    """The first and the last id of a shard."""
    size = context.settings.shard_size
    return number * size + 1, (number + 1) * size


def _missing(context: JobContext, score_run: ScoreRun, numbers: list[int]) -> list[int]:
    """The shards that have no row yet. Rows of another shard size are dropped."""
    number_of = {_range(context, number): number for number in numbers}
    with context.publish() as session:
        rows = session.scalars(sa.select(ScoreShard).where(ScoreShard.score_run_id == score_run.id))
        stored = set()
        for row in rows:
            number = number_of.get((row.first_item_id, row.last_item_id))
            if number is not None:
                stored.add(number)
            else:
                session.delete(row)
    return [number for number in numbers if number not in stored]


def earlier_runs(session: Session, project_id: int, model: PretextModel) -> list[ScoreRun]:
    """Complete runs of the same network, of the project and of the model's own, that are copied from: the newest of
    each. Versions that differ by their space only have one network.
    """
    alike = sa.select(PretextModel.id).where(
        PretextModel.project_id == model.project_id, PretextModel.artifact == model.artifact
    )
    complete = (
        sa.select(ScoreRun)
        .where(ScoreRun.pretext_model_id.in_(alike), ScoreRun.state == "complete")
        .order_by(ScoreRun.id)
    )
    newest = {run.project_id: run for run in session.scalars(complete)}
    return [newest[each] for each in dict.fromkeys((project_id, model.project_id)) if each in newest]


def _to_compute(context: JobContext, score_run: ScoreRun, earlier: list[ScoreRun], missing: list[int]) -> int:
    """The number of items of the missing shards that are not copied, as the first, the middle and the last have it."""
    some = sorted({missing[0], missing[len(missing) // 2], missing[-1]})
    new = 0
    for shard in (shard_of(context, score_run, earlier, number) for number in some):
        copied = np.zeros(len(shard.items), np.bool_)
        for run, theirs in zip(earlier, shard.earlier, strict=True):
            copied |= (theirs >= 0) & (theirs <= run.last_item_id)
        new += int((~copied).sum())
    return new * len(missing) // len(some)


def work_of(
    context: JobContext, score_run: ScoreRun, model: PretextModel, earlier: list[ScoreRun], items: int
) -> PoolScoring:
    """items: about how many are to be computed"""
    weights = str(model.artifact)
    return PoolScoring(
        name=f"scores/{score_run.id}",
        token=context.job.token,
        spec=spec_of(model),
        weights=weights,
        other_weights=of_other_half(weights) if model.config.get("out_of_fold") else None,
        settings=context.settings,
        cache=cache_names(context),
        earlier=tuple(str(run.artifact) for run in earlier),
        items=items,
        foundation=weights_of(model),
    )


def shard_of(context: JobContext, score_run: ScoreRun, earlier: list[ScoreRun], number: int) -> Shard:
    first, last = _range(context, number)
    with context.read() as session:
        rows = session.execute(
            sa.select(Item.id, Item.key, Item.uri, Item.split, Item.content_hash, Item.shuffle)
            .where(Item.project_id == score_run.project_id, Item.state.in_(SCORED_STATES))
            .where(Item.id.between(first, min(last, score_run.last_item_id)))
            .order_by(Item.id)
        )
        items = tuple(
            ShardItem(
                id=row.id,
                uri=row.uri,
                key=row.key,
                in_pool=row.split == "pool",
                content_hash=row.content_hash,
                half=half_of(row.shuffle),
            )
            for row in rows
        )
        ids = np.array([item.id for item in items], np.int64)
        theirs = tuple(
            ids if run.project_id == score_run.project_id else equal_items(session, ids, run.project_id)
            for run in earlier
        )
    return Shard(first, last, items, theirs)


def equal_items(session: Session, ids: Ints, project_id: int) -> Ints:
    """(n,) -> (n,) items of that project with the same content, -1 where there is none."""
    mine, theirs = aliased(Item), aliased(Item)
    equal: dict[int, int] = {}
    for start in range(0, len(ids), _EQUAL_AT_ONCE):
        pairs = session.execute(
            sa.select(mine.id, theirs.id)
            .join(theirs, mine.content_hash == theirs.content_hash)
            # Said one by one: by a range of ids SQLite goes through all of the other project for each of them.
            .where(mine.id.in_(ids[start : start + _EQUAL_AT_ONCE].tolist()))
            .where(theirs.project_id == project_id, theirs.state.in_(SCORED_STATES))
        )
        equal |= dict(pairs.all())
    return np.array([equal.get(item_id, -1) for item_id in ids.tolist()], np.int64)


def _record(context: JobContext, score_run: ScoreRun, stored: StoredShard) -> None:
    """The shard is done, and its items know what decoding them told."""
    with context.publish() as session:
        session.add(
            ScoreShard(
                score_run_id=score_run.id,
                first_item_id=stored.first,
                last_item_id=stored.last,
                artifact=stored.artifact,
                items=stored.items,
            )
        )
        progressed(session, context.job)
        store_learned(session, stored.learned)


def store_learned(session: Session, learned: Mapping[int, Decoded]) -> None:
    """By item id, what decoding told: items that were registered by their place alone are from now on their bytes, and
    what cannot be decoded is quarantined.
    """
    for item_id, decoded in learned.items():
        item = sa.update(Item).where(Item.id == item_id)
        if decoded.reason is not None:
            reason = {"state": "quarantined", "quarantine_reason": decoded.reason}
            session.execute(item.where(Item.state == "available").values(reason))
        if decoded.content_hash is not None:
            told = {"content_hash": decoded.content_hash, "facts": decoded.facts}
            session.execute(item.where(Item.content_hash.is_(None)).values(told))


def _switch(context: JobContext, score_run: ScoreRun, model: PretextModel) -> dict[str, Any]:
    context.report(_SCORING, "storing the scores")
    artifact = f"scores/{score_run.id}/arrays-{context.job.token}"
    ids, pool, losses, dimensions = _consolidate(context, score_run, artifact, weights_of(model) is not None)
    if not pool.any():
        raise JobFailed("No item of the pool can be read: see the reasons among the quarantined items.")
    if weights_of(model) is not None:
        dimensions = _enter_space(context, model, artifact)
    spreads = (
        open_spreads(context.artifacts, artifact) if spec_of(model).make_task().scoring_views > 1 else None
    )
    return serve(
        context,
        score_run,
        artifact,
        spec_of(model).make_modality(),
        model.config["seed"],
        ids=ids,
        pool=pool,
        losses=losses,
        spreads=spreads,
        dimensions=dimensions,
    )


def serve(
    context: JobContext,
    score_run: ScoreRun,
    artifact: str,
    modality: Modality,
    seed: int,
    *,
    ids: Ints,
    pool: Bools,
    losses: Floats | None,
    spreads: Floats | None,
    dimensions: int,
) -> dict[str, Any]:
    """From the stored arrays to what is served: scores, duplicates, and one switch. All arrays are (n,); losses: None
    where there are none
    """
    if losses is not None:
        percentiles = percentiles_among(losses[pool], losses)
        for start in range(0, len(ids), _ROWS_A_TRANSACTION):
            part = slice(start, start + _ROWS_A_TRANSACTION)
            with context.publish() as session:
                load_scores(
                    session,
                    score_run.id,
                    ids[part],
                    losses[part],
                    percentiles[part],
                    None if spreads is None else spreads[part],
                )
    context.report(_DUPLICATES, "looking for duplicates")
    copies, largest = find_duplicates(context, modality, seed, ids, pool, artifact)
    for start in range(0, len(copies), _ROWS_A_TRANSACTION):
        with context.publish() as session:
            load_duplicates(session, score_run.id, copies[start : start + _ROWS_A_TRANSACTION])
    result = {
        "items": len(ids),
        "pool": int(pool.sum()),
        "duplicates": len(copies),
        "duplicate_threshold": largest,
    }
    with context.finish(result) as session:
        row = session.get_one(ScoreRun, score_run.id)
        row.state, row.artifact, row.finished_at = "complete", artifact, utc_now()
        row.items, row.dimensions = len(ids), dimensions
        row.histogram = None if losses is None else _histogram(losses[pool])
        project = session.get_one(Project, score_run.project_id)
        before = session.get(ScoreRun, project.score_run_id) if project.score_run_id is not None else None
        if before is not None and before.pretext_model_id == row.pretext_model_id:
            row.gate = before.gate  # new items do not change the embeddings of the labeled ones
        project.score_run_id = score_run.id
        if before is not None:
            queue_remove_score_runs(session, project)
        queue_rank(session, project)
        if project.labels_used >= ProjectSettings.model_validate(project.settings).retrain_min_labels:
            queue_train_head(session, project, at_once=True)
        came_since = sa.exists().where(
            Item.project_id == project.id, Item.id > score_run.last_item_id, Item.state.in_(SCORED_STATES)
        )
        if session.scalar(sa.select(came_since)):
            queue_score_new_items(session, project)
    return result


def _histogram(losses: Floats) -> dict[str, list[float]]:
    # In float64: NumPy refuses to part losses of float32 that differ in their last digits only.
    counts, edges = np.histogram(losses.astype(np.float64), _HISTOGRAM_BINS)
    return {"edges": edges.tolist(), "counts": counts.tolist()}


def percentiles_among(pool: Floats, losses: Floats) -> npt.NDArray[np.float64]:
    """(n,) 0..100: the share of the pool's losses below each, equal ones counted half."""
    ordered = np.sort(pool)
    below, upto = np.searchsorted(ordered, losses, "left"), np.searchsorted(ordered, losses, "right")
    return 50 * (below + upto) / len(pool)


def _consolidate(
    context: JobContext, score_run: ScoreRun, artifact: str, has_foundation: bool
) -> tuple[Ints, Bools, Floats, int]:
    """Shard after shard into the files, so that memory never holds all embeddings; those of the pretext model are not
    yet what is served where there is a foundation, too.

    Answers ids (n,), pool (n,), losses (n,) and the dimensions of the embeddings.
    """
    arrays_of = {"ids": "ids", "losses": "losses", "spreads": "spreads", "sketches": "sketches"}
    arrays_of |= (
        {"trained": "embeddings", "pretrained": "pretrained"}
        if has_foundation
        else {"embeddings": "embeddings"}
    )
    with context.read() as session:
        rows = session.scalars(
            sa.select(ScoreShard)
            .where(ScoreShard.score_run_id == score_run.id)
            .order_by(ScoreShard.first_item_id)
        ).all()
    total = sum(row.items for row in rows)
    ids: list[Ints] = []
    pool: list[Bools] = []
    losses: list[Floats] = []
    marks: list[Spans] = []
    dimensions = 0
    with ExitStack() as stack:
        files = {
            name: stack.enter_context(context.artifacts.writing(f"{artifact}/{name}.npy"))
            for name in arrays_of
        }
        for number, row in enumerate(rows):
            with context.artifacts.open(row.artifact) as file, np.load(file, allow_pickle=False) as arrays:
                shard = dict(arrays)
            if "sketches" not in shard:  # of a run that was begun before there were items other than images
                shard["sketches"] = shard["thumbnails"]
            if "marks" in shard:  # else of one that was begun before there were any
                marks.append(shard["marks"])
            for name, target in files.items():
                part = shard[arrays_of[name]]
                if number == 0:
                    _write_header(target, part, total)
                target.write(part.tobytes())
            ids.append(shard["ids"])
            pool.append(shard["pool"])
            losses.append(shard["losses"])
            dimensions = shard["embeddings"].shape[1]
    if len(marks) == len(rows) and marks and marks[0].shape[1]:
        store_marks(context.artifacts, artifact, marks)
    return np.concatenate(ids), np.concatenate(pool), np.concatenate(losses), dimensions


def _enter_space(context: JobContext, model: PretextModel, artifact: str) -> int:
    """Stores the embeddings of the model's space, made of both kinds; answers their dimensions."""
    parts = open_parts(context.artifacts, artifact)
    assert parts is not None
    trained, pretrained = parts
    frame, space = settle_frame(context, model, trained, pretrained), model.config["space"]
    dimensions = 0
    with context.artifacts.writing(f"{artifact}/embeddings.npy") as file:
        for start in range(0, len(trained), _ROWS_A_TRANSACTION):
            rows = slice(start, start + _ROWS_A_TRANSACTION)
            part = frame.embeddings(space, trained[rows], pretrained[rows])
            if start == 0:
                _write_header(file, part, len(trained))
            file.write(part.tobytes())
            dimensions = part.shape[1]
    return dimensions


def _write_header(file: IO[bytes], part: npt.NDArray[Any], rows: int) -> None:
    """The .npy header of an array of which `part` is the first part."""
    header = np.lib.format.header_data_from_array_1_0(part)
    np.lib.format.write_array_header_1_0(file, header | {"shape": (rows, *part.shape[1:])})
