"""A ranking becomes predictions: score = place / N, so that the task wanted most has 0, as Label Studio shows the
lowest first. Control items stand among them in their share, so that what they measure stays unbiased.

A prediction may also show the class that the head predicts, for people to confirm; never that of a control item, which
is to measure what people say unswayed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.integrations.label_studio.labeling_config import LabelingConfig
from service.integrations.label_studio.pre_annotations import PreAnnotations
from service.store.control_arm import control_item_ids, has_test_split
from service.store.project_settings import ProjectSettings
from service.store.tables import Item, Project, RankedItem, Ranking, ToolConnection, ToolTask

_CHUNK = 1_000
PREFIX = "shortlist-"
Arm = Literal["selected", "control"]


@dataclass(frozen=True)
class Push:
    """The order in which the tool is to show its tasks. results: what it shows people beforehand, by task."""

    ranking_id: int
    model_version: str
    tasks: list[tuple[int, Arm]]
    results: dict[int, list[dict[str, Any]]] = field(default_factory=dict)

    def predictions(self) -> list[dict[str, Any]]:
        return [
            {
                "task": task,
                "result": self.results.get(task, []),
                "score": self.score(place),
                "model_version": self.model_version,
            }
            for place, (task, _) in enumerate(self.tasks)
        ]

    def score(self, place: int) -> float:
        return place / len(self.tasks)


def planned(session: Session, project: Project, connection: ToolConnection) -> Push | None:
    """None where there is no ranking yet, or the tool has it already."""
    number = project.ranking_id
    if number is None or number == connection.pushed_ranking_id:
        return None
    ranking = session.get_one(Ranking, number)
    settings = ProjectSettings.model_validate(project.settings)
    share = settings.control_share(has_test_split(session, project.id))
    ranked = list(_tasks(session, connection, _ranked(number), connection.top))
    control = _control(session, project, connection, settings, round(share * connection.top))
    order = list(mixed(ranked, control, share))[: connection.top]
    results = _results(session, project, connection, number, order) if connection.pre_annotate else {}
    return Push(number, f"{PREFIX}{ranking.version}", order, results)


def note(session: Session, connection: ToolConnection, push: Push) -> None:
    """Before the tool knows: an annotation that comes at once finds the arm that it came by."""
    forget = sa.update(ToolTask).where(ToolTask.connection_id == connection.id, ToolTask.score.is_not(None))
    session.execute(forget.values(score=None).execution_options(synchronize_session=False))
    rows = [
        {
            "connection_id": connection.id,
            "task_id": task,
            "arm": arm,
            "score": push.score(place),
            "ranking_id": push.ranking_id if arm == "selected" else None,
        }
        for place, (task, arm) in enumerate(push.tasks)
    ]
    if rows:
        session.execute(sa.update(ToolTask), rows)


def mixed(ranked: Sequence[int], control: Sequence[int], share: float) -> Iterator[tuple[int, Arm]]:
    """The share of control tasks is exact, rounded, at each place, while there are both; then the rest. A task stands
    once, though it is both ranked and a control item: the pool grew after the ranking was made.
    """
    selected, chance = iter(ranked), iter(control)
    taken, seen = 0, set[int]()
    for place in range(1, len(ranked) + len(control) + 1):
        due = round(share * place) > taken
        first: tuple[Iterator[int], Arm] = (chance, "control") if due else (selected, "selected")
        other: tuple[Iterator[int], Arm] = (selected, "selected") if due else (chance, "control")
        for tasks, arm in (first, other):
            task = next((task for task in tasks if task not in seen), None)
            if task is not None:
                seen.add(task)
                taken += arm == "control"
                yield task, arm
                break


def _results(
    session: Session,
    project: Project,
    connection: ToolConnection,
    ranking_id: int,
    order: Sequence[tuple[int, Arm]],
) -> dict[int, list[dict[str, Any]]]:
    shown = PreAnnotations(project, LabelingConfig.stored(connection.config))
    selected = [task for task, arm in order if arm == "selected"]
    query = (
        sa.select(ToolTask.task_id, RankedItem.predicted_class)
        .join(RankedItem, RankedItem.item_id == ToolTask.item_id)
        .where(RankedItem.ranking_id == ranking_id, ToolTask.connection_id == connection.id)
    )
    found: dict[int, list[dict[str, Any]]] = {}
    for first in range(0, len(selected), _CHUNK):
        part = query.where(ToolTask.task_id.in_(selected[first : first + _CHUNK]))
        for task, predicted in session.execute(part):
            if predicted is not None:  # there was a head
                found[task] = shown.result_of(predicted)
    return found


def _ranked(ranking_id: int) -> sa.Select[Any]:
    return (
        sa.select(ToolTask.task_id)
        .join(RankedItem, RankedItem.item_id == ToolTask.item_id)
        .where(RankedItem.ranking_id == ranking_id)
        .order_by(RankedItem.rank)
    )


def _tasks(session: Session, connection: ToolConnection, query: sa.Select[Any], limit: int) -> Iterator[int]:
    open_tasks = query.join(Item, Item.id == ToolTask.item_id).where(
        ToolTask.connection_id == connection.id, ToolTask.gone.is_(False), Item.state == "available"
    )
    yield from session.scalars(open_tasks.limit(limit))


def _control(
    session: Session, project: Project, connection: ToolConnection, settings: ProjectSettings, wanted: int
) -> list[int]:
    """The first open tasks of the control arm, which no strategy ever sees."""
    numbers = control_item_ids(session, project.id, settings) if wanted else []
    found: list[int] = []
    for first in range(0, len(numbers), _CHUNK):
        part = numbers[first : first + _CHUNK]
        query = sa.select(ToolTask.task_id).where(ToolTask.item_id.in_(part))
        query = query.order_by(Item.shuffle, Item.id)
        found += _tasks(session, connection, query, wanted - len(found))
        if len(found) == wanted:
            break
    return found
