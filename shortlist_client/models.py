"""Answers of the service as typed data. Fields that a newer service adds are kept, and are attributes too."""

from collections.abc import Callable
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

Skip = Literal["unsure", "broken", "other"]


class Answer(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True, populate_by_name=True)


class ProjectInfo(Answer):
    """A project and its settings."""

    id: str
    name: str
    classes: list[str]
    state: str
    modality: str | None = None


class Job(Answer):
    """Long work of a worker."""

    id: str
    kind: str
    state: Literal["queued", "running", "succeeded", "failed", "cancelled"]
    progress: float = 0.0
    message: str | None = None
    error: str | None = None
    result: dict[str, Any] | None = None
    eta_s: float | None = None
    waits_for: str | None = None

    @property
    def ended(self) -> bool:
        return self.state not in ("queued", "running")


OnProgress = Callable[[Job], object]


class Content(Answer):
    """Links to an item's bytes that need no key for an hour or so, and its text where it is one."""

    kind: str | None = None
    url: str
    preview_url: str
    media_type: str | None = None
    text: str | None = None
    parts: list["Content"] | None = Field(None, description="both halves of a pair")


class Prediction(Answer):
    class_name: str | None = Field(None, alias="class")
    classes: list[str] | None = Field(None, description="where an item may have several")
    probability: float


class ItemInfo(Answer):
    """An item as lists show it."""

    id: str
    key: str
    uri: str
    content: Content
    split: str
    state: str
    class_name: str | None = Field(None, alias="class")
    classes: list[str] | None = Field(None, description="where an item may have several")
    pretext_loss: float | None = None
    pretext_loss_percentile: float | None = None
    facts: dict[str, Any] | None = None
    meta: dict[str, Any] | None = None


class SimilarItem(ItemInfo):
    similarity: float


class BatchItem(Answer):
    """An item of a batch. `why` is its provenance; control items come without a prediction."""

    id: str
    key: str
    uri: str
    content: Content
    rank: int | None = None
    score: float | None = None
    arm: str
    why: dict[str, Any] = {}
    prediction: Prediction | None = None


class Batch(Answer):
    """Items reserved for an annotator, or the reason why there are none."""

    batch: str | None
    expires_at: datetime | None
    items: list[BatchItem]
    reason: str | None
    retry_after_s: float | None = Field(None, description="asking again may help after so long")


class Label(BaseModel):
    """A label to send: `item` or `key`, and a class (or `classes`, where an item may have several) or a skip. A class
    that is said to be None withdraws the annotator's label."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    item: str | None = None
    key: str | None = None
    class_name: str | None = Field(None, alias="class")
    classes: list[str] | None = None
    skip: Skip | None = None
    annotator: str | None = None
    batch: str | None = None
    duration_ms: int | None = None
    revision: int | None = None
    annotation: JsonValue = Field(None, description="boxes, masks, spans: kept as they are")


class LabelResult(Answer):
    item: str
    outcome: str


class LabelsStored(Answer):
    """The outcomes of labels, in the order they were sent."""

    accepted: int
    results: list[LabelResult]
    round: int
    labels_used: int


class RefusedLine(Answer):
    """A line that was not taken, from 1."""

    line: int
    code: str
    field: str | None = None
    message: str | None = None


class LabelsImported(Answer):
    """`refused` tells the first ones of each call."""

    outcomes: dict[str, int]
    refused: list[RefusedLine]
    refused_count: int
    labels_used: int


class ItemsAdded(Answer):
    added: int
    known: int
    refused: list[RefusedLine]
    refused_count: int


class CurvePoint(Answer):
    """A measured round; the interval is 95 %."""

    round: int
    labels_used: int
    measured_on: str | None = None
    items: int | None = None
    accuracy: float | None = None
    accuracy_low: float | None = None
    accuracy_high: float | None = None
    mean_average_precision: float | None = Field(None, description="where an item may have several classes")


class Metrics(Answer):
    """The progress of a project."""

    labels_used: int
    budget: int | None = None
    pool_items: int
    items: dict[str, int]
    test_items: int
    round: int
    learning_curve: list[CurvePoint]
    class_balance: dict[str, int]
    jobs: list[Job]
    score_run: dict[str, Any] | None = None
    ranking: dict[str, Any] | None = None
    head: dict[str, Any] | None = None


class Event(Answer):
    """A change of the project, as its event stream tells it."""

    id: str
    event: str
    data: dict[str, Any]
