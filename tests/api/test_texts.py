"""Projects of texts over HTTP: inline items, content, modalities."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from service.content.reader import ItemBytes
from service.projects import project_copy, projects
from service.settings import Settings
from service.store.artifacts import Artifacts
from service.store.marks import store_marks
from service.store.session import read_session, write_session
from service.store.tables import CatalogueEntry, Item, Job, Project
from tests import factories
from tests.api.conftest import created
from tests.pictures import encoded, picture
from tests.worker import running
from worker.arrays import no_spans
from worker.jobs import copy_project

NDJSON = {"Content-Type": "application/x-ndjson"}
ODD = ("Plain.", "two\nlines", "🙂" * 3, "مرحبا", "x" * 1_000_000, 'half a quote "')
on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def register(client: TestClient, *texts: str, project: str = "p_1") -> dict[str, Any]:
    entries = [{"key": f"{number:02}", "text": text} for number, text in enumerate(texts)]
    answer = client.post(f"/projects/{project}/items", json={"items": entries})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def stored(settings: Settings) -> list[Path]:
    return sorted(Path(settings.artifacts, "inline").rglob("*.jsonl"))


def test_inline_texts_are_kept_and_read_by_both_programs(
    admin: TestClient, engine: sa.Engine, settings: Settings
) -> None:
    created(admin)
    assert register(admin, *ODD) == {"added": 6, "known": 0, "changed": 0, "refused": [], "refused_count": 0}
    with read_session(engine) as session:
        items = session.scalars(sa.select(Item).order_by(Item.key)).all()
        told = session.get_one(Project, 1)
    reader = ItemBytes(settings)
    assert [reader.read(item.uri).decode() for item in items] == list(ODD)
    assert items[0].facts == {"characters": 6, "words": 1, "encoding": "utf-8"}
    assert len({item.content_hash for item in items}) == 6
    assert (told.modality, told.settings["pretext_task"]["name"]) == ("text", "masked_tokens")
    assert len(stored(settings)) == 1

    assert register(admin, *ODD)["known"] == 6  # of what is known nothing is kept again
    assert register(admin, *ODD, "new") == {
        "added": 1,
        "known": 6,
        "changed": 0,
        "refused": [],
        "refused_count": 0,
    }
    assert len(stored(settings)) == 2


@on_sqlite
def test_a_stream_of_texts(admin: TestClient, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.api.item_registration._CHUNK_ITEMS", 3)
    created(admin)
    lines = [json.dumps({"key": str(number), "text": f"{number}. Жили-были"}) for number in range(7)]
    lines += [
        json.dumps({"key": "large", "text": "Ж" * 500_001}),
        json.dumps({"key": "both", "text": "x", "uri": "/data/a.txt"}),
        json.dumps({"key": "neither"}),
        json.dumps({"key": "empty", "text": " "}),
        json.dumps({"key": "nul", "text": "a\0b"}),
    ]
    answer = admin.post("/projects/p_1/items", content="\n".join(lines), headers=NDJSON).json()
    assert (answer["added"], answer["refused_count"]) == (7, 5)
    assert [(refused["line"], refused["code"]) for refused in answer["refused"]] == [
        (8, "text_too_large"),
        (9, "malformed"),
        (10, "malformed"),
        (11, "text_unusable"),
        (12, "malformed"),
    ]
    assert len(stored(settings)) == 3


@on_sqlite
@pytest.mark.parametrize(
    ("entry", "field"),
    [
        ({"text": "x", "uri": "/data/a.txt"}, "items[0].uri"),
        ({}, "items[0].uri"),
        ({"text": 3}, "items[0].text"),
        ({"text": "a\0b"}, "items[0].text"),
    ],
)
def test_a_wrong_text_names_its_field(entry: dict[str, Any], field: str, admin: TestClient) -> None:
    created(admin)
    body = json.dumps({"items": [{"key": "a"} | entry]})
    answer = admin.post("/projects/p_1/items", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    assert field in answer.json()["detail"]


@on_sqlite
def test_text_for_an_image_project(admin: TestClient) -> None:
    created(admin, modality="image")
    entries = [{"key": "a", "text": "x"}]
    answer = admin.post("/projects/p_1/items", json={"items": entries})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "items[0].text")
    assert "modality" in answer.json()["detail"]
    streamed = admin.post("/projects/p_1/items", content=json.dumps(entries[0]), headers=NDJSON).json()
    assert streamed["refused"] == [{"line": 1, "code": "text_not_taken"}]
    inline = {"key": "b", "uri": f"inline:1/{'0' * 32}.jsonl#row=0"}
    assert admin.post("/projects/p_1/items", json={"items": [inline]}).json()["refused"] == [
        {"line": 1, "code": "uri_not_allowed"}
    ]


@on_sqlite
def test_texts_in_batches_and_answers(admin: TestClient, anyone: TestClient, tmp_path: Path) -> None:
    created(admin)
    register(admin, "<script>alert(1)</script>", "x" * 20_000, "x" * 20_001)
    (tmp_path / "gone.txt").write_text("One.")
    admin.post("/projects/p_1/items", json={"items": [{"key": "gone", "uri": str(tmp_path / "gone.txt")}]})
    (tmp_path / "gone.txt").unlink()

    batch = admin.post("/projects/p_1/next-batch", json={"annotator": "ann", "size": 10}).json()["items"]

    by_key = {item["key"]: item for item in batch}
    content = by_key["00"]["content"]
    assert (content["kind"], content["media_type"]) == ("text", "text/plain; charset=utf-8")
    assert {item["image_url"] for item in batch} == {None}
    texts = {key: item["content"]["text"] for key, item in by_key.items()}
    assert texts == {"00": "<script>alert(1)</script>", "01": "x" * 20_000, "02": None, "gone": None}
    shown = anyone.get(content["url"])
    assert (shown.text, shown.headers["Content-Type"]) == (texts["00"], "text/plain; charset=utf-8")
    assert shown.headers["X-Content-Type-Options"] == "nosniff"
    assert shown.headers["Content-Security-Policy"] == "sandbox; default-src 'none'"
    assert anyone.get(content["preview_url"]).status_code == 200
    assert anyone.get(content["url"][:-1]).json()["code"] == "link_refused"
    assert admin.get(f"/projects/p_1/items/{by_key['00']['id']}/image").json()["code"] == "no_preview"
    assert anyone.get(by_key["gone"]["content"]["url"]).json()["code"] == "no_preview"
    item = admin.get(f"/projects/p_1/items/{by_key['00']['id']}").json()
    assert (item["width"], item["height"], item["facts"]["words"]) == (None, None, 4)
    assert item["content"] == content


@on_sqlite
def test_images_have_content_too_and_are_not_read_for_a_batch(
    admin: TestClient, anyone: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = encoded(picture(1, 40, 20))
    (tmp_path / "a.png").write_bytes(data)
    created(admin)
    admin.post("/projects/p_1/items", json={"items": [{"key": "a", "uri": str(tmp_path / "a.png")}]})
    assert admin.get("/projects/p_1").json()["modality"] == "image"
    with monkeypatch.context() as patched:
        patched.setattr(ItemBytes, "read", None)
        (item,) = admin.post("/next-batch", json={"annotator": "ann"}).json()["items"]
    content = item["content"]
    assert (content["kind"], content["media_type"], content["text"]) == ("image", "image/png", None)
    assert anyone.get(content["url"]).content == anyone.get(item["image_url"]).content == data
    assert anyone.get(content["preview_url"]).headers["Content-Type"] == "image/png"


def announce_tasks(engine: sa.Engine) -> None:
    with write_session(engine) as session:
        for name, kinds in (("rotation", ["image"]), ("simclr", None), ("masked_tokens", ["text"])):
            schema: dict[str, Any] = {"properties": {}, "x-modalities": kinds}
            session.add(CatalogueEntry(kind="pretext_task", name=name, help="", parameters=schema))


class TestModality:
    pytestmark = on_sqlite

    def test_a_choice_with_the_task_that_goes_with_it(self, admin: TestClient) -> None:
        assert created(admin, name="a")["modality"] is None
        image = created(admin, name="b", modality="image")
        assert image["pretext_task"] == {"name": "rotation", "params": {}}
        text = created(admin, name="c", modality="text")
        assert text["pretext_task"] == {"name": "masked_tokens", "params": {}}
        assert (
            created(admin, name="d", modality="text", pretext_task="simclr")["pretext_task"]["name"]
            == "simclr"
        )
        unknown = admin.post("/projects", json={"name": "e", "classes": ["a", "b"], "modality": "smell"})
        assert (unknown.status_code, unknown.json()["code"]) == (422, "unknown_modality")
        assert "image, audio, graph, pair, text, video" in unknown.json()["detail"]

    def test_it_changes_until_there_are_items(self, admin: TestClient) -> None:
        created(admin, modality="text")
        changed = admin.patch("/projects/p_1", json={"modality": "image"}).json()
        assert (changed["modality"], changed["pretext_task"]["name"]) == ("image", "rotation")
        admin.patch("/projects/p_1", json={"modality": "text"})
        register(admin, "One.")
        fixed = admin.patch("/projects/p_1", json={"modality": "image"})
        assert (fixed.status_code, fixed.json()["code"]) == (409, "modality_fixed")
        assert admin.patch("/projects/p_1", json={"modality": "text"}).status_code == 200

    def test_a_task_for_another_modality(self, admin: TestClient, engine: sa.Engine) -> None:
        announce_tasks(engine)
        body = {"name": "a", "classes": ["a", "b"], "modality": "text", "pretext_task": "rotation"}
        wrong = admin.post("/projects", json=body)
        assert (wrong.status_code, wrong.json()["errors"][0]["field"]) == (422, "pretext_task")
        assert "masked_tokens, simclr" in wrong.json()["detail"]
        created(admin, modality="text")
        assert admin.patch("/projects/p_1", json={"pretext_task": "rotation"}).status_code == 422
        assert admin.patch("/projects/p_1", json={"pretext_task": "simclr"}).status_code == 200
        both = admin.patch("/projects/p_1", json={"modality": "image", "pretext_task": "rotation"})
        assert both.json()["pretext_task"]["name"] == "rotation"

    def test_a_task_that_does_not_fit_the_first_texts(self, admin: TestClient, engine: sa.Engine) -> None:
        announce_tasks(engine)
        created(admin, pretext_task="rotation")
        answer = admin.post("/projects/p_1/items", json={"items": [{"key": "a", "text": "One."}]})
        assert (answer.status_code, answer.json()["code"]) == (422, "task_for_another_modality")

    def test_the_pretext_model_of_another_modality(self, admin: TestClient) -> None:
        created(admin, name="a", modality="image")
        body = {"name": "b", "classes": ["a", "b"], "modality": "text", "pretext_from": "p_1"}
        assert admin.post("/projects", json=body).json()["errors"][0]["field"] == "pretext_from"
        assert created(admin, name="c", pretext_from="p_1")["modality"] == "image"


def test_texts_live_as_long_as_a_copy_needs_them(
    admin: TestClient, engine: sa.Engine, settings: Settings, artifacts: Artifacts
) -> None:
    def copied(number: int) -> int:
        with write_session(engine) as session:
            project, _ = project_copy.copy(
                session, session.get_one(Project, number), name="copy", labels=True
            )
            made = project.id
        context = running.claim(engine, settings, artifacts, kind="copy_project")
        copy_project.run(context)
        return made

    def delete(number: int) -> None:
        with write_session(engine) as session:
            projects.delete(session, session.get_one(Project, number))
            job = session.scalars(
                sa.select(Job).where(Job.kind == "delete_artifacts").order_by(Job.id.desc())
            ).first()
            assert job is not None
            for folder in job.payload["folders"]:
                artifacts.delete(folder)

    created(admin)
    register(admin, "One.", "Two.")
    second = copied(1)
    with read_session(engine) as session:
        uris = set(session.scalars(sa.select(Item.uri).where(Item.project_id == second)))
        assert session.get_one(Project, second).modality == "text"
    delete(1)
    assert {ItemBytes(settings).read(uri) for uri in uris} == {b"One.", b"Two."}
    with write_session(engine) as session:
        factories.make_project(session)
    with write_session(engine) as session:
        session.get_one(Project, second).name = "second"
    third = copied(second)
    delete(second)
    assert {ItemBytes(settings).read(uri) for uri in uris} == {b"One.", b"Two."}
    delete(third)
    assert stored(settings) == []


@on_sqlite
def test_the_hardest_words_are_told_with_the_text(
    admin: TestClient, engine: sa.Engine, artifacts: Artifacts
) -> None:
    created(admin)
    register(admin, "<b>one</b> two 🙂 three", "unmarked", "came later")
    with write_session(engine) as session:
        project = session.get_one(Project, 1)
        run = factories.make_score_run(session, project=project)
        session.flush()
        project.score_run_id, artifact = run.id, str(run.artifact)
        ids = list(session.scalars(sa.select(Item.id).order_by(Item.key)))[:2]
    found = no_spans(2, 5)
    found[0, :2] = [[17, 22], [3, 6]]
    with artifacts.writing(f"{artifact}/ids.npy") as file:
        np.save(file, np.array(ids, np.int64))
    store_marks(artifacts, artifact, [found[:1], found[1:]])

    contents = [item["content"] for item in admin.get("/projects/p_1/items").json()["items"]]
    assert [content["marks"] for content in contents] == [[[3, 6], [17, 22]], [], []]
    assert [contents[0]["text"][start:end] for start, end in contents[0]["marks"]] == ["one", "three"]
    batch = admin.post("/projects/p_1/next-batch", json={"annotator": "ann", "size": 3}).json()
    marks = {item["key"]: item["content"]["marks"] for item in batch["items"]}
    assert marks == {"00": [[3, 6], [17, 22]], "01": [], "02": []}
