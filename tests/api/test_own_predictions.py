"""Predictions of a user's own model, from the upload to the ranking that goes by them."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from service.settings import Settings
from service.store.artifacts import Artifacts
from service.store.own_predictions import folder_of
from service.store.session import read_session, write_session
from service.store.tables import Head, Item, OwnPredictions, Project, RankedItem, Ranking
from tests.api.conftest import Callers
from tests.worker.jobs.scored_projects import Bench, ScoredProject
from tests.worker.running import claim, run

AT = "/projects/p_1/predictions"
POOL = 30


class Own:
    """A scored project of 30 items and the classes cat and dog; its owner's model doubts none but the last three."""

    def __init__(self, admin: TestClient, bench: Bench, engine: sa.Engine) -> None:
        self.admin, self.bench, self.engine = admin, bench, engine
        self.scored: ScoredProject = bench.project(pool=POOL)
        with read_session(engine) as session:
            self.classes = list(session.get_one(Project, self.scored.id).classes)
            query = sa.select(Item.key).where(Item.id.in_(self.scored.pool)).order_by(Item.id)
            self.keys = list(session.scalars(query))
        self.doubted = set(self.scored.pool[-3:])
        sure = np.eye(len(self.classes))[np.arange(POOL) % len(self.classes)]
        sure[-3:] = 1 / len(self.classes)
        self.probabilities = sure

    def parquet(self, **columns: Any) -> bytes:
        mine = dict(zip(self.classes, self.probabilities.T.tolist(), strict=True))
        table = {"key": self.keys} | mine | columns
        file = io.BytesIO()
        pq.write_table(pa.table({name: value for name, value in table.items() if value is not None}), file)
        return file.getvalue()

    def post(self, body: bytes | None = None, **query: Any) -> Any:
        return self.admin.post(AT, content=self.parquet() if body is None else body, params=query)

    def refused(self, body: bytes, **query: Any) -> str:
        answer = self.post(body, **query)
        assert answer.status_code == 422, answer.text
        with read_session(self.engine) as session:
            assert session.scalar(sa.select(sa.func.count()).select_from(OwnPredictions)) == 0
        assert self.bench.artifacts.names(folder_of(self.scored.id)) == []
        return str(answer.json()["detail"])

    def rank(self) -> Ranking:
        """The ranking that is queued."""
        run(claim(self.engine, self.bench.settings, self.bench.artifacts))
        with read_session(self.engine) as session:
            return session.get_one(Ranking, session.get_one(Project, self.scored.id).ranking_id)

    def first(self, ranking: Ranking, n: int) -> list[RankedItem]:
        with read_session(self.engine) as session:
            query = sa.select(RankedItem).where(RankedItem.ranking_id == ranking.id).order_by(RankedItem.rank)
            return list(session.scalars(query.limit(n)))


@pytest.fixture
def own(admin: TestClient, settings: Settings, engine: sa.Engine, artifacts: Artifacts) -> Own:
    found = Own(admin, Bench(engine, settings, artifacts), engine)
    with write_session(engine) as session:
        project = session.get_one(Project, found.scored.id)
        project.settings = project.settings | {
            "strategy": {"name": "margin", "params": {}},
            "control_fraction": 0,
        }
    return found


def test_strategies_look_for_what_the_model_doubts(own: Own) -> None:
    answer = own.post(labels=0)
    assert answer.status_code == 202, answer.text
    said = answer.json()
    assert (said["items"], said["unknown"], said["missing"], said["labels"]) == (POOL, 0, 0, 0)
    ranking = own.rank()
    assert {row.item_id for row in own.first(ranking, 3)} == own.doubted
    assert str(ranking.note).startswith(f"By your own predictions of {POOL} items.")
    sure = own.first(ranking, POOL)[-1]
    number = own.scored.pool.index(sure.item_id)
    assert (sure.predicted_class, sure.predicted_probability) == (own.classes[number % len(own.classes)], 1)
    assert own.admin.get(AT).json()["classes"] == own.classes


def test_others_take_their_place_and_without_them_the_head_counts(own: Own) -> None:
    own.post()
    own.probabilities = own.probabilities[::-1]
    own.post()
    assert {row.item_id for row in own.first(own.rank(), 3)} == set(own.scored.pool[:3])
    assert own.admin.delete(AT).status_code == 204
    assert "predictions" not in str(own.rank().note)
    assert own.admin.get(AT).json()["code"] == "no_predictions"
    assert own.admin.delete(AT).status_code == 404


