"""The command line as people run it, without a worker: what starts, stops or waits is a process; other commands are
called here, but for one that succeeds, one that writes labels and one that refuses.
"""

import csv
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch
from urllib.error import URLError
from urllib.request import Request, urlopen

import pytest
import sqlalchemy as sa
import structlog
from pydantic import SecretStr

from service.access import keys
from service.cli import main, running
from service.cli.running import _environment, _greet
from service.content.reader import ItemBytes
from service.errors import (
    ClassesDiffer,
    ClassesFileUnreadable,
    ClassesMissing,
    FolderGone,
    Invalid,
    KeyRefused,
    NameOfAnotherFolder,
    NoClassFolders,
    SourceNotAllowed,
)
from service.labeling import folder_labels
from service.operations import up
from service.settings import Settings, read_settings
from service.store import jobs, migrate
from service.store.session import make_engine, read_session, write_session
from service.store.tables import Item, Job, Label, Project, Source
from tests.factories import make_item, make_label, make_pretext_model, make_project, make_worker
from tests.pictures import write_pictures
from tests.worker.processes import REPOSITORY, environment, wait_until

ADMIN_KEY = "an-admin-key-for-tests"


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    return sqlite_url


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "service.cli", *arguments]


def shortlist(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """As `shortlist_process`, without the seconds that a process takes to start."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    status, logging = 0, structlog.get_config()
    with (
        patch.dict(os.environ, variables),
        patch.object(sys, "argv", ["shortlist", *arguments]),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as end:  # as the interpreter ends then
            status = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
            if isinstance(end.code, str):
                print(end.code, file=err)
        finally:
            structlog.configure(**logging)
    told, refusal = (stream.buffer.getvalue().decode() for stream in (out, err))
    return subprocess.CompletedProcess(arguments, status, told, refusal)


def shortlist_process(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments),
        env=os.environ | variables,
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
    )


def refused(found: subprocess.CompletedProcess[str]) -> str:
    """The one sentence on stderr."""
    assert found.returncode == 1, found.stderr
    assert "Traceback" not in found.stderr
    assert len(found.stderr.strip().splitlines()) == 1
    return found.stderr


@pytest.fixture
def data_dir(tmp_path: Path) -> str:
    return str(tmp_path / "shortlist-data")


def test_migrate_makes_and_keeps_a_database(data_dir: str) -> None:
    first = shortlist_process("migrate", "--data-dir", data_dir)
    assert first.returncode == 0, first.stderr
    assert first.stdout == f"The database is at revision {migrate.newest()}.\n"
    assert "as before" in shortlist("migrate", "--data-dir", data_dir).stdout


def test_other_commands_want_a_migrated_database(data_dir: str) -> None:
    for arguments in (["keys", "list"], ["export"], ["serve", "--port", "0"]):
        assert "shortlist migrate" in refused(shortlist(*arguments, "--data-dir", data_dir))


def test_keys_are_made_listed_and_revoked(engine: sa.Engine, settings: Settings) -> None:
    variables = environment(settings)
    made = shortlist("keys", "add", "Ann's tool", "--role", "annotator", **variables)
    token = made.stdout.strip()
    assert token.startswith("sl_")
    listed = shortlist("keys", "list", **variables).stdout
    assert "Ann's tool" in listed
    assert token not in listed
    key_id = listed.split("\t")[0]
    assert shortlist("keys", "revoke", key_id, **variables).stdout == f"{key_id} is revoked.\n"
    assert "revoked" in shortlist("keys", "list", **variables).stdout
    assert "k_zzzz" in refused(shortlist("keys", "revoke", "k_zzzz", **variables))
    assert "nowhere" in refused(shortlist("keys", "add", "x", "--project", "nowhere", **variables))


def test_export_as_ndjson_and_csv(engine: sa.Engine, settings: Settings, tmp_path: Path) -> None:
    with write_session(engine) as session:
        project = make_project(session, name="pets")
        for number, name in enumerate(("cat", "dög, small")):
            make_label(
                session, item=make_item(session, project=project, key=f"{number}.png"), class_name=name
            )
        make_project(session, name="another")
    variables = environment(settings)

    exported = shortlist_process("export", "pets", **variables).stdout
    lines = [json.loads(line) for line in exported.splitlines()]
    assert [(line["key"], line["class"], line["annotator"]) for line in lines] == [
        ("0.png", "cat", "ann"),
        ("1.png", "dög, small", "ann"),
    ]
    file = tmp_path / "labels.csv"
    shortlist("export", "pets", "--format", "csv", "--output", str(file), **variables)
    with file.open(newline="", encoding="utf-8") as opened:
        rows = list(csv.DictReader(opened))
    assert [row["class"] for row in rows] == ["cat", "dög, small"]
    assert "`shortlist export NAME`" in refused(shortlist("export", **variables))  # which of the two?


def test_labels_of_a_file_are_imported(engine: sa.Engine, settings: Settings, tmp_path: Path) -> None:
    with write_session(engine) as session:
        pets, others = (
            make_project(session, name=name, classes=["cat", "dog"]) for name in ("pets", "others")
        )
        for number in range(3):
            item = make_item(session, project=pets, key=f"{number}.png")
            make_item(session, project=others, key=f"{number}.png")
            make_label(
                session, item=item, class_name="cat", created_at=datetime(2026, 1, 1 + number, tzinfo=UTC)
            )
    variables = environment(settings)
    for format in ("ndjson", "csv", "parquet"):
        file = tmp_path / f"labels.{format}"
        shortlist("export", "pets", "--format", format, "--output", str(file), **variables)
        found = shortlist("import-labels", str(file), "--project", "others", **variables)
        outcome = "accepted" if format == "ndjson" else "duplicate"
        assert (found.returncode, found.stdout) == (
            0,
            f"Labels of 'others': 3 {outcome}; 0 lines refused.\n",
        ), found.stderr
    with read_session(engine) as session:
        times = session.scalars(sa.select(Label.created_at).order_by(Label.id)).all()
    assert times[3:] == times[:3]

    file = tmp_path / "more.json"
    file.write_text('[{"key": "1.png", "class": "cow"}, {"key": "1.png", "class": "dog"}]')
    found = shortlist("import-labels", str(file), "--project", "others", "--annotator", "import", **variables)
    assert found.returncode == 1
    assert found.stdout.splitlines()[0].startswith("Line 1: `class`: 'cow' is not a class")
    assert found.stdout.splitlines()[1] == "Labels of 'others': 1 accepted; 1 lines refused."
    assert "--project NAME" in refused(shortlist("import-labels", str(file), **variables))
    assert ".ndjson" in refused(
        shortlist("import-labels", str(tmp_path / "a.txt"), "--project", "pets", **variables)
    )
    assert "a.csv" in refused(
        shortlist("import-labels", str(tmp_path / "a.csv"), "--project", "pets", **variables)
    )


def test_a_worker_is_told_how_many_devices_pretrain(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "SHORTLIST_DEVICES: " in refused(shortlist("worker", "--devices", "0"))
    told: list[str] = []
    monkeypatch.setattr(os, "execve", lambda *start: told.append(start[2]["SHORTLIST_DEVICES"]))
    running.worker(devices=3)
    running.worker()
    monkeypatch.setenv("SHORTLIST_DEVICES", "2")
    running.worker()
    assert told == ["3", "1", "2"]


def test_settings_shows_all_and_no_secret() -> None:
    variables = {
        "SHORTLIST_ADMIN_KEY": ADMIN_KEY,
        "SHORTLIST_DATABASE_URL": "postgresql+psycopg://me:hidden@db/x",
        "SHORTLIST_PORT": "1234",
    }
    shown = shortlist("settings", **variables).stdout
    for name in Settings.model_fields:
        assert f"SHORTLIST_{name.upper()}=" in shown
    assert "SHORTLIST_PORT=1234\n" in shown
    assert ADMIN_KEY not in shown
    assert "hidden" not in shown


def test_every_setting_says_what_it_means() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_a_bad_setting_is_one_sentence(data_dir: str) -> None:
    assert "SHORTLIST_PORT" in refused(
        shortlist_process("migrate", "--data-dir", data_dir, SHORTLIST_PORT="many")
    )


@pytest.mark.parametrize("name", ["up", "migrate"])
def test_a_data_folder_that_is_not_writable(name: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for folder in (file, Path("/proc/shortlist-data")):  # not even root may write there
        assert str(folder) in refused(shortlist(name, "--data-dir", str(folder), SHORTLIST_PORT="0"))


def test_a_database_that_cannot_be_used(tmp_path: Path, data_dir: str) -> None:
    (tmp_path / "shortlist.db").write_text("this is no database, however long it may be " * 30)
    assert "not a database" in refused(shortlist("migrate", "--data-dir", str(tmp_path)))
    urls = ["nonsense", "oracle://nowhere/x", "postgresql+psycopg://127.0.0.1:1/x", "sqlite:///?timeout=long"]
    for url in urls:
        found = shortlist("migrate", "--data-dir", data_dir, SHORTLIST_DATABASE_URL=url)
        assert found.returncode == 1
        assert "SHORTLIST_DATABASE_URL" in found.stderr
        assert "Traceback" not in found.stderr


@pytest.mark.parametrize(
    "url", ["nonsense", "postgresql://u:secret-word@h:54x/db", "postgresql://u:secret@word-x@h:/db:5"]
)
def test_a_database_url_that_is_none(url: str) -> None:
    said = refused(shortlist("settings", SHORTLIST_DATABASE_URL=url))
    assert "SHORTLIST_DATABASE_URL: " in said
    assert "no SQLAlchemy URL" in said
    assert "secret" not in said
    assert "word-x" not in said


def test_an_export_that_cannot_be_written(engine: sa.Engine, settings: Settings) -> None:
    with write_session(engine) as session:
        make_project(session)
    found = shortlist("export", "--output", "/proc/labels.csv", **environment(settings))
    assert "/proc/labels.csv" in refused(found)


@pytest.mark.parametrize("name", ["up", "serve"])
def test_a_port_in_use(name: str, data_dir: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert f"Port {port}" in refused(shortlist(name, "--port", port, "--data-dir", data_dir))


def test_up_wants_a_folder_and_classes(tmp_path: Path, data_dir: str) -> None:
    up_here = ("up", "--port", "0", "--data-dir", data_dir, "--images")
    assert "none' is not there" in refused(shortlist(*up_here, str(tmp_path / "none")))
    assert "is none of what items come in" in refused(shortlist(*up_here, __file__))
    assert "'' names nothing" in refused(shortlist(*up_here, ""))  # as of a variable that is not set
    assert "--classes cat,dog" in refused(shortlist(*up_here, str(tmp_path)))
    listed = shortlist("keys", "list", "--data-dir", data_dir)
    assert (listed.returncode, listed.stdout) == (0, "")  # the first key is made by a start that shows it


def test_without_keys_only_loopback(engine: sa.Engine, settings: Settings) -> None:
    variables = environment(settings) | {"SHORTLIST_HOST": "0.0.0.0"}
    assert "no API keys" in refused(shortlist("serve", "--port", "0", **variables))


def test_a_weak_preset_key_is_refused(data_dir: str) -> None:
    found = shortlist("up", "--port", "0", "--data-dir", data_dir, SHORTLIST_ADMIN_KEY="short")
    assert "16 characters" in refused(found)


def test_up_again_opens_with_a_key_of_its_own(
    engine: sa.Engine, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = keys.server_secret(settings)

    def role_of(token: str) -> str:
        with read_session(engine) as session:
            return keys.recognise(session, secret, token).role

    killed = up.key_of_this_run(engine, settings)
    left_behind = killed.__enter__()
    with up.key_of_this_run(engine, settings) as token:
        assert role_of(token) == "admin"
        with pytest.raises(KeyRefused):
            role_of(left_behind)
        _greet("http://127.0.0.1:8000", settings, None, token, None)
        told = capsys.readouterr().out
        assert f"http://127.0.0.1:8000/#key={token}" in told
        assert f"shortlist keys add NAME --role admin --data-dir {settings.data_dir}" in told
    with pytest.raises(KeyRefused):
        role_of(token)


def test_an_up_in_another_folder_leaves_the_key_alone(
    engine: sa.Engine, settings: Settings, tmp_path: Path
) -> None:
    here = settings.model_copy(update={"secret": SecretStr("one for both")})
    elsewhere = here.model_copy(update={"data_dir": tmp_path / "other"})
    with up.key_of_this_run(engine, here) as token:
        with up.key_of_this_run(engine, elsewhere):
            pass
        with read_session(engine) as session:
            assert keys.recognise(session, keys.server_secret(here), token).role == "admin"


@pytest.mark.parametrize(
    ("key", "project", "link"),
    [
        ("100% a&b+c#d/e", None, "/#key=100%25%20a%26b%2Bc%23d%2Fe"),
        ("sl_abc", "p_2", "/#key=sl_abc&project=p_2"),
        (None, "p_2", "/#project=p_2"),
        (None, None, "/"),
    ],
)
def test_the_link_opens_the_imported_project_with_any_key(
    key: str | None, project: str | None, link: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _greet("http://127.0.0.1:8000", Settings(), None, key, project)
    assert capsys.readouterr().out.splitlines()[0] == f"Dashboard: http://127.0.0.1:8000{link}"


@pytest.mark.parametrize(
    ("name", "content", "root"),
    [
        ("texts.csv", "text\nOne.\n", "texts.csv"),
        ("list.csv", "path\na.png\n", "."),
        ("list.jsonl", '{"uri": "a.txt"}', "."),
        ("pool.parquet", "", "pool.parquet"),
        ("pool", None, "pool"),
    ],
)
def test_up_may_read_what_the_items_need_and_no_more(
    name: str, content: str | None, root: str, tmp_path: Path
) -> None:
    if content is None:
        (tmp_path / name).mkdir()
    else:
        (tmp_path / name).write_text(content)
    given = up.check_items(tmp_path / name)
    assert given == up.ItemsGiven(tmp_path / name, tmp_path / root, name.split(".")[0])


@pytest.mark.parametrize(
    ("url", "root", "name"),
    [
        ("s3://bucket/pets/", "s3://bucket/pets", "pets"),
        ("gs://bucket/lists/pets.jsonl", "gs://bucket/lists", "pets"),
        ("memory://bucket/pets.parquet", "memory://bucket/pets.parquet", "pets"),
    ],
)
def test_up_takes_buckets(url: str, root: str, name: str) -> None:
    assert up.check_items(url) == up.ItemsGiven(url.rstrip("/"), root, name)


def test_up_takes_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "pool").mkdir()
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    assert up.check_items("~/pool").place == tmp_path / "pool"
    assert up.read_classes("", Path("~/classes.txt")) == ["cat", "dog"]
    (tmp_path / "pool" / "a").write_bytes(b"x")
    assert ItemBytes(Settings(source_roots=("~/pool",))).read(str(tmp_path / "pool" / "a")) == b"x"


def test_up_takes_file_urls(tmp_path: Path) -> None:
    folder = tmp_path / "50% cats?"
    folder.mkdir()
    assert up.check_items(folder.as_uri()) == up.check_items(folder)


def test_classes_are_listed_or_in_a_file(tmp_path: Path) -> None:
    assert up.read_classes("", None) == []
    assert up.read_classes('cat, dog ,"cow, brown",', None) == ["cat", "dog", "cow, brown"]
    assert up.read_classes("cafe\u0301", None) == ["caf\u00e9"]
    file = tmp_path / "classes.txt"
    file.write_bytes(b"\xef\xbb\xbfcat\r\n\r\n cow, brown \r\nM\xc3\xbcller")
    assert up.read_classes("dog", file) == ["dog", "cat", "cow, brown", "Müller"]
    file.write_bytes(b"M\xfcller")
    for bad in (file, tmp_path / "nowhere", tmp_path):
        with pytest.raises(ClassesFileUnreadable, match=re.escape(str(bad))):
            up.read_classes("", bad)


class TestQueueImages:
    @pytest.fixture
    def images(self, tmp_path: Path) -> Path:
        folder = tmp_path / "pets"
        folder.mkdir()
        return folder

    def queue(
        self, engine: sa.Engine, settings: Settings, images: Path, classes: list[str]
    ) -> tuple[int, int]:
        with write_session(engine) as session:
            return up.queue_items(session, settings, images, "pets", classes)

    def test_once_while_it_waits_again_when_it_ended(
        self, engine: sa.Engine, settings: Settings, images: Path
    ) -> None:
        first = self.queue(engine, settings, images, ["cat", "dog"])
        assert self.queue(engine, settings, images, []) == first
        job = jobs.claim(engine, "w", ["short"], 30)
        assert job is not None
        assert job.id == first[1]
        with write_session(engine) as session:
            jobs.succeed(session, job, {})
        project_id, again = self.queue(engine, settings, images, [])
        assert (project_id, again == first[1]) == (first[0], False)
        with read_session(engine) as session:
            assert session.scalars(sa.select(Project.classes)).all() == [["cat", "dog"]]
            assert set(session.scalars(sa.select(Source.uri))) == {str(images)}

    def test_a_later_start_reads_what_an_earlier_one_imported(
        self, engine: sa.Engine, settings: Settings, images: Path
    ) -> None:
        self.queue(engine, settings, images, ["cat", "dog"])
        with write_session(engine) as session:
            for uri in ("s3://bucket/pets", "/data/a,b", str(images)):
                session.add(Source(project_id=1, uri=uri, split="pool"))
        later = settings.model_copy(update={"source_roots": ("/other",)})
        known = up.with_known_sources(engine, later)
        assert known.source_roots == ("/other", "/data/a,b", str(images))
        told = _environment(known)["SHORTLIST_SOURCE_ROOTS"]  # to the worker
        assert read_settings(source_roots=told).source_roots == known.source_roots

    def test_a_new_project_needs_classes(self, engine: sa.Engine, settings: Settings, images: Path) -> None:
        with pytest.raises(ClassesMissing, match="pets"):
            self.queue(engine, settings, images, [])

    @pytest.mark.parametrize(
        ("classes", "fault"), [(["cat"], "at least two"), (["cat", "dog", "cat"], "same class")]
    )
    def test_of_classes_there_are_two_and_each_once(
        self, engine: sa.Engine, settings: Settings, images: Path, classes: list[str], fault: str
    ) -> None:
        with pytest.raises(Invalid, match=f"`classes`: .*{fault}"):
            self.queue(engine, settings, images, classes)
        with read_session(engine) as session:
            assert session.scalars(sa.select(Project)).all() == []

    def test_an_existing_project_keeps_its_classes(
        self, engine: sa.Engine, settings: Settings, images: Path
    ) -> None:
        first = self.queue(engine, settings, images, ["cat", "dog"])
        assert self.queue(engine, settings, images, ["dog", "cat"]) == first
        with pytest.raises(ClassesDiffer, match="cat, dog"):
            self.queue(engine, settings, images, ["cat", "horse"])

    def test_two_folders_of_one_name_are_two_projects(
        self, engine: sa.Engine, settings: Settings, images: Path, tmp_path: Path
    ) -> None:
        other = tmp_path / "elsewhere/pets"
        other.mkdir(parents=True)
        first, _ = self.queue(engine, settings, images, ["cat", "dog"])
        with pytest.raises(NameOfAnotherFolder, match=f"that of '{images}'.*--project pets"):
            self.queue(engine, settings, other, [])
        second, _ = self.queue(engine, settings, other, ["cat", "dog"])
        assert second != first
        assert self.queue(engine, settings, other, [])[0] == second
        assert self.queue(engine, settings, images, [])[0] == first
        with read_session(engine) as session:
            assert set(session.scalars(sa.select(Project.name))) == {"pets", f"pets in {other.parent}"}
        with write_session(engine) as session:  # a project that is named takes what it is given
            assert up.queue_items(session, settings, other, "pets", [], "pets")[0] == first

    @pytest.mark.parametrize("new_name", ["pets", "animals"])
    def test_a_renamed_folder_goes_on_with_its_project(
        self, new_name: str, engine: sa.Engine, settings: Settings, images: Path, tmp_path: Path
    ) -> None:
        first, _ = self.queue(engine, settings, images, ["cat", "dog"])
        (tmp_path / "new").mkdir()
        renamed = images.rename(tmp_path / "new" / new_name)

        def queue(classes: list[str], wished: str | None = None) -> int:
            with write_session(engine) as session:
                return up.queue_items(session, settings, renamed, new_name, classes, wished)[0]

        with pytest.raises(FolderGone, match=f"'{images}', which is not there any more.*--project pets"):
            queue(["dog", "cat"])
        assert queue([], "pets") == first
        assert queue(["cat", "dog"]) == first  # from now on it is known
        assert queue(["cat", "dog"], "others") != first

    def test_only_below_the_roots(self, engine: sa.Engine, settings: Settings) -> None:
        with pytest.raises(SourceNotAllowed):
            self.queue(engine, settings, Path("/"), ["cat", "dog"])


class TestFolderClasses:
    def test_folders_of_a_place_are_its_classes(self, settings: Settings, tmp_path: Path) -> None:
        root = write_pictures(tmp_path / "pets" / "dog", 1).parent
        write_pictures(root / "cafe\u0301", 1)
        assert up.folder_classes(settings, root) == ["caf\u00e9", "dog"]
        packed = shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path, "pets")
        assert up.folder_classes(settings, packed) == ["caf\u00e9", "dog"]
        with pytest.raises(NoClassFolders, match="there are: none"):
            up.folder_classes(settings, root / "dog")

    def test_items_are_labeled_by_their_folders_once(self, engine: sa.Engine) -> None:
        with write_session(engine) as session:
            project = make_project(session, classes=["cat", "dog"])
            for key in ("cat/1.png", "pets/dog/2.png", "cow/3.png", "4.png", "dog"):
                make_item(session, project=project, key=key)
            make_item(session, project=project, key="cat/5.png", state="quarantined")
            make_item(session, project=project, key="test/cat/6.png", split="test", class_name="cat")
        assert folder_labels.store(engine, project.id) == 2
        assert folder_labels.store(engine, project.id) == 0
        with read_session(engine) as session:
            found = session.execute(
                sa.select(Item.key, Label.class_name, Label.annotator, Label.arm).join(
                    Item, Item.id == Label.item_id
                )
            )
            assert set(map(tuple, found)) == {
                ("cat/1.png", "cat", "folders", "imported"),
                ("pets/dog/2.png", "dog", "folders", "imported"),
            }

    def test_after_the_import(self, engine: sa.Engine) -> None:
        with write_session(engine) as session:
            project = make_project(session)
            make_item(session, project=project, key="cat/1.png")
            make_item(session, project=project, key="2.png")
        said: list[str] = []
        job_id = TestPretrainAfterImport().ended_import(engine, project)
        up.pretrain_after_import(engine, project.id, job_id, said.append, threading.Event(), True, False)
        assert said[-1] == "Labeled by their folders, as 'folders': 1 items."
        assert TestPretrainAfterImport().pretrainings(engine) == 0


class TestClassesCommand:
    def test_classes_change_from_the_command_line(self, data_dir: str) -> None:
        assert shortlist("migrate", "--data-dir", data_dir).returncode == 0
        engine = make_engine(Settings(data_dir=Path(data_dir)).database)
        with write_session(engine) as session:
            project = make_project(session, classes=["kitten", "tomcat", "dog, small"])
            make_label(session, item=make_item(session, project=project), class_name="kitten")
        tried = shortlist(
            "classes", "merge", "kitten", "tomcat", "--into", "cat", "--dry-run", "--data-dir", data_dir
        )
        assert tried.returncode == 0, tried.stderr
        assert "“kitten” and “tomcat” will be called “cat”, in 1 label," in tried.stdout
        assert tried.stdout.endswith("this was a dry run.\n")
        assert (
            shortlist(
                "classes", "merge", "kitten", "tomcat", "--into", "cat", "--data-dir", data_dir
            ).returncode
            == 0
        )
        assert shortlist("classes", "add", "bird", "fish", "--data-dir", data_dir).returncode == 0
        assert shortlist("classes", "remove", "dog, small", "--data-dir", data_dir).returncode == 0
        listed = shortlist("classes", "list", "--data-dir", data_dir).stdout
        assert listed == (
            "cat\t1 labels\t1 items\t0 test items\twas kitten, tomcat\nbird\t0 labels\t0 items\t0 test items\n"
            "fish\t0 labels\t0 items\t0 test items\n"
        )
        assert "'cat' cannot be removed" in refused(
            shortlist("classes", "remove", "cat", "--data-dir", data_dir)
        )
        assert "it is 'cat' now" in refused(
            shortlist("classes", "rename", "kitten", "lion", "--data-dir", data_dir)
        )
        engine.dispose()


class TestPretrainAfterImport:
    """Each case: the import ends so, and then …"""

    def follow(self, engine: sa.Engine, project_id: int, job_id: int) -> list[str]:
        said: list[str] = []
        up.pretrain_after_import(engine, project_id, job_id, said.append, threading.Event())
        return said

    def ended_import(self, engine: sa.Engine, project: Project, error: str | None = None) -> int:
        with write_session(engine) as session:
            job_id = jobs.enqueue(session, "import_source", {}, project_id=project.id)
        job = jobs.claim(engine, "w", ["short"], 30)
        assert job is not None
        if error:
            jobs.fail(engine, job, error, retry=False)
        else:
            with write_session(engine) as session:
                jobs.succeed(session, job, {"added": 1, "known": 0, "quarantined": 2})
        return job_id

    def pretrainings(self, engine: sa.Engine) -> int:
        with read_session(engine) as session:
            return session.scalars(sa.select(sa.func.count()).where(Job.kind == "train_pretext")).one()

    def test_with_items(self, engine: sa.Engine) -> None:
        with write_session(engine) as session:
            project = make_project(session)
            make_item(session, project=project)
        said = self.follow(engine, project.id, self.ended_import(engine, project))
        assert "1 new items, 0 known, 2 quarantined" in said[0]
        assert self.pretrainings(engine) == 1
        self.follow(engine, project.id, self.ended_import(engine, project))
        assert self.pretrainings(engine) == 1

    def test_with_a_pretext_model(self, engine: sa.Engine) -> None:
        with write_session(engine) as session:
            project = make_project(session)
            make_item(session, project=project)
            make_pretext_model(session, project=project)
        self.follow(engine, project.id, self.ended_import(engine, project))
        assert self.pretrainings(engine) == 0

    def test_without_a_usable_item(self, engine: sa.Engine) -> None:
        with write_session(engine) as session:
            project = make_project(session)
            make_item(session, project=project, state="quarantined")
        said = self.follow(engine, project.id, self.ended_import(engine, project))
        assert "empty" in said[-1]
        assert self.pretrainings(engine) == 0

    def test_a_failed_import_is_told(self, engine: sa.Engine) -> None:
        with write_session(engine) as session:
            project = make_project(session)
        said = self.follow(engine, project.id, self.ended_import(engine, project, "There are no images."))
        assert said == ["The items were not imported. There are no images."]


def test_up_says_what_jobs_wait_for_once(engine: sa.Engine) -> None:
    with write_session(engine) as session:
        for _ in range(2):
            jobs.enqueue(session, "train_head", {}, project_id=make_project(session).id, needs=["head:foo"])
    said: list[str] = []
    stopping = threading.Event()
    saying = threading.Thread(target=up.say_what_waits, args=(engine, said.append, stopping, 0.01))
    saying.start()
    with write_session(engine) as session:
        make_worker(session, has=["kind:train_head"])
    wait_until(lambda: said)
    stopping.wait(0.1)
    stopping.set()
    saying.join()
    assert said == ["A job train_head waits for a worker that has head:foo; the only live worker does not."]


class TestWorkerKeeper:
    def keep(self, script: str, said: list[str]) -> up.WorkerKeeper:
        return up.WorkerKeeper(dict(os.environ), said.append, (sys.executable, "-c", script))

    def test_a_dead_worker_starts_again(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(up, "RESTART_S", (0.01, 0.02))
        starts = tmp_path / "starts"
        said: list[str] = []
        keeper = self.keep(f"open({str(starts)!r}, 'a').write('x'); raise SystemExit(3)", said)
        keeper.start()
        wait_until(lambda: starts.exists() and len(starts.read_text()) >= 3)
        keeper.stop()
        assert "ended with status 3" in said[0]

    def test_one_that_needs_a_person_does_not(self) -> None:
        said: list[str] = []
        keeper = self.keep(f"raise SystemExit({up.NEEDS_A_PERSON})", said)
        keeper.start()
        wait_until(lambda: said)
        keeper.stop()
        assert said == ["The worker cannot run, see above. The service goes on without it."]

    def test_stopping_ends_it(self, tmp_path: Path) -> None:
        ready = tmp_path / "ready"
        keeper = self.keep(f"import time; open({str(ready)!r}, 'w'); time.sleep(600)", [])
        keeper.start()
        wait_until(ready.exists)
        keeper.stop()
        assert keeper.running() is False


def ask(url: str, body: dict[str, Any] | None = None) -> Any:
    request = Request(
        url, headers={"Authorization": f"Bearer {ADMIN_KEY}", "Content-Type": "application/json"}
    )
    if body is not None:
        request.data = json.dumps(body).encode()
    with urlopen(request, timeout=10) as answer:
        return json.load(answer)


@contextmanager
def up_and_running(data_dir: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Its address and the process."""
    process = subprocess.Popen(
        command("up", "--port", "0", "--data-dir", data_dir),
        env=os.environ | {"SHORTLIST_ADMIN_KEY": ADMIN_KEY},
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        address, _, key = process.stdout.readline().strip().removeprefix("Dashboard: ").partition("/#key=")
        assert key == ADMIN_KEY
        wait_until(lambda: answers(f"{address}/healthz"))
        yield address, process
    finally:
        process.kill()
        process.communicate()


def answers(url: str) -> bool:
    try:
        return bool(ask(url))
    except URLError:
        return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_up_stops_cleanly_and_goes_on(data_dir: str, number: signal.Signals) -> None:
    with up_and_running(data_dir) as (address, process):
        ask(f"{address}/projects", {"name": "pets", "classes": ["cat", "dog"]})
        process.send_signal(number)
        assert process.wait(30) == 0
    with up_and_running(data_dir) as (address, process):
        assert [project["name"] for project in ask(f"{address}/projects")["items"]] == ["pets"]


def test_up_runs_once_in_a_folder(data_dir: str) -> None:
    with up_and_running(data_dir) as (address, _):
        assert "already running" in refused(shortlist("up", "--port", "0", "--data-dir", data_dir))
        assert ask(f"{address}/projects")["items"] == []


def test_serve_answers_without_a_worker(engine: sa.Engine, settings: Settings) -> None:
    process = subprocess.Popen(
        command("serve", "--port", "0"),
        env=environment(settings) | {"SHORTLIST_ADMIN_KEY": ADMIN_KEY},
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        wait_until(lambda: answers(f"{address}/healthz"))
        assert ask(f"{address}/projects")["items"] == []
        process.terminate()
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.communicate()


def test_the_command_loads_no_torch_and_no_worker() -> None:
    seen = "import sys, service.cli, service.main; print({'torch', 'worker', 'timm'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", seen], cwd=REPOSITORY) == b"set()\n"
