"""The examples for Prodigy, Argilla, CVAT, LightlyStudio and FiftyOne, against a service.

Argilla's own reader runs where `make tools-test` has installed it, LightlyStudio where `make lightly-test` has. Prodigy
is not free: of it there is a stand-in, which does with a recipe what its documentation says. What CVAT exports is
written here as it writes it; what FiftyOne exports stands beside, as it wrote it.
"""

import base64
import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx2 as httpx
import pytest
import sqlalchemy as sa
from PIL import Image

from examples.argilla_records import labels_of, next_records
from examples.cvat_task import check_name, write_task
from service.store.ids import row_number
from service.store.session import write_session
from service.store.tables import Item, RankedItem
from service.store.tables import Project as ProjectRow
from shortlist_client import Project
from tests import factories
from tests.examples.test_examples import COLOURS, EXAMPLES, database_url, project, run, truth  # noqa: F401

ARGILLA = EXAMPLES.parent / ".venv-argilla" / "bin" / "python"
LIGHTLY = EXAMPLES.parent / ".venv-lightly" / "bin" / "python"


def rank(engine: sa.Engine, project_id: str, keys: Sequence[str]) -> None:
    """The first one is wanted most; each is predicted to be red."""
    with write_session(engine) as session:
        row = session.get_one(ProjectRow, row_number("p", project_id))
        found = session.scalars(sa.select(Item).where(Item.project_id == row.id, Item.key.in_(keys)))
        items = sorted(found, key=lambda item: keys.index(item.key))
        score_run = factories.make_score_run(session, project=row)
        ranking = factories.make_ranking(session, project=row, score_run=score_run, items=items)
        predicted = sa.update(RankedItem).where(RankedItem.ranking_id == ranking.id)
        session.execute(predicted.values(predicted_class="red", predicted_probability=0.75))
        row.score_run_id, row.ranking_id = score_run.id, ranking.id


@pytest.fixture
def ranked(project: Project, engine: sa.Engine) -> Project:  # noqa: F811
    """Ranked 5.png, 4.png, …, 0.png."""
    project.update(control_fraction=0)
    rank(engine, project.id, [f"{number}.png" for number in range(5, -1, -1)])
    return project


class Prodigy(ModuleType):
    """The part that recipes use, the decorator; and `serve`, which takes tasks and gives answers, in batches."""

    def __init__(self) -> None:
        super().__init__("prodigy")
        self.recipes: dict[str, Callable[..., dict[str, Any]]] = {}

    def recipe(self, name: str, **_: tuple[Any, ...]) -> Callable[[Any], Any]:
        def register(function: Any) -> Any:
            self.recipes[name] = function
            return function

        return register

    def serve(
        self, components: dict[str, Any], answer: Callable[[dict[str, Any]], dict[str, Any]], count: int
    ) -> None:
        size = components["config"]["batch_size"]
        for _ in range(0, count, size):
            tasks = list(islice(components["stream"], size))
            components["update"]([task | answer(task) for task in tasks])


@pytest.fixture
def prodigy(monkeypatch: pytest.MonkeyPatch) -> Prodigy:
    stand_in = Prodigy()
    monkeypatch.setitem(sys.modules, "prodigy", stand_in)
    spec = importlib.util.spec_from_file_location("prodigy_recipe", EXAMPLES / "prodigy_recipe.py")
    assert spec is not None
    assert spec.loader is not None
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    return stand_in


def test_a_recipe_for_prodigy(ranked: Project, prodigy: Prodigy) -> None:
    components = prodigy.recipes["shortlist"]("answers", None, "ann")
    assert (components["view_id"], components["config"]["choice_style"]) == ("choice", "single")
    shown: list[str] = []

    def answer(task: dict[str, Any]) -> dict[str, Any]:
        key = task["meta"]["key"]
        shown.append(key)
        picture = base64.b64decode(task["image"].partition(";base64,")[2])
        assert Image.open(io.BytesIO(picture)).size == (20, 20)
        assert [option["id"] for option in task["options"]] == ["red", "green"]
        if key == "3.png":
            return {"answer": "ignore", "accept": []}
        return {"answer": "accept", "accept": [truth(key)]}

    prodigy.serve(components, answer, 5)
    assert shown == ["5.png", "4.png", "3.png", "2.png", "1.png"]
    components["on_exit"](None)
    told = {row["key"]: (row["annotator"], row["class"], row["skip"], row["arm"]) for row in ranked.labels()}
    assert told == {
        key: ("ann", None, "unsure", "selected") if key == "3.png" else ("ann", truth(key), None, "selected")
        for key in shown
    }
    batch = ranked.next_batch("bob", size=10)  # nothing is held any more
    assert {item.key for item in batch.items} == {"0.png", "3.png"}


