"""Audio: recordings as mono samples, read in parts, so that hours of sound take no more memory than seconds."""

import importlib.util
import io
import re
import struct
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
from PIL import Image

from service.content.contract import Facts, Limits, Preview
from service.content.mistaken import archive, mistaken
from service.errors import BadItem

Samples = npt.NDArray[np.float32]

_MEDIA_TYPES = {
    "WAV": "audio/wav",
    "WAVEX": "audio/wav",
    "RF64": "audio/wav",
    "FLAC": "audio/flac",
    "OGG": "audio/ogg",
    "MP3": "audio/mpeg",
}
_INSTALLED = importlib.util.find_spec("soundfile") is not None  # the extra `audio`
_REMEDY = "save it as WAV, FLAC, OGG or MP3"
# MP4 and ASF containers, which libsndfile does not read: people have them, and are told.
_OTHER_SUFFIXES = frozenset({".m4a", ".aac", ".wma"})
_LOOKED_AT_S = 600  # of a longer recording as many seconds are looked at, spread over it
_BLOCK_VALUES = 2**20  # decoded at once, of all channels
_SHORTEST_S = 0.02  # a shorter one is a click
_MOST_CHANNELS = 64
_RATES = (1_000, 768_000)  # Hz
_LOUDEST = 1_000.0  # times full scale: floats beyond are no sound
_STREAMED = 0x7F000000  # bytes that programs write as the size of what they do not know the size of
_WAV_SIZE = re.compile(r"data : (\d+) \(should be (\d+)\)")
_LEAST_OF_MP3 = 0.95  # of the samples that the header estimates
_OGG_END = 4  # flag of an Ogg page: its stream ends

_PICTURE = 512  # pixels of the longer side where nobody says
_WHOLE_S = 60  # a picture of a longer recording shows a short piece of each of its columns
_COLUMNS = 256  # of such a picture
_WINDOW_S = 0.032
_DECIBELS = 80.0  # from the darkest to the brightest colour
# From quiet to loud; points of the colour map "magma" (BSD, matplotlib).
_COLOURS = np.array(
    [[0, 0, 4], [59, 15, 112], [140, 41, 129], [222, 73, 104], [254, 159, 109], [252, 253, 191]], np.float64
)
_GROUND, _WAVE = (252, 252, 253), (71, 85, 105)


