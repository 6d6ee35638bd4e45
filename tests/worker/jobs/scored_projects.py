"""A project whose items were scored: random clusters, one per class, written as a score run leaves them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.settings import Settings
from service.store import jobs, pipeline
from service.store.artifacts import Artifacts
from service.store.session import read_session, write_session
from service.store.tables import Head, Item, Job, Project, RankedItem, Ranking, Round, ScoreRun, utc_now
from tests import factories
from tests.worker import running
from worker.arrays import Floats, Ints
from worker.jobs.context import JobContext

CLASSES = ["cat", "dog", "owl"]


@dataclass(frozen=True)
class ScoredProject:
    """truth (n,): the class of each item; pool and test: item ids by rising id."""

    id: int
    ids: Ints
    truth: Ints
    pool: list[int]
    test: list[int]

    def true_class(self, item_id: int) -> str:
        return CLASSES[int(self.truth[np.searchsorted(self.ids, item_id)])]


class Bench:
    """A scored project and the means to run jobs on it."""

    def __init__(self, engine: sa.Engine, settings: Settings, artifacts: Artifacts) -> None:
        self.engine, self.settings, self.artifacts = engine, settings, artifacts

    def project(self, **options: Any) -> ScoredProject:
        return make_scored_project(self.engine, self.artifacts, **options)

    def rank(self, scored: ScoredProject) -> dict[str, Any]:
        """The result of one rank job."""
        with write_session(self.engine) as session:
            job_id = pipeline.queue_rank(session, session.get_one(Project, scored.id))
        running.run(running.claim(self.engine, self.settings, self.artifacts))
        with read_session(self.engine) as session:
            return session.get_one(Job, job_id).result or {}

    def train_head(self, scored: ScoredProject) -> dict[str, Any]:
        """The result of one train_head job; the ranking it asks for is made too."""
        with write_session(self.engine) as session:
            project = session.get_one(Project, scored.id)
            job_id = pipeline.queue_train_head(session, project, at_once=True)
        running.run(running.claim(self.engine, self.settings, self.artifacts))
        with read_session(self.engine) as session:
            job = session.get_one(Job, job_id)
            ranking_waits = session.scalar(sa.select(Job.id).where(Job.kind == "rank", Job.state == "queued"))
        if ranking_waits is not None:
            running.run(running.claim(self.engine, self.settings, self.artifacts))
        return job.result or {}

    def compare(self, scored: ScoredProject) -> dict[str, Any]:
        """The result of one compare_with_random job, which train_head has queued."""
        context = self.claim_comparison(scored)
        running.run(context)
        with read_session(self.engine) as session:
            return session.get_one(Job, context.job.id).result or {}

    def claim_comparison(self, scored: ScoredProject) -> JobContext:
        """By a worker that could rank as well, and nothing else."""
        waits = sa.select(Job.needs).where(Job.kind == "compare_with_random", Job.state == "queued")
        with read_session(self.engine) as session:
            needs = session.scalars(waits.where(Job.project_id == scored.id)).one()
        job = jobs.claim(self.engine, "test", ("short",), lease_s=600, has=needs)
        assert job is not None
        has = frozenset({*needs, "kind:rank", "strategy:margin", "strategy:shortlist"})
        return JobContext(
            job=job,
            settings=self.settings,
            engine=self.engine,
            artifacts=self.artifacts,
            report=lambda fraction, message: None,
            has=has,
        )

    def heads(self, scored: ScoredProject) -> list[Head]:
        """By rising version."""
        with read_session(self.engine) as session:
            heads = sa.select(Head).where(Head.project_id == scored.id).order_by(Head.version)
            return list(session.scalars(heads))

    def ranking(self, scored: ScoredProject) -> tuple[Ranking, list[RankedItem]]:
        """The served one."""
        with read_session(self.engine) as session:
            ranking = session.get_one(Ranking, session.get_one(Project, scored.id).ranking_id)
            rows = sa.select(RankedItem).where(RankedItem.ranking_id == ranking.id)
            return ranking, list(session.scalars(rows.order_by(RankedItem.rank)))


def make_scored_project(
    engine: sa.Engine,
    artifacts: Artifacts,
    *,
    pool: int = 120,
    test: int = 0,
    spread: float = 1.0,
    settings: dict[str, Any] | None = None,
) -> ScoredProject:
    """Without rankings or heads, and with the quickest head, if the settings name no other. `spread` of the clusters,
    whose centers are about 6 apart.
    """
    rng = np.random.default_rng(0)
    truth = rng.integers(len(CLASSES), size=pool + test)
    embeddings = rng.normal(size=(3, 8))[truth] * 2 + rng.normal(size=(pool + test, 8)) * spread
    with write_session(engine) as session:
        project = factories.make_project(
            session, classes=CLASSES, settings={"head": "linear"} | (settings or {})
        )
        rows = [
            factories.make_item(
                session,
                project=project,
                shuffle=int(rng.integers(2**31)),
                split="pool" if number < pool else "test",
                class_name=None if number < pool else CLASSES[truth[number]],
            )
            for number in range(pool + test)
        ]
        ids = [row.id for row in rows]
        run = factories.make_score_run(session, project=project, artifact="scores/1/arrays", items=len(ids))
        project.score_run_id = run.id
        project_id = project.id
    write_scores(artifacts, "scores/1/arrays", np.array(ids), embeddings.astype(np.float32))
    return ScoredProject(project_id, np.array(ids), truth, ids[:pool], ids[pool:])


def write_scores(artifacts: Artifacts, prefix: str, ids: Ints, embeddings: Floats) -> None:
    arrays: dict[str, npt.NDArray[Any]] = {
        "ids": ids,
        "embeddings": embeddings.astype(np.float16),
        "losses": np.random.default_rng(1).random(len(ids), np.float32),
        "thumbnails": np.zeros((len(ids), 8 * 8 + 2), np.uint8),
    }
    for name, array in arrays.items():
        with artifacts.writing(f"{prefix}/{name}.npy") as file:
            np.save(file, array)


def label(session: Session, scored: ScoredProject, item_ids: list[int], **values: Any) -> int:
    """Label the items with their true class; returns the last label's id."""
    last = 0
    for item_id in item_ids:
        item = session.get_one(Item, item_id)
        values_here = {"class_name": scored.true_class(item_id)} | values
        last = factories.make_label(session, item=item, **values_here).id
    project = session.get_one(Project, scored.id)
    project.labels_used += len(item_ids)
    return last


def close_round(session: Session, scored: ScoredProject, last_label_id: int, labels: int) -> None:
    """Close the open round as the service does, and open the next one."""
    closed = session.scalars(
        sa.select(Round).where(Round.project_id == scored.id, Round.closed_at.is_(None))
    ).one()
    closed.last_label_id, closed.labels, closed.closed_at = last_label_id, labels, utc_now()
    session.flush()
    factories.make_round(
        session,
        project=session.get_one(Project, scored.id),
        number=closed.number + 1,
        labels_before=closed.labels_before + labels,
    )


def score_run_of(session: Session, scored: ScoredProject) -> ScoreRun:
    return session.get_one(ScoreRun, session.get_one(Project, scored.id).score_run_id)
