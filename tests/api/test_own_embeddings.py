"""Embeddings of a user's own model, from the upload to the ranking and the head."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from service.content.reader import content_hash_of
from service.models import own_embeddings
from service.settings import Settings
from service.store import pipeline
from service.store.artifacts import Artifacts
from service.store.ids import row_number
from service.store.session import read_session, write_session
from service.store.tables import Head, Item, Job, PretextModel, Project, Ranking, ScoreRun
from tests.api.conftest import created
from tests.factories import make_item, make_label
from tests.pictures import write_pictures
from tests.worker.running import claim, run
from worker.scoring.scored_items import ScoredItems

AT = "/projects/p_1/embeddings"
ITEMS = 40


class Own:
    """A project of 40 pictures; its true classes are told by the sign of the first of its owner's 6 dimensions."""

    def __init__(
        self, admin: TestClient, engine: sa.Engine, settings: Settings, artifacts: Artifacts, folder: Path
    ) -> None:
        self.admin, self.engine, self.settings, self.artifacts = admin, engine, settings, artifacts
        created(admin)
        write_pictures(folder, ITEMS)
        self.keys = [f"{number:05}.png" for number in range(ITEMS)]
        rng = np.random.default_rng(0)
        self.classes = rng.permutation(np.arange(ITEMS) % 2)
        self.embeddings = rng.normal(size=(ITEMS, 6)).astype(np.float32)
        self.embeddings[:, 0] = np.where(self.classes, 5, -5)
        with write_session(engine) as session:
            project = session.get_one(Project, 1)
            project.modality = "image"
            for key in self.keys:
                path = folder / key
                content_hash = content_hash_of(path.read_bytes())
                make_item(session, project=project, key=key, uri=str(path), content_hash=content_hash)

    def parquet(self, **columns: Any) -> bytes:
        table = {"key": self.keys, "embedding": self.embeddings.tolist()} | columns
        file = io.BytesIO()
        pq.write_table(pa.table({name: value for name, value in table.items() if value is not None}), file)
        return file.getvalue()

    def npz(self, **arrays: Any) -> bytes:
        file = io.BytesIO()
        np.savez(file, **({"keys": np.array(self.keys), "embeddings": self.embeddings} | arrays))
        return file.getvalue()

    def post(self, body: bytes, **query: Any) -> Any:
        return self.admin.post(AT, content=body, params=query)

    def run(self, kind: str) -> dict[str, Any]:
        """The result of the next job of this kind; what is due before it is run, too."""
        while True:
            context = claim(self.engine, self.settings, self.artifacts)
            run(context)
            if context.job.kind == kind:
                break
        with read_session(self.engine) as session:
            job = session.scalars(sa.select(Job).where(Job.kind == kind).order_by(Job.id.desc())).first()
            assert job is not None
            assert job.state == "succeeded", job.error
            return dict(job.result or {})

    def served(self) -> ScoredItems:
        with read_session(self.engine) as session:
            score_run = session.get_one(ScoreRun, session.get_one(Project, 1).score_run_id)
        return ScoredItems.open(self.artifacts, str(score_run.artifact))


@pytest.fixture
def own(
    admin: TestClient, engine: sa.Engine, settings: Settings, artifacts: Artifacts, tmp_path: Path
) -> Own:
    return Own(admin, engine, settings, artifacts, tmp_path / "pool")


@pytest.mark.parametrize("kind", ["parquet", "npz"])
def test_they_are_served_and_ranked_by(own: Own, kind: str) -> None:
    order = np.random.default_rng(1).permutation(ITEMS)  # in any order
    own.keys, own.embeddings = [own.keys[place] for place in order], own.embeddings[order]
    answer = own.post(getattr(own, kind)())
    assert answer.status_code == 202, answer.text
    told = answer.json()
    assert (told["items"], told["dimensions"], told["unknown"], told["missing"]) == (ITEMS, 6, 0, 0)
    assert told["job"]["kind"] == "score_own"

    own.run("score_own")
    scored = own.served()
    by_key = dict(zip(own.keys, own.embeddings, strict=True))
    with read_session(own.engine) as session:
        key_of = dict(session.execute(sa.select(Item.id, Item.key)).all())
    expected = np.stack([by_key[key_of[number]] for number in scored.ids.tolist()]).astype(np.float16)
    assert np.array_equal(scored.embeddings, expected)
    assert own.run("rank")["items"] == 36  # a tenth is kept for the control arm
    with read_session(own.engine) as session:
        assert session.scalars(sa.select(Ranking)).one().note is None  # nothing provisional about them
    metrics = own.admin.get("/projects/p_1/metrics").json()
    assert metrics["score_run"]["embeddings"] == "Embeddings: yours, 6 dimensions."
    (model,) = own.admin.get("/projects/p_1/pretext-models").json()["items"]
    assert (model["task"]["name"], model["state"]) == ("own_embeddings", "ready")
    assert own.admin.get("/projects/p_1/scores").status_code == 200


