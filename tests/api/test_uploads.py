"""Files that are sent by a browser become items: whole or not at all, below no other name than their own."""

import io
import os
import shutil
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from service.main import create_app
from service.pool.uploads import ABANDONED_S, delete_abandoned
from service.settings import Settings
from service.store.artifacts import Artifacts
from service.store.session import write_session
from service.store.tables import Item, Job, Project
from tests.api.conftest import Callers, created
from tests.pictures import encoded, picture
from tests.worker.processes import wait_until
from tests.worker.running import claim, run


class Uploads:
    def __init__(
        self, admin: TestClient, engine: sa.Engine, settings: Settings, artifacts: Artifacts
    ) -> None:
        self.admin, self.engine, self.settings, self.artifacts = admin, engine, settings, artifacts

    def begin(self, at: str = "/projects/p_1") -> str:
        answer = self.admin.post(f"{at}/uploads")
        assert answer.status_code == 201, answer.text
        return f"{at}/uploads/{answer.json()['id']}"

    def put(self, at: str, path: str, data: Any) -> Any:
        return self.admin.put(at, params={"path": path}, content=data)

    def imported(self, at: str, **body: Any) -> list[dict[str, Any]]:
        answer = self.admin.post(f"{at}/import", json=body)
        assert answer.status_code == 202, answer.text
        for _ in answer.json()["jobs"]:
            run(claim(self.engine, self.settings, self.artifacts, kind="import_source"))
        found = [self.admin.get(f"/jobs/{job['id']}").json() for job in answer.json()["jobs"]]
        assert [job["state"] for job in found] == ["succeeded"] * len(found), found
        return found

    def items(self, at: str = "/projects/p_1") -> dict[str, dict[str, Any]]:
        return {item["key"]: item for item in self.admin.get(f"{at}/items").json()["items"]}

    def files(self) -> list[str]:
        return self.artifacts.names("uploads")


@pytest.fixture
def uploads(admin: TestClient, engine: sa.Engine, settings: Settings, artifacts: Artifacts) -> Uploads:
    created(admin, classes=["cat", "dog"])
    return Uploads(admin, engine, settings, artifacts)


def zipped(files: dict[str, bytes]) -> bytes:
    into = io.BytesIO()
    with zipfile.ZipFile(into, "w") as file:
        for name, data in files.items():
            file.writestr(name, data)
    return into.getvalue()


def test_files_and_archives_become_items(uploads: Uploads, settings: Settings, tmp_path: Path) -> None:
    at = uploads.begin()
    for number, name in enumerate(("cat/1.png", "dog/ö 2.png")):
        answer = uploads.put(at, name, encoded(picture(number)))
        assert (answer.status_code, answer.json()["path"]) == (201, name)
    packed = {f"dog/{number}.png": encoded(picture(number)) for number in range(2, 5)}
    uploads.put(at, "more.zip", zipped(packed | {"../../evil.png": b"x"}))
    jobs = uploads.imported(at)
    assert [(job["result"]["added"], job["result"]["refused"]) for job in jobs] == [(2, 0), (3, 1)]
    found = uploads.items()
    assert sorted(found) == ["cat/1.png", "dog/2.png", "dog/3.png", "dog/4.png", "dog/ö 2.png"]
    shown = uploads.admin.get(f"/projects/p_1/items/{found['dog/3.png']['id']}/image")
    assert shown.status_code == 200, shown.text
    assert {item["uri"].partition(":")[0] for item in found.values()} == {"upload"}
    assert not list(tmp_path.rglob("evil.png"))
    assert uploads.admin.delete(at).json()["code"] == "upload_in_use"
    assert uploads.imported(at)[0]["result"]["known"] == 2

    shutil.copytree(settings.data_dir, tmp_path / "moved")  # a copy of the data folder has them
    from service.content.reader import ItemBytes

    shutil.rmtree(settings.data_dir)
    there = ItemBytes(settings.model_copy(update={"data_dir": tmp_path / "moved"}))
    assert there.read(found["cat/1.png"]["uri"]) == encoded(picture(0))
    assert there.read(found["dog/3.png"]["uri"]) == packed["dog/3.png"]


