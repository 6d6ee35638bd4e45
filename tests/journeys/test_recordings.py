"""Broken recordings stop nothing."""

import io
from functools import cache

import numpy as np
import soundfile

from tests.content.bombs import zip_bomb
from tests.journeys.site import Project, Site
from tests.journeys.sounds import recording
from tests.pictures import encoded, picture


def test_broken_recordings_are_told_and_stop_nothing(site: Site) -> None:
    folder = site.images / "broken-recordings"
    folder.mkdir()
    good = {
        f"good-{number}.{form.lower()}": recording("rise", number, form=form)
        for number, form in enumerate(("WAV", "FLAC", "OGG", "MP3"))
    }
    bad = broken()
    for name, data in (good | bad).items():
        (folder / name).write_bytes(data)
    (folder / "long.flac").write_bytes(silence(10 * 3_600))

    project = Project(site, "broken recordings", ("rise", "fall"))
    counted = project.add(folder)

    assert (counted["added"], counted["quarantined"]) == (len(good) + 1, len(bad))
    reasons = {item["key"]: item["quarantine_reason"] for item in project.items(state="quarantined")}
    assert set(reasons) == set(bad)
    for name, words in {
        "empty.wav": "empty",
        "cut.wav": "truncated",
        "cut.flac": "truncated",
        "cut.ogg": "truncated",
        "cut.mp3": "truncated",
        "text.mp3": "not a recording",
        "page.ogg": "web page",
        "movie.m4a": "AAC",
        "picture.wav": "not a recording",
        "bomb.wav": "archive or document (ZIP)",
        "channels.wav": "broken",
        "samples.flac": "cannot be read beyond",
        "codec.wav": "codec",
        "nan.wav": "not numbers",
        "one-sample.wav": "too short",
    }.items():
        assert words in reasons[name], reasons[name]
    assert project.next_batch("ann", 3)["items"]


def broken() -> dict[str, bytes]:
    def cut(form: str) -> bytes:
        data = recording("fall", 9, 3.0, form=form)
        return data[: len(data) // 2]

    def wav(sound: list[float]) -> bytes:
        buffer = io.BytesIO()
        soundfile.write(buffer, np.array(sound, np.float32), 8_000, format="WAV", subtype="FLOAT")
        return buffer.getvalue()

    whole = recording("rise", 1)
    fmt = whole.index(b"fmt ") + 8
    flac = bytearray(recording("rise", 1, form="FLAC"))
    flac[21] |= 0x0F  # its header says 68,719,476,735 samples: 36 bits, all of them set
    flac[22:26] = b"\xff" * 4
    return {
        "empty.wav": b"",
        "cut.wav": cut("WAV"),
        "cut.flac": cut("FLAC"),
        "cut.ogg": cut("OGG"),
        "cut.mp3": cut("MP3"),
        "text.mp3": b"Ceci n'est pas une pipe. " * 100,
        "page.ogg": b"<!DOCTYPE html><html><body>Sign in</body></html>",
        "movie.m4a": b"\0\0\0\x20ftypM4A \0\0\0\0" + b"\0" * 500,
        "picture.wav": encoded(picture(1)),
        "bomb.wav": zip_bomb(),
        "channels.wav": whole[: fmt + 2] + b"\xff\xff" + whole[fmt + 4 :],
        "samples.flac": bytes(flac),
        "codec.wav": whole[:fmt] + b"\x61\x01" + whole[fmt + 2 :],
        "nan.wav": wav([0.1] * 4_000 + [float("nan")] + [0.1] * 4_000),
        "one-sample.wav": wav([0.5]),
    }


@cache
def silence(seconds: int, rate: int = 4_000) -> bytes:
    """Written a minute at a time."""
    buffer = io.BytesIO()
    with soundfile.SoundFile(buffer, "w", rate, 1, format="FLAC") as file:
        for _ in range(0, seconds, 60):
            file.write(np.zeros(60 * rate, np.int16))
    return buffer.getvalue()
