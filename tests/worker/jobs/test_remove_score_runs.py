"""Score runs that nothing needs any more go, and nothing else does."""

from typing import Any

import pytest
import sqlalchemy as sa

from service.settings import Settings
from service.store import jobs
from service.store.artifacts import Artifacts
from service.store.pipeline import queue_remove_score_runs, queue_score_pool
from service.store.session import read_session, write_session
from service.store.tables import (
    Duplicate,
    Head,
    Job,
    PretextModel,
    Project,
    Ranking,
    Score,
    ScoreRun,
    ScoreShard,
)
from tests.factories import (
    make_duplicate,
    make_head,
    make_item,
    make_job,
    make_pretext_model,
    make_project,
    make_ranking,
    make_score,
    make_score_run,
    make_score_shard,
)
from tests.worker.running import claim, run
from worker.jobs import remove_score_runs

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
HOUR_S = 3600.0


class Runs:
    """A project whose score runs came into use an hour after each other, as `score_pool` leaves them."""

    def __init__(self, engine: sa.Engine, settings: Settings, artifacts: Artifacts) -> None:
        self.engine, self.settings, self.artifacts = engine, settings, artifacts
        with write_session(engine) as session:
            self.project = make_project(session)
            self.models = [make_pretext_model(session, project=self.project) for _ in range(2)]
            self.items = [make_item(session, project=self.project) for _ in range(5)]
            self.now = float(session.scalar(sa.select(jobs.clock(session))) or 0.0)

    def add(self, *models: int) -> list[int]:
        """Of the numbered pretext models, one run after the other; the last is served."""
        numbers = []
        with write_session(self.engine) as session:
            for ago, model in zip(range(len(models), 0, -1), models, strict=True):
                job = make_job(
                    session, kind="score_pool", state="succeeded", finished_at=self.now - ago * HOUR_S
                )
                row = make_score_run(
                    session, project=self.project, pretext_model=self.models[model], job_id=job.id
                )
                row.artifact = f"scores/{row.id}/arrays-1"
                shard = make_score_shard(session, score_run=row, artifact=f"scores/{row.id}/shard-1-1.npz")
                for item in self.items:
                    make_score(session, score_run=row, item=item)
                make_duplicate(session, score_run=row, item=self.items[1], of=self.items[0])
                for name in (f"{row.artifact}/ids.npy", shard.artifact):
                    with self.artifacts.writing(name) as file:
                        file.write(b"x")
                numbers.append(row.id)
            session.get_one(Project, self.project.id).score_run_id = numbers[-1]
        return numbers

    def job(self, **values: Any) -> int:
        with write_session(self.engine) as session:
            of = {"project_id": self.project.id, "state": "running", "lease_until": self.now + HOUR_S}
            return make_job(session, **of | values).id

    def remove(self) -> None:
        with write_session(self.engine) as session:
            queue_remove_score_runs(session, session.get_one(Project, self.project.id))
        run(claim(self.engine, self.settings, self.artifacts))

    def kept(self) -> list[int]:
        with read_session(self.engine) as session:
            complete = sa.select(ScoreRun.id).where(ScoreRun.state == "complete").order_by(ScoreRun.id)
            return list(session.scalars(complete))

    def has_rows(self, table: type[Score] | type[Duplicate] | type[ScoreShard]) -> list[int]:
        with read_session(self.engine) as session:
            query = sa.select(table.score_run_id).distinct().order_by(table.score_run_id)
            return list(session.scalars(query))

    def has_files(self) -> list[int]:
        folders = (self.settings.data_dir / "artifacts" / "scores").iterdir()
        return sorted(int(folder.name) for folder in folders)


@pytest.fixture
def runs(engine: sa.Engine, settings: Settings, artifacts: Artifacts) -> Runs:
    return Runs(engine, settings, artifacts)


def test_all_but_the_newest_two_go_and_what_refers_to_them_stays(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remove_score_runs, "_ROWS_A_TRANSACTION", 2)
    numbers = runs.add(0, 0, 1, 1)
    with write_session(runs.engine) as session:
        first = session.get_one(ScoreRun, numbers[0])
        first.gate = {"verdict": "go"}
        make_head(session, project=runs.project, score_run=first, artifact="heads/1/1.npz")
        make_ranking(session, project=runs.project, score_run=first)
    with runs.artifacts.writing("heads/1/1.npz") as file:
        file.write(b"x")

    runs.remove()

    assert runs.kept() == numbers[2:]
    assert runs.has_files() == numbers[2:]
    for table in (Score, Duplicate, ScoreShard):
        assert runs.has_rows(table) == numbers[2:]
    with read_session(runs.engine) as session:
        first = session.get_one(ScoreRun, numbers[0])
        assert (first.state, first.artifact, first.gate) == ("removed", None, {"verdict": "go"})
        assert session.scalars(sa.select(Head.score_run_id)).all() == [first.id]
        assert session.scalars(sa.select(Ranking.score_run_id)).all() == [first.id]
    assert runs.artifacts.exists("heads/1/1.npz")
    runs.remove()
    assert runs.kept() == numbers[2:]