def test_a_test_split_and_a_table(uploads: Uploads) -> None:
    at = uploads.begin()
    uploads.put(at, "cat/1.png", encoded(picture(1)))
    assert uploads.imported(at, split="test")[0]["result"]["added"] == 1
    assert uploads.items()["test/cat/1.png"]["class"] == "cat"
    other = created(uploads.admin, name="texts", classes=["a", "b"])
    at = uploads.begin(f"/projects/{other['id']}")
    uploads.put(at, "reviews.csv", b"text\nwell done\na pity\n")
    assert uploads.imported(at)[0]["result"]["added"] == 2


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("path", "kept"),
    [
        ("/etc/passwd", "etc/passwd"),
        ("a//./b.png", "a/b.png"),
        ("a\\b.png", "a/b.png"),
        ("../b.png", None),
        ("a/../../b.png", None),
        ("a\\..\\..\\b", None),
        ("", None),
        ("/", None),
        ("a\nb", None),
        ("x" * 256, None),
        ("/".join(["x" * 100] * 10), None),
        ("..", None),
        ("...", "..."),
        ("e\u0301.png", "\u00e9.png"),
        ('<b "onclick">.png', '<b "onclick">.png'),
        ("👕 %2F#?.png", "👕 %2F#?.png"),
    ],
)
def test_names_are_cleaned_or_refused(uploads: Uploads, path: str, kept: str | None, tmp_path: Path) -> None:
    at = uploads.begin()
    answer = uploads.put(at, path, b"x")
    if kept is None:
        assert answer.status_code == 422, answer.text
        assert uploads.files() == []
    else:
        assert answer.json() == {"path": kept, "bytes": 1}
        assert [name.split("/", 3)[3] for name in uploads.files()] == [kept]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_large_file_is_streamed(uploads: Uploads) -> None:
    """Larger than any request may be, and never in memory."""
    most = uploads.settings.max_body_bytes
    pieces = 3 * most // 2**20

    def body() -> Iterator[bytes]:
        for _ in range(pieces):
            yield bytes(2**20)

    at = uploads.begin()
    assert uploads.put(at, "large.bin", body()).json()["bytes"] == pieces * 2**20
    assert uploads.admin.post("/projects", content=bytes(most + 1)).status_code == 413


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_what_breaks_off_leaves_nothing(uploads: Uploads) -> None:
    at = uploads.begin()

    def body() -> Iterator[bytes]:
        yield b"half"
        raise ConnectionError

    with pytest.raises(ConnectionError):
        uploads.put(at, "cat/1.png", body())
    assert uploads.files() == []
    assert uploads.admin.post(f"{at}/import", json={}).json()["code"] == "nothing_uploaded"


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_full_disk_is_said_before_anything_is_written(
    uploads: Uploads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2**28 + 10))
    assert uploads.admin.post("/projects/p_1/uploads").json()["room"] == 10
    at = uploads.begin()
    answer = uploads.put(at, "large.zip", bytes(11))
    assert (answer.status_code, answer.json()["code"]) == (507, "artifact_not_stored")
    assert "11 bytes, and 10 are free" in answer.json()["detail"]
    assert uploads.put(at, "small.zip", bytes(10)).status_code == 201
    assert len(uploads.files()) == 1
    assert uploads.admin.delete(at).status_code == 204
    assert uploads.files() == []


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_disk_that_fills_meanwhile(uploads: Uploads, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    import anyio.from_thread

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(anyio.from_thread, "run", full)
    answer = uploads.put(uploads.begin(), "large.zip", b"x")
    assert (answer.status_code, answer.json()["code"]) == (507, "artifact_not_stored")
    assert uploads.files() == []


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_uploads_are_their_projects_alone(uploads: Uploads, caller: Callers) -> None:
    at = uploads.begin()
    uploads.put(at, "cat/1.png", encoded(picture(1)))
    uploads.imported(at)
    (item,) = uploads.items().values()
    other = created(uploads.admin, name="other", classes=["a", "b"])
    there = f"/projects/{other['id']}"
    assert uploads.admin.post(f"{there}/uploads/{at.rsplit('/', 1)[1]}/import", json={}).status_code == 409
    stolen = uploads.admin.post(f"{there}/sources", json={"uri": item["uri"].rsplit("/", 2)[0]})
    assert stolen.json()["code"] == "source_not_allowed"
    entry = {"key": "a", "uri": item["uri"]}
    answer = uploads.admin.post(f"{there}/items", json={"items": [entry]}).json()
    assert answer["refused"] == [{"line": 1, "code": "uri_not_allowed"}]
    manifest = f'{{"key": "a", "uri": "{uploads.artifacts.local_path(uploads.files()[0]).resolve()}"}}\n'
    uploads.settings = uploads.settings.model_copy(
        update={"source_roots": ()}
    )  # as where the data folder is in none
    theirs = uploads.begin(there)
    uploads.put(theirs, "list.jsonl", manifest.encode())
    found = uploads.imported(theirs)[0]["result"]
    assert (found["added"], found["quarantined"]) == (0, 1), found
    assert "SHORTLIST_SOURCE_ROOTS" in found["quarantine_reasons"][0]["reason"]
    for role in ("reader", "annotator"):
        assert caller(role).post("/projects/p_1/uploads").status_code == 403
        assert caller(role).put(at, params={"path": "x"}, content=b"x").status_code == 403
    for wrong in ("..", "zz", "0" * 15, "0" * 17):
        assert uploads.admin.put(
            f"/projects/p_1/uploads/{wrong}", params={"path": "a"}, content=b"x"
        ).status_code in (404, 405)


def test_they_go_with_the_last_project_that_has_their_items(uploads: Uploads) -> None:
    at = uploads.begin()
    uploads.put(at, "cat/1.png", encoded(picture(1)))
    uploads.imported(at)
    copied = uploads.admin.post("/projects/p_1/copy", json={"name": "copy"}).json()["project"]
    run(claim(uploads.engine, uploads.settings, uploads.artifacts, kind="copy_project"))
    for project, left in (("p_1", 1), (copied, 0)):
        with write_session(uploads.engine) as session:
            session.execute(sa.delete(Job).where(Job.kind != "delete_artifacts"))
            session.execute(sa.update(Project).values(score_run_id=None))
        assert uploads.admin.delete(f"/projects/{project}").status_code == 204
        with write_session(uploads.engine) as session:
            session.execute(sa.update(Job).values(run_at=0))
        run(claim(uploads.engine, uploads.settings, uploads.artifacts, kind="delete_artifacts"))
        assert len(uploads.files()) == left, project
        if left:
            (item,) = uploads.items(f"/projects/{copied}").values()
            assert uploads.admin.get(f"/projects/{copied}/items/{item['id']}/image").status_code == 200
    with write_session(uploads.engine) as session:
        assert session.scalars(sa.select(Item)).all() == []


def long_ago(folder: Path) -> None:
    for path in folder.rglob("*"):
        os.utime(path, (time.time() - ABANDONED_S - 60,) * 2)


def test_what_nobody_imports_is_deleted(uploads: Uploads) -> None:
    stored = uploads.settings.data_dir / "artifacts" / "uploads"
    imported, abandoned, young = (uploads.begin() for _ in range(3))
    for number, at in enumerate((imported, abandoned)):
        uploads.put(at, "cat/1.png", encoded(picture(number)))
        uploads.put(at, "more.zip", zipped({"2.png": encoded(picture(7 + number))}))
    uploads.imported(imported)
    delete_abandoned(uploads.engine, uploads.artifacts)
    assert len(uploads.files()) == 4
    long_ago(stored)
    uploads.put(young, "a.png", encoded(picture(5)))

    delete_abandoned(uploads.engine, uploads.artifacts)

    kept = {imported.rpartition("/")[2], young.rpartition("/")[2]}
    assert {name.split("/")[2] for name in uploads.files()} == kept
    assert len(uploads.items()) == 2


def test_what_a_copy_has_is_not_abandoned(uploads: Uploads) -> None:
    at = uploads.begin()
    uploads.put(at, "cat/1.png", encoded(picture(1)))
    uploads.imported(at)
    uploads.admin.post("/projects/p_1/copy", json={"name": "copy"})
    run(claim(uploads.engine, uploads.settings, uploads.artifacts, kind="copy_project"))
    with write_session(uploads.engine) as session:
        session.execute(sa.delete(Job))
        session.execute(sa.update(Project).values(score_run_id=None))
    assert uploads.admin.delete("/projects/p_1").status_code == 204
    long_ago(uploads.settings.data_dir / "artifacts" / "uploads")
    delete_abandoned(uploads.engine, uploads.artifacts)
    assert len(uploads.files()) == 1


def test_a_service_looks_by_itself(uploads: Uploads) -> None:
    uploads.put(uploads.begin(), "cat/1.png", encoded(picture(1)))
    long_ago(uploads.settings.data_dir / "artifacts" / "uploads")
    with TestClient(create_app(uploads.settings)):
        wait_until(lambda: not uploads.files())
