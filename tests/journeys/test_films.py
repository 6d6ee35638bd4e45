"""The whole way of a video: from a table to a ranking, a pretext model, classes and the next ranking; broken ones stop
nothing.
"""

import io
import json

import httpx2 as httpx
from PIL import Image

from tests.content.test_video import broken, ten_hours
from tests.journeys.films import film, pictures, write_films
from tests.journeys.site import PATIENCE_S, Json, Project, Site, until
from tests.journeys.test_recordings import label


def test_from_a_table_to_the_next_ranking(site: Site) -> None:
    folder = site.images / "films"
    folder.mkdir()
    project = Project(
        site, "films", ("left", "right"), round_size=20, retrain_min_labels=10, pretext_epochs=2
    )
    assert project.add(write_films(folder / "films.parquet", 80))["added"] == 80
    described = site.get(project.at)
    assert (described["modality"], described["pretext_task"]["name"]) == ("video", "temporal_order")
    provisional: Json = until(lambda: project.metrics()["ranking"])
    assert "Provisional" in provisional["note"]
    first = project.next_batch("ann", 10)
    assert all(item["content"]["kind"] == "video" and item["image_url"] is None for item in first["items"])
    can_be_played(site, first["items"][0]["content"])

    project.pretrain()
    scored = project.metrics()
    assert scored["score_run"]["pretext_model"] is not None
    assert scored["ranking"]["note"] is None
    assert all(item["pretext_loss"] > 0 for item in project.items(split="pool"))

    label(project, first)
    label(project, project.next_batch("ann", 10))
    until(lambda: project.rounds()[0]["state"] == "measured")
    until(lambda: project.metrics()["ranking"]["labels_used"] == 20)
    following = project.next_batch("ann", 20)["items"]
    assert any(item["prediction"] is not None for item in following)


def can_be_played(site: Site, content: Json) -> None:
    """By a browser without a key: all of it, a part of it, and a picture of it."""
    address = str(site.http.base_url).rstrip("/")
    whole = httpx.get(address + content["url"], timeout=PATIENCE_S)
    assert whole.headers["content-type"] == "video/mp4"
    assert whole.headers["accept-ranges"] == "bytes"
    assert whole.content[4:8] == b"ftyp"
    part = httpx.get(address + content["url"], headers={"Range": "bytes=4-11"}, timeout=PATIENCE_S)
    assert part.status_code == 206
    assert part.content == whole.content[4:12]
    picture = httpx.get(address + content["preview_url"], timeout=PATIENCE_S)
    assert picture.headers["content-type"] == "image/jpeg"
    assert 250 < max(Image.open(io.BytesIO(picture.content)).size) <= 256


def test_broken_videos_are_told_and_stop_nothing(site: Site) -> None:
    folder = site.images / "broken-films"
    folder.mkdir()
    good = {
        f"good-{number}.{ending}": film("left", number, form=form)
        for number, (ending, form) in enumerate(
            {"mp4": "mp4", "webm": "webm", "mkv": "matroska", "avi": "avi"}.items()
        )
    }
    good |= {"animation.gif": film("left", 9, form="gif"), "long.mp4": ten_hours()}
    buffer = io.BytesIO()
    Image.fromarray(next(iter(pictures("left", 1, 1)))).save(buffer, "GIF")
    bad = {name: data for name, (data, _) in broken().items()} | {"picture.gif": buffer.getvalue()}
    for name, data in (good | bad).items():
        (folder / name).write_bytes(data)

    project = Project(site, "broken films", ("left", "right"))
    counted = project.add(folder)

    assert (counted["added"], counted["quarantined"]) == (len(good), len(bad))
    reasons = {item["key"]: item["quarantine_reason"] for item in project.items(state="quarantined")}
    assert set(reasons) == set(bad)
    for name, (_, words) in broken().items():
        assert words in reasons[name], reasons[name]
    assert "one frame only" in reasons["picture.gif"]
    facts = {item["key"]: item["facts"] for item in project.items(state="available")}
    assert [name for name, known in facts.items() if known.get("static")] == ["long.mp4"], json.dumps(facts)
    assert project.next_batch("ann", 3)["items"]


def test_animated_gifs_are_images_unless_a_project_is_of_videos(site: Site) -> None:
    """The first frame of a GIF is an image, as it always was; a project that says `video` has all of it."""
    folder = site.images / "animations"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.gif").write_bytes(film("left", number, form="gif"))

    told = Project(site, "animations as images", ("left", "right"))
    assert told.add(folder)["added"] == 3
    chosen = Project(site, "animations as videos", ("left", "right"), modality="video")
    assert chosen.add(folder)["added"] == 3

    assert site.get(told.at)["modality"] == "image"
    assert site.get(chosen.at)["modality"] == "video"
    assert all(item["facts"]["codec"] == "gif" for item in chosen.items())
