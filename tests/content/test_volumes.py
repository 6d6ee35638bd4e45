"""A file of several pictures is several items: frames of DICOM, slices of NIfTI."""

import gzip
import io
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from PIL import Image

from service.content import contents, volumes
from service.content.contract import Limits
from service.content.image import CONTENT, open_rgb
from service.content.listing import Candidate
from service.content.reader import ItemBytes
from service.content.sources import list_source
from service.errors import BadItem, SourceUnreachable, SourceUnreadable
from service.settings import Settings
from tests.content.test_dicom import RAMP, file_of
from tests.pictures import write_pictures

nibabel = pytest.importorskip("nibabel", reason="the extra `medical` is not installed")
pydicom = pytest.importorskip("pydicom", reason="the extra `medical` is not installed")
LIMITS = Limits(max_pixels=10_000, max_text_bytes=1)


@pytest.fixture
def item_bytes(tmp_path: Path) -> ItemBytes:
    return ItemBytes(Settings(data_dir=tmp_path / "data", source_roots=(str(tmp_path),)))


def listed(place: Path, item_bytes: ItemBytes) -> list[Candidate]:
    return list(list_source(str(place), item_bytes, None, contents()["image"]))


def grey(data: bytes) -> list[list[int]]:
    image = np.asarray(open_rgb(data, LIMITS.max_pixels))
    return [[int(value) for value in row] for row in image[:, :, 0]]


# Patient axes: x to the right, y to the front, z to the head. Values say where they are.
VOLUME = np.arange(2 * 3 * 4, dtype=np.int16).reshape(2, 3, 4)


def nifti(path: Path, values: Any, affine: Any = None, **header: float) -> Path:
    image = nibabel.Nifti1Image(values, np.eye(4) if affine is None else affine)
    for name, value in header.items():
        image.header[name] = value
    nibabel.save(image, path)
    return path


@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz", "SCAN.NII.GZ"])
def test_slices_are_items_as_a_viewer_shows_them(name: str, tmp_path: Path, item_bytes: ItemBytes) -> None:
    (tmp_path / "pool" / "ann").mkdir(parents=True)
    nifti(tmp_path / "pool" / "ann" / "a.nii.gz", VOLUME, cal_min=0, cal_max=255)
    (tmp_path / "pool" / "ann" / "a.nii.gz").rename(tmp_path / "pool" / "ann" / name)
    if name == "scan.nii":
        packed = (tmp_path / "pool" / "ann" / name).read_bytes()
        (tmp_path / "pool" / "ann" / name).write_bytes(gzip.decompress(packed))

    found = listed(tmp_path / "pool", item_bytes)

    assert [one.key for one in found] == [f"ann/{name}/{number:04}" for number in range(4)]
    assert {one.class_name for one in found} == {"ann"}
    for number, one in enumerate(found):
        data = item_bytes.read(one.uri)
        assert CONTENT.inspect(data, LIMITS) == {"width": 2, "height": 3}
        # Rows from the front to the back, columns from the patient's right to the left.
        assert grey(data) == VOLUME[::-1, ::-1, number].T.tolist()
        assert item_bytes.stamp(one.uri) == item_bytes.stamp(found[0].uri) is not None


def test_a_volume_that_lies_otherwise_shows_the_same(tmp_path: Path, item_bytes: ItemBytes) -> None:
    """Stored with the axes in another order and direction, and an affine that says so."""
    straight = nifti(tmp_path / "straight.nii", VOLUME, cal_min=0, cal_max=255)
    turned = nibabel.load(straight).as_reoriented(np.array([[2, -1], [0, 1], [1, -1]]))
    assert turned.shape != VOLUME.shape
    turned.header["cal_max"] = 255
    nibabel.save(turned, tmp_path / "turned.nii")
    for number in range(4):
        first, second = (
            item_bytes.read(f"{tmp_path}/{name}.nii#frame={number}") for name in ("straight", "turned")
        )
        assert first == second


def test_the_range_is_that_of_the_volume(tmp_path: Path, item_bytes: ItemBytes) -> None:
    values = np.zeros((10, 10, 3), np.float32)
    values[..., 1] = np.linspace(0, 1000, 100).reshape(10, 10)
    values[0, 0, 2] = np.nan
    path = nifti(tmp_path / "a.nii", values)
    shown = [np.asarray(open_rgb(item_bytes.read(f"{path}#frame={n}"), 10_000)) for n in range(3)]
    assert (shown[0].max(), shown[2].max()) == (0, 0)  # by itself each would be stretched
    assert (shown[1].min(), shown[1].max()) == (0, 255)
    scaled = nibabel.Nifti1Image(np.arange(8, dtype=np.int16).reshape(2, 2, 2), np.eye(4))
    scaled.header.set_slope_inter(10, -1000)
    scaled.header["cal_min"], scaled.header["cal_max"] = -1000, -1000 + 255
    nibabel.save(scaled, tmp_path / "hu.nii")
    assert grey(item_bytes.read(f"{tmp_path}/hu.nii#frame=0")) == [[60, 20], [40, 0]]


