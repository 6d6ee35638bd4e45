"""The pipeline: import → score_raw → score_foundation → rank; train_pretext → score_pool → rank; labels → train_head →
rank → probe_pretext, compare_with_random.

Both programs queue jobs through these functions, in the transaction of the change that causes them.

They also say what a job needs of the worker that runs it. A worker has

    kind:<kind>          the kinds of jobs that its program knows
    task:<name>          its plug-ins: pretext tasks,
    strategy:<name>      strategies,
    head:<name>          heads,
    modality:<name>      and kinds of items
    foundation:<name>    kinds of items whose pretrained network it could compute
    gpu                  if it computes on CUDA
"""

from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.store import jobs, modalities
from service.store.jobs import ClaimedJob, Lane
from service.store.own_embeddings import is_own
from service.store.project_settings import ProjectSettings
from service.store.session import read_session
from service.store.tables import Head, Job, PretextModel, Project, ScoreRun, Source

# What plug-ins are needed for, by the project's setting that names one.
NEEDED_FOR = {"pretext_task": "task", "strategy": "strategy", "cold_start": "strategy", "head": "head"}
# Kinds of jobs that read items, or build a network for them.
_DECODING = (
    "import_source",
    "train_pretext",
    "score_pool",
    "score_raw",
    "score_foundation",
    "score_own",
    "probe_pretext",
    "train_head",
    "compare_with_random",
    "rank",
    "index_items",
    "export_backbone",
)
_BETWEEN_RAW_S = 10.0  # provisional score runs
_FIRST_RANKING_S = 3.0  # in which the ranking by raw features has the cores for itself
_BETWEEN_FOUNDATION_S = 60.0

# The pretext models by which pools are to be scored.
SCORING = sa.select(Job.payload["pretext_model_id"].as_integer()).where(
    Job.kind.in_(("score_pool", "score_own")), Job.state.in_(("queued", "running"))
)


def needs_of(session: Session, kind: str, project: Project | None, payload: dict[str, Any]) -> set[str]:
    """Beside its kind: the plug-ins that the project's settings name now, and those that made what it works on."""
    if project is None:
        return set()
    return _plug_ins_for(session, kind, project, payload) | (
        {f"modality:{name}" for name in modalities.needed_for(project)} if kind in _DECODING else set()
    )


def _plug_ins_for(session: Session, kind: str, project: Project, payload: dict[str, Any]) -> set[str]:
    settings = ProjectSettings.model_validate(project.settings)
    match kind:
        case "train_pretext":
            return {f"task:{settings.pretext_task.name}"}
        case "score_pool" | "export_backbone":
            return _task_of(session, payload["pretext_model_id"])
        case "probe_pretext":
            score_run = session.get(ScoreRun, project.score_run_id) if project.score_run_id else None
            return _task_of(session, score_run.pretext_model_id) if score_run else set()
        case "train_head" | "compare_with_random":
            return {f"head:{settings.head.name}"}
        case "rank":
            served = session.get(Head, project.head_id) if project.head_id else None
            predicts = {f"head:{served.kind['name']}"} if served else set()
            return {f"strategy:{settings.strategy.name}", f"strategy:{settings.cold_start.name}"} | predicts
        case _:
            return set()


def lane_of(session: Session, kind: str, project: Project | None) -> Lane:
    """By the kind; a training of the head is as long as the workers announced of that head."""
    if kind == "train_head" and project is not None:
        return jobs.lane_of_head(session, ProjectSettings.model_validate(project.settings).head.name)
    return jobs.lane_of(kind)


def correct_queued(session: Session, project: Project) -> None:
    """The project's settings changed: what is queued needs what they name now."""
    queued = sa.select(Job).where(Job.project_id == project.id, sa.text("state = 'queued'"))
    for job in session.scalars(queued).all():
        needs = {f"kind:{job.kind}"} | needs_of(session, job.kind, project, job.payload)
        jobs.correct(session, job.id, needs, lane_of(session, job.kind, project))


def hand_back(
    engine: sa.Engine, job: ClaimedJob, missing: Iterable[str], lane: str | None, reason: str
) -> None:
    """The worker cannot run it: it waits for one that has what is missing, and what the project's settings name now;
    lane: where it belongs, if that is not where it was.
    """
    with read_session(engine) as session:
        project = session.get(Project, job.project_id) if job.project_id is not None else None
        needs = needs_of(session, job.kind, project, job.payload)
    jobs.hand_back(engine, job, needs | set(missing), lane or job.lane, reason)


def _task_of(session: Session, pretext_model_id: int | None) -> set[str]:
    model = session.get(PretextModel, pretext_model_id) if pretext_model_id is not None else None
    return {f"task:{model.task['name']}"} if model is not None and not is_own(model) else set()


def _enqueue(session: Session, kind: str, project: Project, payload: dict[str, Any], **options: Any) -> int:
    needs = needs_of(session, kind, project, payload)
    return jobs.enqueue(session, kind, payload, project_id=project.id, needs=needs, **options)


def queue_import(session: Session, source: Source, *, accept_missing: bool = False) -> int:
    """accept_missing: what the place does not hold any more is put aside even where that is most of it."""
    project = session.get_one(Project, source.project_id)
    serial_key = f"import_source:{source.project_id}"
    payload = {"source_id": source.id} | ({"accept_missing": True} if accept_missing else {})
    return _enqueue(session, "import_source", project, payload, serial_key=serial_key)


def queue_train_pretext(session: Session, project: Project) -> int:
    """Train a new version of the pretext model; scoring follows by itself."""
    key = f"train_pretext:{project.id}"
    job_id = _enqueue(session, "train_pretext", project, {}, coalesce_key=key, serial_key=key)
    jobs.begin_anew(session, job_id)
    return job_id


