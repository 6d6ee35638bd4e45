"""Videos: facts, pictures, and reasons; what is large or long is never decoded whole."""

import contextlib
import io
from collections.abc import Iterator
from fractions import Fraction
from functools import cache
from itertools import pairwise

import av
import numpy as np
import pytest
from PIL import Image

from service.content import limits_of
from service.content.video import CONTENT, Film, pixels_of
from service.errors import BadItem
from service.settings import Settings
from tests.content.bombs import most_memory, zip_bomb
from tests.journeys.films import RATE, SIDE, Pictures, encoded, film, pictures
from tests.pictures import encoded as png
from tests.pictures import picture

LIMITS = limits_of(Settings())
FORMS = {
    "mp4": "video/mp4",
    "mov": "video/mp4",
    "webm": "video/webm",
    "matroska": "video/x-matroska",
    "avi": "video/x-msvideo",
    "gif": "image/gif",
}


def sound_alone() -> bytes:
    buffer = io.BytesIO()
    container = av.open(buffer, "w", format="mp4")
    stream = container.add_stream("aac", rate=44_100, layout="mono")
    frame = av.AudioFrame.from_ndarray(np.zeros((1, 44_100), np.float32), format="fltp", layout="mono")
    frame.rate = 44_100
    container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
    container.close()
    return buffer.getvalue()


@cache
def ten_hours() -> bytes:
    """A frame in ten seconds."""
    return encoded(pictures("still", 1, 3_600), rate=Fraction(1, 10), preset="ultrafast")


@cache
def eight_k() -> bytes:
    return encoded([np.zeros((4_320, 7_680, 3), np.uint8)] * 2, codec="mpeg4")


