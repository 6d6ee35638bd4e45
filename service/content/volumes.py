"""Files with several pictures, of which each is an item: the frames of a DICOM file, the slices of a NIfTI volume; with
the extra `medical`.

A slice is a PGM file of the picture that a viewer shows first: axial, the patient's right on the left, from black to
white by the range that the header names, else by that of the whole volume. It is written here, byte by byte, as an item
is known by its bytes. A frame is a DICOM file with what its pixels need and nothing else, compressed as it was.
"""

import gzip
import importlib.util
import io
import os
import re
import struct
import threading
import weakref
import zlib
from collections import OrderedDict
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np

from service.content.archives import unpacked
from service.content.dicom import HAS_PYDICOM
from service.content.lines import NoFile, open_binary, stamp_of_file
from service.errors import SourceUnreachable, SourceUnreadable

FRAME = re.compile(r"(?P<file>.+)#frame=(?P<frame>\d{1,9})", re.DOTALL)
NIFTI = (".nii", ".nii.gz")
DICOM = ".dcm"
_HAS_NIBABEL = importlib.util.find_spec("nibabel") is not None  # imported where it is used: it brings scipy
_OPEN = 8
_GZIP = b"\x1f\x8b"
_HEADER_BYTES = 540  # of NIfTI-2; NIfTI-1 has 348
_PIXEL_DATA = 0x7FE00010
_SLICES_LOOKED_AT = 16  # that tell the range of a volume
_RANGE = (1, 99)  # percentiles
_INSTALL = "install `pip install 'shortlist[medical]'` and import it again"
_BROKEN = (
    OSError,
    EOFError,
    ValueError,
    ArithmeticError,
    LookupError,
    AttributeError,
    NotImplementedError,
    struct.error,
    zlib.error,
)
# Of a DICOM file, what says how its pixels look.
_KEPT = (
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PlanarConfiguration",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "RescaleSlope",
    "RescaleIntercept",
    "ModalityLUTSequence",
    "WindowCenter",
    "WindowWidth",
    "VOILUTFunction",
    "VOILUTSequence",
    "RedPaletteColorLookupTableDescriptor",
    "GreenPaletteColorLookupTableDescriptor",
    "BluePaletteColorLookupTableDescriptor",
    "RedPaletteColorLookupTableData",
    "GreenPaletteColorLookupTableData",
    "BluePaletteColorLookupTableData",
)


def frame_uri(file: str, frame: int) -> str:
    return f"{file}#frame={frame}"


def is_nifti(data: bytes) -> bool:
    """True also for one that is compressed."""
    head = data[:_HEADER_BYTES]
    if data.startswith(_GZIP):
        try:
            head = zlib.decompressobj(31).decompress(data, _HEADER_BYTES)
        except zlib.error:
            return False
    return head[344:348] == b"n+1\0" or head[4:8] == b"n+2\0"


class _Volume(Protocol):
    def read(self, frame: int) -> bytes: ...


