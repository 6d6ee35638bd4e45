"""Videos for journeys: a bright square that moves to the left or to the right; a key tells which."""

import io
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

Pictures = Iterable[npt.NDArray[np.uint8]]

SIDE, RATE = 32, 16
_CODECS = {
    "mp4": "libx264",
    "mov": "mpeg4",
    "webm": "libvpx-vp9",
    "matroska": "libx264",
    "avi": "mpeg4",
    "gif": "gif",
}


def film(kind: str, seed: int, seconds: float = 1.5, *, form: str = "mp4") -> bytes:
    """kind: `left`, `right`, or `still`."""
    return encoded(pictures(kind, seed, round(seconds * RATE)), form)


def pictures(kind: str, seed: int, count: int) -> Pictures:
    """(32, 32, 3) each; the square goes around."""
    rng = np.random.default_rng(seed)
    side, top, start = int(rng.integers(8, 14)), int(rng.integers(2, 16)), int(rng.integers(SIDE))
    colour = rng.integers(120, 256, 3)
    step = {"left": -2, "right": 2, "still": 0}[kind]
    for number in range(count):
        picture = np.full((SIDE, SIDE, 3), 20, np.uint8)
        columns = (start + step * number + np.arange(side)) % SIDE
        picture[top : top + side, columns] = colour
        yield picture


def encoded(
    shown: Pictures,
    form: str = "mp4",
    *,
    codec: str | None = None,
    rate: Fraction | int = RATE,
    **options: str,
) -> bytes:
    """form: FFmpeg's name of the container; options: of the codec."""
    buffer = io.BytesIO()
    codec = codec or _CODECS[form]
    container = av.open(buffer, "w", format=form)
    stream: Any = container.add_stream(codec, rate=rate)
    stream.pix_fmt = "rgb8" if codec == "gif" else "yuv420p"
    stream.options = options
    stream.codec_context.thread_count = 1
    for number, picture in enumerate(shown):
        if number == 0:
            stream.height, stream.width = picture.shape[:2]
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=stream.pix_fmt)
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
    container.close()
    return buffer.getvalue()


def write_frames(folder: Path, kind: str, seed: int, count: int = 24) -> Path:
    """A folder of frames, `0000.png` and on."""
    folder.mkdir(parents=True)
    for number, picture in enumerate(pictures(kind, seed, count)):
        Image.fromarray(picture).save(folder / f"{number:04}.png")
    return folder


def write_films(path: Path, count: int) -> Path:
    """A Parquet file; each has its own bytes, and a poster beside it that is no item."""
    kinds = [("left", "right")[number % 2] for number in range(count)]
    table = {
        "key": [f"{kind}-{number}" for number, kind in enumerate(kinds)],
        "poster": [b"no picture"] * count,
        "video": [film(kind, number) for number, kind in enumerate(kinds)],
    }
    pq.write_table(pa.table(table), path)
    return path