def test_a_slice_keeps_its_bytes(tmp_path: Path, item_bytes: ItemBytes) -> None:
    """An item is its bytes, also for a later version of any library."""
    path = nifti(tmp_path / "a.nii", VOLUME, cal_min=0, cal_max=255)
    assert item_bytes.read(f"{path}#frame=0") == b"P5\n2 3\n255\n" + bytes([20, 8, 16, 4, 12, 0])


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "no NIfTI file"),
        (b"\x1f\x8b junk", "."),
        (b"x" * 600, "no NIfTI file"),
        (VOLUME[..., None].repeat(2, -1), r"4 dimensions \(2 x 3 x 4 x 2\): split it"),
        (VOLUME.astype(np.complex64), "type complex64, and not grey"),
    ],
)
def test_what_is_no_volume_is_one_item_with_a_reason(
    data: Any, reason: str, tmp_path: Path, item_bytes: ItemBytes
) -> None:
    path = tmp_path / "pool" / "a.nii.gz"
    path.parent.mkdir()
    if isinstance(data, bytes):
        path.write_bytes(data)
    else:
        nifti(path, data)
    [one] = listed(path.parent, item_bytes)
    with pytest.raises(SourceUnreadable, match=reason) as raised:
        item_bytes.read(one.uri)
    assert not isinstance(raised.value, SourceUnreachable)


def test_a_volume_that_ends_too_early(tmp_path: Path, item_bytes: ItemBytes) -> None:
    path = nifti(tmp_path / "a.nii", VOLUME, cal_max=255)
    path.write_bytes(path.read_bytes()[:-30])
    item_bytes.read(f"{path}#frame=0")
    with pytest.raises(SourceUnreadable):
        [item_bytes.read(f"{path}#frame={number}") for number in range(4)]
    for frame in (4, 99):
        with pytest.raises(SourceUnreadable, match=f"no slice {frame}"):
            item_bytes.read(f"{nifti(tmp_path / 'b.nii', VOLUME)}#frame={frame}")


def test_a_replaced_volume_is_read_anew(tmp_path: Path, item_bytes: ItemBytes) -> None:
    path = nifti(tmp_path / "a.nii", VOLUME, cal_max=255)
    before = item_bytes.read(f"{path}#frame=1")
    nifti(path, VOLUME + 7, cal_max=255)
    assert item_bytes.read(f"{path}#frame=1") != before


