"""Rows to the plain data that whatever computes is given."""

from typing import Any, Literal

import numpy as np
import sqlalchemy as sa
import torch
from sqlalchemy.orm import Session
from torch import nn

from service.store import class_sets
from service.store.artifacts import Artifacts
from service.store.class_names import ClassNames
from service.store.control_arm import TESTED
from service.store.project_settings import Choice, ProjectSettings
from service.store.tables import (
    Head,
    Item,
    Label,
    OwnPredictions,
    PretextModel,
    Project,
    Ranking,
    utc_now,
)
from worker.arrays import Floats, Ints
from worker.evaluation.known_items import KnownItems
from worker.heads import Head as HeadKind
from worker.heads import heads
from worker.jobs.context import JobContext
from worker.modalities import Modality, modalities
from worker.models.nets import as_safetensors, load_net
from worker.models.spec import ModelSpec
from worker.pool.cache_room import CacheNames
from worker.pool.decoded_cache import origin
from worker.pool.items import ItemRef
from worker.registry import plug_in_from
from worker.scoring.scored_items import ScoredItems
from worker.scoring.space import SPACE_NAMES, SpaceName

# Constants in the statements, not parameters, so that both databases use the partial indexes.
_WHICH = {
    "done": sa.text("items.state = 'done' AND items.split = 'pool'"),
    "aside": sa.text("items.state NOT IN ('available', 'done')"),  # broken, quarantined, withdrawn
    "broken": sa.text("items.state NOT IN ('available', 'done') AND items.state = 'broken'"),
    "test": sa.text("items.split = 'test'"),
    "tested": TESTED,
}
Which = Literal["done", "aside", "broken", "test", "tested"]


def labeled_items(session: Session, project_id: int, classes: list[str], kind: str) -> KnownItems:
    """The pool items that are done. kind: the project's `label_kind`."""
    return _known_items(session, project_id, classes, "done", kind)


def test_items(session: Session, project_id: int, classes: list[str], kind: str) -> KnownItems:
    """Items of the test split that heads are measured on: none that was withdrawn."""
    return _known_items(session, project_id, classes, "tested", kind)


def _known_items(
    session: Session, project_id: int, classes: list[str], which: Which, kind: str
) -> KnownItems:
    """Without those whose class the project does not have; of several, these alone are left out."""
    index = {name: number for number, name in enumerate(classes)}
    query = sa.select(Item.id, Item.class_name, Item.decided_by)
    found = session.execute(query.where(Item.project_id == project_id, _WHICH[which])).all()
    if kind == "multi":
        sets = sorted((row for row in found if class_sets.is_set(row.class_name)), key=lambda row: row.id)
        members = np.zeros((len(sets), len(classes)), np.int64)
        for place, row in enumerate(sets):
            members[place, [index[one] for one in class_sets.classes_in(row.class_name) if one in index]] = 1
        ids = np.array([row.id for row in sets], np.int64)
        return KnownItems(ids, members, np.array([row.decided_by or 0 for row in sets], np.int64))
    rows = sorted((number, index[name], label or 0) for number, name, label in found if name in index)
    columns = np.array(rows, np.int64).reshape(-1, 3)
    return KnownItems(columns[:, 0], columns[:, 1], columns[:, 2])


def labels_asked_by(session: Session, project_id: int, strategy: str) -> Ints:
    """Ids of the labels on items that rankings by this strategy asked for."""
    query = (
        sa.select(Label.id)
        .join(Ranking, Label.ranking_id == Ranking.id)
        .where(
            Label.project_id == project_id,
            Label.arm == "selected",
            Ranking.strategy["name"].as_string() == strategy,
        )
    )
    return np.fromiter(session.scalars(query), np.int64)


def item_ids(session: Session, project_id: int | None, which: Which) -> Ints:
    query = sa.select(Item.id).where(Item.project_id == project_id, _WHICH[which])
    return np.fromiter(session.scalars(query), np.int64)