def test_a_recipe_for_prodigy_with_several_classes(ranked: Project, prodigy: Prodigy) -> None:
    several = ranked.client.create_project("several", ["red", "green"], label_kind="multi", modality="text")
    several.add_items([{"key": "a", "text": "red and green"}, {"key": "b", "text": "nothing"}])
    components = prodigy.recipes["shortlist"]("answers", "several", "ann")
    assert components["config"]["choice_style"] == "multiple"
    chosen = {"red and green": ["red", "green"], "nothing": []}
    prodigy.serve(components, lambda task: {"answer": "accept", "accept": chosen[task["text"]]}, 2)
    components["on_exit"](None)
    assert {row["key"]: row["classes"] for row in several.labels()} == {"a": ["green", "red"], "b": []}


def test_records_for_argilla(ranked: Project, tmp_path: Path) -> None:
    path, answered = tmp_path / "records.json", tmp_path / "answered.json"
    assert "3 records" in run("argilla_records.py", "next", "ann", str(path), "--count", "3")
    records = json.loads(path.read_text())
    assert [record["metadata"]["key"] for record in records] == ["5.png", "4.png", "3.png"]
    suggested = {"value": "red", "score": 0.75, "agent": "shortlist"}
    assert [record["suggestions"] for record in records] == [{"label": suggested}] * 3
    for record in records[:2]:  # as `to_json` writes it
        record["responses"] = {"label": [{"value": truth(record["metadata"]["key"]), "user_id": "u-1"}]}
    answered.write_text(json.dumps(records))
    assert "2 labels" in run("argilla_records.py", "labels", "ann", str(answered))
    run("argilla_records.py", "labels", "ann", str(answered))
    assert [(row["key"], row["class"], row["arm"]) for row in ranked.labels(history=True)] == [
        ("5.png", "green", "selected"),
        ("4.png", "red", "selected"),
    ]


@pytest.mark.skipif(not ARGILLA.exists(), reason="Argilla is not installed here: `make tools-test` does it")
def test_argilla_reads_the_records(ranked: Project, tmp_path: Path) -> None:
    """Its own reader and writer, as `dataset.records.from_json` and `to_json` use them; without its server."""
    path, answered = tmp_path / "records.json", tmp_path / "answered.json"
    path.write_text(json.dumps(list(next_records(ranked, "ann", 3))))
    script = """
import sys, uuid, argilla
from argilla._helpers._media import uncast_image
from argilla.records._io import JsonIO
records = JsonIO._records_from_json(sys.argv[1])
for record in records:
    assert uncast_image(record.fields["image"]).size == (20, 20)
    assert record.suggestions["label"].value == "red"
for record in records[:2]:
    record.responses.add(argilla.Response("label", "green", user_id=uuid.uuid4()))
JsonIO.to_json(records, sys.argv[2])
"""
    told = subprocess.run(
        [ARGILLA, "-W", "ignore", "-c", script, path, answered], capture_output=True, text=True, timeout=280
    )
    assert told.returncode == 0, told.stderr
    labels = list(labels_of(json.loads(answered.read_text()), "ann"))
    assert ranked.label(labels).accepted == 2
    assert {row["key"]: row["class"] for row in ranked.labels()} == {"5.png": "green", "4.png": "green"}


CVAT_SAYS = """<?xml version="1.0" encoding="utf-8"?>
<annotations>
  <version>1.1</version>
  <meta><task><id>7</id><name>Next</name><size>3</size><mode>annotation</mode></task></meta>
  <image id="0" name="5.png" width="20" height="20">
    <tag label="green" source="manual"></tag>
  </image>
  <image id="1" name="4.png" width="20" height="20">
    <box label="red" source="manual" occluded="0" xtl="1.50" ytl="2.00" xbr="9.00" ybr="9.75" z_order="0"></box>
  </image>
  <image id="2" name="3.png" width="20" height="20">
  </image>
</annotations>
"""