def test_items_without_a_prediction_are_judged_by_the_mean(own: Own) -> None:
    keep = [*range(10), *range(POOL - 3, POOL)]
    columns = dict(zip(own.classes, own.probabilities[keep].T.tolist(), strict=True))
    answer = own.post(own.parquet(key=[own.keys[at] for at in keep], **columns))
    assert (answer.json()["items"], answer.json()["missing"]) == (13, POOL - 13)
    found = own.first(own.rank(), POOL)
    assert {row.item_id for row in found} == set(own.scored.pool)
    assert {row.item_id for row in found[:3]} == own.doubted


def test_a_class_that_was_renamed_keeps_its_column(own: Own) -> None:
    own.post()
    change = {"kind": "rename", "classes": own.classes[:1], "to": "lynx"}
    assert own.admin.post("/projects/p_1/classes/changes", json=change).is_success
    assert {row.item_id for row in own.first(own.rank(), 3)} == own.doubted
    assert own.post().json()["classes"] == ["lynx", *own.classes[1:]]  # by the name of before


def changed(own: Own, row: int, *values: float) -> bytes:
    p = own.probabilities.copy()
    p[row, : len(values)] = values
    return own.parquet(**dict(zip(own.classes, p.T.tolist(), strict=True)))


def empty(own: Own) -> bytes:
    return own.parquet(
        key=pa.array([], pa.string()), **{name: pa.array([], pa.float64()) for name in own.classes}
    )


REFUSED: dict[str, tuple[Callable[[Own], bytes], str]] = {
    "sum": (
        lambda own: changed(own, 4, 0.25, 0.25),
        "row 5, of '{key4}', holds no probabilities: they sum to 0.5",
    ),
    "negative": (lambda own: changed(own, 3, -1, 2), "row 4, of '{key3}', holds no probabilities: one is -1"),
    "nan": (
        lambda own: changed(own, 2, np.nan),
        "row 3, of '{key2}', holds no probabilities: one is no number",
    ),
    "unknown class": (
        lambda own: own.parquet(unicorn=[0.0] * POOL),
        "`unicorn`: the project has no such class",
    ),
    "no column": (lambda own: own.parquet(**{own.classes[1]: None}), "the file has no column for '{class1}'"),
    "unknown key": (lambda own: own.parquet(key=["nobody", *own.keys[1:]]), "no items of the keys 'nobody'"),
    "twice": (lambda own: own.parquet(key=[own.keys[1], *own.keys[1:]]), "stands there more than once"),
    "no key": (lambda own: own.parquet(key=None), "`key`: the file has no such column of strings"),
    "text": (lambda own: own.parquet(**{own.classes[0]: ["much"] * POOL}), "and not probabilities"),
    "null": (lambda own: own.parquet(**{own.classes[0]: [None, *[0.5] * (POOL - 1)]}), "it is null"),
    "empty": (empty, "no rows"),
    "junk": (lambda own: b"no Parquet at all", "cannot be read"),
}


@pytest.mark.parametrize("case", list(REFUSED))
def test_what_is_no_prediction_is_refused(own: Own, case: str) -> None:
    body, sentence = REFUSED[case]
    names = {f"key{number}": key for number, key in enumerate(own.keys[:5])} | {"class1": own.classes[1]}
    assert sentence.format(**names) in own.refused(body(own))


def test_keys_that_are_no_items_are_left_out_where_that_is_said(own: Own) -> None:
    answer = own.post(own.parquet(key=["nobody", *own.keys[1:]]), ignore_unknown=True).json()
    assert (answer["unknown"], answer["items"], answer["missing"]) == (1, POOL - 1, 1)


def test_a_model_of_yesterday_is_told(own: Own) -> None:
    with write_session(own.engine) as session:
        project = session.get_one(Project, own.scored.id)
        head = Head(
            project_id=project.id,
            version=1,
            kind={"name": "linear", "params": {}},
            classes=own.classes,
            score_run_id=project.score_run_id,
            artifact="heads/1/none.npz",
            labels_used=20,
            trained_on=20,
            trained_digest="",
            last_label_id=0,
            seed=0,
            metrics={},
            seconds=0,
        )
        session.add(head)
        session.flush()
        project.head_id = head.id
    answer = own.post(labels=19)
    assert (answer.status_code, answer.json()["code"]) == (409, "predictions_older")
    assert "from 19 labels, and the head at hand from 20" in answer.json()["detail"]
    assert own.post(labels=19, older=True).status_code == 202
    assert own.post(labels=20).status_code == 202


def test_roles(own: Own, caller: Callers) -> None:
    assert caller("reader").post(AT, content=own.parquet()).status_code == 403
    own.post()
    assert caller("reader").get(AT).status_code == 200
    assert caller("reader").delete(AT).status_code == 403
