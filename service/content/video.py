"""Videos: frames at the times that somebody asks for, so that hours of video take no more memory than seconds."""

import importlib.util
import io
import math
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
from PIL import Image

from service.content.contract import Facts, Limits, Preview
from service.content.frames import Frames, Still, is_frames
from service.content.mistaken import archive, mistaken
from service.errors import BadItem

Frame = Any  # `av.VideoFrame`, PyAV may not be installed; or a `Still`
Pixels = npt.NDArray[np.uint8]

_INSTALLED = importlib.util.find_spec("av") is not None  # the extra `video`
_REMEDY = "save it as MP4 (H.264) or WebM"
# Files that FFmpeg would read, too, but that nobody has tried here: people have them, and are told.
_OTHER_SUFFIXES = frozenset({".wmv", ".flv", ".mpg", ".mpeg"})
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
_HEAD_BYTES = 4_096  # of a Matroska file, in which its segment begins
_AHEAD_S = 2.0  # what is nearer is decoded up to, what is farther is sought
_MOST_FORWARD = 300  # frames that are decoded to come from a key frame to the time that is wanted
_EARLY = 0.25  # of a frame's time, by which a frame may come later than it is wanted: containers round times
_STEP_S = 1 / 8  # between two frames whose difference is motion
_PLACES = 4  # of a video, at which motion is looked for
_SMALL = 32  # pixels a side of frames that are compared
_STILL = 1.0  # of 255: less than that is what codecs do to a picture that does not change
_SHOWN = 4  # frames of the strip below the poster
_PICTURE = 512  # pixels of the longer side where nobody says
_JPEG_QUALITY = 88


class Film:
    """An open video, of which the first stream of pictures is read. Use it in a `with` block. Raises `BadItem`, here
    and in reading.

    seconds  as far as the header tells, or, where it does not, its packets
    """

    def __init__(self, data: bytes, limits: Limits) -> None:
        if not data:
            raise BadItem(reason="the file is empty")
        kind = _kind_of(data)
        if kind is None:
            raise BadItem(reason=_why_not(data))
        if not _INSTALLED:
            raise BadItem(
                reason="it is a video: install `pip install 'shortlist[video]'` and import it again"
            )
        if (reason := _cut_off(data, kind)) is not None:
            raise BadItem(reason=reason)
        import av

        self._errors = (av.error.FFmpegError, ValueError, OSError)
        try:
            # The format is named, so that FFmpeg never takes a file for a playlist, which could name other files.
            self._container: Any = av.open(
                io.BytesIO(data),
                format=kind,
                options={"protocol_whitelist": "none"},
                metadata_errors="replace",
            )
        except self._errors as error:
            raise BadItem(
                reason=f"broken or truncated: its header cannot be read ({_said(error)})"
            ) from error
        try:
            self._open(limits)
            self.media_type = _media_type(data, kind)
        except BadItem:
            self._container.close()
            raise

    def _open(self, limits: Limits) -> None:
        import av

        cover = av.stream.Disposition.attached_pic
        streams = [one for one in self._container.streams.video if not one.disposition & cover]
        if not streams:
            raise BadItem(reason="it has no pictures in it, only sound")
        stream = self._stream = streams[0]
        codec = stream.codec_context
        if codec is None:
            raise BadItem(reason=f"its video is of a codec that is not read here: {_REMEDY}")
        self.width, self.height, self.codec = codec.width, codec.height, codec.name
        if self.width < 1 or self.height < 1:
            raise BadItem(reason="broken: its header says no size")
        if self.width * self.height > limits.max_video_pixels:
            raise BadItem(
                reason=f"{self.width} x {self.height} pixels are more than {limits.max_video_pixels} allowed "
                "(SHORTLIST_MAX_VIDEO_PIXELS)"
            )
        codec.thread_count = 1  # whoever reads videos reads several at once
        codec.options = {
            "max_pixels": str(limits.max_video_pixels)
        }  # also where the header does not say the truth
        rate = stream.average_rate or stream.guessed_rate
        self.rate = float(rate) if rate and 0 < rate <= 1_000 else 25.0
        self._start = float(stream.start_time * stream.time_base) if stream.start_time else 0.0
        self.seconds = self._length()

    def _length(self) -> float:
        stream = self._stream
        if stream.duration:
            return float(stream.duration * stream.time_base)
        if self._container.duration:
            return float(self._container.duration) / 1e6
        last = 0.0
        try:  # as browsers record WebM
            for packet in self._container.demux(stream):
                if packet.pts is not None:
                    last = max(last, float(packet.pts * packet.time_base) - self._start)
        except self._errors as error:
            raise BadItem(reason=_broken(last)) from error
        return last + 1 / self.rate

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._container.close()

    def shown_at(self, times: Iterable[float]) -> Iterator[Frame]:
        """Seconds from its beginning, ascending -> the frame that is shown at each. From the key frame before it no
        more than 300 frames are decoded; where there are more, the last of these stands for it.
        """
        slack = _EARLY / self.rate
        walk: Iterator[tuple[float, Frame]] | None = None
        shown: Frame | None = None
        ahead: tuple[float, Frame] | None = None
        for time in times:
            try:
                if walk is None or (ahead is not None and time - ahead[0] > _AHEAD_S):
                    walk, shown = self._from(time), None
                    ahead = next(walk, None)
                for _ in range(_MOST_FORWARD):
                    if ahead is None or (shown is not None and ahead[0] > time + slack):
                        break
                    shown, ahead = ahead[1], next(walk, None)
            except self._errors as error:
                raise BadItem(reason=_broken(time)) from error
            if shown is None:
                raise BadItem(reason=_broken(time))
            yield shown

    def _from(self, time: float) -> Iterator[tuple[float, Frame]]:
        """Frames with their times, from the key frame before a time on."""
        stream = self._stream
        self._container.seek(round((self._start + time) / stream.time_base), stream=stream)
        last = time
        for frame in self._container.decode(stream):
            last = last + 1 / self.rate if frame.time is None else float(frame.time) - self._start
            yield last, frame


