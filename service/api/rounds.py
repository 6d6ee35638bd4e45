from datetime import datetime
from typing import Annotated, Any, Literal, Self

from fastapi import APIRouter, Path, Query
from pydantic import ConfigDict, Field

from service.api.annotators import ShareAnswer
from service.api.jobs import JobAnswer
from service.api.scores import GateAnswer
from service.http.dependencies import Reader, ReadSession
from service.http.etag import ETagRoute
from service.http.schemas import Answer, Cursor, Limit, Page, decode_cursor, is_none, with_example
from service.labeling import rounds
from service.labeling.annotators import Share
from service.labeling.rounds import RoundReport
from service.models import scores
from service.projects import projects, summary
from service.projects.advice import Estimate
from service.store.ids import public_id
from service.store.tables import Head, LabelCheck, Ranking, utc_now

router = APIRouter(prefix="/projects/{project_id}", tags=["progress"], route_class=ETagRoute)

_MEASURED: dict[str, Any] = {
    "measured_on": "control",
    "items": 120,
    "accuracy": 0.81,
    "accuracy_low": 0.73,
    "accuracy_high": 0.87,
    "macro_f1": 0.79,
    "nll": 0.61,
    "ece": 0.04,
    "recall": {"coat": 0.8, "shirt": 0.82},
    "confusion": [[48, 12], [11, 49]],
    "temperature": 1.1,
    "reliability": [
        {"items": 40, "sureness": 0.55, "accuracy": 0.6},
        {"items": 80, "sureness": 0.93, "accuracy": 0.91},
    ],
    "pretext_loss_correlation": {"rho": 0.12, "low": -0.06, "high": 0.29, "items": 120},
    "random_curve": [
        {"labels": 40, "items": 120, "accuracy": 0.7, "accuracy_low": 0.61, "accuracy_high": 0.77}
    ],
    "picks_gain": {
        "gain": 0.04,
        "low": -0.01,
        "high": 0.09,
        "labels": 80,
        "items": 120,
        "strategy": "shortlist",
    },
    "trained": "linear",
    "promoted": True,
    "note": None,
}

_LONG = (
    "recall",
    "average_precision",
    "confusion",
    "confusion_by_class",
    "reliability",
)  # of 200 classes they are 85 kB a round


_OF_SEVERAL = "where an item may have several classes; not in answers of other projects"
OfSeveral = Annotated[float | None, Field(exclude_if=is_none)]


class CorrelationAnswer(Answer):
    """Spearman's rank correlation, with its 95 % interval."""

    rho: float
    low: float
    high: float
    items: int


class RandomCurvePoint(Answer):
    """A head trained on random labels only. Interval: 95 %."""

    labels: int
    items: int = Field(description="that it was measured on")
    accuracy: float | None = Field(None, description="null where an item may have several classes")
    accuracy_low: float | None = None
    accuracy_high: float | None = None
    mean_average_precision: OfSeveral = Field(None, description=_OF_SEVERAL)
    mean_average_precision_low: OfSeveral = None
    mean_average_precision_high: OfSeveral = None


class PicksGainAnswer(Answer):
    """Gain of a head by labels that the strategy asked for, against as many random ones. Interval: 95 %. Where
    two measurements say that it is less, random picks take over a share of the ranking, and the ranking's note says so.
    """

    gain: float = Field(description="accuracy by the strategy's labels minus that by random ones")
    low: float
    high: float
    labels: int = Field(description="that each head learned from")
    items: int = Field(description="that both were measured on")
    strategy: str


class ReliabilityBin(Answer):
    """Items that the head was about as sure of: how sure on average, and how often it was right."""

    items: int = Field(description="where they may have several classes, decisions about an item and a class")
    sureness: float = Field(description="mean probability of the predicted class")
    accuracy: float


class ClassConfusion(Answer):
    """Items by whether they have a class, and whether the head says that they do: at least 50 % likely."""

    true_positives: int
    false_negatives: int = Field(description="they have it, and the head missed it")
    false_positives: int = Field(description="they have it not, and the head says so")
    true_negatives: int


