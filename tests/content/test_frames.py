"""Folders of frames: one video each, wherever they lie; what is wrong with one of them is told."""

import io
import os
import zipfile
from pathlib import Path
from urllib.parse import quote

import av
import fsspec
import numpy as np
import pytest
from PIL import Image

from service.content import contents, limits_of
from service.content.frames import SeveralSequences, frames_among, packed_frames
from service.content.listing import Candidate
from service.content.reader import ItemBytes, content_hash_of
from service.content.sources import list_source
from service.content.video import CONTENT
from service.errors import BadItem, SourceNotAllowed, SourceUnreadable
from service.settings import Settings
from tests.journeys.films import SIDE, pictures, write_frames
from tests.pictures import encoded

SETTINGS = Settings()
LIMITS = limits_of(SETTINGS)


def frame(colour: int = 40, side: int = SIDE) -> bytes:
    return encoded(Image.new("RGB", (side, side), (colour, colour, colour)))


def found_in(place: Path | str, root: Path | str, kind: str = "video") -> tuple[list[Candidate], ItemBytes]:
    reader = ItemBytes(Settings(source_roots=(str(root),)))
    return list(list_source(str(place), reader, None, contents()[kind])), reader


def reason(data: bytes) -> str:
    with pytest.raises(BadItem) as raised:
        CONTENT.inspect(data, LIMITS)
    return str(raised.value.fields["reason"])


def test_frames_go_by_their_numbers() -> None:
    names = ["f-10.png", "f-9.png", "f-011.png", "cover.png", "notes.txt", ".f-1.png", "f-12.jpg", "f-8.gif"]
    assert frames_among(names) == ["f-9.png", "f-10.png", "f-011.png"]
    assert frames_among(["1.png", "a.png", "b.txt"]) == []
    with pytest.raises(SeveralSequences, match=r"2 sequences .*'depth-1.png', 'rgb-1.png'"):
        frames_among(["rgb-1.png", "rgb-2.png", "depth-1.png", "depth-2.png"])


def test_each_folder_of_frames_is_a_video_of_a_project_of_videos(tmp_path: Path) -> None:
    for number, kind in enumerate(("left", "right", "left")):
        write_frames(tmp_path / kind / f"clip {number}", kind, number)
    (tmp_path / "left" / "clip 0" / "cover.png").write_bytes(frame())
    (tmp_path / "left" / "clip 0" / "poses.json").write_text("{}")
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone" / "1.png").write_bytes(frame())
    found, reader = found_in(tmp_path, tmp_path)

    assert [(one.key, one.class_name) for one in found] == [
        ("left/clip 0", "left"),
        ("left/clip 2", "left"),
        ("right/clip 1", "right"),
    ]
    facts = [CONTENT.inspect(reader.read(one.uri), LIMITS) for one in found]
    assert facts[0]["motion"] > 5
    assert facts[0] == {
        "seconds": 0.96,
        "fps": 25.0,
        "width": SIDE,
        "height": SIDE,
        "codec": "frames",
        "frames": 24,
        "motion": facts[0]["motion"],
    }
    assert (
        len(found_in(tmp_path, tmp_path, "image")[0]) == 3 * 24 + 2
    )  # for projects of images, they are images


def test_pictures_beside_videos_are_none(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"x")
    for number in (1, 2):
        (tmp_path / f"{number}.png").write_bytes(frame())
    assert [one.key for one in found_in(tmp_path, tmp_path)[0]] == ["a.mp4"]


def test_a_folder_with_two_sequences_is_refused_once(tmp_path: Path) -> None:
    for name in ("rgb-1.png", "rgb-2.png", "depth-1.png", "depth-2.png"):
        (tmp_path / name).write_bytes(frame())
    listing = list_source(str(tmp_path), found_in(tmp_path, tmp_path)[1], None, CONTENT)
    assert listing.total() == 0
    assert list(listing) == []
    assert listing.refused == 1
    assert "give each sequence a folder" in listing.refusals[0]


def test_the_source_itself_may_be_one_video(tmp_path: Path) -> None:
    write_frames(tmp_path / "clip", "left", 1)
    (found,), _ = found_in(tmp_path / "clip", tmp_path)
    assert (found.key, found.uri) == ("clip", str(tmp_path / "clip"))


def test_in_an_archive_whatever_the_order_of_its_members(tmp_path: Path) -> None:
    write_frames(tmp_path / "a", "left", 1)
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    with zipfile.ZipFile(tmp_path / "clips.zip", "w") as file:
        for name in names:
            for folder in ("one/", "two & more/", ""):
                file.write(tmp_path / "a" / name, f"{folder}{name}")
    found, reader = found_in(tmp_path / "clips.zip", tmp_path)

    assert [one.key for one in found] == ["clips.zip", "one", "two & more"]
    expected = reader.read(str(tmp_path / "a"))
    assert all(reader.read(one.uri) == expected for one in found)