class Volumes:
    """The last files stay open, as long as they are as they were. Thread-safe.

    folder: where compressed volumes are unpacked
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: OrderedDict[str, tuple[object, _Volume]] = OrderedDict()
        self._lock = threading.Lock()

    def frames(self, place: str) -> int | None:
        """The number of pictures in the file, by its header; None where the file itself is one, or nobody can tell:
        whoever reads it says why. Raises `SourceUnreachable` for a transient I/O error.
        """
        is_slices = place.lower().endswith(NIFTI)
        if not _can_read(is_slices):
            return 1 if is_slices else None
        try:
            with open_binary(place) as file:
                if is_slices:
                    return _Header(file).slices
                frames = _frames_of(_header_of(file))
                return frames if frames > 1 else None
        except Exception as error:  # a broken file makes the decoders raise nearly anything
            told = _unreadable(place, error)
            if isinstance(told, SourceUnreachable) and not isinstance(error, FileNotFoundError):
                raise told from error
            return 1 if is_slices else None

    def read(self, place: str, frame: int) -> bytes:
        """A picture, from 0. Raises `SourceUnreadable`, and `SourceUnreachable` for a transient I/O error."""
        with self._lock:
            try:
                stamp = stamp_of_file(place)
                kept = self._open.get(place)
                if kept is None or kept[0] != stamp:
                    kept = self._open[place] = stamp, self._opened(place)
                self._open.move_to_end(place)
                while len(self._open) > _OPEN:
                    self._open.popitem(last=False)
                return kept[1].read(frame)
            except FileNotFoundError as error:
                raise SourceUnreadable(uri=place, reason="there is no such file") from error
            except _BROKEN as error:
                self._open.pop(place, None)
                raise _unreadable(place, error) from error

    def _opened(self, place: str) -> _Volume:
        is_slices = place.lower().endswith(NIFTI)
        if not _can_read(is_slices):
            raise ValueError(
                f"it is a {'NIfTI volume' if is_slices else 'DICOM file'}: {_INSTALL}, or convert it"
            )
        file = open_binary(place)
        try:
            if is_slices and _is_gzip(file):
                with file as packed:
                    file = unpacked(packed, self._folder)
            volume = _Slices(file) if is_slices else _Frames(file)
        except BaseException:
            file.close()
            raise
        weakref.finalize(volume, file.close)
        return volume


def _can_read(is_slices: bool) -> bool:
    return _HAS_NIBABEL if is_slices else HAS_PYDICOM


def _is_gzip(file: IO[bytes]) -> bool:
    found = file.read(len(_GZIP)) == _GZIP
    file.seek(0)
    return found


class _Header:
    """The header of a NIfTI file, compressed or not. axes: those of the file that run along the patient's left to
    right, back to front, and feet to head, with their directions.
    """

    def __init__(self, file: IO[bytes]) -> None:
        import nibabel
        from nibabel.orientations import io_orientation

        stream = gzip.GzipFile(fileobj=file) if _is_gzip(file) else file
        head = stream.read(_HEADER_BYTES)
        if not is_nifti(head):
            raise ValueError("it is no NIfTI file, or one whose picture lies in another")
        kind = nibabel.Nifti2Header if head[4:6] == b"n+" else nibabel.Nifti1Header
        self.header: Any = kind.from_fileobj(io.BytesIO(head), check=False)
        shape = [int(size) for size in self.header.get_data_shape()]
        while len(shape) > 3 and shape[-1] == 1:
            shape.pop()
        if not 2 <= len(shape) <= 3:
            sizes = " x ".join(map(str, shape))
            raise ValueError(
                f"it has {len(shape)} dimensions ({sizes}): split it into volumes of three, one a time"
            )
        if self.header.get_data_dtype().kind not in "iuf":
            raise ValueError(f"its values are of type {self.header.get_data_dtype()}, and not grey")
        self.shape = (*shape, 1)[:3]
        towards = io_orientation(self.header.get_best_affine())
        self.axes = [int(np.flatnonzero(towards[:, 0] == way)[0]) for way in range(3)]
        self.flips = [towards[axis, 1] < 0 for axis in self.axes]

    @property
    def slices(self) -> int:
        return self.shape[self.axes[2]]


class _Slices:
    """The slices of a NIfTI volume, from the feet to the head."""

    def __init__(self, file: IO[bytes]) -> None:
        from nibabel.arrayproxy import ArrayProxy

        self._header = _Header(file)
        header = self._header.header
        spec = (
            self._header.shape,
            header.get_data_dtype(),
            header.get_data_offset(),
            *header.get_slope_inter(),
        )
        self._values = ArrayProxy(file, spec)
        low, high = float(header["cal_min"]), float(header["cal_max"])
        self._low, self._high = (low, high) if low < high else self._range()

    def _range(self) -> tuple[float, float]:
        count = self._header.slices
        looked_at = np.unique(np.linspace(0, count - 1, min(count, _SLICES_LOOKED_AT)).astype(int))
        values = np.concatenate([self._slice(int(number)).ravel() for number in looked_at])
        values = values[np.isfinite(values)]
        if not len(values):
            raise ValueError("it holds no values that are numbers")
        low, high = map(float, np.percentile(values, _RANGE))
        return (low, high) if low < high else (float(values.min()), float(values.max()))

    def _slice(self, number: int) -> np.ndarray[Any, np.dtype[np.float64]]:
        """(h, w) float64: the front on top, the patient's right on the left."""
        if not 0 <= number < self._header.slices:
            raise ValueError(f"it has no slice {number}")
        right, front, up = self._header.axes
        flip_right, flip_front, flip_up = self._header.flips
        where: list[Any] = [slice(None)] * 3
        where[up] = self._header.slices - 1 - number if flip_up else number
        values = np.asarray(self._values[tuple(where)], np.float64)
        values = values.T if right < front else values
        return values[:: 1 if flip_front else -1, :: 1 if flip_right else -1]

    def read(self, frame: int) -> bytes:
        values = np.nan_to_num(self._slice(frame), nan=self._low, posinf=self._high, neginf=self._low)
        grey = np.clip((values - self._low) / max(self._high - self._low, 1e-12), 0, 1) * 255 + 0.5
        height, width = grey.shape
        data: bytes = grey.astype(np.uint8).tobytes()
        return b"P5\n%d %d\n255\n" % (width, height) + data


