"""Texts from folders and tables, and sources that tell what a project's items are."""

import json
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from service.content.reader import ItemBytes, content_hash_of
from service.errors import ColumnMissing, ShortlistError, TaskForAnotherModality
from service.settings import Settings
from service.store.artifacts import Artifacts
from service.store.session import read_session, write_session
from service.store.tables import CatalogueEntry, Job, Project
from tests.factories import make_project
from tests.journeys.sounds import recording
from tests.pictures import write_parquet, write_pictures
from tests.worker import running
from tests.worker.jobs.test_import_source import Importing, counts
from worker.errors import JobFailed, Unsuited

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

TEXTS = ["Good.", "Bad, but\nlong.", 'A "quote".', "مرحبا بالعالم", "🙂🙃", "日本語"]


@pytest.fixture
def importing(engine: sa.Engine, settings: Settings, artifacts: Artifacts) -> Importing:
    """Into a project of which nobody has said what it labels."""
    found = Importing(engine, settings, artifacts)
    with write_session(engine) as session:
        session.get_one(Project, found.project.id).modality = None
    return found


def project(importing: Importing) -> Project:
    with read_session(importing.engine) as session:
        return session.get_one(Project, importing.project.id)


def read(importing: Importing) -> list[str]:
    item_bytes = ItemBytes(importing.settings)
    return [item_bytes.read(item.uri).decode() for item in importing.items()]


def test_a_folder_of_texts_tells_the_modality(importing: Importing, tmp_path: Path) -> None:
    folder = tmp_path / "pool"
    (folder / "more").mkdir(parents=True)
    (folder / "a.txt").write_text("Two words.")
    (folder / "more" / "b.md").write_bytes("Grüße".encode("latin-1"))
    (folder / "c.TXT").write_bytes("\ufeffUTF-16 too".encode("utf-16-le"))
    (folder / "notes.pdf").write_bytes(b"x")

    result = importing(folder)

    assert counts(result) == (3, 0, 0)
    assert result["ignored"] == 1
    assert importing.keys() == ["a.txt", "c.TXT", "more/b.md"]
    facts = [item.facts for item in importing.items()]
    assert facts[0] == {"characters": 10, "words": 2, "encoding": "utf-8"}
    assert [item.width for item in importing.items()] == [None] * 3
    told = project(importing)
    assert (told.modality, told.settings["pretext_task"]["name"], told.version) == (
        "text",
        "masked_tokens",
        2,
    )


@on_sqlite
@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet"])
def test_a_table_of_texts(ending: str, importing: Importing, tmp_path: Path) -> None:
    path = tmp_path / f"texts.{ending}"
    rows = [{"kind": "cat", "sentence": text} for text in TEXTS]
    if ending == "parquet":
        write_parquet(path, {"kind": ["cat"] * len(TEXTS), "sentence": TEXTS}, row_group_size=2)
    elif ending == "jsonl":
        path.write_text("\n".join([json.dumps(row) for row in rows] + ['{"sentence": 3}', "no"]))
    else:
        mark = "," if ending == "csv" else "\t"
        cells = ['"' + text.replace('"', '""') + '"' for text in TEXTS]
        path.write_text("\n".join([f"kind{mark}sentence", *(f"cat{mark}{cell}" for cell in cells)]))

    result = importing(path)

    assert counts(result) == (len(TEXTS), 0, 0)
    assert result["refused"] == (2 if ending == "jsonl" else 0)
    assert importing.keys() == sorted(content_hash_of(text.encode()) for text in TEXTS)
    places = {item.key: item.uri for item in importing.items()}
    assert places[content_hash_of(TEXTS[1].encode())] == f"{path}#row=1&column=sentence"
    assert sorted(read(importing)) == sorted(TEXTS)
    assert project(importing).modality == "text"
    assert counts(importing(path)) == (0, len(TEXTS), 0)


@on_sqlite
def test_a_test_split_of_texts(importing: Importing, tmp_path: Path) -> None:
    path = tmp_path / "test.csv"
    path.write_text("key,text,kind\na,One.,cat\nb,Two.,dog\nc,Three.,cow\n")
    result = importing(path, "test", "kind")
    assert (counts(result), result["refused"]) == ((2, 0, 0), 1)
    assert [(item.key, item.class_name) for item in importing.items()] == [("a", "cat"), ("b", "dog")]


