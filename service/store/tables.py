"""The tables. SQLite and PostgreSQL run the same migrations; `alembic check` holds them to this file.

Times are UTC. Job times are seconds of the *database's* clock (`service.store.jobs`), so that workers need
not agree on the time. Public ids are made from row numbers (`service.store.ids`).
"""

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

Json = dict[str, Any]
BigInt = sa.BigInteger().with_variant(sa.Integer, "sqlite")
# SQLite gives the number of a deleted row away again, PostgreSQL never does. What outlives a row by its number, a
# folder of artifacts that is to be deleted or a signed link, must not mean another one.
_NEVER_AGAIN = {"sqlite_autoincrement": True}


class UtcDateTime(sa.TypeDecorator[datetime]):
    """Aware UTC in and out; SQLite keeps no zone of its own."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        return value.astimezone(UTC) if value is not None else None

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        return None if value is None else value.replace(tzinfo=value.tzinfo or UTC).astimezone(UTC)


class Needs(sa.TypeDecorator[tuple[str, ...]]):
    """A set of strings as one canonical text, so that equal sets are equal in SQL: sorted, as JSON."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: Iterable[str] | None, dialect: sa.Dialect) -> str | None:
        return None if value is None else json.dumps(sorted(set(value)))

    def process_result_value(self, value: str | None, dialect: sa.Dialect) -> tuple[str, ...] | None:
        return None if value is None else tuple(json.loads(value))


def utc_now() -> datetime:
    return datetime.now(UTC)


class Table(DeclarativeBase):
    metadata = sa.MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012
        int: BigInt,
        datetime: UtcDateTime,
        Json: sa.JSON(none_as_null=True),
        list[str]: sa.JSON,
        tuple[str, ...]: Needs,
        str: sa.Text,
        float: sa.Double,
    }


def _project(index: bool = True) -> Mapped[int]:
    return mapped_column(sa.ForeignKey("projects.id", ondelete="CASCADE"), index=index)


def _when(condition: str) -> dict[str, Any]:
    """A partial index, the same on both databases."""
    return {"sqlite_where": sa.text(condition), "postgresql_where": sa.text(condition)}