def test_a_task_of_cvat(ranked: Project, tmp_path: Path) -> None:
    told = run("cvat_task.py", "ann", str(tmp_path / "next"), "--count", "3")
    assert told.startswith("3 pictures")
    head, kind, *entries = map(json.loads, (tmp_path / "next" / "manifest.jsonl").read_text().splitlines())
    assert (head, kind) == ({"version": "1.1"}, {"type": "images"})
    assert entries == [
        {"name": name, "extension": ".png", "width": 20, "height": 20} for name in ("5", "4", "3")
    ]
    with zipfile.ZipFile(tmp_path / "next" / "pictures.zip") as archive:
        assert archive.namelist() == ["5.png", "4.png", "3.png"]
        assert Image.open(io.BytesIO(archive.read("4.png"))).getpixel((0, 0)) == COLOURS["red"]
    assert json.loads((tmp_path / "next" / "labels.json").read_text()) == [
        {"name": name, "type": "any", "attributes": []} for name in COLOURS
    ]

    done = tmp_path / "done.zip"
    with zipfile.ZipFile(done, "w") as archive:
        archive.writestr("annotations.xml", CVAT_SAYS)
    answer = httpx.post(
        f"{os.environ['SHORTLIST_URL']}/projects/{ranked.id}/labels/import",
        params={"format": "cvat", "annotator": "ann"},
        content=done.read_bytes(),
        headers={"Authorization": f"Bearer {os.environ['SHORTLIST_KEY']}"},
    )
    assert answer.json()["outcomes"] == {"accepted": 2}, answer.text
    labels = {row["key"]: (row["class"], row["arm"], row["annotation"]) for row in ranked.labels()}
    assert labels["5.png"] == ("green", "selected", None)
    assert labels["4.png"][:2] == ("red", "selected")
    assert labels["4.png"][2]["cvat"][0]["xtl"] == "1.50"
    assert set(labels) == {"5.png", "4.png"}  # nobody has annotated the third one


def test_a_turned_picture_of_a_task(ranked: Project, tmp_path: Path) -> None:
    """CVAT turns it as its EXIF says, and wants the width that it has then."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 20)).save(tmp_path / "turned.jpg", exif=exif)
    Image.new("RGB", (30, 20)).save(tmp_path / "flat.jpg")
    turned = ranked.client.create_project(
        "turned", ["red", "green"], modality="image"
    )  # no ranking yet: by chance
    turned.add_items(
        {"key": f"a.b/{name}", "uri": str(tmp_path / name)} for name in ("turned.jpg", "flat.jpg")
    )
    assert write_task(turned, "ann", 10, tmp_path / "next") == 2
    lines = list(map(json.loads, (tmp_path / "next" / "manifest.jsonl").read_text().splitlines()))
    assert {(line["name"], line["extension"], line["width"], line["height"]) for line in lines[2:]} == {
        ("a.b/turned", ".jpg", 20, 30),
        ("a.b/flat", ".jpg", 30, 20),
    }
    with pytest.raises(ValueError, match="no pictures to label now"):
        write_task(turned, "bob", 10, tmp_path / "next")


@pytest.mark.parametrize("key", ["17", "../17.png", "/17.png", "a//17.png", "s3://pets/17.png", "a\\17.png"])
def test_a_key_that_no_picture_of_a_task_may_have(key: str) -> None:
    with pytest.raises(ValueError, match="cannot be a picture of a task"):
        check_name(key)


LIGHTLY_STUDIO = """
import json, sys
import lightly_studio
from examples.lightly_samples import main

def example(*arguments):
    sys.argv[1:] = [*arguments, "--project", "pool"]
    main()
"""
MADE = """
dataset = lightly_studio.ImageDataset.create("pets")
dataset.add_images_from_path(".", embed=False)
for sample in dataset:
    if sample.file_name == "0.png":
        sample.add_tag("interesting")
    if sample.file_name == "1.png":
        sample.add_tag("shortlist-next")  # of an earlier ranking
