import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient
from PIL import Image

from service.settings import Settings
from service.store.session import write_session
from service.store.tables import Item, Job, Project, ScoreRun
from tests import factories
from tests.api.conftest import created

NDJSON = {"Content-Type": "application/x-ndjson"}


def entries(folder: Path, count: int) -> list[dict[str, Any]]:
    return [{"key": f"{number:05}", "uri": str(folder / f"{number}.png")} for number in range(count)]


def test_items_are_registered_once_by_key(admin: TestClient, tmp_path: Path) -> None:
    created(admin)
    body = {"items": entries(tmp_path, 3)}
    first = admin.post("/projects/p_1/items", json=body)
    assert first.json() == {"added": 3, "known": 0, "changed": 0, "refused": [], "refused_count": 0}
    body["items"] += [
        body["items"][0],
        {"key": "new", "uri": str(tmp_path / "new.png"), "meta": {"a": [1, None]}},
    ]
    assert admin.post("/projects/p_1/items", json=body).json()["known"] == 4
    listed = admin.get("/projects/p_1/items?sort=-key").json()["items"]
    assert [item["key"] for item in listed] == ["new", "00002", "00001", "00000"]
    assert listed[0]["meta"] == {"a": [1, None]}


def test_what_cannot_be_registered_is_refused_by_line(admin: TestClient, tmp_path: Path) -> None:
    created(admin)
    here = str(tmp_path / "a.png")
    lines = [
        json.dumps({"key": "a", "uri": here}),
        "not json",
        "",
        json.dumps({"key": "b", "uri": "/etc/passwd"}),
        json.dumps({"key": "c", "uri": f"{tmp_path}/../../etc/passwd"}),
        json.dumps({"key": "d", "uri": here, "split": "test", "class": "bird"}),
        json.dumps({"key": "e", "uri": here, "split": "test"}),
        json.dumps({"key": "f", "uri": here, "class": "coat"}),
        json.dumps({"key": "g\u0000", "uri": here}),
        '{"key": "h", "uri": "' + here + '", "meta": {"a": NaN}}',
        json.dumps({"key": "i", "uri": here, "split": "test", "class": "coat"}),
    ]
    answer = admin.post("/projects/p_1/items", content="\n".join(lines), headers=NDJSON).json()
    assert (answer["added"], answer["known"], answer["refused_count"]) == (2, 0, 8)
    assert [(refused["line"], refused["code"]) for refused in answer["refused"]] == [
        (2, "malformed"),
        (4, "uri_not_allowed"),
        (5, "uri_not_allowed"),
        (6, "unknown_class"),
        (7, "class_missing"),
        (8, "class_not_taken"),
        (9, "malformed"),
        (10, "malformed"),
    ]
    assert admin.get("/projects/p_1/items?split=test&class=coat").json()["items"][0]["key"] == "i"


