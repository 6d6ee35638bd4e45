"""Pins that a data folder left by commit 23285fa is gone on with: nothing stored is lost or computed anew.

`before/data-folder.tar.gz` is such a folder with its images, and `before/data-folder.json` what the API of that
commit said of it (`make_data_folder.py` made both; SHORTLIST_WRITE_FIXTURES does not). Answers may have new fields;
those of then must be equal, also the times that are stored.
"""

import json
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient
from PIL import Image
from sqlalchemy.orm import Session

from service.main import create_app
from service.settings import Settings
from service.store import migrate
from service.store.session import make_engine, read_session
from service.store.tables import Head, Item, Job, PretextModel, Project, RankedItem, Ranking, ScoreRun
from tests.upgrades.make_data_folder import POOL, save, true_class
from tests.upgrades.recorded import BEFORE, same_or_more
from tests.worker.processes import REPOSITORY, environment

Json = dict[str, Any]

AT = "/projects/p_1"
OF_NOW = {"image_url", "expires_at", "label_rate"}  # what depends on when it is asked for


@pytest.fixture
def recorded(tmp_path: Path) -> Json:
    text = (BEFORE / "data-folder.json").read_text()
    found: Json = json.loads(text.replace(POOL, str(tmp_path / "images")))
    return found


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Of the folder, unpacked, its paths as on this machine, and migrated."""
    with tarfile.open(BEFORE / "data-folder.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    settings = Settings(
        data_dir=tmp_path / "data",
        source_roots=(str(tmp_path / "images"),),
        device="cpu",
        threads=1,
        poll_s=0.02,
    )
    move(tmp_path / "data" / "shortlist.db", tmp_path / "images")
    engine = make_engine(settings.database)
    migrate.upgrade(engine)
    migrate.check(engine)
    engine.dispose()
    return settings


def move(database: Path, images: Path) -> None:
    """Say that the images are there. The tables are those of then: it comes before the migrations."""
    engine = sa.create_engine(f"sqlite:///{database}")
    with engine.begin() as connection:
        for table in ("items", "sources"):
            connection.execute(
                sa.text(f"UPDATE {table} SET uri = replace(uri, :then, :now)"),
                {"then": POOL, "now": str(images)},
            )
    engine.dispose()


@pytest.fixture
def engine(settings: Settings) -> Iterator[sa.Engine]:
    engine = make_engine(settings.database)
    yield engine
    engine.dispose()


@pytest.fixture
def client(settings: Settings, recorded: Json) -> Iterator[TestClient]:
    """The service on that folder, asked with the key of then."""
    headers = {"Authorization": f"Bearer {recorded['key']}"}
    with TestClient(create_app(settings), headers=headers) as client:
        yield client


def get(client: TestClient, path: str, **params: Any) -> Any:
    answer = client.get(path, params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()


def lines(client: TestClient, path: str, **params: Any) -> list[Json]:
    answer = client.get(path, params=params, headers={"Accept": "application/x-ndjson"})
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


def post(client: TestClient, path: str, body: Json) -> Json:
    answer = client.post(path, json=body)
    assert answer.is_success, answer.text
    found: Json = answer.json()
    return found


def lasting(answer: Any) -> Any:
    """The answer without what is another one each time."""
    if isinstance(answer, dict):
        return {name: lasting(value) for name, value in answer.items() if name not in OF_NOW}
    return [lasting(value) for value in answer] if isinstance(answer, list) else answer


def run_worker(settings: Settings) -> None:
    """Until nothing is left to do."""
    command = [sys.executable, "-m", "worker", "--until-idle"]
    ended = subprocess.run(
        command, env=environment(settings), cwd=REPOSITORY, capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 0, ended.stderr


ANSWERS: dict[str, Callable[[TestClient], Any]] = {
    "labels": lambda client: lines(client, f"{AT}/labels", all=True),
    "decided": lambda client: lines(client, f"{AT}/labels"),
    "rounds": lambda client: get(client, f"{AT}/rounds")["items"],
    "metrics": lambda client: get(client, f"{AT}/metrics"),
    "project": lambda client: get(client, AT),
    "pretext_models": lambda client: get(client, f"{AT}/pretext-models")["items"],
    "scores": lambda client: get(client, f"{AT}/scores"),
    "item_scores": lambda client: lines(client, f"{AT}/scores"),
    "items": lambda client: get(client, f"{AT}/items", limit=1000)["items"],
    "jobs": lambda client: get(client, "/jobs", limit=1000)["items"],
}


def test_the_api_says_the_same(client: TestClient, recorded: Json) -> None:
    for name, ask in ANSWERS.items():
        same_or_more(lasting(recorded[name]), lasting(ask(client)), name)


def test_the_same_items_come_next(client: TestClient, recorded: Json) -> None:
    """In the same order, for the same reasons, with the same predictions."""
    batch = post(client, f"{AT}/next-batch", {"annotator": "cleo", "size": 5})

    assert len(batch["items"]) == 5
    assert {item["arm"] for item in batch["items"]} == {"selected", "control"}
    same_or_more(lasting(recorded["next_batch"]), lasting(batch))


def test_the_ranking_is_the_same_to_its_end(engine: sa.Engine, recorded: Json) -> None:
    with read_session(engine) as session:
        assert ranked(session) == recorded["ranked"]


def ranked(session: Session) -> list[Json]:
    """The order that is served."""
    rows = session.execute(
        sa.select(
            RankedItem.rank,
            Item.key,
            RankedItem.score,
            RankedItem.predicted_class,
            RankedItem.predicted_probability,
        )
        .join(Item, Item.id == RankedItem.item_id)
        .join(Project, Project.ranking_id == RankedItem.ranking_id)
        .order_by(RankedItem.rank)
    )
    names = ("rank", "key", "score", "class", "probability")
    return [dict(zip(names, row, strict=True)) for row in rows]


def in_use(engine: sa.Engine) -> Json:
    """What is served, and how much there is of what jobs make."""
    with read_session(engine) as session:
        project = session.scalars(sa.select(Project)).one()
        counts = {
            table.__tablename__: session.scalar(sa.select(sa.func.count()).select_from(table))
            for table in (Job, PretextModel, ScoreRun, Ranking, Head)
        }
        head, ranking = (
            session.scalars(sa.select(table.version).where(table.id == number)).one()
            for table, number in ((Head, project.head_id), (Ranking, project.ranking_id))
        )
        return {"score_run": project.score_run_id, "head": head, "ranking": ranking, **counts}


def test_a_worker_has_nothing_to_do(settings: Settings, engine: sa.Engine, recorded: Json) -> None:
    before = in_use(engine)
    assert (before["score_run"], before["head"], before["ranking"]) == (
        1,
        recorded["head"],
        recorded["ranking"],
    )
    assert before["jobs"] == len(recorded["jobs"])

    run_worker(settings)

    assert in_use(engine) == before
    with read_session(engine) as session:
        assert ranked(session) == recorded["ranked"]


def test_the_project_goes_on(
    settings: Settings, client: TestClient, engine: sa.Engine, recorded: Json, tmp_path: Path
) -> None:
    """Five labels close round 4, and an image that is new is scored by the pretext model of then."""
    batch = post(client, f"{AT}/next-batch", {"annotator": "cleo", "size": 5})
    labels = [
        {"item": item["id"], "class": true_class(item["key"]), "annotator": "cleo", "batch": batch["batch"]}
        for item in batch["items"]
    ]
    assert post(client, f"{AT}/labels", {"labels": labels})["labels_used"] == 40
    first = batch["items"][0]
    assert client.get(first["image_url"]).content == (tmp_path / "images" / first["key"]).read_bytes()
    add_image(tmp_path / "images")
    post(client, f"{AT}/sources", {"uri": str(tmp_path / "images")})

    run_worker(settings)

    now = in_use(engine)
    assert now["head"] > recorded["head"]
    assert now["ranking"] > recorded["ranking"]
    assert now["pretext_models"] == 1
    rounds = get(client, f"{AT}/rounds")["items"]
    assert [one["state"] for one in rounds] == ["measured"] * 4 + ["open"]
    same_or_more(lasting(recorded["rounds"][:3]), lasting(rounds[:3]))
    then = {item["key"]: item["pretext_loss"] for item in recorded["items"]}
    losses = {item["key"]: item["pretext_loss"] for item in get(client, f"{AT}/items", limit=1000)["items"]}
    assert losses.pop("99-square.png") > 0
    assert losses == pytest.approx(then, rel=1e-4)


def add_image(folder: Path) -> None:
    save(Image.linear_gradient("L").resize((24, 24)).convert("RGB"), folder / "99-square", png=True)
