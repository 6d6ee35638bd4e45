"""With which pretext model new items are scored; what jobs need, and what they wait for."""

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.models import jobs
from service.projects import project_changes
from service.store import catalogue, pipeline
from service.store.catalogue import Announcement
from service.store.tables import Job, Project
from tests import factories


@pytest.fixture
def project(session: Session) -> Project:
    return factories.make_project(session)


def queued(session: Session) -> list[int]:
    """The pretext models of the scorings that wait."""
    jobs = session.scalars(sa.select(Job).where(Job.kind == "score_pool", Job.state == "queued"))
    return [job.payload["pretext_model_id"] for job in jobs]


def serve(session: Session, project: Project, version: int) -> int:
    model = factories.make_pretext_model(session, project=project, version=version)
    project.score_run_id = factories.make_score_run(session, project=project, pretext_model=model).id
    return model.id


def test_none_before_the_first_scoring(session: Session, project: Project) -> None:
    pipeline.queue_score_new_items(session, project)
    assert queued(session) == []


def test_the_one_that_is_served(session: Session, project: Project) -> None:
    model = serve(session, project, 1)
    pipeline.queue_score_new_items(session, project)
    assert queued(session) == [model]


def test_a_newer_one_that_waits_is_kept(session: Session, project: Project) -> None:
    served = serve(session, project, 1)
    newer = factories.make_pretext_model(session, project=project, version=2).id
    pipeline.queue_score_pool(session, project, newer)
    pipeline.queue_score_new_items(session, project)
    assert queued(session) == [newer] != [served]


@pytest.mark.parametrize("first", [True, False])
def test_a_newer_one_that_runs(session: Session, project: Project, first: bool) -> None:
    if not first:
        serve(session, project, 1)
    newer = factories.make_pretext_model(session, project=project, version=2).id
    pipeline.queue_score_pool(session, project, newer)
    session.execute(sa.update(Job).values(state="running"))
    pipeline.queue_score_new_items(session, project)
    assert queued(session) == [newer]


def test_what_waits_comes_after_what_runs(session: Session, project: Project) -> None:
    older, newer = (factories.make_pretext_model(session, project=project, version=n).id for n in (1, 2))
    pipeline.queue_score_pool(session, project, older)
    session.execute(sa.update(Job).values(state="running"))
    pipeline.queue_score_pool(session, project, newer)
    pipeline.queue_score_new_items(session, project)
    assert queued(session) == [newer]


def waiting(session: Session) -> dict[str, tuple[str, set[str]]]:
    """Lane and needs of what is queued, without the kind."""
    found = session.scalars(
        sa.select(Job).where(Job.state == "queued").execution_options(populate_existing=True)
    )
    return {job.kind: (job.lane, {*job.needs} - {f"kind:{job.kind}"}) for job in found}


def change(session: Session, project: Project, **settings: str) -> None:
    values = {name: {"name": value} for name, value in settings.items()}
    project_changes.change(
        session, project, changes=values, name=None, classes=None, state=None, if_match=None
    )


def test_each_job_needs_the_plug_ins_that_it_will_use(session: Session) -> None:
    settings = {"pretext_task": {"name": "dino"}, "strategy": {"name": "margin"}, "head": {"name": "mlp"}}
    project = factories.make_project(session, settings=settings)
    model_id = serve(session, project, 1)
    score_run = factories.make_score_run(session, project=project)
    project.head_id = factories.make_head(session, project=project, score_run=score_run).id
    source = factories.make_source(session, project=project)
    pipeline.queue_import(session, source)
    pipeline.queue_train_pretext(session, project)
    pipeline.queue_score_pool(session, project, model_id)
    pipeline.queue_probe_pretext(session, project)
    pipeline.queue_train_head(session, project)
    pipeline.queue_compare_with_random(session, project)
    pipeline.queue_rank(session, project)
    pipeline.queue_check_labels(session, project)
    pipeline.queue_remove_score_runs(session, project)
    pipeline.queue_delete_artifacts(session, ["f"], later=False)
    pipeline.queue_copy_project(session, project, project, labels=True)
    assert waiting(session) == {
        "import_source": ("short", {"modality:image"}),
        "train_pretext": ("long", {"task:dino", "modality:image"}),
        "score_pool": (
            "long",
            {"task:rotation", "modality:image"},
        ),  # of the model, whatever will be trained next
        "probe_pretext": ("short", {"task:rotation", "modality:image"}),
        "train_head": ("short", {"head:mlp", "modality:image"}),
        "compare_with_random": ("short", {"head:mlp", "modality:image"}),
        "rank": (
            "short",
            {"strategy:margin", "strategy:shortlist", "head:linear", "modality:image"},
        ),  # of the head that is served
        "check_labels": ("short", set()),
        "remove_score_runs": ("short", set()),
        "delete_artifacts": ("short", set()),
        "copy_project": ("short", set()),
    }


def test_a_head_that_workers_announced_as_long_trains_in_the_long_lane(
    session: Session, project: Project
) -> None:
    announced = Announcement("head", "slow", "Trains on items.", {"type": "object"}, lane="long")
    catalogue.announce(session, [announced, Announcement("head", "quick", "Help.", {"type": "object"})])
    pipeline.queue_train_head(session, project)
    assert waiting(session) == {"train_head": ("short", {"head:propagate", "modality:image"})}
    for head, lane in (("slow", "long"), ("quick", "short")):
        change(session, project, head=head)
        assert waiting(session) == {
            "train_head": (lane, {f"head:{head}", "modality:image"})
        }  # without new labels


def test_what_a_job_waits_for_is_said(session: Session, project: Project) -> None:
    job = session.get_one(Job, pipeline.queue_train_head(session, project))

    def said() -> str | None:
        assert [one.waits_for for one in jobs.waiting(session, project.id)] == [
            *jobs.waits_for(session, [job]).values()
        ]
        return jobs.waits_for(session, [job]).get(job.id)

    assert said() == "a worker; none is alive. Start one with `shortlist worker`."
    kind = "kind:train_head"
    factories.make_worker(session, lanes=["long"], has=[kind, "head:propagate", "modality:image"])
    assert said() == "a worker that serves the short lane (SHORTLIST_LANES); the only live worker does not."
    factories.make_worker(session, has=[kind])
    missing = "a worker that has head:propagate and modality:image"
    assert said() == f"{missing}; the only live worker of the short lane does not."
    factories.make_worker(session, has=["head:propagate", "modality:image"])
    assert said() == (
        "a worker that has head:propagate and kind:train_head and modality:image; none of the 2 live workers of "
        "the short lane does."
    )
    able = factories.make_worker(session, has=[kind, "head:propagate", "head:mlp", "modality:image"])
    assert said() is None
    session.delete(able)
    session.execute(sa.update(Job).values(state="succeeded"))
    session.refresh(job)
    assert said() is None


def test_a_lost_job_that_nobody_can_take_over_is_said_to_wait(session: Session, project: Project) -> None:
    factories.make_worker(session, has=["kind:rank"])
    job = factories.make_job(
        session, project_id=project.id, state="running", lease_until=1.0, needs=("kind:rank", "head:foo")
    )
    assert "head:foo" in jobs.waits_for(session, [job])[job.id]
    job.lease_until = 1e12
    session.flush()
    assert jobs.waits_for(session, [job]) == {}
    assert jobs.waiting(session, project.id) == []