class Project(Table):
    """One labeling effort: its pool, classes, settings, rounds."""

    __tablename__ = "projects"
    __table_args__ = (
        sa.CheckConstraint("state IN ('active','paused','archived')", name="state"),
        _NEVER_AGAIN,
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    classes: Mapped[list[str]]
    # single | multi: one class an item, or any set of them (service.store.class_sets). Never changes.
    label_kind: Mapped[str] = mapped_column(default="single", server_default="single")
    # Names that classes had before they were renamed or merged, to the class they are now (service.store.class_names).
    aliases: Mapped[Json] = mapped_column(default=dict, server_default="{}")
    settings: Mapped[Json]  # a service.store.project_settings.ProjectSettings
    modality: Mapped[str | None]  # of its items; null: not told yet (service.store.modalities)
    version: Mapped[int] = mapped_column(default=1)  # + 1 at each PATCH; the ETag
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    labels_used: Mapped[int] = mapped_column(
        default=0
    )  # current labels with a class; counts against the budget
    pretext_from_id: Mapped[int | None] = mapped_column(sa.ForeignKey("projects.id", ondelete="SET NULL"))
    # The projects, some of them gone by now, whose inline texts its items may be: those it was copied from.
    texts_from: Mapped[list[int]] = mapped_column(sa.JSON, default=list, server_default="[]")
    state: Mapped[str] = mapped_column(default="active")  # active | paused | archived
    # Items handed out and labeled or still held: what keeps the control share exact over time.
    served: Mapped[int] = mapped_column(default=0)
    served_control: Mapped[int] = mapped_column(default=0)
    # What is being served. Each switches in one transaction. No foreign keys: they would make a circle.
    score_run_id: Mapped[int | None]
    ranking_id: Mapped[int | None]
    head_id: Mapped[int | None]


class Source(Table):
    """A source of items: a folder, a manifest, a Parquet file, a bucket. One row an import."""

    __tablename__ = "sources"

    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = _project()
    uri: Mapped[str]
    split: Mapped[str]  # pool | test
    label_column: Mapped[str | None]
    job_id: Mapped[int | None]
    # What came of its rows or files: each is one of these.
    added: Mapped[int] = mapped_column(default=0)
    known: Mapped[int] = mapped_column(default=0)
    changed: Mapped[int] = mapped_column(default=0, server_default="0")
    moved: Mapped[int] = mapped_column(default=0, server_default="0")
    quarantined: Mapped[int] = mapped_column(default=0)
    refused: Mapped[int] = mapped_column(default=0, server_default="0")
    ignored: Mapped[int] = mapped_column(default=0, server_default="0")
    # Items of earlier imports of the same place that it does not hold any more.
    missing: Mapped[int] = mapped_column(default=0, server_default="0")
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class Item(Table):
    """One thing that can be labeled: these bytes, whatever their key and place are called
    (docs/decisions/0023-an-item-is-its-bytes.md).
    """

    __tablename__ = "items"
    __table_args__ = (
        sa.UniqueConstraint("project_id", "key"),
        # Uniformly random serving: the next available items in `shuffle` order.
        sa.Index(
            "ix_items_available", "project_id", "shuffle", **_when("state = 'available' AND split = 'pool'")
        ),
        sa.Index("ix_items_test", "project_id", "id", **_when("split = 'test'")),
        sa.Index("ix_items_tested", "project_id", **_when("split = 'test' AND state = 'available'")),
        sa.Index("ix_items_done", "project_id", "class", **_when("state = 'done' AND split = 'pool'")),
        sa.Index("ix_items_gold", "project_id", "shuffle", **_when("gold")),
        sa.Index("ix_items_aside", "project_id", "state", **_when("state NOT IN ('available', 'done')")),
        sa.Index("ix_items_project_id_id", "project_id", "id"),
        sa.Index("ix_items_content", "project_id", "content_hash", **_when("content_hash IS NOT NULL")),
        sa.Index("ix_items_source", "source_id", **_when("source_id IS NOT NULL")),
        sa.Index("ix_items_replaces", "replaces_id", **_when("replaces_id IS NOT NULL")),
        sa.CheckConstraint(
            "state IN ('available','done','broken','quarantined','withdrawn','changed','missing')",
            name="state",
        ),
        sa.CheckConstraint("split IN ('pool','test')", name="split"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = _project(index=False)
    source_id: Mapped[int | None] = mapped_column(sa.ForeignKey("sources.id", ondelete="SET NULL"))
    # Unique in the project: the path below the source's folder, or given. One that another item has taken, with
    # other bytes, goes on as `<key>#<its id>` (service.store.asides).
    key: Mapped[str]
    uri: Mapped[
        str
    ]  # where the bytes are (service.content.reader): a path or fsspec URL, a row of a file, or inline
    split: Mapped[str] = mapped_column(default="pool")
    state: Mapped[str] = mapped_column(default="available")
    shuffle: Mapped[int]  # uniformly random in [0, 2**31): control items are the first in this order
    content_hash: Mapped[str | None]  # BLAKE2b-128 of the bytes, hex; once told it never changes
    stamp: Mapped[
        str | None
    ]  # of the file that held them (`ItemBytes.stamp`): while it is the same, so are they
    came_by: Mapped[str | None]  # what the import `source_id` counted it as: added | known | changed | moved
    replaces_id: Mapped[int | None]  # the item that had its key before, with other bytes (items.id)
    facts: Mapped[Json | None]  # told by looking at the bytes: see `service.content`
    quarantine_reason: Mapped[str | None]
    meta: Mapped[Json | None]
    # The known class: given with a test item, or decided by the labels of a pool item. A set of them as one text
    # where the project has several an item (service.store.class_sets); so with labels.
    class_name: Mapped[str | None] = mapped_column("class")
    decided_by: Mapped[int | None]  # the label that decided it (labels.id)
    # Its class is known for certain: it is done, and mixed in to see how well annotators do.
    gold: Mapped[bool] = mapped_column(default=False, server_default=sa.text("false"))
    # How often it was sent out again: so many annotators more than `overlap` must agree.
    asked_again: Mapped[int] = mapped_column(default=0, server_default="0")
    created_at: Mapped[datetime] = mapped_column(default=utc_now)

    @property
    def width(self) -> int | None:
        """The width of an image, in pixels."""
        return (self.facts or {}).get("width")

    @property
    def height(self) -> int | None:
        return (self.facts or {}).get("height")


class PretextModel(Table):
    """A trained backbone + pretext head, one version."""

    __tablename__ = "pretext_models"
    __table_args__ = (sa.UniqueConstraint("project_id", "version"), _NEVER_AGAIN)

    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = _project(index=False)
    version: Mapped[int]
    state: Mapped[str]  # training | ready | collapsed | failed | cancelled
    task: Mapped[Json]  # {name, params}
    backbone: Mapped[str]
    config: Mapped[
        Json
    ]  # all that rebuilds it: pretrained, image_size, epochs, seed, device, code version, …
    checkpoint: Mapped[str | None]  # newest resumable artifact, while training
    artifact: Mapped[str | None]  # the finished model
    history: Mapped[list[Any]] = mapped_column(sa.JSON, default=list)  # one object an epoch
    diagnostics: Mapped[Json] = mapped_column(default=dict)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    finished_at: Mapped[datetime | None]


class ScoreRun(Table):
    """One pass of one pretext model over a project's items: losses + embeddings. Without a pretext model it is
    provisional: it has no losses, and comes from what costs no training.

    `artifact` names the consolidated arrays (see `worker/jobs/score_pool/__init__.py`); project.score_run_id points at
    the one being served. Of one that was removed (`worker/jobs/remove_score_runs.py`) only this row is left.
    """

    __tablename__ = "score_runs"
    __table_args__ = (_NEVER_AGAIN,)

    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = _project()
    pretext_model_id: Mapped[int | None] = mapped_column(
        sa.ForeignKey("pretext_models.id", ondelete="CASCADE"), index=True
    )
    state: Mapped[str]  # running | complete | removed
    job_id: Mapped[int | None]  # the job that fills it, also when it has to start again
    last_item_id: Mapped[int]  # items that come later belong to the next run
    artifact: Mapped[str | None]
    items: Mapped[int] = mapped_column(default=0)
    dimensions: Mapped[int | None]
    histogram: Mapped[Json | None]  # {edges: [..], counts: [..]} of the pretext losses of the pool
    gate: Mapped[Json | None]  # what labels say of its embeddings: see worker/evaluation/gate.py
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    finished_at: Mapped[datetime | None]


class ScoreShard(Table):
    """A stored shard of a score run: one immutable artifact. What has no row is still to do."""

    __tablename__ = "score_shards"

    score_run_id: Mapped[int] = mapped_column(
        sa.ForeignKey("score_runs.id", ondelete="CASCADE"), primary_key=True
    )
    first_item_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    last_item_id: Mapped[int]
    artifact: Mapped[str]
    items: Mapped[int]


class Score(Table):
    """The pretext loss of an item in a score run."""

    __tablename__ = "scores"
    __table_args__ = (sa.Index("ix_scores_run_loss", "score_run_id", "pretext_loss"),)

    score_run_id: Mapped[int] = mapped_column(
        sa.ForeignKey("score_runs.id", ondelete="CASCADE"), primary_key=True
    )
    item_id: Mapped[int] = mapped_column(
        sa.ForeignKey("items.id", ondelete="CASCADE"), primary_key=True, autoincrement=False, index=True
    )
    pretext_loss: Mapped[float]
    percentile: Mapped[float]  # 0..100 among the pool's items of the run
    spread: Mapped[float | None]  # standard deviation of the loss over the scored views; null: one view


class Duplicate(Table):
    """An item that is a duplicate, or near-duplicate, of its group's representative in a score run."""

    __tablename__ = "duplicates"
    __table_args__ = (sa.Index("ix_duplicates_of", "score_run_id", "duplicate_of_id"),)

    score_run_id: Mapped[int] = mapped_column(
        sa.ForeignKey("score_runs.id", ondelete="CASCADE"), primary_key=True
    )
    item_id: Mapped[int] = mapped_column(
        sa.ForeignKey("items.id", ondelete="CASCADE"), primary_key=True, autoincrement=False, index=True
    )
    duplicate_of_id: Mapped[int] = mapped_column(sa.ForeignKey("items.id", ondelete="CASCADE"), index=True)


class Ranking(Table):
    """The ordered items a strategy produced, one version; `/next-batch` serves from the newest."""

    __tablename__ = "rankings"
    __table_args__ = (sa.UniqueConstraint("project_id", "version"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = _project(index=False)
    version: Mapped[int]
    strategy: Mapped[Json]  # {name, params}: what ran (the cold-start strategy where it stood in)
    seed: Mapped[int]
    score_run_id: Mapped[int] = mapped_column(sa.ForeignKey("score_runs.id", ondelete="CASCADE"), index=True)
    head_id: Mapped[int | None]
    labels_used: Mapped[int]
    items: Mapped[int]
    note: Mapped[str | None]  # why another strategy stood in, when one did
    low_water: Mapped[int] = mapped_column(default=1)  # no item with a smaller rank has room for an annotator
    seconds: Mapped[float]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class RankedItem(Table):
    __tablename__ = "ranked_items"

    ranking_id: Mapped[int] = mapped_column(
        sa.ForeignKey("rankings.id", ondelete="CASCADE"), primary_key=True
    )
    rank: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)  # from 1
    item_id: Mapped[int] = mapped_column(sa.ForeignKey("items.id", ondelete="CASCADE"), index=True)
    score: Mapped[float]  # higher = label sooner
    predicted_class: Mapped[str | None]  # by the head that was served when the ranking was made
    predicted_probability: Mapped[float | None]


class BarredItem(Table):
    """An available item that the newest ranking left out: probably broken, judging by the annotators' own rejects."""

    __tablename__ = "barred_items"

    item_id: Mapped[int] = mapped_column(
        sa.ForeignKey("items.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    project_id: Mapped[int] = _project()
    probability: Mapped[float]  # of being broken; within 0.01 of what the newest ranking found


class Batch(Table):
    """The items handed to one annotator by one `/next-batch` call."""

    __tablename__ = "batches"

    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = _project()
    annotator: Mapped[str]
    expires_at: Mapped[datetime]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class Reservation(Table):
    """An annotator's timed hold on an item. Open and not run out = it holds."""

    __tablename__ = "reservations"
    __table_args__ = (
        sa.Index("uq_reservations_open", "item_id", "annotator", unique=True, **_when("state = 'open'")),
        sa.Index("ix_reservations_item", "item_id", "annotator"),
        sa.Index("ix_reservations_holder", "project_id", "annotator", **_when("state = 'open'")),
        sa.CheckConstraint("state IN ('open','labeled','released','expired')", name="state"),
        sa.CheckConstraint("arm IN ('selected','control','queued','gold')", name="arm"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = _project(index=False)
    batch_id: Mapped[int] = mapped_column(sa.ForeignKey("batches.id", ondelete="CASCADE"), index=True)
    item_id: Mapped[int] = mapped_column(sa.ForeignKey("items.id", ondelete="CASCADE"))
    annotator: Mapped[str]
    position: Mapped[int]  # in the batch, from 1
    arm: Mapped[str]
    rank: Mapped[int | None]
    score: Mapped[float | None]
    ranking_id: Mapped[int | None]
    expires_at: Mapped[datetime]
    state: Mapped[str] = mapped_column(default="open")


class QueuedItem(Table):
    """An item that is served before the ranking: to one annotator only, or to whoever asks next."""

    __tablename__ = "queued_items"
    __table_args__ = (sa.Index("ix_queued_items_project_id_number", "project_id", "number"),)

    item_id: Mapped[int] = mapped_column(
        sa.ForeignKey("items.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    project_id: Mapped[int] = _project(index=False)
    number: Mapped[int]  # served in this order
    annotator: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class Label(Table):
    """The record: item, annotator, class (or skip), time, revision. Never deleted, never changed but `current`.

    A revision without class and skip withdraws the label: none of the annotator's is current then.
    """

    __tablename__ = "labels"
    __table_args__ = (
        sa.UniqueConstraint("item_id", "annotator", "revision"),
        sa.Index("uq_labels_current", "item_id", "annotator", unique=True, **_when("current")),
        sa.Index("ix_labels_project_id_id", "project_id", "id"),
        sa.Index("ix_labels_round", "project_id", "round_number", "arm"),
        sa.Index("ix_labels_created", "project_id", "created_at"),
        sa.Index("ix_labels_annotator", "project_id", "annotator", **_when("current")),
        sa.CheckConstraint("arm IN ('selected','control','queued','gold','imported')", name="arm"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = _project(index=False)
    item_id: Mapped[int] = mapped_column(sa.ForeignKey("items.id", ondelete="CASCADE"))
    annotator: Mapped[str]
    revision: Mapped[int]
    current: Mapped[bool]  # the newest revision of this item and annotator
    used: Mapped[bool] = mapped_column(default=True)  # counts: for the item's class, the budget, the round
    class_name: Mapped[str | None] = mapped_column("class")
    said: Mapped[str | None]  # the class as the annotator named it, where it has another name since
    skip: Mapped[str | None]  # unsure | broken | other
    arm: Mapped[str]
    outcome: Mapped[str]  # accepted | revised | stale | late
    batch_id: Mapped[int | None]
    ranking_id: Mapped[int | None]
    round_number: Mapped[int]
    duration_ms: Mapped[int | None]
    # Whatever its tool draws or writes beside the class: an object or an array, opaque here. Read only where it is
    # asked for: it may be as large as all else of a thousand labels.
    annotation: Mapped[Any | None] = mapped_column(sa.JSON(none_as_null=True), deferred=True)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class Round(Table):
    """Select, label, retrain, measure: once. Closed after `round_size` labels; exactly one is open."""

    __tablename__ = "rounds"
    __table_args__ = (sa.Index("uq_rounds_open", "project_id", unique=True, **_when("closed_at IS NULL")),)

    project_id: Mapped[int] = mapped_column(
        sa.ForeignKey("projects.id", ondelete="CASCADE"), primary_key=True
    )
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)  # from 1
    labels_before: Mapped[int]  # project.labels_used when it opened
    labels: Mapped[int | None]  # labels in it, once closed
    last_label_id: Mapped[int | None]  # set at closing: its head trains on labels up to here
    head_id: Mapped[int | None]  # the head that measured it
    strategy: Mapped[Json | None]
    seed: Mapped[int | None]
    score_run_id: Mapped[int | None]
    ranking_id: Mapped[int | None]
    opened_at: Mapped[datetime] = mapped_column(default=utc_now)
    closed_at: Mapped[datetime | None]
    measured_at: Mapped[datetime | None]


class Head(Table):
    """The downstream classifier trained on labels, one version per training."""

    __tablename__ = "heads"
    __table_args__ = (sa.UniqueConstraint("project_id", "version"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = _project(index=False)
    version: Mapped[int]
    kind: Mapped[Json]  # {name, params}
    classes: Mapped[list[str]]  # in the order of its probabilities; the project's may change later
    score_run_id: Mapped[int] = mapped_column(sa.ForeignKey("score_runs.id", ondelete="CASCADE"), index=True)
    artifact: Mapped[str]
    labels_used: Mapped[int]
    trained_on: Mapped[int]  # items
    trained_digest: Mapped[str]  # of these items and their classes
    last_label_id: Mapped[int]
    round_number: Mapped[int | None]  # the closed round it measures, if it does
    seed: Mapped[int]
    metrics: Mapped[Json]  # see worker/jobs/train_head/measure_head.py
    seconds: Mapped[float]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class OwnPredictions(Table):
    """Probabilities by a user's own model, which strategies use in place of the head's."""

    __tablename__ = "own_predictions"

    project_id: Mapped[int] = mapped_column(
        sa.ForeignKey("projects.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    artifact: Mapped[str]  # see service/models/own_predictions.py
    classes: Mapped[list[str]]  # in the order of its columns; the project's may change later
    items: Mapped[int]
    labels: Mapped[int | None]  # that the model had learned from, where it was told
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class LabelCheck(Table):
    """Findings of the newest check of a project's labels; see `worker/jobs/check_labels.py`."""

    __tablename__ = "label_checks"

    project_id: Mapped[int] = mapped_column(
        sa.ForeignKey("projects.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    last_label_id: Mapped[int]  # it knew the labels up to here
    items: Mapped[int]  # with a class
    shared_items: Mapped[int]  # … and labels of more than one annotator
    agreement: Mapped[float | None]  # share of pairs of labels of one item that are equal
    alpha: Mapped[float | None]  # Krippendorff's: agreement beyond chance
    annotators: Mapped[Json]  # {annotator: CROWDLAB's quality}
    changed: Mapped[int]  # items whose class the consensus changed
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class Suspect(Table):
    """A labeled item whose class the head contradicts: worth another look. Of the newest check."""

    __tablename__ = "suspects"
    __table_args__ = (sa.Index("ix_suspects_project_id_quality", "project_id", "quality"),)

    item_id: Mapped[int] = mapped_column(
        sa.ForeignKey("items.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    project_id: Mapped[int] = _project(index=False)
    class_name: Mapped[str] = mapped_column("class")  # as labeled; a set where an item has several
    # The head's, which had not seen the label; of several, the labeled ones but for those in doubt.
    suggested_class: Mapped[str]
    probability: Mapped[
        float
    ]  # of the suggested class; of several, of what the head says of the most doubtful one
    quality: Mapped[float]  # of the label, 0..1; lower = rather wrong


class ClassChange(Table):
    """A change of a project's classes: who made it, and what it did; see `service.projects.class_changes`."""

    __tablename__ = "class_changes"
    __table_args__ = (sa.CheckConstraint("kind IN ('rename','merge','add','remove')", name="kind"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = _project()
    kind: Mapped[str]
    classes: Mapped[list[str]]  # that were renamed, merged, added or removed
    became: Mapped[str | None]  # what those that were renamed or merged are called since
    effects: Mapped[Json]  # what had these classes: see `class_changes.Effects`
    # Whoever made it; null: the command line.
    key_id: Mapped[int | None] = mapped_column(sa.ForeignKey("keys.id", ondelete="SET NULL"), index=True)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class Worker(Table):
    """A worker process, seen alive at `seen_at`."""

    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(primary_key=True)  # host, process and a random part
    host: Mapped[str]
    pid: Mapped[int]
    device: Mapped[str]
    lanes: Mapped[list[str]] = mapped_column(default=list, server_default="[]")  # one runner each
    # Of what jobs may need: its job kinds, its plug-ins, its device (`service.store.pipeline`).
    has: Mapped[list[str]] = mapped_column(default=list, server_default="[]")
    started_at: Mapped[datetime] = mapped_column(default=utc_now)
    seen_at: Mapped[datetime] = mapped_column(default=utc_now)


class CatalogueEntry(Table):
    """A strategy, pretext task, head or backbone that a worker announced."""

    __tablename__ = "catalogue"

    kind: Mapped[str] = mapped_column(primary_key=True)  # strategy | pretext_task | head | backbone
    name: Mapped[str] = mapped_column(primary_key=True)
    help: Mapped[str]
    parameters: Mapped[Json]  # JSON schema
    lane: Mapped[str | None]  # of the jobs that train a head with it; null: short
    announced_at: Mapped[datetime] = mapped_column(default=utc_now)


class Key(Table):
    """An API key; only a keyed hash of it is stored."""

    __tablename__ = "keys"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    hash: Mapped[str] = mapped_column(unique=True)
    role: Mapped[str]  # admin | annotator | reader
    project_id: Mapped[int | None] = mapped_column(
        sa.ForeignKey("projects.id", ondelete="CASCADE"), index=True
    )
    annotator: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class SignIn(Table):
    """A browser that was given a key: a cookie stands for it until `expires_at`. Only a keyed hash is stored."""

    __tablename__ = "sign_ins"

    hash: Mapped[str] = mapped_column(primary_key=True)
    key_id: Mapped[int] = mapped_column(sa.ForeignKey("keys.id", ondelete="CASCADE"), index=True)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    expires_at: Mapped[datetime] = mapped_column(index=True)


class KeptAnswer(Table):
    """The answer to a POST with an `Idempotency-Key`, kept for a day (`service.access.idempotency`)."""

    __tablename__ = "kept_answers"

    key_id: Mapped[int] = mapped_column(sa.ForeignKey("keys.id", ondelete="CASCADE"), primary_key=True)
    idempotency_key: Mapped[str] = mapped_column(primary_key=True)
    fingerprint: Mapped[str]  # of method, path and body
    status: Mapped[int]
    headers: Mapped[dict[str, str]] = mapped_column(sa.JSON)
    body: Mapped[str | None]  # null: it shows a secret
    created_at: Mapped[datetime] = mapped_column(index=True)


class Webhook(Table):
    """An address that is told of a project's events (`service.store.outbox`)."""

    __tablename__ = "webhooks"

    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = _project()
    url: Mapped[str]
    events: Mapped[list[str]]
    nonce: Mapped[str]  # with the server's secret it gives the webhook's, which is not stored
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class Delivery(Table):
    """An event on its way to a webhook: written in the transaction of what it tells, sent later by
    `service.webhooks.deliverer`. `next_at`: database seconds.
    """

    __tablename__ = "deliveries"
    __table_args__ = (
        sa.Index("ix_deliveries_due", "next_at", **_when("state = 'pending'")),
        sa.Index("ix_deliveries_webhook_id_state", "webhook_id", "state"),
        sa.CheckConstraint("state IN ('pending','delivered','dead')", name="state"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    webhook_id: Mapped[int] = mapped_column(sa.ForeignKey("webhooks.id", ondelete="CASCADE"))
    message_id: Mapped[str] = mapped_column(unique=True)  # the same at each attempt: receivers know it again
    event: Mapped[str]
    body: Mapped[str]  # the JSON as it is sent and signed, byte for byte
    state: Mapped[str] = mapped_column(default="pending")  # pending | delivered | dead: given up
    attempts: Mapped[int] = mapped_column(default=0)  # that ended
    next_at: Mapped[float] = mapped_column(default=0.0)  # of a pending one: not sent before
    status: Mapped[int | None]  # the newest answer's HTTP status
    error: Mapped[str | None]  # why the newest attempt failed
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    ended_at: Mapped[datetime | None]  # delivered, or given up


class ToolConnection(Table):
    """A project of a Label Studio whose tasks are a project's items (`service.integrations.label_studio`).

    `next_at` and `lease_until`: database seconds. Whichever service process holds the lease follows the tool.
    """

    __tablename__ = "tool_connections"
    __table_args__ = (
        sa.UniqueConstraint("project_id"),
        sa.UniqueConstraint("url", "tool_project"),
        _NEVER_AGAIN,
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = _project(index=False)
    url: Mapped[str]
    tool_project: Mapped[int]  # its number there
    token: Mapped[str]  # encrypted
    nonce: Mapped[str]  # with the server's secret it gives what the tool's calls must carry
    callback_url: Mapped[str | None]  # of this service, as the tool reaches it
    config: Mapped[Json]  # a `LabelingConfig`
    top: Mapped[int]  # predictions a ranking
    # The tool's project is kept filled with the next items, and not told the order of what is there.
    batch_push: Mapped[bool] = mapped_column(default=False, server_default=sa.text("false"))
    low_water: Mapped[int] = mapped_column(default=10, server_default="10")  # open tasks
    # Tasks are shown with the class that the head predicts.
    pre_annotate: Mapped[bool] = mapped_column(default=False, server_default=sa.text("false"))
    tool_version: Mapped[str | None]
    has_webhook: Mapped[bool] = mapped_column(default=False)
    warning: Mapped[str | None]
    error: Mapped[str | None]  # why the newest attempt failed
    failures: Mapped[int] = mapped_column(default=0)  # since it last succeeded
    next_at: Mapped[float] = mapped_column(default=0.0)
    lease_until: Mapped[float] = mapped_column(default=0.0)
    lease_token: Mapped[int] = mapped_column(
        default=0
    )  # + 1 at each claim; fences off whoever lost the lease
    seen_until: Mapped[
        str | None
    ]  # of the tool's clock: all that changed before is known here; null: nothing is
    known_classes: Mapped[list[str]]  # of the project, when refused annotations were last looked at
    pushed_ranking_id: Mapped[int | None]  # that the tool orders its tasks by
    model_version: Mapped[str | None]  # as the tool calls it
    predictions: Mapped[int] = mapped_column(default=0)
    synced_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class ToolTask(Table):
    """A task of a connected tool, and the item that it is here; without one, `refusal` says why."""

    __tablename__ = "tool_tasks"

    connection_id: Mapped[int] = mapped_column(
        sa.ForeignKey("tool_connections.id", ondelete="CASCADE"), primary_key=True
    )
    task_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    item_id: Mapped[int | None] = mapped_column(sa.ForeignKey("items.id", ondelete="CASCADE"), index=True)
    digest: Mapped[str]  # of the data that it shows
    gone: Mapped[bool] = mapped_column(default=False)  # deleted in the tool
    pushed: Mapped[bool] = mapped_column(
        default=False, server_default=sa.text("false")
    )  # made by the service
    arm: Mapped[str | None]  # selected | control: why the tool shows it early, if it does …
    ranking_id: Mapped[int | None]  # … and the ranking that said so
    score: Mapped[float | None]  # of its newest prediction: 0 is shown first
    refusal: Mapped[str | None]


class ToolAnnotation(Table):
    """An annotation of a connected tool as it was last seen; what it says is in the label."""

    __tablename__ = "tool_annotations"
    __table_args__ = (sa.Index("ix_tool_annotations_task", "connection_id", "task_id"),)

    connection_id: Mapped[int] = mapped_column(
        sa.ForeignKey("tool_connections.id", ondelete="CASCADE"), primary_key=True
    )
    annotation_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    task_id: Mapped[int]
    unique_id: Mapped[str | None]
    updated_at: Mapped[str]  # as the tool writes it
    annotator: Mapped[str]
    refusal: Mapped[str | None]  # why it is no label


class Job(Table):
    """One queued piece of work for a worker; see `service.store.jobs`, the only writer. Times: database seconds."""

    __tablename__ = "jobs"
    __table_args__ = (
        # By needs, so that the few different ones among many jobs are found without reading them all.
        sa.Index("ix_jobs_ready", "lane", "needs", "priority", "run_at", **_when("state = 'queued'")),
        sa.Index("ix_jobs_lease", "lane", "lease_until", **_when("state = 'running'")),
        sa.Index("ix_jobs_unfinished", "project_id", **_when("state IN ('queued', 'running')")),
        sa.Index("ix_jobs_ended", "project_id", "finished_at", **_when("finished_at IS NOT NULL")),
        # At most one queued per coalesce key: a burst merges into it. Never covers running ones: that would
        # lose what arrives during the run.
        sa.Index("uq_jobs_coalesce", "coalesce_key", unique=True, **_when("state = 'queued'")),
        sa.Index("uq_jobs_serial", "serial_key", unique=True, **_when("state = 'running'")),
        sa.CheckConstraint("state IN ('queued','running','succeeded','failed','cancelled')", name="state"),
        _NEVER_AGAIN,
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int | None] = mapped_column(
        sa.ForeignKey("projects.id", ondelete="CASCADE"), index=True
    )
    kind: Mapped[str]
    lane: Mapped[str] = mapped_column(default="short", server_default="short")  # short | long
    # Of the worker that runs it; see `service.store.pipeline`.
    needs: Mapped[tuple[str, ...]] = mapped_column(default=(), server_default="[]")
    payload: Mapped[Json]
    priority: Mapped[int] = mapped_column(default=0)
    state: Mapped[str] = mapped_column(default="queued")
    run_at: Mapped[float]
    created_at: Mapped[float]
    started_at: Mapped[float | None]
    finished_at: Mapped[float | None]
    attempts: Mapped[int] = mapped_column(default=0)
    max_attempts: Mapped[int] = mapped_column(default=3)
    coalesce_key: Mapped[str | None]
    coalesced: Mapped[int] = mapped_column(default=0)
    serial_key: Mapped[str | None]
    token: Mapped[int] = mapped_column(default=0)  # + 1 at each claim; fences off whoever lost the lease
    worker: Mapped[str | None]
    lease_until: Mapped[float | None]
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    progress: Mapped[float] = mapped_column(default=0.0)
    message: Mapped[str | None]
    result: Mapped[Json | None]
    error: Mapped[str | None]