def test_a_stream_may_be_longer_than_the_body_limit(
    admin: TestClient, settings: Settings, tmp_path: Path
) -> None:
    created(admin)
    pad = "x" * 900

    def lines() -> Any:
        for number in range(settings.max_body_bytes // 8000):
            entry = {"key": f"{number:06}", "uri": str(tmp_path / "a.png"), "meta": {"pad": pad}}
            line = json.dumps(entry).encode() + b"\n"
            yield line[:100]  # pieces need not end where lines do
            yield line[100:]

    answer = admin.post("/projects/p_1/items", content=lines(), headers=NDJSON)
    assert answer.json()["added"] == settings.max_body_bytes // 8000


def test_new_items_of_a_scored_project_are_scored(
    admin: TestClient, engine: sa.Engine, tmp_path: Path
) -> None:
    created(admin)
    with write_session(engine) as session:
        project = session.get_one(Project, 1)
        project.score_run_id = factories.make_score_run(session, project=project).id
    admin.post("/projects/p_1/items", json={"items": entries(tmp_path, 2)})
    with write_session(engine) as session:
        assert [job.kind for job in session.scalars(sa.select(Job))] == ["score_pool"]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_too_many_in_one_body_and_other_types_are_refused(admin: TestClient, tmp_path: Path) -> None:
    created(admin)
    many = admin.post("/projects/p_1/items", json={"items": entries(tmp_path, 10_001)})
    assert (many.status_code, many.json()["errors"][0]["field"]) == (422, "items")
    for headers in ({"Content-Type": "text/csv"}, {}):
        answer = admin.post("/projects/p_1/items", content=b"key,uri", headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (415, "not_json")
    long = admin.post("/projects/p_1/items", content=b"x" * 8 * 2**20, headers=NDJSON)
    assert long.status_code == 422
    field = admin.post("/projects/p_1/items", json={"items": [{"key": "a", "uri": "b"}, {"key": ""}]}).json()
    assert [each["field"] for each in field["errors"]] == ["items[1].key", "items[1].uri"]


@pytest.fixture
def scored(admin: TestClient, engine: sa.Engine) -> None:
    """Ten items; the losses of the first eight fall with their number, two are equal."""
    created(admin)
    with write_session(engine) as session:
        project = session.get_one(Project, 1)
        items = [factories.make_item(session, project=project, key=f"{number}") for number in range(10)]
        score_run = factories.make_score_run(
            session, project=project, items=8, histogram={"edges": [0.0, 0.5, 1.0], "counts": [5, 3]}
        )
        project.score_run_id = score_run.id
        for number, item in enumerate(items[:8]):
            loss = (7 - max(number, 1)) / 7
            factories.make_score(
                session, score_run=score_run, item=item, pretext_loss=loss, percentile=100 * loss
            )
        items[9].state, items[9].quarantine_reason = "quarantined", "the file is empty"
        factories.make_label(session, item=items[2], class_name="shirt")


@pytest.mark.usefixtures("scored")
def test_items_sort_and_filter_by_pretext_loss(admin: TestClient) -> None:
    def keys(query: str) -> str:
        found: list[str] = []
        cursor: str | None = ""
        while cursor is not None:
            page = admin.get(f"/projects/p_1/items?limit=3&{query}{cursor and '&cursor=' + cursor}").json()
            found += [item["key"] for item in page["items"]]
            cursor = page["next_cursor"]
        return "".join(found)

    assert keys("") == "0123456789"
    assert keys("sort=-key") == "9876543210"
    assert keys("sort=pretext_loss") == "76543201"
    assert keys("sort=-pretext_loss") == "10234567"
    assert keys("sort=-pretext_loss&pretext_loss_percentile_min=50") == "1023"
    assert keys("pretext_loss_percentile_max=20&pretext_loss_percentile_min=10") == "6"
    assert keys("state=quarantined") == "9"
    assert keys("state=done") == keys("class=shirt") == "2"
    assert keys("class=coat") == ""


@pytest.mark.usefixtures("scored")
def test_one_item_with_reason_loss_and_labels(admin: TestClient) -> None:
    first, third, bad = (admin.get(f"/projects/p_1/items/i_{number}").json() for number in ("1", "3", "a"))
    assert (first["pretext_loss"], first["pretext_loss_percentile"]) == (6 / 7, 600 / 7)
    assert (third["class"], third["labels"][0]["class"], third["labels"][0]["annotator"]) == (
        "shirt",
        "shirt",
        "ann",
    )
    assert (bad["state"], bad["quarantine_reason"], bad["pretext_loss"]) == (
        "quarantined",
        "the file is empty",
        None,
    )


@pytest.fixture
def with_duplicates(scored: None, engine: sa.Engine) -> None:
    """Items 4 and 5 are duplicates of item 2, item 7 of item 6; an older score run says otherwise."""
    with write_session(engine) as session:
        project = session.get_one(Project, 1)
        items = list(session.scalars(sa.select(Item).order_by(Item.id)))
        run = session.get_one(ScoreRun, project.score_run_id)
        older = factories.make_score_run(session, project=project)
        for copy, of in ((4, 2), (5, 2), (7, 6)):
            factories.make_duplicate(session, score_run=run, item=items[copy], of=items[of])
        factories.make_duplicate(session, score_run=older, item=items[1], of=items[2])


@pytest.mark.usefixtures("with_duplicates")
def test_duplicates_are_listed_by_what_stands_for_them(admin: TestClient) -> None:
    listed = admin.get("/projects/p_1/items?duplicate_of=i_3").json()["items"]
    assert [(item["key"], item["duplicate_of"]) for item in listed] == [("4", "i_3"), ("5", "i_3")]
    assert (
        admin.get("/projects/p_1/items?duplicate_of=i_3&sort=pretext_loss&limit=1").json()["items"][0]["key"]
        == "5"
    )
    assert admin.get("/projects/p_1/items?duplicate_of=i_2").json()["items"] == []
    assert admin.get("/projects/p_1/items/i_8").json()["duplicate_of"] == "i_7"
    assert admin.get("/projects/p_1/items/i_3").json()["duplicate_of"] is None
    assert len(admin.get("/projects/p_1/items").json()["items"]) == 10
    for unknown in ("i_zz", "b_3", "x"):
        assert admin.get(f"/projects/p_1/items?duplicate_of={unknown}").status_code == 404


@pytest.mark.usefixtures("with_duplicates")
def test_duplicates_are_exported_with_a_suggestion(admin: TestClient, engine: sa.Engine) -> None:
    def rows(query: str) -> list[dict[str, Any]]:
        found = admin.get(f"/projects/p_1/labels{query}").text.splitlines()
        return [json.loads(line) for line in found]

    assert [row["key"] for row in rows("")] == ["2"]
    suggested = rows("?suggestions=true")
    assert [row["key"] for row in suggested] == ["2", "4", "5"]
    assert suggested[1] == {"item": "i_5", "key": "4", "suggested_class": "shirt", "duplicate_of": "i_3"}
    with write_session(engine) as session:
        factories.make_label(session, item=session.get_one(Item, 5), class_name="coat")
        factories.make_label(session, item=session.get_one(Item, 8), class_name="coat")
    assert [row["key"] for row in rows("?suggestions=true")] == ["2", "4", "7", "5"]  # labels first
    lines = admin.get(
        "/projects/p_1/labels?suggestions=true", headers={"Accept": "text/csv"}
    ).text.splitlines()
    assert lines[0].endswith(",created_at,content_hash,suggested_class,duplicate_of")
    assert lines[-1].endswith(",shirt,i_3")


@pytest.mark.usefixtures("with_duplicates")
def test_a_twin_of_an_unlabeled_representative_suggests(admin: TestClient, engine: sa.Engine) -> None:
    with write_session(engine) as session:
        run = session.get_one(ScoreRun, session.get_one(Project, 1).score_run_id)
        items = list(session.scalars(sa.select(Item).order_by(Item.id)))
        factories.make_duplicate(session, score_run=run, item=items[8], of=items[6])
        factories.make_label(session, item=items[7], class_name="coat")
    lines = admin.get("/projects/p_1/labels?suggestions=true").text.splitlines()
    assert {"item": "i_9", "key": "8", "suggested_class": "coat", "duplicate_of": "i_7"} in map(
        json.loads, lines
    )


@pytest.mark.usefixtures("scored")
def test_barred_items_are_listed_with_the_probability(admin: TestClient, engine: sa.Engine) -> None:
    assert admin.get("/projects/p_1/items?barred=true").json()["items"] == []
    with write_session(engine) as session:
        items = list(session.scalars(sa.select(Item).order_by(Item.id)))
        for place in (2, 3, 5):  # 2 has been labeled since
            factories.make_barred_item(session, item=items[place], probability=place / 10)
        elsewhere = factories.make_item(session, project=factories.make_project(session))
        factories.make_barred_item(session, item=elsewhere)
    barred = admin.get("/projects/p_1/items?barred=true").json()["items"]
    assert [(item["key"], item["barred_probability"]) for item in barred] == [("3", 0.3), ("5", 0.5)]
    rest = admin.get("/projects/p_1/items?barred=false").json()["items"]
    assert [item["key"] for item in rest] == list("01246789")
    assert {item["barred_probability"] for item in rest} == {None}
    assert admin.get("/projects/p_1/items/i_4").json()["barred_probability"] == 0.3
    assert admin.get("/projects/p_1/items/i_4").json()["state"] == "available"


def test_losses_need_a_score_run(admin: TestClient) -> None:
    created(admin)
    for path in ("items?sort=pretext_loss", "items?pretext_loss_percentile_min=3", "scores"):
        assert admin.get(f"/projects/p_1/{path}").json()["code"] == "no_score_run"


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=1001",
        "limit=x",
        "state=gone",
        "sort=shuffle",
        "pretext_loss_percentile_min=nan",
        "pretext_loss_percentile_max=101",
        "cursor=x",
        "cursor=W10",
        "cursor=WyJhIl0",
        "cursor=%00",
        "class=%00",
        "cursor=WzEsIDk5OTk5OTk5OTk5OTk5OTk5OTk5XQ",
    ],
)
def test_a_wrong_query_is_named(admin: TestClient, query: str) -> None:
    created(admin)
    answer = admin.get(f"/projects/p_1/items?{query}")
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == query.split("=")[0]


