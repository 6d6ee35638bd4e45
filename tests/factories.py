"""One `make_<thing>` per table: valid rows with little to say. Flushed, not committed."""

import itertools
from datetime import timedelta
from typing import Any, TypeVar

from sqlalchemy.orm import Session

from service.store.tables import (
    BarredItem,
    Batch,
    CatalogueEntry,
    ClassChange,
    Delivery,
    Duplicate,
    Head,
    Item,
    Job,
    KeptAnswer,
    Key,
    Label,
    LabelCheck,
    PretextModel,
    Project,
    QueuedItem,
    RankedItem,
    Ranking,
    Reservation,
    Round,
    Score,
    ScoreRun,
    ScoreShard,
    Source,
    Suspect,
    Table,
    ToolConnection,
    Webhook,
    Worker,
    utc_now,
)

T = TypeVar("T", bound=Table)
_numbers = itertools.count(1)


def _add(session: Session, row: T) -> T:
    session.add(row)
    session.flush()
    return row


def make_project(session: Session, **values: Any) -> Project:
    """With its first round open, as the service makes it."""
    defaults = {
        "name": f"project {next(_numbers)}",
        "classes": ["cat", "dog"],
        "settings": {},
        "modality": "image",
    }
    project = _add(session, Project(**defaults | values))
    make_round(session, project=project)
    return project


def make_source(session: Session, *, project: Project, **values: Any) -> Source:
    defaults = {"uri": f"/pool/{next(_numbers)}", "split": "pool"}
    return _add(session, Source(project_id=project.id, **defaults | values))


def make_item(session: Session, *, project: Project, **values: Any) -> Item:
    number = next(_numbers)
    defaults = {"key": f"{number:06}.png", "uri": f"/pool/{number:06}.png", "shuffle": number}
    return _add(session, Item(project_id=project.id, **defaults | values))


def make_pretext_model(session: Session, *, project: Project, **values: Any) -> PretextModel:
    version = next(_numbers)
    defaults = {
        "version": version,
        "state": "ready",
        "task": {"name": "rotation", "params": {}},
        "backbone": "small",
        "config": {"image_size": 28, "seed": 0},
        "artifact": f"models/{version}.safetensors",
    }
    return _add(session, PretextModel(project_id=project.id, **defaults | values))


def make_score_run(
    session: Session, *, project: Project, pretext_model: PretextModel | None = None, **values: Any
) -> ScoreRun:
    pretext_model = pretext_model or make_pretext_model(session, project=project)
    defaults = {
        "state": "complete",
        "artifact": f"scores/{next(_numbers)}",
        "dimensions": 8,
        "last_item_id": 2**31,
    }
    return _add(
        session, ScoreRun(project_id=project.id, pretext_model_id=pretext_model.id, **defaults | values)
    )


def make_score_shard(session: Session, *, score_run: ScoreRun, **values: Any) -> ScoreShard:
    number = next(_numbers)
    defaults = {
        "first_item_id": number,
        "last_item_id": number,
        "artifact": f"scores/shards/{number}.npz",
        "items": 1,
    }
    return _add(session, ScoreShard(score_run_id=score_run.id, **defaults | values))


def make_score(session: Session, *, score_run: ScoreRun, item: Item, **values: Any) -> Score:
    defaults = {"pretext_loss": 1.0, "percentile": 50.0}
    return _add(session, Score(score_run_id=score_run.id, item_id=item.id, **defaults | values))


def make_duplicate(session: Session, *, score_run: ScoreRun, item: Item, of: Item) -> Duplicate:
    return _add(session, Duplicate(score_run_id=score_run.id, item_id=item.id, duplicate_of_id=of.id))


def make_ranking(
    session: Session, *, project: Project, score_run: ScoreRun, items: list[Item] | None = None, **values: Any
) -> Ranking:
    """With `items` ranked in the given order."""
    items = items or []
    defaults = {
        "version": next(_numbers),
        "strategy": {"name": "shortlist", "params": {}},
        "seed": 0,
        "labels_used": 0,
        "items": len(items),
        "seconds": 0.1,
    }
    ranking = _add(session, Ranking(project_id=project.id, score_run_id=score_run.id, **defaults | values))
    for rank, item in enumerate(items, start=1):
        make_ranked_item(session, ranking=ranking, item=item, rank=rank, score=1.0 / rank)
    return ranking


def make_ranked_item(session: Session, *, ranking: Ranking, item: Item, **values: Any) -> RankedItem:
    defaults = {"rank": 1, "score": 1.0}
    return _add(session, RankedItem(ranking_id=ranking.id, item_id=item.id, **defaults | values))


def make_barred_item(session: Session, *, item: Item, **values: Any) -> BarredItem:
    defaults = {"probability": 0.9}
    return _add(session, BarredItem(item_id=item.id, project_id=item.project_id, **defaults | values))


def make_batch(session: Session, *, project: Project, **values: Any) -> Batch:
    defaults = {"annotator": "ann", "expires_at": utc_now() + timedelta(hours=1)}
    return _add(session, Batch(project_id=project.id, **defaults | values))


def make_reservation(session: Session, *, batch: Batch, item: Item, **values: Any) -> Reservation:
    defaults = {"annotator": batch.annotator, "expires_at": batch.expires_at, "position": 1, "arm": "control"}
    return _add(
        session,
        Reservation(project_id=batch.project_id, batch_id=batch.id, item_id=item.id, **defaults | values),
    )