class HeadMetrics(Answer):
    """Metrics of a head, measured on test or control items; all null where there were none."""

    model_config = ConfigDict(extra="allow", json_schema_extra={"example": _MEASURED})

    measured_on: Literal["test", "control"] | None = None
    items: int = 0
    accuracy: float | None = None
    accuracy_low: float | None = Field(None, description="95 % interval")
    accuracy_high: float | None = None
    macro_f1: float | None = None
    mean_average_precision: OfSeveral = Field(None, description=_OF_SEVERAL + "; null without any class")
    mean_average_precision_low: OfSeveral = Field(None, description="95 % interval, bootstrapped")
    mean_average_precision_high: OfSeveral = None
    macro_f1_low: OfSeveral = None
    macro_f1_high: OfSeveral = None
    subset_accuracy: OfSeveral = Field(
        None, description=f"items with exactly the right classes, {_OF_SEVERAL}"
    )
    subset_accuracy_low: OfSeveral = None
    subset_accuracy_high: OfSeveral = None
    average_precision: Annotated[
        dict[str, float | None] | None,
        Field(default=None, exclude_if=is_none, description=f"by class, {_OF_SEVERAL}"),
    ] = None
    nll: float | None = Field(None, description="mean negative log-likelihood, nats")
    ece: float | None = Field(None, description="expected calibration error")
    recall: dict[str, float | None] | None = Field(
        None, description="by class; null where there is no item. Not with `brief`, not in `/metrics`"
    )
    confusion: list[list[int]] | None = Field(
        None,
        description="rows: true class, in the project's order; empty for more than 200 classes. Not with `brief`, not "
        "in `/metrics`",
    )
    confusion_by_class: Annotated[
        dict[str, ClassConfusion] | None,
        Field(
            default=None,
            exclude_if=is_none,
            description=f"{_OF_SEVERAL}. Not with `brief`, not in `/metrics`",
        ),
    ] = None
    reliability: list[ReliabilityBin] | None = Field(
        None, description="by rising sureness; of newer heads. Not with `brief`, not in `/metrics`"
    )
    temperature: float | None = None
    pretext_loss_correlation: CorrelationAnswer | None = Field(
        None, description="of pretext loss and the head's own loss, by item"
    )
    random_curve: list[RandomCurvePoint] = Field(
        default_factory=list, description="from control labels alone; of a round's head, from 30 of them"
    )
    picks_gain: PicksGainAnswer | None = Field(
        None, description="of a round's head, from 30 labels of the strategy and 30 of the control arm"
    )
    trained: str | None = Field(None, description="the head that was trained; with `auto`, the one it chose")
    promoted: bool | None = Field(None, description="false: worse than the head before, which stays in use")
    note: str | None = Field(None, description="why it was not promoted")


def _measured(head: Head, *, brief: bool) -> HeadMetrics:
    return HeadMetrics(**{k: v for k, v in head.metrics.items() if not (brief and k in _LONG)})


class RoundAnswer(Answer):
    """Select, label, retrain, measure: once. Closed after `round_size` labels, measured soon after. Of many rounds
    closed at once, as by an import, some are measured, the newest among them; the others stay `closed`.
    """

    model_config = with_example(
        {
            "number": 3,
            "state": "measured",
            "labels": 50,
            "labels_used": 150,
            "arms": {"selected": 45, "control": 5},
            "strategy": {"name": "shortlist", "params": {}},
            "seed": 0,
            "head": 4,
            "metrics": _MEASURED,
        }
    )

    number: int
    state: Literal["open", "closed", "measured"]
    labels: int = Field(description="labels in this round")
    labels_used: int = Field(description="labels in all, at its end")
    arms: dict[str, int] = Field(description="labels by arm: selected, control, imported")
    strategy: dict[str, Any] | None
    seed: int | None
    score_run: str | None
    ranking: str | None
    head: int | None = Field(description="version of the head that measured it")
    metrics: HeadMetrics | None
    agreement: ShareAnswer | None = Field(
        description="of its labels on items that others labeled too, those equal to the item's class; null where "
        "there are none"
    )
    opened_at: datetime
    closed_at: datetime | None
    measured_at: datetime | None
    seconds: float | None = Field(description="from opening to closing")
    training_seconds: float | None

    @classmethod
    def of(cls, report: RoundReport, *, brief: bool = False) -> Self:
        found, head = report.round, report.head
        closed = found.closed_at is not None
        return cls(
            number=found.number,
            state="measured" if head else "closed" if closed else "open",
            labels=report.labels,
            labels_used=found.labels_before + report.labels,
            arms=report.arms,
            strategy=found.strategy,
            seed=found.seed,
            score_run=_public("s", found.score_run_id),
            ranking=_public("r", found.ranking_id),
            head=head.version if head else None,
            metrics=_measured(head, brief=brief) if head else None,
            agreement=ShareAnswer.of(Share(report.shared, report.agreed)) if report.shared else None,
            opened_at=found.opened_at,
            closed_at=found.closed_at,
            measured_at=found.measured_at,
            seconds=(found.closed_at - found.opened_at).total_seconds() if found.closed_at else None,
            training_seconds=head.seconds if head else None,
        )


