"""Rounds open and close by themselves, as labels come in; each is pinned to what it was served from."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased

from service.errors import NotFound
from service.store import outbox
from service.store.project_settings import ProjectSettings
from service.store.tables import Head, Item, Label, Project, Ranking, Round

_CURVE_POINTS = 300  # about as many as a chart can show; /metrics is polled
_CURVE_FIGURES = {
    "single": ("accuracy", "accuracy_low", "accuracy_high", "macro_f1"),
    "multi": (
        "mean_average_precision",
        "mean_average_precision_low",
        "mean_average_precision_high",
        "macro_f1",
        "subset_accuracy",
    ),
}
_OPEN = sa.select(Round).where(Round.project_id == sa.bindparam("project"), Round.closed_at.is_(None))


@dataclass(frozen=True)
class RoundReport:
    """A round, the head that measured it, and how many labels came from which arm.

    shared, agreed: its labels on items that others labeled too, and of these, those equal to the item's class.
    """

    round: Round
    head: Head | None
    labels: int
    arms: dict[str, int]
    shared: int
    agreed: int


def open_first(session: Session, project: Project) -> None:
    session.add(Round(project_id=project.id, number=1, labels_before=0))
    session.flush()


def open_round(session: Session, project: Project) -> Round:
    """The one open round; call it with the project locked."""
    return session.scalars(_OPEN, {"project": project.id}).one()


def close(
    session: Session, project: Project, current: Round, *, last_label_id: int, labels_used: int, now: datetime
) -> Round:
    """Close `current` after the label `last_label_id`, and open the next one."""
    settings = ProjectSettings.model_validate(project.settings)
    ranking = session.get(Ranking, project.ranking_id) if project.ranking_id is not None else None
    current.labels = labels_used - current.labels_before
    current.last_label_id = last_label_id
    current.strategy = ranking.strategy if ranking else settings.strategy.model_dump(mode="json")
    current.seed = ranking.seed if ranking else settings.seed
    current.score_run_id, current.ranking_id = project.score_run_id, project.ranking_id
    current.closed_at = now
    session.flush()  # before the next one opens: only one may be open
    following = Round(
        project_id=project.id, number=current.number + 1, labels_before=labels_used, opened_at=now
    )
    session.add(following)
    session.flush()
    outbox.tell(
        session,
        project.id,
        "round.closed",
        {"round": current.number, "labels": current.labels, "labels_used": labels_used},
    )
    return following


def page(
    session: Session, project: Project, after: int | None, limit: int, *, newest_first: bool = False
) -> list[RoundReport]:
    """In order of their numbers, from the one that comes after number `after`, or from the first one."""
    query = sa.select(Round).where(Round.project_id == project.id)
    if after is not None:
        query = query.where(Round.number < after if newest_first else Round.number > after)
    order = Round.number.desc() if newest_first else Round.number
    return _reports(session, project, list(session.scalars(query.order_by(order).limit(limit))))


def find(session: Session, project: Project, number: int) -> RoundReport:
    found = session.get(Round, (project.id, number))
    if found is None:
        raise NotFound(what="round", id=number)
    return _reports(session, project, [found])[0]


def learning_curve(session: Session, project: Project) -> list[dict[str, Any]]:
    """A point for each measured round, by labels used, with `figure_of` the project and its interval; of
    `_CURVE_POINTS` and more every second (third, …) one and the newest.
    """
    having_head = sa.select(Round.number).where(Round.project_id == project.id, Round.head_id.is_not(None))
    numbers = session.scalars(having_head.order_by(Round.number)).all()
    every = len(numbers) // _CURVE_POINTS + 1
    query = (
        sa.select(
            Round.number.label("round"),
            Head.labels_used,
            Head.metrics["measured_on"].as_string().label("measured_on"),
            Head.metrics["items"].as_integer().label("items"),
            *(Head.metrics[name].as_float().label(name) for name in _CURVE_FIGURES[project.label_kind]),
        )
        .join(Head, Head.id == Round.head_id)
        .where(Round.project_id == project.id, Round.number.in_({*numbers[::every], *numbers[-1:]}))
        .where(Head.metrics[figure_of(project)].as_float().is_not(None))
        .order_by(Round.number)
    )
    return [dict(point) for point in session.execute(query).mappings()]


def figure_of(project: Project) -> str:
    """The figure by which its progress is told."""
    return _CURVE_FIGURES[project.label_kind][0]


def newest_measured_head(session: Session, project: Project) -> Head | None:
    query = (
        sa.select(Head)
        .join(Round, Round.head_id == Head.id)
        .where(Round.project_id == project.id, Head.metrics["measured_on"].as_string().is_not(None))
    )
    return session.scalar(query.order_by(Round.number.desc()).limit(1))


def newest_head(session: Session, project: Project) -> Head | None:
    """In use or not: one that was found worse than the one before is stored, but not promoted."""
    query = sa.select(Head).where(Head.project_id == project.id)
    return session.scalar(query.order_by(Head.version.desc()).limit(1))


def _reports(session: Session, project: Project, rounds: list[Round]) -> list[RoundReport]:
    numbers = [found.number for found in rounds]
    heads = session.scalars(sa.select(Head).where(Head.id.in_([found.head_id for found in rounds])))
    heads_by_id = {head.id: head for head in heads}
    counts = session.execute(
        sa.select(Label.round_number, Label.arm, sa.func.count())
        .where(Label.project_id == project.id, Label.round_number.in_(numbers))
        .where(Label.current, Label.used, Label.class_name.is_not(None))
        .group_by(Label.round_number, Label.arm)
    )
    agreement = _agreement(session, project, numbers)
    arms: dict[int, dict[str, int]] = {number: {} for number in numbers}
    for number, arm, count in counts:
        arms[number][arm] = count
    return [
        RoundReport(
            round=found,
            head=heads_by_id.get(found.head_id) if found.head_id is not None else None,
            labels=found.labels
            if found.labels is not None
            else max(0, project.labels_used - found.labels_before),
            arms=arms[found.number],
            shared=agreement.get(found.number, (0, 0))[0],
            agreed=agreement.get(found.number, (0, 0))[1],
        )
        for found in rounds
    ]


def _agreement(session: Session, project: Project, numbers: list[int]) -> dict[int, tuple[int, int]]:
    """(shared, agreed) by round, where the project has items labeled by several."""
    if ProjectSettings.model_validate(project.settings).overlap == 1:
        return {}
    other = aliased(Label)
    shared = sa.exists().where(
        other.item_id == Label.item_id,
        other.annotator != Label.annotator,
        other.current,
        other.used,
        other.class_name.is_not(None),
    )
    rows = session.execute(
        sa.select(
            Label.round_number, sa.func.count(), sa.func.count().filter(Label.class_name == Item.class_name)
        )
        .join(Item, Item.id == Label.item_id)
        .where(Label.project_id == project.id, Label.round_number.in_(numbers))
        .where(Label.current, Label.used, Label.class_name.is_not(None))
        .where(Item.state == "done", ~Item.gold, shared)
        .group_by(Label.round_number)
    )
    return {number: (count, equal) for number, count, equal in rows}