def _header_of(file: IO[bytes]) -> Any:
    """A DICOM file without its pixels."""
    import pydicom

    return pydicom.dcmread(file, stop_before_pixels=True)


def _frames_of(dataset: Any) -> int:
    return int(dataset.get("NumberOfFrames") or 1)


class _Frames:
    """The frames of a DICOM file. Its pixels stay where they are."""

    def __init__(self, file: IO[bytes]) -> None:
        from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

        self._file = file
        self._dataset = _header_of(file)
        self._syntax = UID(self._dataset.file_meta.TransferSyntaxUID)
        if self._syntax == DeflatedExplicitVRLittleEndian:
            raise ValueError(
                "it is a deflated DICOM file of several frames: write it in another transfer syntax"
            )
        if self._dataset.BitsAllocated % 8:
            raise ValueError("its pixels have one bit, as those of a segmentation: they are no pictures")
        start = file.tell()
        order = "<" if self._syntax.is_little_endian else ">"
        group, element = struct.unpack(f"{order}HH", file.read(4))
        if group << 16 | element != _PIXEL_DATA:
            raise ValueError("it is a DICOM file without pixels")
        self._start = start + (8 if self._syntax.is_implicit_VR else 12)

    def read(self, frame: int) -> bytes:
        import pydicom
        from pydicom import encaps

        dataset, frames = self._dataset, _frames_of(self._dataset)
        if not 0 <= frame < frames:
            raise ValueError(f"it has no frame {frame}")
        found = pydicom.Dataset()
        for part in (dataset, *self._groups(frame)):
            for name in _KEPT:
                if name in part:
                    found.add(part[name])
        self._file.seek(self._start)
        if self._syntax.is_encapsulated:
            data = encaps.get_frame(
                self._file, frame, number_of_frames=frames, extended_offsets=self._offsets()
            )
            found.PixelData = encaps.encapsulate([data])
            found["PixelData"].VR = "OB"
        else:
            size = dataset.Rows * dataset.Columns * dataset.SamplesPerPixel * (dataset.BitsAllocated // 8)
            self._file.seek(frame * size, os.SEEK_CUR)
            data = self._file.read(size)
            if len(data) < size:
                raise EOFError(f"it ends before its frame {frame}")
            found.PixelData = data + b"\0" * (size % 2)
            found["PixelData"].VR = "OW" if dataset.BitsAllocated > 8 else "OB"
        found.file_meta = pydicom.dataset.FileMetaDataset()
        found.file_meta.TransferSyntaxUID = self._syntax
        found.preamble = b"\0" * 128
        buffer = io.BytesIO()
        pydicom.dcmwrite(buffer, found, enforce_file_format=False)
        return buffer.getvalue()

    def _groups(self, frame: int) -> list[Any]:
        """The groups in which an enhanced file says how all its frames look, then this one."""
        shared = self._dataset.get("SharedFunctionalGroupsSequence") or []
        own = self._dataset.get("PerFrameFunctionalGroupsSequence") or []
        groups = [*shared[:1], *own[frame : frame + 1]]
        names = ("PixelValueTransformationSequence", "FrameVOILUTSequence")
        return [group[name].value[0] for group in groups for name in names if group.get(name)]

    def _offsets(self) -> tuple[bytes, bytes] | None:
        if "ExtendedOffsetTable" not in self._dataset:
            return None
        return self._dataset.ExtendedOffsetTable, self._dataset.ExtendedOffsetTableLengths


def _unreadable(place: str, error: Exception) -> SourceUnreadable:
    """`SourceUnreachable` where the disk or the bucket is the cause, and not the file."""
    reason = (str(error) or type(error).__name__).rstrip(".")
    if isinstance(error, OSError) and error.errno is not None and not isinstance(error, NoFile):
        return SourceUnreachable(uri=place, reason=reason)
    return SourceUnreadable(uri=place, reason=reason)