@on_sqlite
def test_bad_texts_are_quarantined_with_the_reason(importing: Importing, tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    texts = ["x" * 1_000_000, "x" * 1_000_001, "🙂" * 5, "שלום עולם", "nul\0nul", "", "  \n", "half \ud83d"]
    path.write_text("\n".join(json.dumps({"key": str(n), "text": text}) for n, text in enumerate(texts)))

    assert counts(importing(path)) == (4, 0, 4)

    reasons = {item.key: str(item.quarantine_reason) for item in importing.items() if item.quarantine_reason}
    assert reasons.keys() == {"1", "4", "5", "6"}
    assert "SHORTLIST_MAX_TEXT_BYTES" in reasons["1"]
    assert "NUL" in reasons["4"]
    assert "empty" in reasons["5"]


@on_sqlite
@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_a_table_without_a_text_column_names_those_there_are(
    ending: str, importing: Importing, tmp_path: Path
) -> None:
    with write_session(importing.engine) as session:
        session.get_one(Project, importing.project.id).modality = "text"
    path = tmp_path / f"a.{ending}"
    if ending == "parquet":
        write_parquet(path, {"name": ["a"], "number": ["b"]})
    else:
        path.write_text("name,number\na,b\n" if ending == "csv" else '{"name": "a", "number": "b"}')
    with pytest.raises(ColumnMissing, match=r"no column of texts.*'name'.*, 'number'.*`text`, `sentence`"):
        importing(path)


@on_sqlite
@pytest.mark.parametrize(("texts", "modality"), [(4, "text"), (1, "image")])
def test_of_a_mixed_folder_the_majority_decides_and_the_rest_is_told(
    texts: int, modality: str, importing: Importing, tmp_path: Path
) -> None:
    folder = write_pictures(tmp_path / "pool", 2)
    for number in range(texts):
        (folder / f"{number}.txt").write_text("Some text.")

    result = importing(folder)

    assert project(importing).modality == modality
    assert counts(result) == ((4, 0, 0) if modality == "text" else (2, 0, 0))
    other = "image" if modality == "text" else "text"
    assert result["refused"] == (2 if modality == "text" else 1)
    assert f'"modality": "{other}"' in result["refusals"][0]
    assert result["ignored"] == 0


@on_sqlite
def test_a_manifest_of_text_files(importing: Importing, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("One.")
    (tmp_path / "list.csv").write_text("path,comment\na.txt,nothing much\n")
    assert counts(importing(tmp_path / "list.csv")) == (1, 0, 0)
    assert read(importing) == ["One."]


@on_sqlite
def test_a_manifest_of_images_stays_one(importing: Importing, tmp_path: Path) -> None:
    write_pictures(tmp_path / "images", 2)
    (tmp_path / "list.csv").write_text("path,text\nimages/00000.png,a caption\nimages/00001.png,another\n")
    assert counts(importing(tmp_path / "list.csv")) == (2, 0, 0)
    assert project(importing).modality == "image"


@on_sqlite
def test_nothing_of_any_kind(importing: Importing, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        JobFailed, match=r"There are no images, audios, graphs, pairs, texts or videos.*JPEG.*plain text"
    ):
        importing(tmp_path / "empty")
    assert project(importing).modality is None


@on_sqlite
@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_a_table_of_nothing_known_names_its_columns(
    ending: str, importing: Importing, tmp_path: Path
) -> None:
    path = tmp_path / f"a.{ending}"
    if ending == "parquet":
        write_parquet(path, {"0.png": [[1]], "size": [2]})
    else:
        path.write_text("0.png,size\n1.png,2\n" if ending == "csv" else '{"0.png": 1, "size": 2}')
    with pytest.raises(JobFailed, match=r"no column of items\. Its columns are '0.png'.*, 'size'.*`path`"):
        importing(path)
    assert project(importing).modality is None


@on_sqlite
def test_texts_for_an_image_project(importing: Importing, tmp_path: Path) -> None:
    with write_session(importing.engine) as session:
        session.get_one(Project, importing.project.id).modality = "image"
    (tmp_path / "a.txt").write_text("One.")
    (tmp_path / "a.csv").write_text("text\nOne.\n")
    for place in (tmp_path, tmp_path / "a.csv"):
        with pytest.raises((JobFailed, ShortlistError)):
            importing(place)
        with write_session(importing.engine) as session:
            session.execute(sa.delete(Job))
    assert importing.items() == []


@on_sqlite
def test_a_task_that_was_chosen_for_another_modality(importing: Importing, tmp_path: Path) -> None:
    with write_session(importing.engine) as session:
        for name, kinds in (("rotation", ["image"]), ("simclr", None), ("masked_tokens", ["text"])):
            schema: dict[str, Any] = {"properties": {}, "x-modalities": kinds}
            session.add(CatalogueEntry(kind="pretext_task", name=name, help="", parameters=schema))
        session.get_one(Project, importing.project.id).settings = {"pretext_task": {"name": "rotation"}}
    (tmp_path / "a.txt").write_text("One.")
    with pytest.raises(TaskForAnotherModality, match=r"rotation.*not for texts.*masked_tokens, simclr"):
        importing(tmp_path)


def test_a_project_of_its_own_for_each_kind(importing: Importing, tmp_path: Path) -> None:
    (tmp_path / "pool").mkdir()
    (tmp_path / "pool" / "a.txt").write_text("One.")
    importing(tmp_path / "pool")
    with write_session(importing.engine) as session:
        importing.project = make_project(session, modality=None)
    importing(write_pictures(tmp_path / "images", 1))
    assert project(importing).modality == "image"
    assert "pretext_task" not in project(importing).settings


@on_sqlite
def test_a_worker_without_the_package_leaves_recordings_to_others(
    importing: Importing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "sounds"
    folder.mkdir()
    (folder / "a.wav").write_bytes(recording("rise", 1))
    claimed = importing.claim(folder)
    with monkeypatch.context() as without:
        without.setattr("worker.modalities.find_spec", lambda name: None)
        with pytest.raises(Unsuited) as raised:
            running.run(claimed)
    assert raised.value.missing == ("modality:audio",)
    assert "shortlist[audio]" in str(raised.value)
    assert importing.items() == []

    running.hand_back(claimed)
    running.run(
        running.claim(importing.engine, importing.settings, importing.artifacts, kind="import_source")
    )
    assert importing.keys() == ["a.wav"]
    assert project(importing).modality == "audio"