class CurvePoint(Answer):
    """A measured round. Intervals are 95 %."""

    round: int
    labels_used: int
    measured_on: str | None
    items: int | None
    accuracy: float | None = Field(None, description="null where an item may have several classes")
    accuracy_low: float | None = None
    accuracy_high: float | None = None
    macro_f1: float | None
    mean_average_precision: OfSeveral = Field(None, description=_OF_SEVERAL)
    mean_average_precision_low: OfSeveral = None
    mean_average_precision_high: OfSeveral = None
    subset_accuracy: OfSeveral = None


class EstimateAnswer(Answer):
    """Interval: 95 %."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, found: Estimate | None) -> Self | None:
        return cls(mean=found.mean, low=found.low, high=found.high) if found else None


class AdviceAnswer(Answer):
    """The gain in accuracy that more labels are expected to bring: the learning curve, extrapolated."""

    model_config = with_example(
        {
            "text": "Another 200 labels are expected to add 0.4 ± 0.3 points of accuracy.",
            "labels": 200,
            "gain": {"mean": 0.004, "low": 0.001, "high": 0.007},
        }
    )

    text: str
    labels: int = Field(description="how many more")
    gain: EstimateAnswer | None = Field(
        description="in accuracy, or what else the learning curve is of; null before the fourth measured round"
    )


class RandomSelectionAnswer(Answer):
    """The accuracy that random selection would have reached with as many labels: its own curve, extrapolated."""

    text: str
    labels: int | None
    accuracy: EstimateAnswer | None = Field(
        description="null below 30 control labels; the mean average precision where an item may have several classes"
    )


class AgreementAnswer(Answer):
    """Agreement of annotators, by the newest check of the labels."""

    model_config = with_example({"items": 80, "pairs": 0.9, "alpha": 0.86})

    items: int = Field(description="that several labeled")
    pairs: float = Field(description="share of pairs of labels of one item that are equal")
    alpha: float | None = Field(description="Krippendorff's: 1 is perfect, 0 what chance gives")

    @classmethod
    def of(cls, check: LabelCheck | None) -> Self | None:
        if check is None or check.agreement is None:
            return None
        return cls(items=check.shared_items, pairs=check.agreement, alpha=check.alpha)


class LabelRate(Answer):
    last_hour: int
    annotators: int = Field(description="how many labeled in the last hour")


class RankingAnswer(Answer):
    id: str
    version: int
    strategy: dict[str, Any]
    seed: int
    score_run: str = Field(description="whose losses and embeddings it was made of")
    labels_used: int = Field(description="labels it knew of")
    items: int
    note: str | None
    created_at: datetime

    @classmethod
    def of(cls, ranking: Ranking) -> Self:
        return cls(
            id=public_id("r", ranking.id),
            score_run=public_id("s", ranking.score_run_id),
            version=ranking.version,
            strategy=ranking.strategy,
            seed=ranking.seed,
            labels_used=ranking.labels_used,
            items=ranking.items,
            note=ranking.note,
            created_at=ranking.created_at,
        )


class HeadAnswer(Answer):
    id: str
    version: int
    kind: dict[str, Any]
    labels_used: int
    trained_on: int = Field(description="items")
    metrics: HeadMetrics
    created_at: datetime

    @classmethod
    def of(cls, head: Head) -> Self:
        return cls(
            id=public_id("h", head.id),
            version=head.version,
            kind=head.kind,
            labels_used=head.labels_used,
            trained_on=head.trained_on,
            metrics=_measured(head, brief=True),
            created_at=head.created_at,
        )


class ScoreRunAnswer(Answer):
    id: str
    items: int
    pretext_model: str | None
    pretext_model_version: int | None
    note: str | None = Field(description="why the pretext model is not the one that was trained, if so")
    embeddings: str = Field(description="what they come from, in a sentence")
    gate: GateAnswer | None = Field(description="null before there were labels to judge by")


class WaitingAnswer(Answer):
    kind: str
    waits_for: str


class MetricsAnswer(Answer):
    """Progress of the project, small enough to poll."""

    model_config = with_example(
        {
            "labels_used": 150,
            "budget": 2000,
            "pool_items": 8000,
            "items": {"available": 7850, "done": 150},
            "test_items": 2000,
            "round": 4,
            "round_labels": 0,
            "round_size": 50,
            "class_balance": {"coat": 70, "shirt": 80},
            "label_rate": {"last_hour": 150, "annotators": 2},
            "waiting": [],
        }
    )

    labels_used: int
    budget: int | None
    pool_items: int
    items: dict[str, int] = Field(description="pool items by state")
    test_items: int
    round: int
    round_labels: int
    round_size: int
    learning_curve: list[CurvePoint] = Field(
        description="measured rounds; of 300 and more an even choice, with the first and the newest"
    )
    label_rate: LabelRate
    agreement: AgreementAnswer | None = Field(description="null while no item was labeled by several")
    class_balance: dict[str, int] = Field(description="decided pool items by class")
    jobs: list[JobAnswer] = Field(description="running, then queued")
    waiting: list[WaitingAnswer] = Field(
        description="kinds of queued jobs that no live worker can take, and why"
    )
    score_run: ScoreRunAnswer | None
    ranking: RankingAnswer | None
    head: HeadAnswer | None = Field(description="the one in use")
    head_note: str | None = Field(description="why the newest head is not the one in use, if so")
    advice: AdviceAnswer
    random_selection: RandomSelectionAnswer | None = Field(description="null before the first measured round")

    @classmethod
    def of(cls, found: summary.Metrics) -> Self:
        project, score_run, model = found.project, found.score_run, found.pretext_model
        return cls(
            labels_used=project.labels_used,
            budget=found.settings.budget,
            pool_items=sum(found.states.values()),
            items=found.states,
            test_items=found.test_items,
            round=found.round.number,
            # An undo may take back what closed the round before.
            round_labels=max(0, project.labels_used - found.round.labels_before),
            round_size=found.settings.round_size,
            learning_curve=[CurvePoint(**point) for point in found.learning_curve],
            label_rate=LabelRate(last_hour=found.labels_last_hour, annotators=found.annotators_last_hour),
            agreement=AgreementAnswer.of(found.label_check),
            class_balance=found.class_balance,
            jobs=[JobAnswer.of(job, found.waits_for) for job in found.jobs],
            waiting=[WaitingAnswer(kind=one.kind, waits_for=one.waits_for) for one in found.waiting],
            score_run=ScoreRunAnswer(
                id=public_id("s", score_run.id),
                items=score_run.items,
                pretext_model=_public("m", score_run.pretext_model_id),
                pretext_model_version=model.version if model else None,
                note=model.diagnostics.get("note") if model else None,
                embeddings=scores.embeddings_told(model),
                gate=GateAnswer.of(score_run.gate),
            )
            if score_run
            else None,
            ranking=RankingAnswer.of(found.ranking) if found.ranking else None,
            head=HeadAnswer.of(found.head) if found.head else None,
            head_note=found.head_note,
            advice=AdviceAnswer(
                text=found.advice.text, labels=found.advice.labels, gain=EstimateAnswer.of(found.advice.gain)
            ),
            random_selection=RandomSelectionAnswer(
                text=found.random_selection.text,
                labels=found.random_selection.labels,
                accuracy=EstimateAnswer.of(found.random_selection.accuracy),
            )
            if found.random_selection
            else None,
        )


def _public(kind: str, number: int | None) -> str | None:
    return public_id(kind, number) if number is not None else None


@router.get("/rounds")
def list_rounds(
    project_id: str,
    session: ReadSession,
    caller: Reader,
    newest_first: Annotated[bool, Query(description="from the open round back to the first one")] = False,
    brief: Annotated[
        bool,
        Query(
            description="`recall` and `confusion`, which grow with the classes, and `reliability` are null"
        ),
    ] = False,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> Page[RoundAnswer]:
    """Rounds in order; the last one is open."""
    project = projects.find(session, project_id, caller.project_id)
    (after,) = decode_cursor(cursor, int) or (None,)
    found = rounds.page(session, project, after, limit, newest_first=newest_first)
    return Page.of(
        found, limit, lambda one: RoundAnswer.of(one, brief=brief), lambda last: (last.round.number,)
    )


@router.get("/rounds/{number}")
def get_round(
    project_id: str, number: Annotated[int, Path(ge=1, le=2**53)], session: ReadSession, caller: Reader
) -> RoundAnswer:
    """One round, with its measurements and what it was served from."""
    project = projects.find(session, project_id, caller.project_id)
    return RoundAnswer.of(rounds.find(session, project, number))


@router.get("/metrics")
def get_metrics(project_id: str, session: ReadSession, caller: Reader) -> MetricsAnswer:
    """One small object for dashboards: progress, learning curve, label rate, class balance, jobs."""
    project = projects.find(session, project_id, caller.project_id)
    return MetricsAnswer.of(summary.collect(session, project, utc_now()))
