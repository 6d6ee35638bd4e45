"""Broken videos stop nothing, and animated GIFs are what a project says they are."""

import io
import json

from PIL import Image

from tests.content.test_video import broken, ten_hours
from tests.journeys.films import film, pictures, write_frames
from tests.journeys.site import Project, Site
from tests.journeys.test_kinds import is_played


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


def test_folders_of_frames_are_videos(site: Site) -> None:
    """Each is one item that can be played; one with a broken frame is quarantined until it is mended, and one of which
    a frame is another now is another item.
    """
    folder = site.images / "clips"
    for number in range(6):
        kind = ("left", "right")[number % 2]
        write_frames(folder / f"{kind}-{number}", kind, number)
    broken_frame = folder / "right-5" / "0011.png"
    whole = broken_frame.read_bytes()
    broken_frame.write_bytes(whole[:100])
    project = Project(site, "clips", ("left", "right"), modality="video")
    counted = project.add(folder)

    assert (counted["added"], counted["quarantined"]) == (5, 1)
    (bad,) = project.items(state="quarantined")
    assert bad["quarantine_reason"].startswith("its frame 12 of 24: broken or truncated")
    (item,) = project.next_batch("ann", 1)["items"]
    is_played(site, item, "video/mp4", "image/jpeg")
    broken_frame.write_bytes(whole)
    (folder / "left-0" / "0003.png").write_bytes(whole)
    again = project.add(folder)
    assert (again["known"], again["added"], again["changed"], again["quarantined"]) == (4, 1, 1, 0)
    assert all(one["facts"]["frames"] == 24 for one in project.items(state="available"))


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
