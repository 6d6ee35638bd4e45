"""Files of tools through HTTP and the command line."""

import io
import json
import zipfile
from pathlib import Path

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient
from PIL import Image

from service import cli
from service.settings import Settings
from service.store.session import write_session
from service.store.tables import Project
from tests import factories
from tests.api.conftest import Callers, created
from tests.api.test_labeling import fill

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

BOXES = [{"category": "coat", "bbox": [1, 2, 3, 4]}]


def import_as(client: TestClient, format: str, body: bytes, **more: str) -> dict[str, object]:
    answer = client.post("/projects/p_1/labels/import", params={"format": format, **more}, content=body)
    assert answer.status_code == 200, answer.text
    told: dict[str, object] = answer.json()
    return told


@pytest.mark.parametrize(
    "format", ["coco", "voc", "cvat", "fiftyone", "label-studio", "csv", "ndjson", "json", "parquet"]
)
def test_an_export_is_an_import_elsewhere(format: str, admin: TestClient, engine: sa.Engine) -> None:
    created(admin)
    fill(engine, 4)
    given = [
        {"key": "000", "class": "coat", "annotator": "ann", "annotation": {"coco": BOXES}},
        {"key": "001", "class": "shirt", "annotator": "ann"},
        {"key": "002", "class": "shirt", "annotator": "bob"},
    ]
    assert admin.post("/projects/p_1/labels", json={"labels": given}).status_code == 200
    sent = admin.get("/projects/p_1/labels", params={"format": format})
    assert sent.headers["content-disposition"].startswith('attachment; filename="labels-p_1.')
    kept = format in ("coco", "csv", "ndjson", "json", "parquet")
    assert ("Shortlist-Left-Out" in sent.headers) == (not kept)

    created(admin, name="elsewhere")
    with write_session(engine) as session:
        project = session.get_one(Project, 2)
        for number in range(4):
            factories.make_item(session, project=project, key=f"{number:03}")
    answer = admin.post(
        "/projects/p_2/labels/import", params={"format": format, "annotator": "import"}, content=sent.content
    )
    assert (answer.json()["outcomes"], answer.json()["refused"]) == ({"accepted": 3}, [])
    found = [json.loads(line) for line in admin.get("/projects/p_2/labels").text.splitlines()]
    assert {label["key"]: label["class"] for label in found} == {
        "000": "coat",
        "001": "shirt",
        "002": "shirt",
    }
    annotation = next(label["annotation"] for label in found if label["key"] == "000")
    assert annotation == ({"coco": BOXES} if kept else None)


def test_what_a_format_lacks_is_said(admin: TestClient, engine: sa.Engine) -> None:
    created(admin)
    fill(engine, 2)
    labels = [{"key": f"00{n}", "class": "coat", "annotator": "ann"} for n in range(2)]
    admin.post("/projects/p_1/labels", json={"labels": labels})
    sent = admin.get("/projects/p_1/labels", params={"format": "yolo"})
    assert sent.headers["Shortlist-Left-Out"].startswith("2 items: there is no box")
    with zipfile.ZipFile(io.BytesIO(sent.content)) as archive:
        assert archive.comment.startswith(b"2 items: there is no box")
        assert "data.yaml" in archive.namelist()


def test_wrong_formats_and_files_are_sentences(admin: TestClient, engine: sa.Engine, caller: Callers) -> None:
    created(admin)
    fill(engine, 2)
    for answer in (
        admin.get("/projects/p_1/labels", params={"format": "tfrecord"}),
        admin.post("/projects/p_1/labels/import", params={"format": "tfrecord"}, content=b""),
    ):
        assert (answer.status_code, answer.json()["code"]) == (422, "unknown_format")
        assert answer.json()["errors"][0]["field"] == "format"
        assert "coco, csv" in answer.json()["detail"]
    broken = admin.post("/projects/p_1/labels/import", params={"format": "voc"}, content=b"no zip")
    assert (broken.status_code, broken.json()["errors"][0]["field"]) == (422, "body")
    assert "zip" in broken.json()["detail"]

    coco = {
        "images": [{"id": 1, "file_name": "000"}, {"id": 2, "file_name": "001"}],
        "categories": [{"id": 1, "name": "coat"}, {"id": 2, "name": "hat"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1},
            {"id": 2, "image_id": 2, "category_id": 2},
        ],
    }
    nobody = import_as(admin, "coco", json.dumps(coco).encode())
    assert {refused["code"] for refused in nobody["refused"]} == {"annotator_missing"}  # type: ignore[attr-defined]
    told = import_as(admin, "coco", json.dumps(coco).encode(), annotator="import")
    assert (told["outcomes"], told["refused_count"]) == ({"accepted": 1}, 1)
    assert "hat" in told["refused"][0]["message"]  # type: ignore[index]
    bound = caller("annotator", annotator="ann")
    other = import_as(bound, "coco", json.dumps(coco).encode(), annotator="bob")
    assert other["refused"][0]["code"] == "bound_to_annotator"  # type: ignore[index]


def test_folders_hold_the_images_themselves(
    admin: TestClient,
    engine: sa.Engine,
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Through HTTP as a stream, and by the command, which says what is left out."""
    created(admin)
    Image.new("RGB", (8, 6), "red").save(tmp_path / "red.png")
    with write_session(engine) as session:
        project = session.get_one(Project, 1)
        for key, name in (("a/red.png", "red.png"), ("gone.png", "gone.png")):
            factories.make_item(session, project=project, key=key, uri=str(tmp_path / name))
    labels = [{"key": key, "class": "coat", "annotator": "ann"} for key in ("a/red.png", "gone.png")]
    admin.post("/projects/p_1/labels", json={"labels": labels})
    sent = admin.get("/projects/p_1/labels", params={"format": "imagefolder"}).content
    with zipfile.ZipFile(io.BytesIO(sent)) as archive:
        assert archive.namelist() == ["coat/a%2Fred.png"]
        assert archive.read("coat/a%2Fred.png") == (tmp_path / "red.png").read_bytes()
        assert archive.comment.startswith(b"1 items: it could not be read")

    monkeypatch.setenv("SHORTLIST_DATABASE_URL", settings.database)
    monkeypatch.setenv("SHORTLIST_DATA_DIR", str(settings.data_dir))
    monkeypatch.setenv("SHORTLIST_SOURCE_ROOTS", str(tmp_path))
    out = tmp_path / "labels.zip"
    cli.app(["export", "--format", "imagefolder", "--out", str(out)], standalone_mode=False)
    assert out.read_bytes() == sent
    assert "Left out: 1 items: it could not be read" in capsys.readouterr().err
    cli.app(["import-labels", str(out), "--annotator", "bob"], standalone_mode=False)
    assert "Labels of 'shirts': 1" in capsys.readouterr().out
