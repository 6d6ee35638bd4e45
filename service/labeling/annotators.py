"""Annotators: how much each labeled, and how well, by gold items and by agreement with the others."""

from dataclasses import dataclass
from datetime import datetime
from math import sqrt

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.store.names import composed
from service.store.tables import Item, Label, LabelCheck, Project

_Z = 1.959963984540054  # 95 %, two-sided


@dataclass(frozen=True)
class Share:
    """`right` of `items`, with a 95 % interval."""

    items: int
    right: int

    @property
    def interval(self) -> tuple[float, float]:
        """Sound for few items, and for shares near 0 and 1.

        Wilson 1927, Probable Inference, https://doi.org/10.1080/01621459.1927.10502953
        """
        n, share, z2 = self.items, self.right / self.items, _Z * _Z
        middle = (share + z2 / (2 * n)) / (1 + z2 / n)
        half = _Z / (1 + z2 / n) * sqrt(share * (1 - share) / n + z2 / (4 * n * n))
        return max(0.0, middle - half), min(1.0, middle + half)


@dataclass(frozen=True)
class Report:
    annotator: str
    labels: int  # with a class, of items that are not gold
    skips: int
    mean_duration_ms: float | None
    newest_at: datetime
    gold: Share
    agreement: Share | None  # of their labels on items that others labeled, too; None before the first check
    quality: float | None  # CROWDLAB's, by the newest check
    alike: list[
        str
    ]  # others whose names differ by case, spaces or accents' encoding only: perhaps the same person


def reports(session: Session, project: Project, after: str, limit: int) -> list[Report]:
    """By name, from the one after `after`."""
    gold = sa.and_(Item.gold, Label.class_name.is_not(None))
    query = (
        sa.select(
            Label.annotator,
            sa.func.count().filter(Label.class_name.is_not(None), ~Item.gold),
            sa.func.count(Label.skip),
            sa.func.avg(Label.duration_ms),
            sa.func.max(Label.created_at, type_=Label.created_at.type),
            sa.func.count().filter(gold),
            sa.func.count().filter(gold, Label.class_name == Item.class_name),
        )
        .join(Item, Item.id == Label.item_id)
        .where(Label.project_id == project.id, sa.text("labels.current"), Label.annotator > after)
        .group_by(Label.annotator)
        .order_by(Label.annotator)
        .limit(limit)
    )
    check = session.get(LabelCheck, project.id)
    judged = check.annotators if check else {}
    alike = _alike(session, project)
    return [
        _report(
            judged.get(annotator, {}),
            annotator,
            labels,
            skips,
            mean,
            newest,
            Share(items, right),
            [other for other in alike[_folded(annotator)] if other != annotator],
        )
        for annotator, labels, skips, mean, newest, items, right in session.execute(query)
    ]


def _alike(session: Session, project: Project) -> dict[str, list[str]]:
    """All annotators of the project, by how their names read."""
    names = (
        sa.select(Label.annotator).where(Label.project_id == project.id, sa.text("labels.current")).distinct()
    )
    found: dict[str, list[str]] = {}
    for name in sorted(session.scalars(names)):
        found.setdefault(_folded(name), []).append(name)
    return found


def _folded(name: str) -> str:
    return " ".join(composed(name).casefold().split())


def _report(
    judged: dict[str, float | None],
    annotator: str,
    labels: int,
    skips: int,
    mean_duration_ms: float | None,
    newest_at: datetime,
    gold: Share,
    alike: list[str],
) -> Report:
    """judged: what the check of the labels says of the annotator, see worker/jobs/check_labels.py"""
    return Report(
        annotator=annotator,
        labels=labels,
        skips=skips,
        mean_duration_ms=float(mean_duration_ms) if mean_duration_ms is not None else None,
        newest_at=newest_at,
        gold=gold,
        agreement=Share(int(judged["shared"] or 0), int(judged["agreed"] or 0)) if judged else None,
        quality=judged.get("quality"),
        alike=alike,
    )