class Recording:
    """An open recording. Use it in a `with` block. Raises `BadItem`, here and in reading.

    frames  samples a channel, as far as the header tells
    """

    def __init__(self, data: bytes) -> None:
        if not data:
            raise BadItem(reason="the file is empty")
        if not _INSTALLED:
            raise BadItem(
                reason="it is a recording: install `pip install 'shortlist[audio]'` and import it again"
            )
        import soundfile

        try:
            self._file = soundfile.SoundFile(io.BytesIO(data))
        except (RuntimeError, TypeError, ValueError) as error:
            raise BadItem(reason=_why_not(data)) from error
        self.rate, self.frames, self.channels = self._file.samplerate, self._file.frames, self._file.channels
        self.format = self._file.format
        self.seconds = self.frames / self.rate if self.rate else 0.0
        try:
            self._check(data)
        except BadItem:
            self._file.close()
            raise

    def _check(self, data: bytes) -> None:
        if self.format not in _MEDIA_TYPES:
            raise BadItem(reason=f"it is audio in the format {self.format}: {_REMEDY}")
        if not 1 <= self.channels <= _MOST_CHANNELS or not _RATES[0] <= self.rate <= _RATES[1]:
            raise BadItem(
                reason=f"broken: its header says {self.channels} channels of {self.rate} samples a second"
            )
        if (reason := _cut_off(data, self.format, self._file.extra_info)) is not None:
            raise BadItem(reason=reason)
        if self.seconds < _SHORTEST_S:
            raise BadItem(
                reason=f"it is too short to be heard: {self.frames} sample{'' if self.frames == 1 else 's'}"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read(self, start: int, count: int) -> Samples:
        """(m,) from sample `start` on, the mean of the channels; m < count only at the recording's end."""
        parts, left, step = [], count, max(1, _BLOCK_VALUES // self.channels)
        try:
            if self._file.tell() != start:
                self._file.seek(start)
            while left > 0:
                part = self._file.read(min(left, step), dtype="float32", always_2d=True)
                if not len(part):
                    break
                # The mean of one channel takes a quarter of the time that decoding does.
                parts.append(part[:, 0] if self.channels == 1 else part.mean(axis=1, dtype=np.float32))
                left -= len(part)
        except (RuntimeError, ValueError) as error:
            raise BadItem(reason=_broken(start / self.rate)) from error
        found: Samples = np.concatenate([np.empty(0, np.float32), *parts])
        if not (np.abs(found) <= _LOUDEST).all():  # NaN, too
            raise BadItem(reason="it holds values that are not numbers, or far beyond full scale")
        return found


def facts_of(recording: Recording) -> Facts:
    return {"seconds": round(recording.seconds, 3), "rate": recording.rate, "channels": recording.channels}


class Audio:
    """Recordings: speech, music, machines, animals."""

    name: ClassVar[str] = "audio"
    suffixes: ClassVar[frozenset[str]] = (
        frozenset({".wav", ".wave", ".flac", ".ogg", ".oga", ".opus", ".mp3"}) | _OTHER_SUFFIXES
    )
    shared_suffixes: ClassVar[frozenset[str]] = frozenset()
    columns: ClassVar[tuple[str, ...]] = ("audio", "recording", "sound", "wav")
    formats: ClassVar[tuple[str, ...]] = ("WAV", "FLAC", "OGG", "MP3")
    binary: ClassVar[bool] = True
    has_text: ClassVar[bool] = False
    default_task: ClassVar[str] = "simclr"
    shown_as: ClassVar[str | None] = None

    def inspect(self, data: bytes, limits: Limits) -> Facts:
        """Decodes up to ten minutes: all of it, or seconds spread from its beginning to its end. `loudness` is in
        decibels below full scale.
        """
        with Recording(data) as recording:
            got, power = 0, 0.0
            wanted = 0
            for start, count in _looked_at(recording):
                part = recording.read(start, count)
                got, wanted = got + len(part), wanted + count
                power += float(np.square(part, dtype=np.float64).sum())
            least = _LEAST_OF_MP3 if recording.format == "MP3" else 1.0
            if got < least * wanted:
                raise BadItem(reason=_broken(got / recording.rate))
            loudness = 10 * np.log10(max(power / max(got, 1), 1e-12))
            return facts_of(recording) | {"loudness": round(float(loudness), 1)}

    def preview(
        self, data: bytes, limits: Limits, size: int | None, settings: Mapping[str, Any] | None = None
    ) -> Preview:
        """The recording itself, for a player; or, `size` pixels wide, a picture of its waveform above its
        spectrogram.
        """
        with Recording(data) as recording:
            if size is None:
                return Preview(_MEDIA_TYPES[recording.format], data)
            buffer = io.BytesIO()
            _picture(recording, size or _PICTURE).save(buffer, "PNG")
            return Preview("image/png", buffer.getvalue())

    def text(self, data: bytes, limits: Limits) -> None:
        return None


CONTENT = Audio()


def _looked_at(recording: Recording) -> Iterator[tuple[int, int]]:
    """Parts (start, samples): all of the recording, or a second each, the last of which ends with it."""
    second = recording.rate
    if recording.seconds <= _LOOKED_AT_S:
        for start in range(0, recording.frames, second):
            yield start, min(second, recording.frames - start)
    else:
        for start in np.linspace(0, recording.frames - second, _LOOKED_AT_S).astype(int).tolist():
            yield start, second


def _broken(seconds: float) -> str:
    return f"broken or truncated: it cannot be read beyond {seconds:.1f} s"


def _why_not(data: bytes) -> str:
    """The reason why the bytes are no recording that can be read."""
    if (found := mistaken(data) or archive(data)) is not None:
        return f"it is {found}"
    if data[4:8] == b"ftyp":
        return f"it is an MP4 file (AAC, ALAC, or a video), which is not read as a recording: {_REMEDY}"
    if data.startswith(b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"):
        return f"it is WMA, which is not read here: {_REMEDY}"
    if data[:4] == b"RIFF" and data[8:12] == b"WAVE":
        at = data.find(b"fmt ", 12, 4_096)
        if at > 0 and len(data) >= at + 10:
            codec = struct.unpack_from("<H", data, at + 8)[0]
            return f"broken, or sound of a WAV codec that is not read here (0x{codec:04x}): {_REMEDY}"
    if data[:4] in (b"RIFF", b"fLaC", b"OggS") or data[:3] == b"ID3":
        return f"broken or truncated, or of a codec that is not read here: {_REMEDY}"
    return f"not a recording in a supported format ({', '.join(CONTENT.formats)})"


def _cut_off(data: bytes, kind: str, log: str) -> str | None:
    """Why a file is known to have been longer, where decoding it would not tell."""
    if kind in ("WAV", "WAVEX") and (sizes := _WAV_SIZE.search(log)) is not None:
        said, there = int(sizes[1]), int(sizes[2])
        if there < said < _STREAMED:
            return f"truncated: {there} of {said} bytes of sound are there"
    if kind == "OGG":
        last = data.rfind(b"OggS")
        if last >= 0 and len(data) > last + 5 and not data[last + 5] & _OGG_END:
            return "truncated: its last page is missing"
    return None


# ---- the picture ----


def _picture(recording: Recording, side: int) -> Image.Image:
    """(side, side / 2) pixels: a third waveform, two thirds spectrogram, low pitches at the bottom."""
    height = max(side // 2, 12)
    top = height // 3
    heard, pieces = _columns(recording, side)
    pixels = np.array(Image.new("RGB", (len(pieces), height), _GROUND))
    _draw_wave(pixels[:top], heard)
    pixels[top:] = _spectrogram(pieces, recording.rate, height - top)
    return Image.fromarray(pixels).resize((side, height), Image.Resampling.BILINEAR)


def _columns(recording: Recording, width: int) -> tuple[list[Samples], list[Samples]]:
    """For each column the samples that it stands for, and a window of them for its spectrum."""
    window = _window(recording.rate)
    if recording.seconds <= _WHOLE_S:
        samples = recording.read(0, recording.frames)
        starts = np.linspace(0, max(len(samples) - window, 0), width).astype(int).tolist()
        pieces = [samples[start : start + window] for start in starts]
        ends = np.linspace(0, len(samples), width + 1).astype(int).tolist()
        return [samples[ends[i] : max(ends[i + 1], ends[i] + 1)] for i in range(width)], pieces
    starts = np.linspace(0, recording.frames - window, min(width, _COLUMNS)).astype(int).tolist()
    pieces = [recording.read(start, window) for start in starts]
    return pieces, pieces


def _window(rate: int) -> int:
    return max(16, round(rate * _WINDOW_S))


def _draw_wave(pixels: npt.NDArray[np.uint8], pieces: list[Samples]) -> None:
    """As loud as it is: the strongest sample reaches the edges, unless all are very quiet."""
    peak = max(0.01, *(float(np.abs(piece).max(initial=0)) for piece in pieces))
    middle = (len(pixels) - 1) / 2
    for column, piece in enumerate(pieces):
        low, high = float(piece.min(initial=0)) / peak, float(piece.max(initial=0)) / peak
        pixels[round(middle * (1 - high)) : round(middle * (1 - low)) + 1, column] = _WAVE


def _spectrogram(pieces: list[Samples], rate: int, height: int) -> npt.NDArray[np.uint8]:
    """(height, columns, 3): power in decibels below the loudest, by pitch (mel)."""
    window = _window(rate)
    framed = np.stack([np.pad(piece[:window], (0, max(0, window - len(piece)))) for piece in pieces])
    power = np.abs(np.fft.rfft(framed * np.hanning(window).astype(np.float32), axis=1)) ** 2
    highest = 2595 * np.log10(1 + rate / 2 / 700)
    pitches = 700 * (10 ** (np.linspace(highest, 0, height) / 2595) - 1)
    places = np.clip(pitches / (rate / window), 0, power.shape[1] - 1)
    below = np.minimum(places.astype(int), power.shape[1] - 2)
    share = places - below
    levels = 10 * np.log10(power[:, below] * (1 - share) + power[:, below + 1] * share + 1e-10)
    shares = np.clip(1 + (levels - levels.max()) / _DECIBELS, 0, 1).T if levels.max() > -90 else 0 * levels.T
    at = np.linspace(0, 1, len(_COLOURS))
    found = np.stack([np.interp(shares, at, _COLOURS[:, channel]) for channel in range(3)], axis=-1)
    return found.astype(np.uint8)
