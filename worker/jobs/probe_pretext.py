"""Job probe_pretext: the gate of the embeddings that are served, judged on the labels so far (`worker.gate`).

What no strategy chose judges them: the test split, where it is large enough, as for heads; else the items that the
control arm asked for; else all labels, if all of them were drawn at random. All labels teach the probes.

The verdict stands in `ScoreRun.gate`. After a no-go the pool is ranked at random; and where the untrained
backbone did better, it is stored as the next version of the pretext model, and the pool is scored by it.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa
import structlog
import torch
from sqlalchemy.orm import Session
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from service.store import pipeline
from service.store.control_arm import control_item_ids
from service.store.project_settings import ProjectSettings
from service.store.tables import Item, Label, PretextModel, Project, Ranking, ScoreRun
from worker import gate
from worker.device import autocast, choose_device, to_device, use_threads
from worker.jobs.context import JobContext
from worker.jobs.item_pixels import ItemPixels
from worker.jobs.pool import KnownItems, ScoredItems, labeled_items, test_items
from worker.jobs.pretext_net import is_untrained, new_net, on_device, store_net, untrained_version
from worker.modalities.image import normalised
from worker.pool_view import Bools, Floats, Ints

_SIDE = 32  # of the pixels that are compared
_BATCH = 64

log = structlog.get_logger()


@dataclass(frozen=True)
class _State:
    score_run: ScoreRun
    model: PretextModel
    control_share: float
    labeled: KnownItems
    test: KnownItems
    control: Bools  # of the labeled items: those that the control arm asked for
    all_random: bool  # whether chance asked for every label

    @staticmethod
    def read(session: Session, project_id: int | None) -> "_State | None":
        project = session.get_one(Project, project_id)
        if project.score_run_id is None:
            return None
        settings = ProjectSettings.model_validate(project.settings)
        score_run = session.get_one(ScoreRun, project.score_run_id)
        labeled = labeled_items(session, project.id, project.classes)
        test = test_items(session, project.id, project.classes)
        return _State(
            score_run=score_run,
            model=session.get_one(PretextModel, score_run.pretext_model_id),
            control_share=settings.control_share(has_test_split=len(test) > 0),
            labeled=labeled,
            test=test,
            control=_of_control(session, project.id, settings, labeled),
            all_random=_all_random(session, project.id) and bool((labeled.decided_by > 0).all()),
        )


def _of_control(session: Session, project_id: int, settings: ProjectSettings, labeled: KnownItems) -> Bools:
    """(m,) of the labeled items. Not the control items whose labels were imported, or asked for by a person: who
    chose them may have had a reason.
    """
    asked = sa.select(Label.id).where(Label.project_id == project_id, Label.arm == "control")
    deciding = np.fromiter(session.scalars(asked), np.int64)
    control = np.array(control_item_ids(session, project_id, settings), np.int64)
    return np.isin(labeled.ids, control) & np.isin(labeled.decided_by, deciding)


def _all_random(session: Session, project_id: int) -> bool:
    """Whether chance chose every labeled item: the control arm, or a ranking by `random`."""
    by_chance = sa.or_(
        Label.arm == "control",
        sa.and_(Label.arm == "selected", Ranking.strategy["name"].as_string() == "random"),
    )
    chosen = (
        sa.select(Label.id)
        .outerjoin(Ranking, Ranking.id == Label.ranking_id)
        .where(Label.project_id == project_id, sa.not_(sa.func.coalesce(by_chance, sa.false())))
    )
    return session.scalar(chosen.limit(1)) is None


@dataclass(frozen=True)
class _Sample:
    """Items (n,) with their classes: which of them teach the probes, and which judge them."""

    ids: Ints
    classes: Ints
    taught: Bools
    judged: Bools
    judged_on: gate.JudgedOn

    def keep(self, rows: Ints) -> "_Sample":
        return _Sample(
            self.ids[rows], self.classes[rows], self.taught[rows], self.judged[rows], self.judged_on
        )

    @property
    def enough(self) -> bool:
        return gate.enough(self.classes[self.taught]) and gate.enough(self.classes[self.judged])


def run(context: JobContext) -> dict[str, Any] | None:
    with context.read() as session:
        state = _State.read(session, context.job.project_id)
    if state is None:
        return None
    use_threads(context.settings.threads)
    found = _judge(context, state)
    before = (state.score_run.gate or {}).get("verdict")
    instead = found.better == "untrained"
    artifact = f"pretext/{state.model.id}/untrained-{context.job.token}.safetensors"
    if instead:
        store_net(new_net(state.model), state.model, context.artifacts, artifact)
    if found.verdict == "no-go":
        log.warning(
            "pretext gate", project=context.job.project_id, verdict=found.verdict, reason=found.reason
        )
    with context.finish(found.as_json()) as session:
        project = session.get_one(Project, context.job.project_id)
        session.get_one(ScoreRun, state.score_run.id).gate = found.as_json()
        if project.score_run_id == state.score_run.id:
            if instead:
                model = session.get_one(PretextModel, state.model.id)
                standing_in = untrained_version(session, model, project.id, artifact, found.reason)
                pipeline.queue_score_pool(session, project, standing_in.id)
            if "no-go" in (before, found.verdict) and before != found.verdict:
                pipeline.queue_rank(session, project)
    return None


def _judge(context: JobContext, state: _State) -> gate.Gate:
    scored = ScoredItems.open(context.artifacts, state.score_run)
    labels = len(state.labeled)
    rng = np.random.default_rng([state.model.config["seed"], labels])
    if not gate.enough(state.labeled.classes):
        return gate.too_few(labels, labels)
    sample, unbiased = _sample(state, scored, rng)
    if sample is None:
        return gate.too_few_unbiased(labels, unbiased, state.control_share)
    small, untrained, readable = _features(context, state.model, sample.ids)
    sample = sample.keep(readable)
    if not sample.enough:
        return gate.too_few(labels, min(int(sample.taught.sum()), int(sample.judged.sum())))
    rivals: dict[gate.Rival, Floats] = {"pixels": small}
    if untrained is not None:
        rivals["untrained"] = untrained
    trained = scored.embeddings[scored.where(sample.ids)].astype(np.float32)
    return gate.judge(trained, rivals, sample.classes, sample.taught, sample.judged, sample.judged_on, labels)


def _sample(state: _State, scored: ScoredItems, rng: np.random.Generator) -> tuple[_Sample | None, int]:
    """At most so many of either kind; None where there are not enough. And how many unbiased items there are."""
    known = scored.where(state.labeled.ids) >= 0
    labeled, control = state.labeled.keep(known), state.control[known]
    test = state.test.keep(scored.where(state.test.ids) >= 0)
    if gate.enough(test.classes):
        teaching, judging = _some(len(labeled), rng), _some(len(test), rng)
        return (
            _Sample(
                ids=np.concatenate([labeled.ids[teaching], test.ids[judging]]),
                classes=np.concatenate([labeled.classes[teaching], test.classes[judging]]),
                taught=np.arange(len(teaching) + len(judging)) < len(teaching),
                judged=np.arange(len(teaching) + len(judging)) >= len(teaching),
                judged_on="test",
            ),
            len(test),
        )
    judged_on: gate.JudgedOn = "control"
    unbiased = control
    if state.all_random:
        judged_on, unbiased = "random", np.ones(len(labeled), np.bool_)
    if not gate.enough(labeled.classes[unbiased]):
        return None, int(unbiased.sum())
    order = rng.permutation(len(labeled))
    order = order[np.argsort(~unbiased[order], kind="stable")]  # what judges comes first
    rows = np.sort(order[: gate.AT_MOST])
    return (
        _Sample(
            labeled.ids[rows], labeled.classes[rows], np.ones(len(rows), np.bool_), unbiased[rows], judged_on
        ),
        int(unbiased.sum()),
    )


def _some(count: int, rng: np.random.Generator) -> Ints:
    return np.sort(rng.permutation(count)[: gate.AT_MOST])


def _features(context: JobContext, model: PretextModel, ids: Ints) -> tuple[Floats, Floats | None, Ints]:
    """Of the items that can be read: their pixels, small, (m, p); their embeddings by the untrained backbone, (m, d),
    None where that is the model itself; and which of the ids (n,) they are, (m,).
    """
    with context.read() as session:
        rows = session.execute(sa.select(Item.id, Item.uri).where(Item.id.in_(ids.tolist())))
        uris = {row.id: row.uri for row in rows}
    known = np.array([number for number, item_id in enumerate(ids.tolist()) if item_id in uris], np.int64)
    side: int = model.config["image_size"]
    device = choose_device(context.settings.device)
    backbone: nn.Module | None = None
    if not is_untrained(model):
        backbone = on_device(new_net(model), device).eval().get_submodule("backbone")
    small, embeddings, readable = [], [], []
    with ItemPixels(context.settings) as item_pixels, torch.no_grad(), autocast(device):
        for start in range(0, len(known), _BATCH):
            numbers = known[start : start + _BATCH]
            decoded = item_pixels.decode([uris[int(item_id)] for item_id in ids[numbers]], side)
            readable.append(numbers[[one.pixels is not None for one in decoded]])
            if not len(readable[-1]):
                continue
            pixels = torch.stack([one.pixels for one in decoded if one.pixels is not None])
            small.append(adaptive_avg_pool2d(pixels.float(), min(side, _SIDE)).flatten(1))
            if backbone is not None:
                embeddings.append(backbone(normalised(to_device(pixels, device))).float().cpu())
    return _joined(small), _joined(embeddings) if backbone is not None else None, np.concatenate(readable)


def _joined(parts: list[Tensor]) -> Floats:
    return torch.cat(parts).numpy() if parts else np.empty((0, 1), np.float32)