def test_in_a_bucket(tmp_path: Path) -> None:
    write_frames(tmp_path / "a", "left", 1)
    bucket = fsspec.filesystem("memory")
    bucket.put(str(tmp_path / "a"), "/frames-bucket/clips/a", recursive=True)
    try:
        (found,), reader = found_in("memory://frames-bucket/clips", "memory://frames-bucket")
        assert (found.key, found.uri) == ("a", "memory://frames-bucket/clips/a")
        expected = ItemBytes(Settings(source_roots=(str(tmp_path),))).read(str(tmp_path / "a"))
        assert reader.read(found.uri) == expected
        assert reader.read(found.uri, content_hash_of(expected)) == expected
    finally:
        bucket.rm("/frames-bucket", recursive=True)


def test_a_frame_that_was_written_anew_is_seen(tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "a", "left", 1)
    _, reader = found_in(tmp_path, tmp_path)
    before, data = reader.stamp(str(folder)), reader.read(str(folder))
    assert before == reader.stamp(str(folder))
    (folder / "0007.png").write_bytes(frame(9))
    os.utime(folder, (1, 1))

    assert before is not None
    assert reader.stamp(str(folder)) != before
    assert reader.read(str(folder)) != data


def test_what_is_wrong_with_a_frame_is_told() -> None:
    good = [frame(colour) for colour in range(40, 80, 2)]
    assert "motion" in CONTENT.inspect(packed_frames(good), LIMITS)
    for bad, words in (
        (good[5][:60], "its frame 6 of 20: broken or truncated"),
        (b"", "its frame 6 of 20: the file is empty"),
        (b"<!doctype html>", "its frame 6 of 20: it is a saved web page"),
        (frame(1, 16), "its frame 6 of 20 has 16 x 16 pixels, and the first one 32 x 32"),
    ):
        assert words in reason(packed_frames([*good[:5], bad, *good[6:]]))
    assert "one frame only" in reason(packed_frames(good[:1]))
    assert "these are no frames" in reason(packed_frames(good)[:40])
    small = limits_of(Settings(max_video_pixels=100))
    with pytest.raises(BadItem, match="SHORTLIST_MAX_VIDEO_PIXELS"):
        CONTENT.inspect(packed_frames(good), small)


def test_nothing_outside_the_roots_is_a_frame(tmp_path: Path) -> None:
    root = tmp_path / "root"
    folder = write_frames(root / "a", "left", 1)
    (tmp_path / "secret.png").write_bytes(frame())
    (folder / "0003.png").unlink()
    (folder / "0003.png").symlink_to(tmp_path / "secret.png")
    reader = found_in(root, root)[1]
    with pytest.raises(SourceNotAllowed):
        reader.read(str(folder))
    (folder / "0003.png").unlink()
    os.mkfifo(folder / "0003.png")
    with pytest.raises(SourceUnreadable, match="named pipe"):
        reader.read(str(folder))


def test_more_than_an_item_may_have_is_not_read(tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "a", "left", 1)
    reader = ItemBytes(Settings(source_roots=(str(tmp_path),), max_item_bytes=1_000))
    with pytest.raises(SourceUnreadable, match="SHORTLIST_MAX_ITEM_BYTES"):
        reader.read(str(folder))


def test_an_image_is_no_folder_of_frames(tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "a", "left", 1)
    data = found_in(tmp_path, tmp_path)[1].read(f"file://{quote(str(folder))}")
    with pytest.raises(BadItem, match="it is a folder of numbered pictures"):
        contents()["image"].inspect(data, LIMITS)


def test_it_is_played_at_its_pace_and_shown_as_other_videos_are() -> None:
    data = packed_frames([encoded(Image.fromarray(one)) for one in pictures("left", 1, 600)])
    played = CONTENT.preview(data, LIMITS, None)
    shown = CONTENT.preview(data, LIMITS, 64)

    assert (played.media_type, shown.media_type) == ("video/mp4", "image/jpeg")
    assert played == CONTENT.preview(data, LIMITS, None)  # players ask for parts of it
    with av.open(io.BytesIO(played.data), "r") as film:
        frames = [one.to_ndarray(format="rgb24") for one in film.decode(video=0)]
        length = float(film.duration or 0) / 1e6
    assert len(frames) == 250
    assert length == pytest.approx(24.0, rel=0.02)
    first = next(iter(pictures("left", 1, 1))).astype(float)
    assert np.abs(frames[0] - first).mean() < 12
