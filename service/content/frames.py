"""Folders of frames: the numbered pictures in a folder are one video.

Such a video is no file. Its bytes, as both programs read and hash them, are those of its frames, one after the other.
"""

import io
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import accumulate
from pathlib import PurePosixPath
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from PIL import Image

from service.content.contract import Limits
from service.content.image import SUFFIXES, open_scaled
from service.content.mistaken import FRAMES
from service.errors import BadItem

Pixels = npt.NDArray[np.uint8]

# A GIF is a video by itself, and files of these other kinds hold several pictures.
_SUFFIXES = SUFFIXES - {".gif", ".dcm", ".nii", ".nii.gz"}
_NUMBERED = re.compile(r"(?P<before>.*?)(?P<number>\d{1,18})", re.DOTALL)
_MOST_FRAMES = 100_000  # of a folder: over an hour, and what is read of one item at once
_NUMBER = 8  # bytes of a length
_RATE = 25.0  # frames a second, which no folder says
_CHECKED = 250  # frames that an import decodes
_CHECKED_SIDE = 8  # pixels: a JPEG is then decoded at an eighth
_PLAYED_FRAMES = 250
_PLAYED_SIDE = 640  # pixels of the longer side


class SeveralSequences(ValueError):
    """The pictures in a folder are numbered twice over; nobody knows which of them are the video."""


def is_picture(name: str) -> bool:
    """True for the name of a file that may be a frame, also for one without a number."""
    return PurePosixPath(name).suffix.lower() in _SUFFIXES


def frames_among(names: Iterable[str]) -> list[str]:
    """The names in a folder that are frames, in the order of their numbers; none unless two or more pictures are called
    the same but for a number at the end of their names. Raises `SeveralSequences`.
    """
    found: dict[tuple[str, str], list[tuple[int, str]]] = defaultdict(list)
    for name in names:
        path = PurePosixPath(name)
        numbered = _NUMBERED.fullmatch(path.stem)
        if numbered and is_picture(name) and not name.startswith("."):
            found[numbered["before"], path.suffix.lower()].append((int(numbered["number"]), name))
    several = {which: sorted(numbered) for which, numbered in found.items() if len(numbered) > 1}
    if len(several) > 1:
        first = ", ".join(repr(numbered[0][1]) for _, numbered in sorted(several.items())[:3])
        raise SeveralSequences(
            f"it holds {len(several)} sequences of numbered pictures ({first}, …), and a folder of frames is one "
            "video: give each sequence a folder"
        )
    return [name for numbered in several.values() for _, name in numbered]


def check_number(frames: int) -> None:
    """Raises `ValueError` for more frames than are read of one item."""
    if frames > _MOST_FRAMES:
        raise ValueError(
            f"it is a folder of {frames:,} frames, and {_MOST_FRAMES:,} are allowed: cut it, or make a file of it"
        )


def packed_frames(frames: Sequence[bytes]) -> bytes:
    numbers = (len(frames), *map(len, frames))
    return b"".join([FRAMES, *(number.to_bytes(_NUMBER, "big") for number in numbers), *frames])


def is_frames(data: bytes) -> bool:
    return data.startswith(FRAMES)


class Still:
    """A frame, decoded when its pixels are asked for."""

    def __init__(self, data: bytes, limits: Limits, where: str) -> None:
        self._data, self._limits, self._where = data, limits, where

    def opened(self, side: int | None) -> tuple[Image.Image, tuple[int, int]]:
        """The picture, of `side` pixels a side at least where it has as many, and its true width and height. Raises
        `BadItem`.
        """
        try:
            return open_scaled(self._data, self._limits.max_pixels, side)
        except BadItem as error:
            raise BadItem(reason=f"{self._where}: {error.fields['reason']}") from error

    def pixels(self, side: int) -> Pixels:
        """(h, w, 3) uint8, the shorter side of `side` pixels."""
        image, _ = self.opened(side)
        scale = side / min(image.size)
        width, height = (max(round(one * scale), 1) for one in image.size)
        return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))


class Frames:
    """A folder of frames as a film, 25 frames a second. Use it in a `with` block, as a `Film`. Raises `BadItem`, here
    and in reading.
    """

    codec = "frames"
    media_type = "video/mp4"
    rate = _RATE

    def __init__(self, data: bytes, limits: Limits) -> None:
        start = len(FRAMES)
        self.count = int.from_bytes(data[start : start + _NUMBER], "big")
        places = start + _NUMBER * (1 + self.count)
        if self.count < 1 or places > len(data):
            raise BadItem(reason="broken: these are no frames")
        lengths = np.frombuffer(data, ">u8", self.count, start + _NUMBER).tolist()
        self._ends = list(accumulate(lengths, initial=places))
        self._data, self._limits = memoryview(data), limits
        self.width, self.height = self._still(0).opened(_CHECKED_SIDE)[1]
        if self.width * self.height > limits.max_video_pixels:
            raise BadItem(
                reason=f"{self.width} x {self.height} pixels are more than {limits.max_video_pixels} allowed "
                "(SHORTLIST_MAX_VIDEO_PIXELS)"
            )
        self.seconds = self.count / self.rate

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._data.release()

    def _still(self, number: int) -> Still:
        data = bytes(self._data[self._ends[number] : self._ends[number + 1]])
        return Still(data, self._limits, f"its frame {number + 1} of {self.count}")

    def shown_at(self, times: Iterable[float]) -> Iterator[Still]:
        """Seconds from its beginning -> the frame that is shown at each."""
        for time in times:
            yield self._still(min(max(int(time * self.rate + 0.25), 0), self.count - 1))

    def check(self) -> None:
        """Decodes up to 250 frames, spread from the first to the last; all of them have one size."""
        for number in _spread(self.count, _CHECKED):
            size = self._still(number).opened(_CHECKED_SIDE)[1]
            if size != (self.width, self.height):
                raise BadItem(
                    reason=f"its frame {number + 1} of {self.count} has {size[0]} x {size[1]} pixels, and the first "
                    f"one {self.width} x {self.height}"
                )

    def as_mp4(self) -> bytes:
        """For a player. Of more than 250 frames as many are shown, spread over its whole length, and it lasts as long
        as all of them do.
        """
        import av

        shown = _spread(self.count, _PLAYED_FRAMES)
        scale = min(1.0, _PLAYED_SIDE / max(self.width, self.height))
        # H.264 takes even sizes; what is smaller than 16 pixels not every player shows.
        width, height = (max(2 * round(one * scale / 2), 16) for one in (self.width, self.height))
        rate = Fraction(len(shown) / self.seconds).limit_denominator(1_000)
        buffer = io.BytesIO()
        with av.open(buffer, "w", format="mp4") as container:
            stream: Any = container.add_stream("libx264", rate=rate, options={"preset": "veryfast"})
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            stream.codec_context.thread_count = 1  # the same bytes each time: players ask for parts of them
            for number in shown:
                image, _ = self._still(number).opened(min(width, height))
                picture = image.resize((width, height), Image.Resampling.BILINEAR)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(np.asarray(picture), format="rgb24")))
            container.mux(stream.encode(None))
        return buffer.getvalue()


def _spread(count: int, most: int) -> list[int]:
    """Numbers from 0 to count - 1, ascending: all, or `most` of them."""
    found: list[int] = np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int)).tolist()
    return found
