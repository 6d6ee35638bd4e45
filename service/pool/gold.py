"""Gold items: their class is known for certain. They are done, and mixed in to see how well annotators do."""

from collections.abc import Sequence

from sqlalchemy.orm import Session

from service.errors import ItemNotServable
from service.labeling import batches, picks
from service.labeling.class_texts import ClassTexts
from service.models import training
from service.pool import items, queues
from service.projects import projects
from service.store import asides, item_decisions
from service.store.project_settings import ProjectSettings
from service.store.tables import Project


def mark(session: Session, project: Project, entries: Sequence[tuple[str, str | Sequence[str]]]) -> int:
    """Make items, by public id, gold items of the class or the classes given; how many there are now that were none
    before.

    A gold item is done, of this class whatever annotators say, and heads train on it. Raises `UnknownItem`,
    `UnknownClass`, `LabelKindDiffers`, `ItemNotServable`.
    """
    projects.lock_open(session, project)
    found = items.find_each(session, project, [item for item, _ in entries])
    new, texts = 0, ClassTexts(project)
    for index, (public, named) in enumerate(entries):
        one, several = (named, None) if isinstance(named, str) else (None, named)
        class_name, _ = texts.of(one, several, f"items[{index}].")
        item = found[index]
        if item.split != "pool" or item.state not in ("available", "done"):
            state = "of the test split" if item.split == "test" else item.state
            raise ItemNotServable(field=f"items[{index}].item", id=public, state=state)
        new += not item.gold
        item.gold, item.state, item.class_name, item.decided_by = True, "done", class_name, None
    numbers = [item.id for item in found]
    batches.release_items(session, project, numbers)
    queues.clear(session, project, numbers, by=())
    training.retrain_if_due(session, project)
    return new


def unmark(session: Session, project: Project, wanted: Sequence[str]) -> int:
    """Items that are gold no more are what their labels say; how many there were. Raises `UnknownItem`."""
    projects.lock_open(session, project)
    overlap = ProjectSettings.model_validate(project.settings).overlap
    gold = [item for item in dict.fromkeys(items.find_each(session, project, wanted)) if item.gold]
    batches.release_items(session, project, [item.id for item in gold])
    for labels in item_decisions.load(session, gold).values():
        votes_before = len(labels.votes())
        labels.item.gold, labels.item.class_name = False, None
        if labels.item.state in asides.ASIDE:
            continue
        labels.item.state = "available"
        labels.count_all()
        labels.settle(overlap)
        project.labels_used += len(labels.votes()) - votes_before
    if gold:
        picks.open_again(session, project, [item.id for item in gold])
        training.retrain_if_due(session, project)
    return len(gold)