def frames(**attributes: Any) -> bytes:
    """Three frames, each of another brightness."""
    values = np.concatenate([RAMP // 4, RAMP // 2, RAMP])
    return file_of(values, NumberOfFrames=3, Rows=2, **attributes)


@pytest.mark.parametrize("window", [{}, {"RescaleSlope": 1, "RescaleIntercept": -1024}])
def test_frames_are_items(window: dict[str, Any], tmp_path: Path, item_bytes: ItemBytes) -> None:
    pool = tmp_path / "pool"
    pool.mkdir()
    (pool / "clip.dcm").write_bytes(frames(**window))
    (pool / "one.dcm").write_bytes(file_of(RAMP, **window))

    found = listed(pool, item_bytes)

    assert [one.key for one in found] == ["clip.dcm/0000", "clip.dcm/0001", "clip.dcm/0002", "one.dcm"]
    data = [item_bytes.read(one.uri) for one in found]
    assert [grey(one)[0][3] for one in data] == [64, 127, 255, 255]
    assert grey(data[2]) == grey(data[3])
    assert [item_bytes.read(one.uri) for one in found] == data
    with pytest.raises(SourceUnreadable, match="no frame 3"):
        item_bytes.read(f"{pool}/clip.dcm#frame=3")
    with pytest.raises(BadItem, match=r"of 3 frames.*clip.dcm#frame=17"):
        CONTENT.inspect((pool / "clip.dcm").read_bytes(), LIMITS)


def test_frames_of_an_odd_number_of_bytes(tmp_path: Path, item_bytes: ItemBytes) -> None:
    values = np.arange(27, dtype=np.uint8).reshape(9, 3)
    wide = file_of(
        values.astype(np.uint16), NumberOfFrames=3, Rows=3, BitsAllocated=8, BitsStored=8, HighBit=7
    )
    dataset = pydicom.dcmread(io.BytesIO(wide))
    dataset.PixelData = values.tobytes() + b"\0"
    dataset["PixelData"].VR = "OB"
    dataset.save_as(tmp_path / "a.dcm")
    for number in range(3):
        data = item_bytes.read(f"{tmp_path}/a.dcm#frame={number}")
        assert grey(data) == values[3 * number : 3 * number + 3].tolist()


def test_frames_of_an_enhanced_file_have_windows_of_their_own(tmp_path: Path, item_bytes: ItemBytes) -> None:
    def group(name: str, **values: Any) -> Any:
        inner, outer = pydicom.Dataset(), pydicom.Dataset()
        for key, value in values.items():
            setattr(inner, key, value)
        setattr(outer, name, pydicom.Sequence([inner]))
        return outer

    shared = group("PixelValueTransformationSequence", RescaleSlope=2, RescaleIntercept=0)
    own = [
        group("FrameVOILUTSequence", WindowCenter=width / 2, WindowWidth=width, VOILUTFunction="LINEAR_EXACT")
        for width in (2048, 4096, 8190)
    ]
    path = tmp_path / "a.dcm"
    path.write_bytes(
        frames(
            SharedFunctionalGroupsSequence=pydicom.Sequence([shared]),
            PerFrameFunctionalGroupsSequence=pydicom.Sequence(own),
        )
    )
    bright = [grey(item_bytes.read(f"{path}#frame={number}"))[0] for number in range(3)]
    assert [row[3] for row in bright] == [255, 255, 255]  # 1023, 2047 and 4095, twice, in their windows
    assert [row[1] for row in bright] == [64, 64, 64]


def test_compressed_frames_stay_as_they_are(tmp_path: Path, item_bytes: ItemBytes) -> None:
    from pydicom.encaps import encapsulate
    from pydicom.uid import JPEGBaseline8Bit

    pictures = []
    for level in (10, 100, 200):
        buffer = io.BytesIO()
        Image.new("L", (8, 8), level).save(buffer, "JPEG")
        pictures.append(buffer.getvalue())
    dataset = pydicom.dcmread(io.BytesIO(frames()))
    dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    dataset.Rows = dataset.Columns = 8
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit = 7
    dataset.PixelData = encapsulate(pictures)
    dataset["PixelData"].VR = "OB"
    path = tmp_path / "a.dcm"
    dataset.save_as(path)
    for number, level in enumerate((10, 100, 200)):
        data = item_bytes.read(f"{path}#frame={number}")
        assert pictures[number] in data
        assert abs(grey(data)[3][3] - level) <= 1


def test_frames_say_nothing_of_the_patient(tmp_path: Path, item_bytes: ItemBytes) -> None:
    path = tmp_path / "a.dcm"
    path.write_bytes(frames(PatientName="Somebody^Sick", PatientID="12345"))
    data = item_bytes.read(f"{path}#frame=1")
    assert b"Somebody" not in data
    assert "PatientID" not in pydicom.dcmread(io.BytesIO(data))


def test_one_bit_is_no_picture(tmp_path: Path, item_bytes: ItemBytes) -> None:
    path = tmp_path / "a.dcm"
    path.write_bytes(frames(BitsAllocated=1, BitsStored=1, HighBit=0))
    with pytest.raises(SourceUnreadable, match="segmentation"):
        item_bytes.read(f"{path}#frame=0")


def test_a_volume_named_by_itself_or_in_an_archive_says_what_to_do(
    tmp_path: Path, item_bytes: ItemBytes
) -> None:
    import zipfile

    for name in ("a.nii", "a.nii.gz"):
        data = nifti(tmp_path / name, VOLUME).read_bytes()
        with pytest.raises(BadItem, match=r"each slice is an item.*scan.nii.gz#frame=17"):
            CONTENT.inspect(data, LIMITS)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(tmp_path / "a.nii", "a.nii")
        archive.write(write_pictures(tmp_path / "pictures", 1) / "00000.png", "a.png")
    listing = list_source(str(tmp_path / "a.zip"), item_bytes, None, contents()["image"])
    assert [one.key for one in listing] == ["a.png"]
    assert listing.refusals == [
        "'a.nii' may hold several items, and is in an archive: unpack it, and import its folder."
    ]


def test_in_a_bucket_slices_are_found_and_frames_named(tmp_path: Path) -> None:
    folder = f"memory://volumes-{tmp_path.name}"
    for name, data in (("a.nii", nifti(tmp_path / "a.nii", VOLUME).read_bytes()), ("b.dcm", frames())):
        with fsspec.open(f"{folder}/{name}", "wb") as file:
            file.write(data)
    item_bytes = ItemBytes(Settings(data_dir=tmp_path / "data", source_roots=(folder,)))
    found = list(list_source(folder, item_bytes, None, contents()["image"]))
    assert [one.key for one in found] == ["a.nii/0000", "a.nii/0001", "a.nii/0002", "a.nii/0003", "b.dcm"]
    assert item_bytes.read(found[1].uri).startswith(b"P5\n2 3\n255\n")
    assert grey(item_bytes.read(f"{folder}/b.dcm#frame=2"))[0][3] == 255
    with pytest.raises(BadItem, match=r"clip.dcm#frame=17"):
        CONTENT.inspect(item_bytes.read(found[4].uri), LIMITS)


def test_without_the_extra_it_says_what_to_install(
    tmp_path: Path, item_bytes: ItemBytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pool").mkdir()
    nifti(tmp_path / "pool" / "a.nii", VOLUME)
    monkeypatch.setattr(volumes, "_HAS_NIBABEL", False)
    [one] = listed(tmp_path / "pool", item_bytes)
    with pytest.raises(SourceUnreadable, match=r"NIfTI volume: install `pip install 'shortlist\[medical\]'`"):
        item_bytes.read(one.uri)