def test_a_head_learns_from_them(own: Own) -> None:
    own.post(own.parquet())
    own.run("score_own")
    with write_session(own.engine) as session:
        for place in range(20):
            item = session.scalars(sa.select(Item).where(Item.key == own.keys[place])).one()
            make_label(session, item=item, class_name=["coat", "shirt"][own.classes[place]])
        project = session.get_one(Project, 1)
        project.labels_used = 20
        pipeline.queue_train_head(session, project, at_once=True)
    assert own.run("train_head")["heads"] == [1]
    with read_session(own.engine) as session:
        assert session.scalars(sa.select(Head)).one().metrics["trained"] == "propagate"


def test_a_head_on_items_says_that_there_is_no_network(own: Own) -> None:
    own.post(own.parquet())
    own.run("score_own")
    with write_session(own.engine) as session:
        project = session.get_one(Project, 1)
        project.settings = project.settings | {"head": {"name": "finetune", "params": {}}}
        pipeline.queue_train_head(session, project, at_once=True)
    assert "your embeddings came without one" in own.run("train_head")["missing"]


def test_the_gate_compares_them_with_raw_features(own: Own) -> None:
    own.post(own.parquet())
    own.run("score_own")
    with write_session(own.engine) as session:
        for item in session.scalars(sa.select(Item)).all():
            make_label(session, item=item, class_name=["coat", "shirt"][own.classes[int(item.key[:5])]])
        project = session.get_one(Project, 1)
        project.labels_used = ITEMS
        pipeline.queue_probe_pretext(session, project)
    own.run("probe_pretext")
    with read_session(own.engine) as session:
        gate = session.get_one(ScoreRun, session.get_one(Project, 1).score_run_id).gate
    assert gate is not None
    assert "untrained" not in gate["linear"]


def test_pretext_losses_come_with_them(own: Own) -> None:
    losses = np.arange(ITEMS, dtype=np.float64) / 10
    own.post(own.parquet(pretext_loss=losses.tolist()))
    own.run("score_own")
    assert own.served().losses.tolist() == pytest.approx(losses)
    histogram = own.admin.get("/projects/p_1/scores").json()["histogram"]
    assert sum(histogram["counts"]) == ITEMS


def test_items_without_an_embedding_wait_for_theirs(own: Own) -> None:
    told = own.post(own.parquet(key=own.keys[:30], embedding=own.embeddings[:30].tolist())).json()
    assert (told["items"], told["missing"]) == (30, 10)
    own.run("score_own")
    assert len(own.served().ids) == 30
    assert own.post(own.parquet()).json()["missing"] == 0
    own.run("score_own")
    assert len(own.served().ids) == ITEMS


def test_items_that_come_later_change_nothing_until_they_have_theirs(own: Own, tmp_path: Path) -> None:
    own.post(own.parquet())
    own.run("score_own")
    write_pictures(tmp_path / "pool", 1, ITEMS)
    with write_session(own.engine) as session:
        project = session.get_one(Project, 1)
        make_item(session, project=project, key="later", uri=str(tmp_path / "pool" / f"{ITEMS:05}.png"))
        pipeline.queue_score_new_items(session, project)
    own.run("score_own")
    assert len(own.served().ids) == ITEMS


def test_a_copy_of_the_project_takes_them_by_content(own: Own) -> None:
    own.post(own.parquet())
    own.run("score_own")
    with read_session(own.engine) as session:
        made = session.scalars(sa.select(PretextModel)).one().id
    copied = created(own.admin, name="copy", pretext_from="p_1")
    with write_session(own.engine) as session:
        project = session.get_one(Project, row_number("p", copied["id"]))
        project.modality = "image"
        for item in session.scalars(sa.select(Item).where(Item.project_id == 1).limit(10)).all():
            make_item(
                session,
                project=project,
                key=f"copy of {item.key}",
                uri=item.uri,
                content_hash=item.content_hash,
            )
        session.execute(sa.delete(Job))
        pipeline.queue_score_pool(session, project, made)
    assert own.run("score_own")["items"] == 10


def test_there_is_no_backbone_to_export(own: Own) -> None:
    own.post(own.parquet())
    answer = own.admin.post("/projects/p_1/pretext-models/1/export")
    assert answer.status_code == 404, answer.text


def test_what_they_stored_goes_with_the_project(own: Own) -> None:
    own.post(own.parquet())
    own.run("score_own")
    folder = own.settings.data_dir / "artifacts" / "own-embeddings"
    assert len(list(folder.iterdir())) == 1
    own.admin.delete("/projects/p_1")
    run(claim(own.engine, own.settings, own.artifacts, kind="delete_artifacts"))
    assert not list(folder.iterdir())


