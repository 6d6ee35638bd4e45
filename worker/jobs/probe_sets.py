"""The labels that may judge embeddings: those that no strategy asked for. All of them may teach.

A strategy asks for the items that the embeddings it looks at get wrong, so on its labels anything else looks better
(docs/decisions/0010).
"""

from dataclasses import dataclass

import numpy as np
import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.store.control_arm import control_item_ids, has_test_split
from service.store.project_settings import ProjectSettings
from service.store.tables import Label, Project, Ranking
from worker.arrays import Bools, Ints
from worker.evaluation import gate
from worker.evaluation.known_items import KnownItems
from worker.jobs.specs import labeled_items, test_items
from worker.scoring.scored_items import ScoredItems


@dataclass(frozen=True)
class Judges:
    """The labels of a project that may judge. control (m,): mask of labeled items that the control arm asked for;
    all_random: true if chance asked for every one of them; control_share: of what is served.
    """

    labeled: KnownItems
    test: KnownItems
    control: Bools
    all_random: bool
    control_share: float

    @staticmethod
    def read(session: Session, project: Project) -> "Judges":
        settings = ProjectSettings.model_validate(project.settings)
        labeled = labeled_items(session, project.id, project.classes, project.label_kind)
        test = test_items(session, project.id, project.classes, project.label_kind)
        return Judges(
            labeled=labeled,
            test=test,
            control=of_control_arm(session, project.id, settings, labeled),
            all_random=_all_random(session, project.id) and bool((labeled.decided_by > 0).all()),
            control_share=settings.control_share(has_test_split(session, project.id)),
        )

    def among(self, scored: ScoredItems) -> "Judges":
        """These labels less those of items that were not scored."""
        known = scored.where(self.labeled.ids) >= 0
        test = self.test.keep(scored.where(self.test.ids) >= 0)
        return Judges(
            self.labeled.keep(known), test, self.control[known], self.all_random, self.control_share
        )

    @property
    def unbiased(self) -> Bools:
        """(m,) Mask of the labeled items that no strategy asked for."""
        return np.ones(len(self.labeled), np.bool_) if self.all_random else self.control

    def by_labels(self, rng: np.random.Generator) -> "Sample | None":
        """All labels teach, the unbiased ones among them judge; at most `gate.AT_MOST` of them. None where there are
        not enough.
        """
        unbiased = self.unbiased
        if not gate.enough(self.labeled.classes[unbiased]):
            return None
        order = rng.permutation(len(self.labeled))
        order = order[np.argsort(~unbiased[order], kind="stable")]  # what judges comes first
        rows = np.sort(order[: gate.AT_MOST])
        return Sample(
            ids=self.labeled.ids[rows],
            classes=self.labeled.classes[rows],
            taught=np.ones(len(rows), np.bool_),
            judged=unbiased[rows],
            judged_on="random" if self.all_random else "control",
        )

    def by_test_split(self, rng: np.random.Generator) -> "Sample | None":
        """All labels teach, the test split judges; at most `gate.AT_MOST` of either. None where it is too small."""
        if not gate.enough(self.test.classes):
            return None
        teaching, judging = _some(len(self.labeled), rng), _some(len(self.test), rng)
        taught = np.arange(len(teaching) + len(judging)) < len(teaching)
        return Sample(
            ids=np.concatenate([self.labeled.ids[teaching], self.test.ids[judging]]),
            classes=np.concatenate([self.labeled.classes[teaching], self.test.classes[judging]]),
            taught=taught,
            judged=~taught,
            judged_on="test",
        )


@dataclass(frozen=True)
class Sample:
    """Items (n,) with their classes (n,), or (n, c) of several: which of them teach probes, and which judge."""

    ids: Ints
    classes: Ints
    taught: Bools
    judged: Bools
    judged_on: gate.JudgedOn

    def keep(self, rows: Ints) -> "Sample":
        return Sample(
            self.ids[rows], self.classes[rows], self.taught[rows], self.judged[rows], self.judged_on
        )

    @property
    def enough(self) -> bool:
        return gate.enough(self.classes[self.taught], self.classes[self.judged])


def _some(count: int, rng: np.random.Generator) -> Ints:
    return np.sort(rng.permutation(count)[: gate.AT_MOST])


def of_control_arm(
    session: Session, project_id: int, settings: ProjectSettings, labeled: KnownItems
) -> Bools:
    """(m,) Mask of the labeled items that the control arm asked for. Not the control items whose labels were imported,
    or asked for by a person: who chose them may have had a reason.
    """
    asked = sa.select(Label.id).where(Label.project_id == project_id, Label.arm == "control")
    deciding = np.fromiter(session.scalars(asked), np.int64)
    control = np.array(control_item_ids(session, project_id, settings), np.int64)
    return np.isin(labeled.ids, control) & np.isin(labeled.decided_by, deciding)


def _all_random(session: Session, project_id: int) -> bool:
    """True if chance chose every labeled item: the control arm, or a ranking by `random`."""
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
