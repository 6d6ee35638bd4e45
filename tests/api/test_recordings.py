"""Recordings over HTTP: all of one, parts of it, a picture of it."""

from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from tests.api.conftest import created
from tests.journeys.sounds import recording

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
SOUND = recording("rise", 1)


@pytest.fixture
def link(admin: TestClient, tmp_path: Path) -> str:
    (tmp_path / "a.flac").write_bytes(SOUND)
    created(admin)
    admin.post("/projects/p_1/items", json={"items": [{"key": "a", "uri": str(tmp_path / "a.flac")}]})
    assert admin.get("/projects/p_1").json()["modality"] == "audio"
    (item,) = admin.post("/next-batch", json={"annotator": "ann"}).json()["items"]
    assert (item["content"]["kind"], item["content"]["text"], item["image_url"]) == ("audio", None, None)
    return str(item["content"]["url"])


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [
        ("bytes=0-", 0, len(SOUND)),
        ("bytes=10-19", 10, 20),
        ("bytes=10-99999999", 10, len(SOUND)),
        ("bytes=-7", len(SOUND) - 7, len(SOUND)),
        ("bytes=-99999999", 0, len(SOUND)),
    ],
)
def test_a_part(anyone: TestClient, link: str, asked: str, first: int, last: int) -> None:
    answer = anyone.get(link, headers={"Range": asked})

    assert answer.status_code == 206
    assert answer.content == SOUND[first:last]
    assert answer.headers["Content-Range"] == f"bytes {first}-{last - 1}/{len(SOUND)}"
    assert answer.headers["Content-Security-Policy"] == "sandbox; default-src 'none'"


@pytest.mark.parametrize(
    "asked",
    ["", "bytes=-", "bytes=-0", "bytes=99999999-", "bytes=5-4", "bytes=1-2,5-6", "lines=1-2", "bytes=x-"],
)
def test_what_is_no_range_gives_the_whole(anyone: TestClient, link: str, asked: str) -> None:
    answer = anyone.get(link, headers={"Range": asked})

    assert (answer.status_code, answer.content) == (200, SOUND)
    assert answer.headers["Accept-Ranges"] == "bytes"


def test_a_part_of_another_version_is_not_given(anyone: TestClient, link: str) -> None:
    etag = anyone.get(link).headers["ETag"]
    part = {"Range": "bytes=0-3"}

    assert anyone.get(link, headers=part | {"If-Range": etag}).content == SOUND[:4]
    assert anyone.get(link, headers=part | {"If-Range": '"of before"'}).content == SOUND
    assert anyone.get(link, headers=part | {"If-None-Match": etag}).status_code == 304


def test_a_picture(anyone: TestClient, link: str) -> None:
    assert anyone.get(link).headers["Content-Type"] == "audio/wav"  # whatever its name says
    answer = anyone.get(link + "&size=64")
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "image/png")