def make_queued_item(session: Session, *, item: Item, **values: Any) -> QueuedItem:
    defaults = {"number": next(_numbers)}
    return _add(session, QueuedItem(item_id=item.id, project_id=item.project_id, **defaults | values))


def make_label(session: Session, *, item: Item, **values: Any) -> Label:
    """Also decides the item, unless it is a skip."""
    defaults = {
        "annotator": "ann",
        "revision": 1,
        "current": True,
        "class_name": "cat",
        "arm": "control",
        "outcome": "accepted",
        "round_number": 1,
    }
    label = _add(session, Label(project_id=item.project_id, item_id=item.id, **defaults | values))
    if label.class_name is not None:
        item.state, item.class_name, item.decided_by = "done", label.class_name, label.id
        session.flush()
    return label


def make_round(session: Session, *, project: Project, **values: Any) -> Round:
    defaults = {"number": 1, "labels_before": 0}
    return _add(session, Round(project_id=project.id, **defaults | values))


def make_head(session: Session, *, project: Project, score_run: ScoreRun, **values: Any) -> Head:
    version = next(_numbers)
    defaults = {
        "version": version,
        "kind": {"name": "linear", "params": {}},
        "classes": project.classes,
        "artifact": f"heads/{version}.npz",
        "labels_used": 10,
        "trained_on": 10,
        "trained_digest": "",
        "last_label_id": 10,
        "seed": 0,
        "metrics": {},
        "seconds": 0.1,
    }
    return _add(session, Head(project_id=project.id, score_run_id=score_run.id, **defaults | values))


def make_label_check(session: Session, *, project: Project, **values: Any) -> LabelCheck:
    defaults = {"last_label_id": 10, "items": 10, "shared_items": 0, "annotators": {}, "changed": 0}
    return _add(session, LabelCheck(project_id=project.id, **defaults | values))


def make_suspect(session: Session, *, item: Item, **values: Any) -> Suspect:
    defaults = {"class_name": "cat", "suggested_class": "dog", "probability": 0.9, "quality": 0.05}
    return _add(session, Suspect(item_id=item.id, project_id=item.project_id, **defaults | values))


def make_class_change(session: Session, *, project: Project, **values: Any) -> ClassChange:
    defaults = {"kind": "rename", "classes": ["cat"], "became": "lion", "effects": {}}
    return _add(session, ClassChange(project_id=project.id, **defaults | values))


def make_worker(session: Session, **values: Any) -> Worker:
    defaults = {
        "id": f"worker-{next(_numbers)}",
        "host": "host",
        "pid": 1,
        "device": "cpu",
        "lanes": ["short", "long"],
        "has": [],
    }
    return _add(session, Worker(**defaults | values))


def make_catalogue_entry(session: Session, **values: Any) -> CatalogueEntry:
    defaults = {
        "kind": "strategy",
        "name": f"strategy-{next(_numbers)}",
        "help": "Orders items.",
        "parameters": {"type": "object", "properties": {}, "additionalProperties": False},
    }
    return _add(session, CatalogueEntry(**defaults | values))


def make_key(session: Session, **values: Any) -> Key:
    number = next(_numbers)
    defaults = {"name": f"key {number}", "hash": f"{number:064x}", "role": "admin"}
    return _add(session, Key(**defaults | values))


def make_kept_answer(session: Session, *, key: Key, **values: Any) -> KeptAnswer:
    defaults = {
        "idempotency_key": f"request {next(_numbers)}",
        "fingerprint": "0" * 64,
        "status": 200,
        "headers": {},
        "body": "{}",
        "created_at": utc_now(),
    }
    return _add(session, KeptAnswer(key_id=key.id, **defaults | values))


def make_webhook(session: Session, *, project: Project, **values: Any) -> Webhook:
    defaults = {"url": "http://127.0.0.1:9/hook", "events": ["job.failed"], "nonce": "00"}
    return _add(session, Webhook(project_id=project.id, **defaults | values))


def make_tool_connection(session: Session, *, project: Project, **values: Any) -> ToolConnection:
    config = {
        "kind": "image",
        "data_key": "image",
        "control": "Choices",
        "from_name": "label",
        "to_name": "image",
        "classes": project.classes,
    }
    defaults = {
        "url": "http://127.0.0.1:9",
        "tool_project": next(_numbers),
        "token": "",
        "nonce": "00",
        "config": config,
        "top": 1000,
        "known_classes": project.classes,
    }
    return _add(session, ToolConnection(project_id=project.id, **defaults | values))


def make_delivery(session: Session, *, webhook: Webhook, **values: Any) -> Delivery:
    number = next(_numbers)
    defaults = {"message_id": f"msg_{number}", "event": "job.failed", "body": "{}"}
    return _add(session, Delivery(webhook_id=webhook.id, **defaults | values))


def make_job(session: Session, **values: Any) -> Job:
    """Any state, for what reads jobs. What runs them is tested through `service.store.jobs.enqueue`."""
    defaults = {"kind": "rank", "payload": {}, "run_at": 0.0, "created_at": 0.0}
    return _add(session, Job(**defaults | values))