@cache
def broken() -> dict[str, tuple[bytes, str]]:
    """By name: the bytes, and words of the reason."""

    def cut(form: str) -> bytes:
        data = film("left", 1, 3.0, form=form)
        return data[: 2 * len(data) // 3]

    whole = film("left", 2)
    canvas = bytearray(film("left", 3, form="gif"))
    canvas[6:10] = b"\x80\x3e" * 2
    hole = bytearray(film("left", 1, 20.0))
    hole[len(hole) // 3 : len(hole) // 2] = b"\xff" * (len(hole) // 2 - len(hole) // 3)
    return {
        "empty.mp4": (b"", "empty"),
        "cut.mp4": (cut("mp4"), "truncated"),
        "cut.webm": (cut("webm"), "truncated"),
        "cut.mkv": (cut("matroska"), "truncated"),
        "cut.avi": (cut("avi"), "truncated"),
        "hole.mp4": (bytes(hole), "cannot be read at"),
        "text.mp4": (b"Ceci n'est pas une pipe. " * 100, "not a video"),
        "page.webm": (b"<!DOCTYPE html><html><body>Sign in</body></html>", "web page"),
        "playlist.mp4": (b"#EXTM3U\n#EXTINF:10,\nfile:///etc/passwd\n", "playlist"),
        "sound.mp4": (sound_alone(), "only sound"),
        "codec.mp4": (whole.replace(b"avc1", b"zzzz"), "codec that is not read"),
        "one.mp4": (encoded(pictures("left", 1, 1)), "one frame only"),
        "large.mp4": (eight_k(), "7680 x 4320 pixels are more than"),
        "canvas.gif": (bytes(canvas), "16000 x 16000 pixels are more than"),
        "bomb.mp4": (zip_bomb(), "archive or document"),
        "picture.mp4": (png(picture(1)), "not a video"),
        "old.wmv": (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11" + bytes(200), "WMV"),
    }


@pytest.mark.parametrize("form", FORMS)
def test_facts_and_what_is_played(form: str) -> None:
    data = film("left", 1, 2.0, form=form)
    facts = CONTENT.inspect(data, LIMITS)

    assert facts["seconds"] == pytest.approx(2.0, abs=0.1)
    assert (facts["width"], facts["height"]) == (SIDE, SIDE)
    assert facts["fps"] == pytest.approx(RATE, abs=1)
    assert facts["motion"] > 5
    assert "static" not in facts
    played = CONTENT.preview(data, LIMITS, None)
    assert (played.media_type, played.data) == (FORMS[form], data)


def test_a_video_in_which_nothing_moves_is_told() -> None:
    for data in (film("still", 1), ten_hours()):
        facts = CONTENT.inspect(data, LIMITS)
        assert facts["static"]
        assert facts["motion"] < 1


@pytest.mark.parametrize(("name", "given"), broken().items(), ids=broken())
def test_broken_ones_are_bad_items(name: str, given: tuple[bytes, str]) -> None:
    data, words = given
    for look in (CONTENT.inspect, lambda data, limits: CONTENT.preview(data, limits, 64)):
        if name != "one.mp4" or look is CONTENT.inspect:
            with pytest.raises(BadItem, match=words):
                look(data, LIMITS)


def test_hours_and_what_is_broken_take_little_memory() -> None:
    """Of the 8K one its header is read, and no frame decoded: one alone has 50 MB."""
    files = [ten_hours(), *(data for data, _ in broken().values())]

    def look() -> None:
        for data in files:
            for ask in (CONTENT.inspect, lambda data, limits: CONTENT.preview(data, limits, 256)):
                with contextlib.suppress(BadItem):
                    ask(data, LIMITS)

    assert most_memory(look) < 60e6


def test_a_header_that_hides_the_size_does_not_help() -> None:
    """The box says 64 x 48, the stream in it 8K."""
    size, other = (
        width.to_bytes(2, "big") + height.to_bytes(2, "big") for width, height in ((7_680, 4_320), (64, 48))
    )
    data = eight_k().replace(size, other)

    with pytest.raises(BadItem, match=r"pixels are more|cannot be read"):
        CONTENT.inspect(data, LIMITS)


def test_a_stream_of_unknown_length_is_no_truncated_file() -> None:
    """As browsers record: a segment without a size, and no duration."""
    data = film("left", 1, 2.0, form="webm")
    at = data.index(b"\x18\x53\x80\x67") + 4
    data = data[:at] + b"\x01" + b"\xff" * 7 + data[at + 8 :]
    at = data.index(b"\x44\x89")  # the duration's id; of a type that nobody knows now
    data = data[:at] + b"\x44\x8a" + data[at + 2 :]

    assert CONTENT.inspect(data, LIMITS)["seconds"] == pytest.approx(2.0, abs=0.1)


def grey(count: int) -> Pictures:
    """Each a level lighter than the one before."""
    for number in range(count):
        yield np.full((SIDE, SIDE, 3), 2 * number, np.uint8)


@pytest.mark.parametrize("form", FORMS)
def test_the_frame_that_is_shown_at_a_time(form: str) -> None:
    times = [0.0, 0.5, 1.0, 3.0, 6.0]
    with Film(encoded(grey(100), form), LIMITS) as opened:
        found = [pixels_of(frame, 8).mean() for frame in opened.shown_at(times)]
        again = [pixels_of(frame, 8).mean() for frame in opened.shown_at(times)]

    slack = 8 if form == "gif" else 5  # GIFs tell times in hundredths, and have 256 colours
    assert found == pytest.approx([2 * RATE * time for time in times], abs=slack)
    assert again == found


def test_no_more_than_some_frames_are_decoded_to_come_to_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """One key frame at the beginning of minutes."""
    data = encoded(pictures("left", 1, 16 * 300), g="100000", keyint_min="100000", preset="ultrafast")
    decoded = 0
    walk = Film._from

    def counted(self: Film, time: float) -> Iterator[tuple[float, object]]:
        nonlocal decoded
        for found in walk(self, time):
            decoded += 1
            yield found

    monkeypatch.setattr(Film, "_from", counted)
    facts = CONTENT.inspect(data, LIMITS)

    assert facts["seconds"] == pytest.approx(300)
    assert 0 < decoded < 3_000


def test_a_picture_is_a_frame_above_a_strip() -> None:
    wide = encoded(np.repeat(picture, 2, axis=1) for picture in pictures("left", 1, 32))
    for size in (64, 256):
        shown = CONTENT.preview(wide, LIMITS, size)
        image = Image.open(io.BytesIO(shown.data))
        assert shown.media_type == "image/jpeg"
        assert image.size == (size, size // 2 + size // 8)
    strip = np.asarray(image.convert("L"), np.float64)[128:]
    parts = np.split(strip, 4, axis=1)
    assert all(np.abs(one - other).mean() > 5 for one, other in pairwise(parts))
    tall = encoded(np.repeat(picture, 3, axis=0) for picture in pictures("left", 1, 8))
    assert max(Image.open(io.BytesIO(CONTENT.preview(tall, LIMITS, 256).data)).size) <= 256


def test_a_frame_stands_upright() -> None:
    """As telephones turn them: by a matrix in the header."""
    data = film("left", 1)
    at = data.index(b"tkhd") + 4 + 4 + 20 + 16  # version and flags, times and ids, layer to reserved
    plain = b"".join(
        value.to_bytes(4, "big", signed=True) for value in (65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30)
    )
    assert data[at : at + 36] == plain
    turned = (0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30)  # by 90 degrees to the right
    other = data[:at] + b"".join(value.to_bytes(4, "big", signed=True) for value in turned) + data[at + 36 :]

    with Film(data, LIMITS) as opened, Film(other, LIMITS) as rotated:
        expected = pixels_of(next(opened.shown_at([0.5])), SIDE)
        found = pixels_of(next(rotated.shown_at([0.5])), SIDE)
    assert np.array_equal(found, np.rot90(expected, -1))