def test_what_another_project_needs_stays_until_it_needs_it_no_more(runs: Runs) -> None:
    numbers = runs.add(0, 0, 1, 1)
    with write_session(runs.engine) as session:
        borrower = make_project(session, pretext_from_id=runs.project.id)
        job_id = queue_score_pool(session, borrower, runs.models[0].id)
        session.execute(sa.update(Job).where(Job.id == job_id).values(run_at=runs.now + HOUR_S))
    runs.remove()
    assert runs.kept() == numbers[1:]  # the newest of this pretext model

    with write_session(runs.engine) as session:
        session.execute(sa.delete(Job).where(Job.id == job_id))
        borrower = session.get_one(Project, borrower.id)
        model = session.get_one(PretextModel, runs.models[0].id)
        theirs = make_score_run(session, project=borrower, pretext_model=model)
        borrower.score_run_id = theirs.id
    runs.remove()
    assert runs.kept() == [*numbers[1:], theirs.id]

    with write_session(runs.engine) as session:
        session.get_one(Project, borrower.id).score_run_id = None
    runs.remove()
    assert runs.kept() == [*numbers[2:], theirs.id]


@pytest.mark.parametrize(
    ("kind", "own", "hours_ago", "open_in"),
    [
        ("train_head", True, 3.5, 2),  # it began when the second of five was served
        ("train_head", True, 2.5, 3),
        ("rank", True, 0.5, 5),
        ("score_pool", False, 3.5, 2),  # it may copy from it
        ("train_head", False, 3.5, 5),
        ("train_pretext", True, 3.5, 5),
    ],
)
@on_sqlite
def test_what_a_running_job_may_have_open_stays_until_it_ends(
    kind: str, own: bool, hours_ago: float, open_in: int, runs: Runs
) -> None:
    numbers = runs.add(0, 0, 0, 0, 0)
    project_id = runs.project.id
    if not own:
        with write_session(runs.engine) as session:
            project_id = make_project(session).id
    payload = {"pretext_model_id": 0} if kind == "score_pool" else {}
    started_at = runs.now - hours_ago * HOUR_S
    job_id = runs.job(kind=kind, project_id=project_id, started_at=started_at, payload=payload)

    runs.remove()
    assert runs.kept() == numbers[min(open_in - 1, 3) :]

    with write_session(runs.engine) as session:
        session.execute(sa.update(Job).where(Job.id == job_id).values(state="succeeded"))
    runs.remove()
    assert runs.kept() == numbers[3:]


@on_sqlite
def test_a_job_that_began_just_after_may_have_read_just_before(runs: Runs) -> None:
    numbers = runs.add(0, 0, 0)
    runs.job(kind="rank", started_at=runs.now - 2 * HOUR_S + 1.0)
    runs.remove()
    assert runs.kept() == numbers


@on_sqlite
@pytest.mark.parametrize("same_job", [True, False])
def test_what_was_interrupted_is_removed_after_all(
    same_job: bool, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = runs.add(0, 0, 0, 0)
    delete, deleted = Artifacts.delete, 0

    def delete_one(self: Artifacts, prefix: str) -> None:
        nonlocal deleted
        deleted += 1
        if deleted == 2:
            raise ConnectionError("the store is away")
        delete(self, prefix)

    monkeypatch.setattr(Artifacts, "delete", delete_one)
    with write_session(runs.engine) as session:
        queue_remove_score_runs(session, session.get_one(Project, runs.project.id))
    context = claim(runs.engine, runs.settings, runs.artifacts)
    with pytest.raises(ConnectionError):
        run(context)
    jobs.fail(runs.engine, context.job, "the store is away", retry=same_job)
    assert runs.has_files() == numbers[1:]

    if same_job:
        with write_session(runs.engine) as session:
            session.execute(sa.update(Job).where(Job.id == context.job.id).values(run_at=0.0))
        run(claim(runs.engine, runs.settings, runs.artifacts))
    else:
        runs.remove()
    assert runs.has_files() == runs.kept() == numbers[2:]
    assert runs.has_rows(Score) == runs.has_rows(ScoreShard) == numbers[2:]


@on_sqlite
def test_other_projects_keep_theirs(runs: Runs) -> None:
    theirs = runs.add(0, 0, 0)
    with write_session(runs.engine) as session:
        runs.project = make_project(session)
        runs.models = [make_pretext_model(session, project=runs.project)]
    mine = runs.add(0, 0, 0)
    runs.remove()
    assert runs.kept() == [*theirs, *mine[1:]]
