"""What the API says of items whose bytes are not what they were."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from service.settings import Settings
from service.store.artifacts import Artifacts
from service.store.session import write_session
from service.store.tables import Item, Job
from tests.api.conftest import created
from tests.pictures import encoded, picture, write_parquet, write_pictures
from tests.worker.running import claim, run


class Shop:
    """A project, its source on the disk, and imports of it."""

    def __init__(
        self, admin: TestClient, engine: sa.Engine, settings: Settings, artifacts: Artifacts
    ) -> None:
        self.admin, self.engine, self.settings, self.artifacts = admin, engine, settings, artifacts

    def imported(self, place: Path, **body: Any) -> dict[str, Any]:
        answer = self.admin.post("/projects/p_1/sources", json={"uri": str(place), **body})
        assert answer.status_code == 202, answer.text
        run(claim(self.engine, self.settings, self.artifacts, kind="import_source"))
        sources = self.admin.get("/projects/p_1/sources").json()["items"]
        return {name: count for name, count in sources[0].items() if isinstance(count, int) and count}

    def items(self, **query: str) -> dict[str, dict[str, Any]]:
        listed = self.admin.get("/projects/p_1/items", params=query).json()["items"]
        return {item["key"]: item for item in listed}

    def label(self, item: str, class_name: str, annotator: str = "ann") -> str:
        body = {"labels": [{"item": item, "class": class_name, "annotator": annotator}]}
        answer = self.admin.post("/projects/p_1/labels", json=body)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["results"][0]["outcome"])

    def exported(self, **query: str) -> list[tuple[str, str]]:
        lines = self.admin.get("/projects/p_1/labels", params=query).text.splitlines()
        return [(line["key"], line["class"]) for line in map(json.loads, lines)]


@pytest.fixture
def shop(admin: TestClient, engine: sa.Engine, settings: Settings, artifacts: Artifacts) -> Shop:
    created(admin)
    return Shop(admin, engine, settings, artifacts)


def test_labels_of_changed_items_are_set_aside_listed_and_kept_on_demand(shop: Shop, tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "pool", 3)
    assert shop.imported(root) == {"added": 3}
    old = shop.items()["00001.png"]
    tag = shop.admin.get(f"/projects/p_1/items/{old['id']}/image").headers["ETag"]
    for item in shop.items().values():
        shop.label(item["id"], "coat")
    shop.label(old["id"], "shirt", "bea")
    (root / "00001.png").write_bytes(encoded(picture(40)))
    refused = shop.admin.get(f"/projects/p_1/items/{old['id']}/image?size=16")  # not even before the import
    assert (refused.status_code, refused.json()["code"]) == (404, "no_preview")
    assert "its bytes are not those that were imported" in refused.json()["detail"]

    assert shop.imported(root) == {"known": 2, "changed": 1}

    new = shop.items()["00001.png"]
    assert (new["state"], new["class"], new["replaces"]) == ("available", None, old["id"])
    shown = shop.admin.get(f"/projects/p_1/items/{new['id']}/image")
    assert (shown.status_code, shown.content) == (200, encoded(picture(40)))
    assert shown.headers["ETag"] != tag
    assert shop.admin.get(f"/projects/p_1/items/{old['id']}/image").status_code == 404
    assert [item["id"] for item in shop.items(state="changed").values()] == [old["id"]]
    kept = shop.admin.get(f"/projects/p_1/items/{old['id']}").json()["labels"]
    assert {label["class"] for label in kept} == {"coat", "shirt"}
    assert sorted(shop.exported()) == [("00000.png", "coat"), ("00002.png", "coat")]
    assert len(shop.exported(all="true")) == 4
    assert (
        shop.label(old["id"], "coat", "eve") == "accepted"
    )  # who still had it open: kept, under what they saw
    assert shop.items()["00001.png"]["class"] is None

    used = shop.admin.get("/projects/p_1/metrics").json()["labels_used"]
    keep = {"items": [old["id"]]}
    assert shop.admin.post("/projects/p_1/items/keep-labels", json=keep).json() == {"changed": 1}
    assert shop.items()["00001.png"]["state"] == "done"
    assert ("00001.png", "coat") in shop.exported()
    assert shop.admin.get("/projects/p_1/metrics").json()["labels_used"] == used
    assert shop.admin.post("/projects/p_1/items/keep-labels", json=keep).json() == {"changed": 0}
    wrong = shop.admin.post("/projects/p_1/items/keep-labels", json={"items": [new["id"]]})
    assert (wrong.status_code, wrong.json()["code"]) == (422, "item_not_replaced")


def test_what_is_aside_is_not_offered_withdrawn_nor_queued(shop: Shop, tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "pool", 4)
    shop.imported(root)
    ids = {key: item["id"] for key, item in shop.items().items()}
    shop.admin.post("/projects/p_1/gold", json={"items": [{"item": ids["00000.png"], "class": "coat"}]})
    assert shop.admin.patch("/projects/p_1", json={"gold_fraction": 0.5}).status_code == 200
    (root / "00000.png").unlink()
    (root / "00001.png").write_bytes(encoded(picture(40)))
    assert shop.imported(root) == {"known": 2, "changed": 1, "missing": 1}

    batch = shop.admin.post("/projects/p_1/next-batch", json={"annotator": "ann", "size": 10}).json()["items"]
    assert {item["key"] for item in batch} == {"00001.png", "00002.png", "00003.png"}
    aside = [ids["00000.png"], ids["00001.png"]]
    assert shop.admin.post("/projects/p_1/items/withdraw", json={"items": aside}).json() == {"changed": 0}
    assert shop.admin.post("/projects/p_1/items/restore", json={"items": aside}).json() == {"changed": 0}
    queued = shop.admin.post("/projects/p_1/queue", json={"items": aside})
    assert (queued.status_code, queued.json()["code"]) == (422, "item_not_servable")
    metrics = shop.admin.get("/projects/p_1/metrics").json()
    assert (metrics["items"]["missing"], metrics["items"]["changed"]) == (1, 1)


def test_an_item_that_was_withdrawn_and_replaced_is_not_restored(shop: Shop, tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "pool", 2)
    shop.imported(root)
    old = shop.items()["00000.png"]["id"]
    shop.admin.post("/projects/p_1/items/withdraw", json={"items": [old]})
    (root / "00000.png").write_bytes(encoded(picture(40)))
    assert shop.imported(root) == {"known": 1, "changed": 1}
    shop.admin.post("/projects/p_1/items/restore", json={"items": [old]})
    assert shop.admin.get(f"/projects/p_1/items/{old}").json()["state"] == "changed"


def test_most_of_a_source_may_be_gone_if_one_says_so(shop: Shop, tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "pool", 3)
    shop.imported(root)
    for number in (0, 1):
        (root / f"0000{number}.png").unlink()
    assert shop.imported(root, accept_missing=True) == {"known": 1, "missing": 2}
    assert set(shop.items(state="missing")) == {"00000.png", "00001.png"}


def test_a_table_that_grew_is_read_anew_while_the_service_runs(shop: Shop, tmp_path: Path) -> None:
    table = write_parquet(tmp_path / "a.parquet", {"image": [encoded(picture(n)) for n in range(3)]})
    shop.imported(table)
    for item in shop.items().values():
        assert shop.admin.get(f"/projects/p_1/items/{item['id']}/image").status_code == 200
    write_parquet(table, {"image": [encoded(picture(n)) for n in (9, 8, 2, 1, 0)]})
    assert shop.imported(table) == {"added": 2, "known": 3}
    for item in shop.items().values():
        assert shop.admin.get(f"/projects/p_1/items/{item['id']}/image").status_code == 200


def test_two_imports_of_a_folder_at_once_run_one_after_the_other(shop: Shop, tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "pool", 3)
    for _ in range(2):
        assert shop.admin.post("/projects/p_1/sources", json={"uri": str(root)}).status_code == 202
    first = claim(shop.engine, shop.settings, shop.artifacts, kind="import_source")
    with pytest.raises(AssertionError):  # there is none to claim while it runs
        claim(shop.engine, shop.settings, shop.artifacts, kind="import_source")
    run(first)
    run(claim(shop.engine, shop.settings, shop.artifacts, kind="import_source"))
    sources = shop.admin.get("/projects/p_1/sources").json()["items"]
    assert [(source["added"], source["known"]) for source in sources] == [(0, 3), (3, 0)]
    with write_session(shop.engine) as session:
        assert (
            session.scalars(sa.select(Job.state).where(Job.kind == "import_source")).all()
            == ["succeeded"] * 2
        )


def in_folder(place: Path, pool: dict[str, int]) -> Path:
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    for key, number in pool.items():
        (place / key).write_bytes(encoded(picture(number)))
    return place


def in_table(place: Path, pool: dict[str, int]) -> Path:
    columns: dict[str, list[Any]] = {
        "key": list(pool),
        "image": [encoded(picture(number)) for number in pool.values()],
    }
    return write_parquet(place.with_suffix(".parquet"), columns)


def in_manifest(place: Path, pool: dict[str, int]) -> Path:
    in_folder(place, pool)
    path = place.with_suffix(".jsonl")
    path.write_text("".join(json.dumps({"key": key, "path": f"{place.name}/{key}"}) + "\n" for key in pool))
    return path


@pytest.mark.parametrize("write", [in_folder, in_table, in_manifest])
def test_import_label_change_and_import_again(
    write: Callable[[Path, dict[str, int]], Path], shop: Shop, tmp_path: Path
) -> None:
    """The way of a pool whose owner works on it, too."""
    pool = {f"{number}.png": number for number in range(6)}
    shop.imported(write(tmp_path / "pool", pool))
    for key, item in shop.items().items():
        shop.label(item["id"], "coat" if pool[key] % 2 else "shirt")
    before = {key: item["id"] for key, item in shop.items().items()}

    pool["0.png"] = 10  # changed
    pool["renamed.png"] = pool.pop("1.png")
    del pool["2.png"]
    pool["new.png"] = 11
    again = shop.imported(write(tmp_path / "pool", pool))

    assert again == {"added": 1, "known": 3, "changed": 1, "moved": 1, "missing": 1}
    items = shop.items()
    assert items["renamed.png"]["id"] == before["1.png"]
    states = {key: items[key]["state"] for key in (*pool, "2.png")}
    assert states == {
        "0.png": "available",
        "3.png": "done",
        "4.png": "done",
        "5.png": "done",
        "renamed.png": "done",
        "new.png": "available",
        "2.png": "missing",
    }
    assert dict(shop.exported()) == {
        "renamed.png": "coat",
        "2.png": "shirt",
        "3.png": "coat",
        "4.png": "shirt",
        "5.png": "coat",
    }
    for key, number in pool.items():  # what is shown is what has the name
        shown = shop.admin.get(f"/projects/p_1/items/{items[key]['id']}/image")
        assert (shown.status_code, shown.content) == (200, encoded(picture(number)))
    batch = shop.admin.post("/projects/p_1/next-batch", json={"annotator": "ann", "size": 9}).json()["items"]
    assert {item["key"] for item in batch} == {"0.png", "new.png"}


def registered(shop: Shop, *entries: dict[str, Any]) -> dict[str, int]:
    answer = shop.admin.post("/projects/p_1/items", json={"items": list(entries)})
    assert answer.status_code == 200, answer.text
    return {name: count for name, count in answer.json().items() if isinstance(count, int) and count}


def test_a_registered_key_with_other_bytes_is_another_item(shop: Shop, tmp_path: Path) -> None:
    """Registered by place; its hash is known once it was read, here by an import."""
    root = write_pictures(tmp_path / "pool", 3)
    entries = [{"key": path.name, "uri": str(path)} for path in sorted(root.iterdir())]
    assert registered(shop, *entries) == {"added": 3}
    assert registered(shop, *entries) == {"known": 3}
    assert shop.imported(root) == {"known": 3}
    old = shop.items()["00001.png"]
    shop.label(old["id"], "coat")
    before, after = (root / "00001.png").read_bytes(), encoded(picture(40))
    (root / "00001.png").write_bytes(after)

    assert registered(shop, *entries) == {"known": 2, "changed": 1}

    new = shop.items(state="available")["00001.png"]
    assert (new["state"], new["class"], new["replaces"]) == ("available", None, old["id"])
    aside = shop.admin.get(f"/projects/p_1/items/{old['id']}").json()
    assert (aside["state"], aside["key"]) == ("changed", f"00001.png#{old['id']}")
    assert shop.exported() == []
    assert registered(shop, *entries) == {"known": 3}  # nobody has read it, and it is where it was
    assert shop.imported(root) == {"known": 3}
    assert shop.admin.post("/projects/p_1/items/keep-labels", json={"items": [old["id"]]}).status_code == 200
    assert shop.exported() == [("00001.png", "coat")]

    (root / "00001.png").write_bytes(before)
    assert registered(shop, *entries) == {"known": 2, "changed": 1}
    assert shop.items()["00001.png"]["id"] == old["id"]
    assert shop.items()["00001.png"]["state"] == "done"


def test_the_first_scoring_tells_the_bytes_of_what_was_registered_by_its_place(
    shop: Shop, tmp_path: Path
) -> None:
    root = write_pictures(tmp_path / "pool", 4)
    (root / "00003.png").write_bytes(b"broken")
    entries = [{"key": f"{n}", "uri": str(root / f"0000{n}.png")} for n in range(5)]
    assert registered(shop, *entries) == {"added": 5}
    run(claim(shop.engine, shop.settings, shop.artifacts, kind="score_raw"))
    items = shop.items()
    assert {key: item["state"] for key, item in items.items()} == {
        **dict.fromkeys("012", "available"),
        **dict.fromkeys("34", "quarantined"),
    }
    assert (items["0"]["facts"] or {}).get("width")
    shop.label(items["1"]["id"], "coat")
    for number in (1, 3, 4):
        (root / f"0000{number}.png").write_bytes(encoded(picture(40 + number)))

    assert registered(shop, *entries) == {"known": 2, "changed": 3}
    assert {item["state"] for item in shop.items(state="available").values()} == {"available"}
    assert shop.items(state="available").keys() == {entry["key"] for entry in entries}
    assert shop.exported() == []


def test_exported_labels_go_to_their_bytes(shop: Shop, tmp_path: Path) -> None:
    """What has a key by now may be something else, here and on another machine."""
    root = write_pictures(tmp_path / "pool", 4)
    shop.imported(root)
    for key, item in shop.items().items():
        shop.label(item["id"], "coat" if key < "00002" else "shirt")
    exported = shop.admin.get("/projects/p_1/labels").content
    (root / "00000.png").rename(root / "x")
    (root / "00002.png").rename(root / "00000.png")
    (root / "x").rename(root / "00002.png")
    (root / "00001.png").write_bytes(encoded(picture(40)))
    (root / "00003.png").rename(root / "renamed.png")

    def sent(project: str, body: bytes) -> dict[str, Any]:
        headers = {"Content-Type": "application/x-ndjson"}
        answer = shop.admin.post(f"/projects/{project}/labels/import", content=body, headers=headers)
        return dict(answer.json())

    assert shop.imported(root) == {"changed": 1, "moved": 3}
    assert sent("p_1", exported)["outcomes"] == {"duplicate": 4}
    assert shop.items(state="available").keys() == {"00001.png"}  # nobody labeled that

    created(shop.admin, name="elsewhere")
    shop.admin.post("/projects/p_2/sources", json={"uri": str(root)})
    run(claim(shop.engine, shop.settings, shop.artifacts, kind="import_source"))
    answer = sent("p_2", exported)
    assert answer["outcomes"] == {"accepted": 3}
    (refused,) = answer["refused"]
    assert (refused["line"], refused["code"], refused["field"]) == (2, "other_bytes", "key")
    lines = shop.admin.get("/projects/p_2/labels").text.splitlines()
    assert {line["key"]: line["class"] for line in map(json.loads, lines)} == {
        "00002.png": "coat",
        "00000.png": "shirt",
        "renamed.png": "shirt",
    }
    by_key = {"key": "00001.png", "class": "coat", "annotator": "ann"}  # as people say it
    assert sent("p_2", json.dumps(by_key).encode())["outcomes"] == {"accepted": 1}


def test_the_same_bytes_elsewhere_are_the_same_item_there(shop: Shop, tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "pool", 2)
    shop.imported(root)
    old = shop.items()["00000.png"]
    shop.label(old["id"], "coat")
    moved = shutil.copytree(root, tmp_path / "moved")
    os.utime(moved / "00000.png", (1, 1))
    assert registered(shop, {"key": "00000.png", "uri": str(moved / "00000.png")}) == {"known": 1}
    assert shop.items()["00000.png"]["state"] == "done"
    gone = {"key": "00001.png", "uri": str(moved / "not-there.png")}
    assert registered(shop, gone) == {"known": 1}  # nothing can be read, and nothing is lost
    assert shop.items()["00001.png"]["state"] == "available"
    missing = shop.items()["00000.png"]["id"]
    with write_session(shop.engine) as session:
        session.execute(sa.update(Item).where(Item.key == "00000.png").values(state="missing"))
    assert registered(shop, {"key": "00000.png", "uri": str(moved / "00000.png")}) == {"known": 1}
    back = shop.items()["00000.png"]
    assert (back["id"], back["state"], back["class"]) == (missing, "done", "coat")


def test_a_key_with_another_text_is_another_item(shop: Shop) -> None:
    shop.admin.patch("/projects/p_1", json={"modality": "text"})
    assert registered(shop, {"key": "a", "text": "well done"}, {"key": "b", "text": "a pity"}) == {"added": 2}
    old = shop.items()["a"]
    shop.label(old["id"], "coat")
    changed = [
        {"key": "a", "text": "badly done"},
        {"key": "b", "text": "a pity"},
        {"key": "c", "text": "so so"},
    ]
    assert registered(shop, *changed) == {"added": 1, "known": 1, "changed": 1}
    new = shop.items()["a"]
    assert (new["content"]["text"], new["replaces"], new["class"]) == ("badly done", old["id"], None)
    assert registered(shop, *changed) == {"known": 3}
    assert registered(shop, {"key": "a", "text": "well done"}) == {"changed": 1}
    assert (shop.items()["a"]["id"], shop.items()["a"]["class"]) == (old["id"], "coat")
