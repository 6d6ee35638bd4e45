"""Recordings: facts, pictures, and reasons; long ones are read in parts."""

import io

import numpy as np
import pytest
import soundfile
from PIL import Image

from service.content import limits_of
from service.content.audio import CONTENT, Recording
from service.errors import BadItem
from service.settings import Settings
from tests.content.bombs import most_memory
from tests.journeys.sounds import recording
from tests.journeys.test_recordings import broken, silence

LIMITS = limits_of(Settings())
FORMS = {"WAV": "audio/wav", "FLAC": "audio/flac", "OGG": "audio/ogg", "MP3": "audio/mpeg"}


@pytest.mark.parametrize("form", FORMS)
def test_facts_and_what_is_played(form: str) -> None:
    data = recording("rise", 1, 1.0, form=form)
    facts = CONTENT.inspect(data, LIMITS)

    assert facts["seconds"] == pytest.approx(1.0, abs=0.1)
    assert (facts["rate"], facts["channels"]) == (8_000, 1)
    assert facts["loudness"] == pytest.approx(20 * np.log10(0.3 / np.sqrt(2)), abs=1)
    played = CONTENT.preview(data, LIMITS, None)
    assert (played.media_type, played.data) == (FORMS[form], data)


@pytest.mark.parametrize("name", broken())
def test_broken_ones_are_bad_items(name: str) -> None:
    with pytest.raises(BadItem):
        CONTENT.inspect(broken()[name], LIMITS)


def test_a_stream_of_unknown_length_is_no_truncated_file() -> None:
    """Programs that write to a pipe say 4 GB."""
    data = bytearray(recording("rise", 1))
    at = data.index(b"data") + 4
    data[at : at + 4] = b"\xff\xff\xff\xff"

    assert CONTENT.inspect(bytes(data), LIMITS)["seconds"] == pytest.approx(0.6)


def test_a_picture_shows_where_the_sound_is() -> None:
    silent = np.zeros(4_000, np.float32)
    tone = 0.5 * np.sin(2 * np.pi * 1_000 * np.arange(4_000) / 8_000).astype(np.float32)
    buffer = io.BytesIO()
    soundfile.write(buffer, np.concatenate([silent, tone]), 8_000, format="WAV")
    shown = CONTENT.preview(buffer.getvalue(), LIMITS, 200)

    assert shown.media_type == "image/png"
    light = np.asarray(Image.open(io.BytesIO(shown.data)).convert("L"), np.float64)[34:]  # the spectrogram
    assert light.shape == (66, 200)
    assert light[:, 110:].max() > 200
    assert light[:, :90].max() < 30
    row = int(light[:, 150].argmax())  # 1 kHz is in the lower half of 4 kHz, by pitch
    assert 25 < row < 45


@pytest.mark.parametrize("seconds", [0.021, 61.0])
def test_pictures_of_very_short_and_long_ones(seconds: float) -> None:
    data = recording("fall", 2, seconds)
    for size in (16, 512):
        image = Image.open(io.BytesIO(CONTENT.preview(data, LIMITS, size).data))
        assert image.width == size


def test_channels_are_mixed() -> None:
    buffer = io.BytesIO()
    soundfile.write(buffer, np.tile([[0.5, -0.1]], (800, 1)), 8_000, format="WAV", subtype="FLOAT")
    with Recording(buffer.getvalue()) as opened:
        assert opened.channels == 2
        assert opened.read(100, 50) == pytest.approx(np.full(50, 0.2), abs=1e-6)
        assert len(opened.read(790, 50)) == 10


def test_ten_hours_and_what_is_broken_take_little_memory() -> None:
    data, found = silence(10 * 3_600), dict[str, object]()

    def look() -> None:
        found.update(CONTENT.inspect(data, LIMITS))
        CONTENT.preview(data, LIMITS, 256)
        for one in broken().values():
            with pytest.raises(BadItem):
                CONTENT.inspect(one, LIMITS)

    most = most_memory(look)

    assert (found["seconds"], found["loudness"]) == (36_000, -120)
    assert most < 30e6