def bad(own: Own, case: str) -> tuple[bytes, dict[str, Any]]:
    wrong = own.embeddings.copy()
    match case:
        case "text":
            return b"these are no embeddings", {}
        case "empty":
            return b"", {}
        case "cut off":
            return own.parquet()[:300], {}
        case "no key":
            return own.parquet(key=None), {}
        case "numbers as keys":
            return own.parquet(key=list(range(ITEMS))), {}
        case "nan":
            wrong[7, 2] = np.nan
            return own.parquet(embedding=wrong.tolist()), {}
        case "huge":
            wrong[7, 2] = 1e6
            return own.npz(embeddings=wrong), {}
        case "uneven":
            return own.parquet(
                embedding=[row[: 5 if n == 3 else 6] for n, row in enumerate(wrong.tolist())]
            ), {}
        case "null":
            return own.parquet(
                embedding=[None if n == 3 else row for n, row in enumerate(wrong.tolist())]
            ), {}
        case "unknown":
            return own.parquet(key=[*own.keys[:-1], "who"]), {}
        case "none known":
            return own.parquet(key=[f"no {key}" for key in own.keys]), {"ignore_unknown": True}
        case "twice":
            return own.parquet(key=[own.keys[1], *own.keys[1:]]), {}
        case "three":
            return own.parquet(key=own.keys[:3], embedding=wrong[:3].tolist()), {}
        case "wide":
            return own.npz(embeddings=np.zeros((ITEMS, 5_000), np.float16)), {}
        case "one dimension":
            return own.npz(embeddings=np.zeros((ITEMS, 1), np.float16)), {}
        case "other rows":
            return own.npz(embeddings=wrong[:-1]), {}
        case "pickled":
            return own.npz(keys=np.array(own.keys, object)), {}
        case "no rows":
            return own.parquet(
                key=pa.array([], pa.string()), embedding=pa.array([], pa.list_(pa.float32()))
            ), {}
    raise AssertionError(case)


@pytest.mark.parametrize(
    ("case", "field", "sentence"),
    [
        ("text", "body", "neither Parquet nor .npz"),
        ("empty", "body", "neither Parquet nor .npz"),
        ("cut off", "body", "it cannot be read"),
        ("no key", "key", "Its columns are embedding (list"),
        ("numbers as keys", "key", "Its columns are key (int64)"),
        ("nan", "embedding", "row 8, of '00007.png', holds a value that is no number"),
        ("huge", "embedding", "row 8, of '00007.png', holds a value that is too large for 16 bits"),
        ("uneven", "embedding", "it has 5 dimensions in row 4 and 6 in row 1"),
        ("null", "embedding", "it is null in row 4"),
        (
            "unknown",
            "key",
            "no items of the keys 'who'. Import the items first, or say `?ignore_unknown=true`",
        ),
        ("none known", "key", "none of the keys is an item"),
        ("twice", "key", "item i_2 stands there more than once"),
        ("three", "key", "3 of the 40 items of the pool have an embedding"),
        ("wide", "embedding", "it has 5,000 dimensions"),
        ("one dimension", "embedding", "it has 1 dimensions"),
        ("other rows", "embeddings", "it must be (40, d) numbers"),
        ("pickled", "body", "it cannot be read"),
        ("no rows", "body", "it has no rows"),
    ],
)
def test_bad_uploads_say_why_and_leave_nothing(own: Own, case: str, field: str, sentence: str) -> None:
    body, query = bad(own, case)
    answer = own.post(body, **query)
    assert answer.status_code == 422, answer.text
    problem = answer.json()
    assert f"`{field}`" in problem["detail"]
    assert sentence in problem["detail"]
    with read_session(own.engine) as session:
        assert session.scalars(sa.select(PretextModel)).all() == []
    folder = own.settings.data_dir / "artifacts" / "own-embeddings"
    assert not folder.exists() or not any(path.is_file() for path in folder.rglob("*"))


def test_unknown_and_missing_are_accepted_where_that_is_said(own: Own) -> None:
    body = own.parquet(key=[*own.keys[:3], "who"], embedding=own.embeddings[:4].tolist())
    told = own.post(body, ignore_unknown=True, partial=True).json()
    assert (told["items"], told["unknown"], told["missing"]) == (3, 1, 37)


def test_a_large_upload_goes_through_piece_by_piece(own: Own, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_embeddings, "_ROWS", 7)
    own.post(own.npz())
    own.run("score_own")
    assert np.array_equal(own.served().embeddings, own.embeddings.astype(np.float16))