def queue_score_pool(session: Session, project: Project, pretext_model_id: int) -> int:
    """By a pretext model, or from embeddings that stand as one."""
    key = f"score_pool:{project.id}"
    payload = {"pretext_model_id": pretext_model_id}
    kind = "score_own" if is_own(session.get_one(PretextModel, pretext_model_id)) else "score_pool"
    return _enqueue(session, kind, project, payload, coalesce_key=key, serial_key=key)


def queue_score_new_items(session: Session, project: Project) -> None:
    """Items came, or came back: they get their score, and a rank, without a new pretraining. Before a first one the
    pool is ranked by raw features.
    """
    model_id = model_to_serve(session, project)
    if model_id is not None:
        queue_score_pool(session, project, model_id)
    else:
        queue_score_raw(session, project)


def queue_score_raw(session: Session, project: Project) -> int:
    """A provisional score run, by what costs no training. Items that come one by one are waited for a little."""
    key = f"score_raw:{project.id}"
    return _enqueue(
        session,
        "score_raw",
        project,
        {},
        priority=1,
        coalesce_key=key,
        serial_key=key,
        min_interval_s=0.0 if project.score_run_id is None else _BETWEEN_RAW_S,
    )


def queue_score_foundation(session: Session, project: Project) -> int:
    """A provisional score run by pretrained weights, which takes minutes; before a pretraining that waits."""
    key = f"score_foundation:{project.id}"
    return _enqueue(
        session,
        "score_foundation",
        project,
        {},
        priority=1,
        coalesce_key=key,
        serial_key=key,
        delay_s=_FIRST_RANKING_S,
        min_interval_s=_BETWEEN_FOUNDATION_S,
    )


def model_to_serve(session: Session, project: Project) -> int | None:
    """The pretext model of the scoring that waits or runs, else that of the scores there are."""
    wanted = SCORING.where(Job.project_id == project.id).order_by(
        Job.state, Job.id.desc()
    )  # queued before running
    served = sa.select(ScoreRun.pretext_model_id).where(ScoreRun.id == project.score_run_id)
    return session.scalar(wanted.limit(1)) or session.scalar(served)


def queue_probe_pretext(session: Session, project: Project) -> int:
    """Judge the embeddings that are served by the labels so far; never before a head or a ranking."""
    key = f"probe_pretext:{project.id}"
    return _enqueue(session, "probe_pretext", project, {}, coalesce_key=key, serial_key=key)


def queue_train_head(session: Session, project: Project, *, at_once: bool = False) -> int:
    """One waiting per project; not sooner than `retrain_min_interval_s` after the last one started."""
    settings = ProjectSettings.model_validate(project.settings)
    key = f"train_head:{project.id}"
    return _enqueue(
        session,
        "train_head",
        project,
        {},
        lane_of_head=settings.head.name,
        priority=1,
        coalesce_key=key,
        serial_key=key,
        min_interval_s=0.0 if at_once else settings.retrain_min_interval_s,
    )


def queue_compare_with_random(session: Session, project: Project) -> int:
    """Measure what the strategy's labels teach against random ones; it gives way to all that anybody waits for."""
    key = f"compare_with_random:{project.id}"
    return _enqueue(
        session, "compare_with_random", project, {}, priority=-2, coalesce_key=key, serial_key=key
    )


def queue_rank(session: Session, project: Project) -> int:
    key = f"rank:{project.id}"
    return _enqueue(session, "rank", project, {}, priority=2, coalesce_key=key, serial_key=key)


def queue_index_items(session: Session, project: Project, *, then_map: bool = False) -> int:
    """The similarity index of the served score run; behind what annotators wait for."""
    key, payload = f"index_items:{project.id}", {"then_map": True} if then_map else {}
    return _enqueue(session, "index_items", project, payload, priority=-1, coalesce_key=key, serial_key=key)


def queue_map_items(session: Session, project: Project) -> int:
    """The map of the served score run, for whoever looks; no job waits for it."""
    key = f"map_items:{project.id}"
    return _enqueue(session, "map_items", project, {}, priority=-2, coalesce_key=key, serial_key=key)


def queue_remove_score_runs(session: Session, project: Project) -> int:
    """Score runs that nothing needs any more, now that another one is served; behind all that anybody waits for."""
    key = f"remove_score_runs:{project.id}"
    return _enqueue(session, "remove_score_runs", project, {}, priority=-1, coalesce_key=key, serial_key=key)


def queue_delete_artifacts(session: Session, folders: list[str], *, later: bool) -> int:
    """The artifacts of deleted rows. `later`: once whoever still runs a job on it has lost its lease and knows."""
    delay_s = jobs.NOTICED_S if later else 0.0
    return jobs.enqueue(session, "delete_artifacts", {"folders": folders}, delay_s=delay_s)


def queue_copy_project(session: Session, project: Project, source: Project, *, labels: bool) -> int:
    """Fill `project` with the items, and the labels, of `source`."""
    payload = {"from": source.id, "labels": labels}
    return _enqueue(session, "copy_project", project, payload)


def queue_check_labels(session: Session, project: Project) -> int:
    """Consensus, agreement, suspects; behind the ranking, which annotators wait for."""
    key = f"check_labels:{project.id}"
    return _enqueue(session, "check_labels", project, {}, coalesce_key=key, serial_key=key)


def queue_export_backbone(session: Session, model: PretextModel, artifact: str) -> int:
    payload = {"pretext_model_id": model.id, "artifact": artifact}
    project = session.get_one(Project, model.project_id)
    return _enqueue(session, "export_backbone", project, payload)