example("add", "pets")
"""
SHOWN = """
example("show", "pets", "--count", "2")
example("queue", "pets", "--tag", "interesting")
samples = lightly_studio.ImageDataset.load("pets")
told = {
    each.file_name: [each.metadata["shortlist_rank"], each.metadata["shortlist_class"], sorted(each.tags)]
    for each in samples
}
print(json.dumps(told))
"""


@pytest.mark.timeout(600)  # it takes long to be imported
@pytest.mark.skipif(
    not LIGHTLY.exists(), reason="LightlyStudio is not installed here: `make lightly-test` does it"
)
def test_samples_of_lightly_studio(ranked: Project, engine: sa.Engine, tmp_path: Path) -> None:
    """Its own database, without its window: what a person tags there is tagged by a script."""
    pool = ranked.client.create_project("pool", ["red", "green"], modality="image", control_fraction=0)
    paths = [str(tmp_path / f"{number}.png") for number in range(6)]

    def program(script: str) -> str:
        told = subprocess.run(
            [LIGHTLY, "-W", "ignore", "-c", LIGHTLY_STUDIO + script],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=280,
            env=os.environ
            | {"LIGHTLY_STUDIO_ANALYTICS_ENABLED": "false", "PYTHONPATH": str(EXAMPLES.parent)},
            check=False,
        )
        assert told.returncode == 0, told.stderr
        return told.stdout

    assert "6 images are new items, 0 are known." in program(MADE)
    pool.label([{"key": paths[2], "class": "red", "annotator": "ann"}])
    rank(engine, pool.id, [paths[number] for number in (5, 4, 3, 1, 0)])
    shown, queued, samples = program(SHOWN).splitlines()[-3:]
    assert "5 items are ranked; 2 samples" in shown
    assert "1 items are queued" in queued
    assert json.loads(samples) == {
        "5.png": [1, "", ["shortlist-next"]],
        "4.png": [2, "", ["shortlist-next"]],
        "3.png": [3, "", []],
        "1.png": [4, "", []],
        "0.png": [5, "", ["interesting"]],
        "2.png": [6, "red", []],
    }
    assert [item.key for item in pool.next_batch("ann", size=2).items] == [paths[0], paths[5]]


def export_of_fiftyone(folder: Path) -> None:
    """As FiftyOne 1.22.1 exported six pictures: the first has a tag of a person, the second one of an earlier ranking,
    the fifth a class, and the sixth a box.
    """
    shutil.copytree(Path(__file__).parent / "fiftyone", folder)
    (folder / "data").mkdir()
    for number in range(6):
        Image.new("RGB", (20, 20), COLOURS[truth(f"{number}.png")]).save(folder / "data" / f"{number}.png")


def test_samples_of_fiftyone(ranked: Project, engine: sa.Engine, tmp_path: Path) -> None:
    """A folder that it exported; it itself is not run."""
    pool = ranked.client.create_project("pool", ["red", "green"], modality="image", control_fraction=0)
    folder = tmp_path / "exported"
    export_of_fiftyone(folder)

    def example(*arguments: str) -> str:
        return run("fiftyone_samples.py", *arguments, "--project", "pool")

    assert "6 images are new items, 0 are known." in example("add", str(folder))
    assert "0 images are new items, 6 are known." in example("add", str(folder))
    pool.label([{"key": "data/2.png", "class": "red", "annotator": "ann"}])
    rank(engine, pool.id, [f"data/{number}.png" for number in (5, 4, 3, 1, 0)])
    before = {name: json.loads((folder / name).read_text()) for name in ("metadata.json", "samples.json")}
    for _ in range(2):  # once more changes nothing
        assert "5 items are ranked; 2 samples" in example("show", str(folder), "--count", "2")
    metadata, samples = (json.loads((folder / name).read_text()) for name in before)
    assert {
        each["filepath"]: (each.pop("shortlist_rank"), each.pop("shortlist_class"), each["tags"])
        for each in samples["samples"]
    } == {
        "data/5.png": (1, None, ["shortlist-next"]),
        "data/4.png": (2, None, ["shortlist-next"]),
        "data/3.png": (3, None, []),
        "data/1.png": (4, None, []),
        "data/0.png": (5, None, ["interesting"]),
        "data/2.png": (None, "red", []),
    }
    for was, now in zip(before["samples.json"]["samples"], samples["samples"], strict=True):
        assert was | {"tags": now["tags"]} == now  # all else is as it was
    *known, by_rank, by_class = metadata["sample_fields"]
    assert metadata | {"sample_fields": known} == before["metadata.json"]
    (like,) = (field for field in known if field["name"] == "filepath")
    assert [by_rank, by_class] == [
        {**like, "name": name, "db_field": name, "ftype": f"fiftyone.core.fields.{kind}"}
        for name, kind in (("shortlist_rank", "IntField"), ("shortlist_class", "StringField"))
    ]
    assert "1 items are queued" in example("queue", str(folder), "--tag", "interesting")
    assert [item.key for item in pool.next_batch("ann", size=2).items] == ["data/0.png", "data/5.png"]

    answer = httpx.post(
        f"{os.environ['SHORTLIST_URL']}/projects/{pool.id}/labels/import",
        params={"format": "fiftyone", "annotator": "bob"},
        content=(folder / "samples.json").read_bytes(),
        headers={"Authorization": f"Bearer {os.environ['SHORTLIST_KEY']}"},
    )
    assert answer.json()["outcomes"] == {"accepted": 2}, answer.text
    labels = {row["key"]: row for row in pool.labels() if row["annotator"] == "bob"}
    assert {key: row["class"] for key, row in labels.items()} == {"data/4.png": "red", "data/5.png": "green"}
    (box,) = labels["data/5.png"]["annotation"]["fiftyone"]
    assert box["bounding_box"] == [0.1, 0.2, 0.3, 0.4]


def test_a_folder_that_fiftyone_did_not_export(ranked: Project, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"metadata\.json cannot be read: .*FiftyOneDataset"):
        run("fiftyone_samples.py", "add", str(tmp_path))
