"""The whole way of a recording: from a table to a ranking, a pretext model, classes and the next ranking; broken ones
stop nothing.
"""

import io

import httpx2 as httpx
import numpy as np
import soundfile
from PIL import Image

from tests.journeys.site import PATIENCE_S, Json, Project, Site, until
from tests.journeys.sounds import recording, write_recordings


def test_from_a_table_to_the_next_ranking(site: Site) -> None:
    folder = site.images / "recordings"
    folder.mkdir()
    project = Project(
        site, "recordings", ("rise", "fall"), round_size=20, retrain_min_labels=10, pretext_epochs=2
    )
    assert project.add(write_recordings(folder / "recordings.parquet", 120))["added"] == 120
    described = site.get(project.at)
    assert (described["modality"], described["pretext_task"]["name"]) == ("audio", "simclr")
    provisional: Json = until(lambda: project.metrics()["ranking"])
    assert "Provisional" in provisional["note"]
    first = project.next_batch("ann", 10)
    assert all(item["content"]["kind"] == "audio" and item["image_url"] is None for item in first["items"])
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
    assert whole.headers["content-type"] == "audio/wav"
    assert whole.headers["accept-ranges"] == "bytes"
    assert whole.content[:4] == b"RIFF"
    part = httpx.get(address + content["url"], headers={"Range": "bytes=4-11"}, timeout=PATIENCE_S)
    assert part.status_code == 206
    assert part.content == whole.content[4:12]
    picture = httpx.get(address + content["preview_url"], timeout=PATIENCE_S)
    assert picture.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(picture.content)).size == (256, 128)


def label(project: Project, batch: Json) -> None:
    labels = [
        {"item": item["id"], "class": item["key"].split("-")[0], "annotator": "ann", "batch": batch["batch"]}
        for item in batch["items"]
    ]
    project.site.post(f"{project.at}/labels", {"labels": labels})


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
    return {
        "empty.wav": b"",
        "cut.wav": cut("WAV"),
        "cut.flac": cut("FLAC"),
        "cut.ogg": cut("OGG"),
        "cut.mp3": cut("MP3"),
        "text.mp3": b"Ceci n'est pas une pipe. " * 100,
        "page.ogg": b"<!DOCTYPE html><html><body>Sign in</body></html>",
        "movie.m4a": b"\0\0\0\x20ftypM4A \0\0\0\0" + b"\0" * 500,
        "codec.wav": whole[:fmt] + b"\x61\x01" + whole[fmt + 2 :],
        "nan.wav": wav([0.1] * 4_000 + [float("nan")] + [0.1] * 4_000),
        "one-sample.wav": wav([0.5]),
    }


def silence(seconds: int) -> bytes:
    """Written a minute at a time."""
    buffer = io.BytesIO()
    with soundfile.SoundFile(buffer, "w", 16_000, 1, format="FLAC") as file:
        for _ in range(0, seconds, 60):
            file.write(np.zeros(60 * 16_000, np.int16))
    return buffer.getvalue()