def open_video(data: bytes, limits: Limits) -> Film | Frames:
    """Use it in a `with` block. Raises `BadItem`."""
    return Frames(data, limits) if is_frames(data) else Film(data, limits)


def pixels_of(frame: Frame, side: int) -> Pixels:
    """(h, w, 3) uint8, upright, the shorter side of `side` pixels. Raises `BadItem` where it is a `Still`."""
    if isinstance(frame, Still):
        return frame.pixels(side)
    scale = side / min(frame.width, frame.height)
    width, height = (max(round(one * scale), 1) for one in (frame.width, frame.height))
    found = frame.reformat(width, height, "rgb24", interpolation="BILINEAR").to_ndarray()
    quarters = round(frame.rotation / 90) % 4
    return np.rot90(found, quarters) if quarters else found


def facts_of(film: Film | Frames) -> Facts:
    found = {
        "seconds": round(film.seconds, 3),
        "fps": round(film.rate, 3),
        "width": film.width,
        "height": film.height,
        "codec": film.codec,
    }
    return found | ({"frames": film.count} if isinstance(film, Frames) else {})


class Videos:
    """Films, recordings of screens and cameras, animations."""

    name: ClassVar[str] = "video"
    suffixes: ClassVar[frozenset[str]] = (
        frozenset({".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi"}) | _OTHER_SUFFIXES
    )
    shared_suffixes: ClassVar[frozenset[str]] = frozenset({".gif"})
    columns: ClassVar[tuple[str, ...]] = ("video", "clip", "movie", "film")
    formats: ClassVar[tuple[str, ...]] = ("MP4", "WebM", "MKV", "AVI", "GIF")
    binary: ClassVar[bool] = True
    has_text: ClassVar[bool] = False
    default_task: ClassVar[str] = "temporal_order"
    shown_as: ClassVar[str | None] = None

    def inspect(self, data: bytes, limits: Limits) -> Facts:
        """Decodes frames at four places, from the beginning to the end, and of a folder of frames up to 250. `motion`
        is how much a pixel changes in an eighth of a second, of 255; `static` stands where nothing does, in none of
        them.
        """
        with open_video(data, limits) as film:
            if isinstance(film, Frames):
                film.check()
            step = max(_STEP_S, 1 / film.rate)
            end = max(film.seconds - 1 / film.rate, 0.0)
            first = np.linspace(0, max(end - step, 0.0), _PLACES if end > 2 * _PLACES * step else 2)
            times = sorted({round(min(time, end), 6) for start in first for time in (start, start + step)})
            shown = [pixels_of(frame, _SMALL).mean(axis=2) for frame in film.shown_at(times)]
            if len(shown) < 2:
                raise BadItem(reason="it has one frame only: such items belong into a project of images")
            changes = [float(np.abs(one - other).mean()) for one, other in pairwise(shown)]
            apart = np.diff(times)
            motion = float(
                np.mean([change for change, s in zip(changes, apart, strict=True) if s < 1.5 * step])
            )
            still = {"static": True} if max(changes) < _STILL else {}
            return facts_of(film) | {"motion": round(motion, 2)} | still

    def preview(
        self, data: bytes, limits: Limits, size: int | None, settings: Mapping[str, Any] | None = None
    ) -> Preview:
        """The video itself, for a player, or one that is made of a folder of frames; or, of `size` pixels at most, its
        middle frame above a strip of four from its beginning to its end.
        """
        with open_video(data, limits) as film:
            if size is None:
                return Preview(film.media_type, film.as_mp4() if isinstance(film, Frames) else data)
            buffer = io.BytesIO()
            _picture(film, size or _PICTURE).save(buffer, "JPEG", quality=_JPEG_QUALITY)
            return Preview("image/jpeg", buffer.getvalue())

    def text(self, data: bytes, limits: Limits) -> None:
        return None