def store_probabilities(artifacts: Artifacts, head_artifact: str, ids: Ints, probabilities: Floats) -> None:
    """Beside the head's artifact: probabilities (n, c) of items (n,), where they take the items themselves."""
    with artifacts.writing(_probabilities_of(head_artifact)) as file:
        np.savez(file, allow_pickle=False, ids=ids, probabilities=probabilities)


def probabilities_by(artifacts: Artifacts, head: Head, project: Project, scored: ScoredItems) -> Floats:
    """(n, c) Probabilities of the scored items by a stored head of the same score run, in the order of the project's
    classes; 0 for a class that came after the head, the sum for one that others were merged into, at most 1 where items
    have several classes.
    """
    return _in_classes_of(project, _probabilities_by(artifacts, head, scored), head.classes)


def own_probabilities(
    artifacts: Artifacts, own: OwnPredictions, project: Project, scored: ScoredItems, by_head: Floats | None
) -> Floats:
    """(n, c) Probabilities of the scored items by the user's own model, in the order of the project's classes. For an
    item without one those of the head, else what the others think on average.
    """
    with np.load(artifacts.local_path(own.artifact), allow_pickle=False) as arrays:
        ids, stored = arrays["ids"], arrays["probabilities"]
    rows = np.minimum(np.searchsorted(ids, scored.ids), len(ids) - 1)
    found = _in_classes_of(project, stored[rows], own.classes)
    lacking = ids[rows] != scored.ids
    if lacking.any():
        mean = (
            found[~lacking].mean(axis=0) if not lacking.all() else np.full(found.shape[1], 1 / found.shape[1])
        )
        found[lacking] = by_head[lacking] if by_head is not None else mean
    return found


def _in_classes_of(project: Project, probabilities: Floats, classes: list[str]) -> Floats:
    """Columns of classes of before -> those of the project's classes."""
    if classes == project.classes:
        return probabilities
    names = ClassNames(project)
    column_of = {name: column for column, name in enumerate(project.classes)}
    aligned = np.zeros((len(probabilities), len(project.classes)), np.float32)
    for column, name in enumerate(map(names.or_same, classes)):
        if name in column_of:
            aligned[:, column_of[name]] += probabilities[:, column]
    return np.minimum(aligned, 1) if project.label_kind == "multi" else aligned


def _probabilities_by(artifacts: Artifacts, head: Head, scored: ScoredItems) -> Floats:
    stored = _probabilities_of(head.artifact)
    if artifacts.exists(stored):
        with np.load(artifacts.local_path(stored), allow_pickle=False) as arrays:
            rows = np.searchsorted(arrays["ids"], scored.ids)
            return np.asarray(arrays["probabilities"][rows])
    with np.load(artifacts.local_path(head.artifact), allow_pickle=False) as arrays:
        fitted = chosen_head(Choice.model_validate(head.kind)).load(dict(arrays))
    return fitted.probabilities(scored.embeddings)


def _probabilities_of(head_artifact: str) -> str:
    return f"{head_artifact.removesuffix('.npz')}-probabilities.npz"


def chosen_head(choice: Choice) -> HeadKind:
    """Raises `Unsuited` and `JobFailed`."""
    return plug_in_from(heads(), choice.name, choice.params, "head")


# ---- pretext models ----


def spec_of(model: PretextModel) -> ModelSpec:
    config = model.config
    return ModelSpec(
        task=model.task,
        backbone=model.backbone,
        # Models of before there were other kinds of items know only how large their images are.
        input=config.get("input") or {"modality": "image", "image_size": config["image_size"]},
        seed=config["seed"],
        pretrained=config["pretrained"],
        layer=config.get("layer"),
    )


def open_net(
    model: PretextModel, artifacts: Artifacts, device: torch.device, other_half: bool = False
) -> nn.Module:
    """The finished model in eval mode, on the device."""
    with artifacts.open(of_other_half(str(model.artifact)) if other_half else str(model.artifact)) as file:
        return load_net(spec_of(model), file.read(), device)