def picture(path: Path, size: tuple[int, int], mode: str = "RGB") -> bytes:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (*size[::-1], 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)
    return path.read_bytes()


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_lines_as_windows_writes_them(encoding: str, admin: TestClient, tmp_path: Path) -> None:
    created(admin)
    lines = [
        json.dumps({"key": f"é{number}", "uri": str(tmp_path / "é.png")}, ensure_ascii=False)
        for number in range(3)
    ]
    answer = admin.post("/projects/p_1/items", content="\r\n".join(lines).encode(encoding), headers=NDJSON)
    assert (answer.json()["added"], answer.json()["refused_count"]) == (3, 0)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_images_as_they_are_and_as_thumbnails(admin: TestClient, anyone: TestClient, tmp_path: Path) -> None:
    created(admin)
    files = {"small.png": (28, 28), "large.jpg": (600, 400), "cmyk.tiff": (40, 30)}
    original = {
        name: picture(tmp_path / name, size, "CMYK" if name == "cmyk.tiff" else "RGB")
        for name, size in files.items()
    }
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    names = [*files, "broken.png", "gone.png"]
    admin.post(
        "/projects/p_1/items", json={"items": [{"key": name, "uri": str(tmp_path / name)} for name in names]}
    )
    urls = {item["key"]: item["image_url"] for item in admin.get("/projects/p_1/items").json()["items"]}

    as_is = anyone.get(urls["small.png"])
    assert (as_is.content, as_is.headers["Content-Type"]) == (original["small.png"], "image/png")
    assert as_is.headers["X-Content-Type-Options"] == "nosniff"
    assert anyone.get(urls["small.png"], headers={"If-None-Match": as_is.headers["ETag"]}).status_code == 304
    assert anyone.get(urls["large.jpg"]).content == original["large.jpg"]

    def opened(name: str, query: str = "") -> Image.Image:
        answer = anyone.get(urls[name] + query)
        assert answer.status_code == 200
        return Image.open(io.BytesIO(answer.content))

    assert opened("cmyk.tiff").format == "PNG"
    assert (opened("large.jpg", "&size=300").size, opened("large.jpg", "&size=300").format) == (
        (300, 200),
        "JPEG",
    )
    assert (opened("large.jpg", "&size=90").size, opened("large.jpg", "&size=90").format) == ((90, 60), "PNG")
    assert opened("small.png", "&size=90").size == (28, 28)
    for name in ("broken.png", "gone.png"):
        answer = anyone.get(urls[name] + "&size=64")
        assert (answer.status_code, answer.json()["code"]) == (404, "no_preview")
    assert anyone.get(urls["small.png"] + "&size=1000000").status_code == 422


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_grey_of_twelve_bits_is_shown_as_the_pool_is_seen(
    admin: TestClient, engine: sa.Engine, tmp_path: Path
) -> None:
    created(admin)
    for name, largest in (("dim", 2047), ("bright", 4095)):
        Image.fromarray(np.linspace(0, largest, 64, dtype=np.uint16).reshape(8, 8)).save(
            tmp_path / f"{name}.png"
        )
    lines = [{"key": name, "uri": str(tmp_path / f"{name}.png")} for name in ("dim", "bright")]
    admin.post("/projects/p_1/items", json={"items": lines})
    with write_session(engine) as session:
        project = session.get_one(Project, 1)
        for item, bits in zip(session.scalars(sa.select(Item).order_by(Item.id)), (11, 12), strict=True):
            item.facts = {"width": 8, "height": 8, "bits": bits}

    def brightest(query: str = "") -> tuple[int, str]:
        answer = admin.get(f"/projects/p_1/items/i_1/image{query}")
        return int(np.asarray(Image.open(io.BytesIO(answer.content))).max()), answer.headers["ETag"]

    unscored, etag = brightest()
    assert unscored == brightest("?size=64")[0] == 127  # 2047 of 4095
    with write_session(engine) as session:
        config = {"input": {"modality": "image", "image_size": 8, "bits": 11}}
        factories.make_pretext_model(session, project=project, config=config)
    trained, another = brightest()
    assert (trained, another == etag) == (255, False)  # as the model sees it


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_no_file_outside_the_roots_is_shown(admin: TestClient, engine: sa.Engine) -> None:
    """Even if it came into the database some other way."""
    created(admin)
    with write_session(engine) as session:
        factories.make_item(session, project=session.get_one(Project, 1), uri="/etc/hostname")
    assert admin.get("/projects/p_1/items/i_1/image").json()["code"] == "no_preview"


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_sources_lie_below_the_roots(admin: TestClient, tmp_path: Path, engine: sa.Engine) -> None:
    created(admin)
    (tmp_path / "pool").mkdir()
    (tmp_path / "out").symlink_to("/etc")
    for uri in ("/etc", "pool", f"{tmp_path}/pool/../../..", f"{tmp_path}/out", "s3://bucket/x", "\0", ""):
        assert admin.post("/projects/p_1/sources", json={"uri": uri}).status_code == 422, uri
    assert (
        admin.post("/projects/p_1/sources", json={"uri": f"{tmp_path}/gone"}).json()["code"]
        == "source_unreadable"
    )
    answer = admin.post("/projects/p_1/sources", json={"uri": f"{tmp_path}/pool", "split": "test"})
    assert (answer.status_code, answer.json()["kind"]) == (202, "import_source")
    (source,) = admin.get("/projects/p_1/sources").json()["items"]
    assert (source["job"], source["split"], source["added"]) == (answer.json()["id"], "test", 0)
    with write_session(engine) as session:
        assert session.scalars(sa.select(Item)).all() == []
