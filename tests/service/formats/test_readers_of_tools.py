"""What is written, as the tools themselves read it."""

import contextlib
import io
import json
import zipfile
from pathlib import Path

import pytest
import torchvision

from service.formats import formats
from tests.service.formats.test_formats_contract import REGIONS, labels, png, written

COAT = {"key": "shirts/1.png", "class": "coat", "width": 8, "height": 6}
BOOT = {"key": "2.png", "class": "sneaker / boot", "width": 8, "height": 6}


def unpacked(format: str, folder: Path, *rows: dict[str, object]) -> Path:
    path = written(formats()[format], folder, labels(*rows))
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        archive.extractall(folder / "unpacked")
    return folder / "unpacked"


def test_coco_by_pycocotools(tmp_path: Path) -> None:
    tool = pytest.importorskip(
        "pycocotools.coco", reason="pycocotools is not installed (pip install -e '.[dev]')"
    )
    path = written(formats()["coco"], tmp_path, labels({**COAT, "annotation": REGIONS["coco"]}, BOOT))
    with contextlib.redirect_stdout(io.StringIO()):
        coco = tool.COCO(str(path))
    (coat,) = coco.getCatIds(catNms=["coat"])
    (image,) = coco.loadImgs(coco.getImgIds(catIds=[coat]))
    assert (image["file_name"], image["width"], image["height"]) == ("shirts/1.png", 8, 6)
    boxes = [each["bbox"] for each in coco.loadAnns(coco.getAnnIds(imgIds=[image["id"]]))]
    assert boxes == [[1.5, 2, 30, 40], [0, 0, 5, 5]]
    (boot,) = coco.getCatIds(catNms=["sneaker / boot"])
    assert [each["file_name"] for each in coco.loadImgs(coco.getImgIds(catIds=[boot]))] == ["2.png"]


def test_coco_of_pycocotools(tmp_path: Path) -> None:
    """As instance annotations are published: only what its API needs, with a mask as run lengths."""
    mask = pytest.importorskip(
        "pycocotools.mask", reason="pycocotools is not installed (pip install -e '.[dev]')"
    )
    (runs,) = mask.frPyObjects([[1, 1, 4, 1, 4, 4, 1, 4]], 6, 8)
    runs["counts"] = runs["counts"].decode()
    file = tmp_path / "instances.json"
    annotation = {
        "id": 9,
        "image_id": 3,
        "category_id": 18,
        "segmentation": runs,
        "iscrowd": 1,
        "bbox": [1, 1, 3, 3],
    }
    file.write_text(
        json.dumps(
            {
                "images": [{"id": 3, "file_name": "a.png", "height": 6, "width": 8}],
                "annotations": [annotation],
                "categories": [{"id": 18, "name": "coat", "supercategory": "clothes"}],
            }
        )
    )
    ((_, row),) = formats()["coco"].read(file)
    assert isinstance(row, dict)
    again = json.loads(written(formats()["coco"], tmp_path, labels(row)).read_text())["annotations"][0]
    assert mask.area(again["segmentation"]) == mask.area(runs)


def test_voc_by_torchvision(tmp_path: Path) -> None:
    folder = unpacked("voc", tmp_path, {**COAT, "annotation": REGIONS["voc"]}, BOOT)
    root = tmp_path / "VOCdevkit" / "VOC2012"
    root.parent.mkdir()
    folder.rename(root)
    (root / "JPEGImages").mkdir()
    for image in (root / "ImageSets" / "Main" / "trainval.txt").read_text().split():
        (root / "JPEGImages" / f"{image}.jpg").write_bytes(png())
    found = [
        told["annotation"] for _, told in torchvision.datasets.VOCDetection(tmp_path, image_set="trainval")
    ]
    assert [each["filename"] for each in found] == ["shirts/1.png", "2.png"]
    assert found[0]["size"] == {"width": "8", "height": "6", "depth": "3"}
    assert [each["name"] for each in found[0]["object"]] == ["coat", "coat"]
    assert found[0]["object"][0]["bndbox"]["ymin"] == "240.5"
    assert "object" not in found[1] or not found[1]["object"]
    said = (root / "ImageSets" / "Main" / "coat_trainval.txt").read_text().split()
    assert said[1::2] == ["1", "-1"]


def test_folders_by_torchvision(tmp_path: Path) -> None:
    folder = unpacked("imagefolder", tmp_path, COAT, BOOT, {"key": "no ending", "class": "coat"})
    found = torchvision.datasets.ImageFolder(str(folder))
    assert found.classes == ["coat", "sneaker %2F boot"]
    assert sorted((Path(path).name, found.classes[number]) for path, number in found.samples) == [
        ("2.png", "sneaker %2F boot"),
        ("no ending.png", "coat"),
        ("shirts%2F1.png", "coat"),
    ]
    assert found[0][0].size == (8, 6)


def test_yolo_has_what_its_trainer_looks_for(tmp_path: Path) -> None:
    yaml = pytest.importorskip("yaml")
    folder = unpacked("yolo", tmp_path, {**COAT, "annotation": REGIONS["yolo"]}, BOOT)
    told = yaml.safe_load((folder / "data.yaml").read_text())
    assert told["names"] == dict(enumerate(["coat", "sneaker / boot", 'T-shirt "à la mode"']))
    (image,) = (folder / told["train"]).read_text().split()
    # As `img2label_paths` of Ultralytics finds it: the last `/images/` becomes `/labels/`, the ending `.txt`.
    label = folder / f"{image.replace('/images/', '/labels/').rpartition('.')[0]}.txt"
    rows = [line.split() for line in label.read_text().splitlines()]
    assert [row[0] for row in rows] == ["0", "0"]
    assert [float(value) for value in rows[0][1:]] == [0.5, 0.5, 0.25, 0.125]