CONTENT = Videos()


def _picture(film: Film | Frames, side: int) -> Image.Image:
    end = max(film.seconds - 1 / film.rate, 0.0)
    times = sorted([*np.linspace(0, end, _SHOWN).tolist(), end / 2])
    least = min(side, film.width, film.height)
    shown = [Image.fromarray(np.ascontiguousarray(pixels_of(one, least))) for one in film.shown_at(times)]
    poster = shown.pop(_SHOWN // 2)
    # As wide as high it may be with the strip below it, which has a quarter of its height.
    ratio = poster.height / poster.width * (1 + 1 / _SHOWN)
    width = max(int(min(side, side / ratio)) // _SHOWN * _SHOWN, _SHOWN)
    height = max(round(width * poster.height / poster.width), 1)
    small = width // _SHOWN, max(height // _SHOWN, 1)
    image = Image.new("RGB", (width, height + small[1]))
    image.paste(poster.resize((width, height)), (0, 0))
    for place, one in enumerate(shown):
        image.paste(one.resize(small), (place * small[0], height))
    return image


# ---- what the bytes are ----


def _kind_of(data: bytes) -> str | None:
    """FFmpeg's name of the container; None for all that is not read here."""
    if data[4:8] in (b"ftyp", b"moov", b"mdat", b"wide"):
        return "mp4"
    if data.startswith(_EBML):
        return "matroska"
    if data[:4] == b"RIFF" and data[8:12] == b"AVI ":
        return "avi"
    return "gif" if data[:6] in (b"GIF87a", b"GIF89a") else None


def _media_type(data: bytes, kind: str) -> str:
    if kind == "matroska":
        return "video/webm" if b"webm" in data[:_HEAD_BYTES] else "video/x-matroska"
    return {"mp4": "video/mp4", "avi": "video/x-msvideo", "gif": "image/gif"}[kind]


def _why_not(data: bytes) -> str:
    """The reason why the bytes are no video that can be read."""
    if (found := mistaken(data) or archive(data)) is not None:
        return f"it is {found}"
    if data.startswith(b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"):
        return f"it is WMV, which is not read here: {_REMEDY}"
    if data.startswith((b"\0\0\x01\xba", b"\0\0\x01\xb3", b"FLV")):
        return (
            f"it is {'FLV' if data.startswith(b'FLV') else 'MPEG-1 or 2'}, which is not read here: {_REMEDY}"
        )
    if data.startswith(b"#EXTM3U"):
        return "it is a playlist, not the video itself"
    return f"not a video in a supported format ({', '.join(CONTENT.formats)})"


def _cut_off(data: bytes, kind: str) -> str | None:
    """Why a file is known to have been longer: players show as much as there is, and say nothing."""
    ends = {"mp4": _end_of_mp4, "matroska": _end_of_matroska, "avi": _end_of_avi}
    if kind == "gif":
        return None if data.rstrip(b"\0\r\n").endswith(b";") else "truncated: it has no end"
    said = ends[kind](data)
    if said is not None and said > len(data):
        return f"truncated: {len(data)} bytes are there, and {said} or more belong to it"
    return None


def _end_of_mp4(data: bytes) -> int | None:
    """ISO/IEC 14496-12: boxes, each with its size; 0 of the last means to the end."""
    at = 0
    while at + 8 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        if size == 1:
            size = int.from_bytes(data[at + 8 : at + 16], "big")
        if size < 8:
            return None
        at += size
    return at


def _end_of_matroska(data: bytes) -> int | None:
    """RFC 8794: the size of the segment after its id, in as many bytes as the first one's leading zeros say; all ones
    where whoever wrote it did not know.
    """
    at = data.find(_SEGMENT, 0, _HEAD_BYTES) + len(_SEGMENT)
    if at < len(_SEGMENT) or at >= len(data) or not data[at]:
        return None
    length = 9 - data[at].bit_length()
    size = int.from_bytes(data[at : at + length], "big") & ((1 << 7 * length) - 1)
    return None if size == (1 << 7 * length) - 1 else at + length + size


def _end_of_avi(data: bytes) -> int | None:
    """Programs that stream, and those that write more than 4 GB, put 0 or a wrong size; so does FFmpeg in a pipe."""
    size = int.from_bytes(data[4:8], "little")
    return None if size == 0 or size > 0x7F000000 else 8 + size


def _broken(seconds: float) -> str:
    return f"broken or truncated: it cannot be read at {math.floor(10 * seconds) / 10:.1f} s"


def _said(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error or type(error).__name__)