def store_net(net: nn.Module, model: PretextModel, artifacts: Artifacts, name: str) -> None:
    with artifacts.writing(name) as file:
        file.write(as_safetensors(net, spec_of(model), model.config))


def of_other_half(artifact: str) -> str:
    """Out of fold, a model's artifact is of the first half of the pool; the second network lies beside it."""
    return f"{artifact.removesuffix('.safetensors')}-other.safetensors"


def untrained_version(
    session: Session, model: PretextModel, project_id: int, artifact: str, reason: str
) -> PretextModel:
    """The next version of the project's pretext model: the untrained network of `model`, in its stead."""
    config = {
        name: value for name, value in model.config.items() if name != "frame"
    }  # that of another network
    if config.get("foundation"):
        config["space"] = "trained"
    config |= {"epochs": 0, "out_of_fold": None}
    note = f"The untrained backbone, in place of pretext model {model.version}: {reason}"
    return _next_version(session, model, project_id, config, artifact, {"note": note})


def version_in_space(
    session: Session, model: PretextModel, project_id: int, space: SpaceName, reason: str
) -> PretextModel:
    """The next version of the project's pretext model: the same network, its embeddings in another space."""
    config = model.config | {"space": space}
    note = f"Embeddings {SPACE_NAMES[space]}, in place of pretext model {model.version}: {reason}"
    diagnostics = {name: value for name, value in model.diagnostics.items() if name != "note"}
    return _next_version(
        session, model, project_id, config, str(model.artifact), diagnostics | {"note": note}
    )


def _next_version(
    session: Session,
    model: PretextModel,
    project_id: int,
    config: dict[str, Any],
    artifact: str,
    diagnostics: dict[str, Any],
) -> PretextModel:
    newest = sa.select(sa.func.max(PretextModel.version)).where(PretextModel.project_id == project_id)
    made = PretextModel(
        project_id=project_id,
        version=(session.scalar(newest) or 0) + 1,
        state="ready",
        task=model.task,
        backbone=model.backbone,
        config=config,
        artifact=artifact,
        diagnostics=diagnostics,
        finished_at=utc_now(),
    )
    session.add(made)
    session.flush()
    return made


def is_untrained(model: PretextModel) -> bool:
    return model.config.get("epochs") == 0


def modality_of(project: Project) -> Modality:
    """With the settings of the project that are its own; open ones stay open. Raises `Unsuited`."""
    settings = ProjectSettings.model_validate(project.settings)
    name = project.modality or "image"  # nothing was imported yet
    fields = modalities()[name].model_fields if name in modalities() else {}
    own = {field: getattr(settings, field) for field in fields if hasattr(settings, field)}
    return plug_in_from(modalities(), name, own, "modality")


# ---- items ----


def half_of(shuffle: int) -> int:
    """0 or 1: the half that an item belongs to out of fold, by `Item.shuffle`. It never changes, and is random."""
    return shuffle % 2


def item_refs(session: Session, ids: Ints) -> list[ItemRef]:
    """In the order of the ids, less those that are gone."""
    query = sa.select(Item.id, Item.uri, Item.content_hash).where(Item.id.in_(ids.tolist()))
    found = {row.id: row for row in session.execute(query)}
    return [
        ItemRef(number, found[number].uri, content_hash=found[number].content_hash)
        for number in ids.tolist()
        if number in found
    ]


def refs_of(session: Session, ids: Ints) -> dict[int, ItemRef]:
    """By id, less those that are gone."""
    return {item.id: item for item in item_refs(session, ids)}


def cache_names(context: JobContext) -> CacheNames:
    """For the job's project. Numbers of deleted projects may be given again, so the time is part of the name."""
    with context.read() as session:
        projects = session.execute(sa.select(Project.id, Project.created_at)).all()
    names = {row.id: f"{row.id}-{origin(row.created_at.isoformat()):x}" for row in projects}
    return CacheNames(names[context.job.project_id or 0], frozenset(names.values()))
