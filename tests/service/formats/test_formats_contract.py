"""Every registered format: what it writes it reads again, whatever keys and classes there are; and it says so where a
file is none of its."""

import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from PIL import Image

from service.errors import LabelFileUnknown, SourceUnreadable, UnknownFormat
from service.formats import Format, Labels, NoRow, Row, format_named, format_of, formats

CLASSES = ["coat", "sneaker / boot", 'T-shirt "à la mode"']
KEYS = [
    "a.png",
    "shirts/0012.png",
    "Ärmel/0 1.jpg",
    "no ending",
    "../up.png",
    "a/./b.png",
    "100%2F.png",
    "コート.webp",
    "a.jpg",
]
SCHEMA = pa.schema(
    [("key", pa.string()), ("class", pa.string()), ("annotator", pa.string()), ("annotation", pa.string())]
)

# What a tool of the format draws on an image of `coat`.
REGIONS: dict[str, Any] = {
    "coco": {
        "coco": [
            {
                "category": "coat",
                "bbox": [1.5, 2, 30, 40],
                "area": 1200,
                "iscrowd": 0,
                "segmentation": [[1, 2, 3, 4]],
            },
            {"category": "coat", "bbox": [0, 0, 5, 5], "attributes": {"occluded": False}},
        ]
    },
    "voc": {
        "voc": [
            {
                "name": "coat",
                "pose": "Left",
                "bndbox": {"xmin": "48", "ymin": "240.5", "xmax": "195", "ymax": "371"},
            },
            {"name": "coat", "bndbox": {"xmin": "1"}, "part": [{"name": "collar"}, {"name": "sleeve"}]},
        ]
    },
    "yolo": {
        "yolo": [
            {"class": "coat", "values": "0.50 0.5 0.25 0.125"},
            {"class": "coat", "values": "0.1 0.1 0.2 0.2 0.3 0.1"},
        ]
    },
    "cvat": {
        "cvat": [
            {
                "shape": "box",
                "label": "coat",
                "xtl": "1.00",
                "ytl": "2",
                "xbr": "3",
                "ybr": "4",
                "attributes": {"size": "L & <XL>"},
            },
            {"shape": "polygon", "label": "coat", "points": "1,2;3,4;5,6"},
        ]
    },
    "fiftyone": {
        "fiftyone": [
            {
                "_id": {"$oid": "65f1a0c2e4b0a1d2c3b4a5f6"},
                "_cls": "Detection",
                "attributes": {},
                "tags": ["checked"],
                "label": "coat",
                "bounding_box": [0.61, 0.5, 0.25, 1.2],
                "occluded": True,
            },
            {
                "_cls": "Polyline",
                "label": "coat",
                "points": [[[0.1, 0.2], [0.3, 0.4], [0.5, 0.1]]],
                "closed": True,
            },
        ]
    },
    "label-studio": {
        "result": [
            {
                "id": "x",
                "from_name": "box",
                "to_name": "image",
                "type": "rectanglelabels",
                "original_width": 640,
                "value": {"x": 1.5, "y": 2, "width": 3, "height": 4, "rectanglelabels": ["coat"]},
            },
        ]
    },
}


def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), "red").save(buffer, "PNG")
    return buffer.getvalue()


def labels(*rows: Row, classes: list[str] | None = None) -> Labels:
    def pages() -> Iterator[list[Row]]:
        for row in rows:
            yield [row]

    return Labels(CLASSES if classes is None else classes, SCHEMA, pages(), lambda row: png())


def size_for(format: Format) -> Row:
    return {} if format.table else {"width": 8, "height": 6}


def written(format: Format, folder: Path, given: Labels) -> Path:
    path = folder / f"labels{format.endings[0]}"
    path.write_bytes(b"".join(format.write(given)))
    return path


def rows_of(format: Format, path: Path) -> list[Row]:
    found = [row for _, row in format.read(path)]
    assert not any(isinstance(row, NoRow) for row in found), found
    return [row for row in found if isinstance(row, dict)]


@pytest.fixture(params=sorted(formats()))
def format(request: pytest.FixtureRequest) -> Format:
    return formats()[request.param]


def test_there_are_those_that_people_ask_for() -> None:
    asked = {
        "csv",
        "ndjson",
        "json",
        "parquet",
        "coco",
        "voc",
        "yolo",
        "label-studio",
        "imagefolder",
        "cvat",
        "fiftyone",
    }
    assert asked | {"fiftyone"} <= formats().keys()


def test_every_one_says_what_it_is_for(format: Format) -> None:
    assert len(format.__doc__ or "") > 40
    assert all(ending.startswith(".") for ending in format.endings)


def test_classes_come_back(format: Format, tmp_path: Path) -> None:
    own = REGIONS.get(format.name) if format.name == "yolo" else None  # it has no place for a class alone
    keys = [key for key in KEYS if key != "a.jpg"] if format.name == "yolo" else KEYS  # nor for two endings
    expected = {key: "coat" if own else CLASSES[number % len(CLASSES)] for number, key in enumerate(keys)}
    given = labels(
        *[{"key": key, "class": name, "annotation": own} | size_for(format) for key, name in expected.items()]
    )
    path = written(format, tmp_path, given)
    assert format_of(path) is format
    found = rows_of(format, path)
    assert {row["key"]: row["class"] for row in found} == expected
    assert len(found) == len(keys)
    assert given.notes == []


def test_what_was_drawn_comes_back_untouched(format: Format, tmp_path: Path) -> None:
    drawn = REGIONS.get(format.name)
    if format.name == "imagefolder":
        drawn = None
    elif format.table:
        drawn = {"any": ["thing", {"of": 1.5}], "à": None}
    assert drawn is not None or format.name == "imagefolder", "say in REGIONS what its tool draws"
    sent = {"key": "a.png", "class": "coat", "annotation": drawn} | size_for(format)
    given = labels(sent, {"key": "b.png", "class": "coat", "annotation": drawn})
    (row, _) = rows_of(format, written(format, tmp_path, given))
    assert (row["class"], row.get("annotation")) == ("coat", drawn)
    assert given.notes == []


def test_what_is_drawn_in_another_format_is_said_and_left_out(format: Format, tmp_path: Path) -> None:
    if format.table:
        pytest.skip("tables hold any annotation")
    given = labels({"key": "a.png", "class": "coat", "annotation": {"spans": [{"start": 1}]}})
    found = rows_of(format, written(format, tmp_path, given))
    assert [(row["key"], row["class"], row.get("annotation")) for row in found] == (
        [] if format.name == "yolo" else [("a.png", "coat", None)]
    )
    assert any(note.startswith("1 items: ") and "annotation" in note for note in given.notes)


def test_no_labels_are_a_file_as_well(format: Format, tmp_path: Path) -> None:
    assert rows_of(format, written(format, tmp_path, labels())) == []


def test_the_same_labels_give_the_same_bytes(format: Format) -> None:
    if format.name == "parquet":
        pytest.skip("Parquet names the version of its writer")
    once, again = (b"".join(format.write(labels({"key": "a.png", "class": "coat"}))) for _ in range(2))
    assert once == again


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe\x00",
        b"{",
        b"[1, 2]",
        b'{"images": 3, "annotations": 4}',
        b"<annotations><image/>",
        b"<a/>",
        b"PK\x03\x04broken",
        b"PAR1",
        b'<!DOCTYPE a [<!ENTITY b "c">]><annotations>&b;</annotations>',
        b"[" * 100_000,
    ],
)
def test_a_file_that_is_none_is_refused_with_a_sentence(
    content: bytes, format: Format, tmp_path: Path
) -> None:
    for ending in format.endings:
        path = tmp_path / f"labels{ending}"
        path.write_bytes(content)
        refused, found = "", []
        try:
            found = list(format.read(path))
        except SourceUnreadable as error:
            refused = str(error)
        if refused:
            assert re.fullmatch(rf"'{path}' cannot be read: .{{4,}}\.", refused, re.DOTALL)
        assert all(
            isinstance(row, NoRow) or "key" not in row for _, row in found
        )  # in tables each line is refused


@pytest.mark.parametrize("cut", [0.3, 0.9])
def test_a_file_that_broke_off_is_refused(cut: float, format: Format, tmp_path: Path) -> None:
    if format.name in ("csv", "ndjson"):
        pytest.skip("its lines stand for themselves")
    drawn = REGIONS.get(format.name)
    rows = [{"key": f"{number}.png", "class": "coat", "annotation": drawn} for number in range(50)]
    path = written(format, tmp_path, labels(*rows))
    data = path.read_bytes()
    path.write_bytes(data[: int(cut * len(data))])
    with pytest.raises(SourceUnreadable):
        list(format.read(path))


def test_a_name_that_is_no_format_is_answered_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(
        UnknownFormat, match=r"`format`: there is no format 'tfrecord'\. Choose one of: coco, csv, cvat"
    ):
        format_named("tfrecord", "format")
    with pytest.raises(LabelFileUnknown, match=r"\.csv"):
        format_of(tmp_path / "labels.txt")


def test_an_archive_that_is_much_too_large_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("Annotations/a.xml", b" " * (200 * 2**20))
    with pytest.raises(SourceUnreadable, match="more than labels take"):
        list(format_of(path).read(path))


def one(format: str, tmp_path: Path, content: object) -> Row | NoRow:
    path = tmp_path / f"labels{formats()[format].endings[0]}"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    ((_, row),) = formats()[format].read(path)
    return row


def test_boxes_of_several_classes_are_refused_with_their_names(tmp_path: Path) -> None:
    coco: dict[str, list[Row]] = {
        "images": [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "nobody looked at it.png"}],
        "categories": [{"id": 7, "name": "coat"}, {"id": 9, "name": "shirt"}],
        "annotations": [{"id": n, "image_id": 1, "category_id": n, "bbox": [0, 0, 1, 1]} for n in (7, 9)],
    }
    refused = one("coco", tmp_path, coco)
    assert isinstance(refused, NoRow)
    assert (refused.field, "'coat', 'shirt'" in refused.message) == ("class", True)
    coco["annotations"].append({"id": 1, "image_id": 1, "category_id": 9})  # the class of the image itself
    told = one("coco", tmp_path, coco)
    assert isinstance(told, dict)
    assert (told["class"], len(told["annotation"]["coco"])) == ("shirt", 2)


def test_what_people_do_in_label_studio(tmp_path: Path) -> None:
    choice = {"type": "choices", "from_name": "c", "to_name": "i", "value": {"choices": ["coat"]}}
    task = {
        "id": 3,
        "data": {"image": "/data/local-files/?d=shirts/0%201.png"},
        "annotations": [
            {"id": 1, "result": [choice], "completed_by": {"id": 4, "email": "ann@example.com"}},
            {"id": 2, "result": [], "was_cancelled": True, "completed_by": 5},
            {"id": 3, "result": []},
            {"id": 4, "result": [{**choice, "value": {"choices": ["coat", "shirt"]}}]},
        ],
    }
    path = tmp_path / "tasks.json"
    path.write_text(json.dumps([task]))
    assert format_of(path).name == "label-studio"
    said, skipped, empty, several = (row for _, row in format_of(path).read(path))
    assert said == {"key": "shirts/0 1.png", "annotator": "ann@example.com", "class": "coat"}
    assert skipped == {"key": "shirts/0 1.png", "annotator": "5", "skip": "other"}
    assert isinstance(empty, NoRow)
    assert isinstance(several, NoRow)
    assert "'coat', 'shirt'" in several.message


def fiftyone_sample(name: str, **fields: object) -> Row:
    """As version 1 writes one."""
    return {
        "_id": {"$oid": "65f1a0c2e4b0a1d2c3b4a5f6"},
        "filepath": f"data/{name}",
        "tags": ["train"],
        "metadata": {"_cls": "ImageMetadata", "size_bytes": 512, "width": 8, "height": 6},
        "_media_type": "image",
        "_rand": 0.25,
        "created_at": {"$date": "2026-01-31T12:00:00Z"},
        "last_modified_at": {"$date": "2026-01-31T12:00:00Z"},
        "_dataset_id": {"$oid": "65f1a0c2e4b0a1d2c3b4a5f0"},
        **fields,
    }


def test_what_people_do_in_fiftyone(tmp_path: Path) -> None:
    def box(name: str | None) -> Row:
        return {"_cls": "Detection", "label": name, "bounding_box": [0, 0, 1, 1]}

    def boxes(*names: str | None) -> Row:
        return {"_cls": "Detections", "detections": [box(name) for name in names]}

    tag = {"_cls": "Classification", "label": "shirt", "confidence": None}
    path = tmp_path / "samples.json"
    samples = [
        fiftyone_sample("1.png", weather=None, objects=boxes("coat", "coat")),
        fiftyone_sample("2.png", weather=tag, objects=boxes("coat")),
        fiftyone_sample("3.png", weather=None, objects=None),
        fiftyone_sample("4.png", objects=boxes()),
        fiftyone_sample("5.png", objects=boxes(None)),
        fiftyone_sample("6.png", objects={"_cls": "Detections", "detections": None}),
        3,
    ]
    path.write_text(json.dumps({"samples": samples}))
    assert format_of(path).name == "fiftyone"
    one_class, whole, empty, unnamed, broken, none = (row for _, row in format_of(path).read(path))
    drawn = {"fiftyone": [box("coat"), box("coat")]}
    assert one_class == {"key": "data/1.png", "class": "coat", "annotation": drawn}
    assert whole == {"key": "data/2.png", "class": "shirt", "annotation": {"fiftyone": [box("coat")]}}
    assert isinstance(empty, NoRow)
    assert empty.instead == {"key": "data/4.png", "classes": []}
    assert all(isinstance(row, NoRow) and row.instead is None for row in (unnamed, broken, none))

    path.write_text(
        json.dumps({"samples": [fiftyone_sample("1.png", ground_truth=tag, predictions=boxes("coat"))]})
    )
    assert rows_of(format_of(path), path) == [{"key": "data/1.png", "class": "shirt"}]
    path.write_text(json.dumps({"samples": [fiftyone_sample("1.png", weather=tag, scene=tag)]}))
    with pytest.raises(SourceUnreadable, match=r"\(scene, weather\).*dataset\.select_fields\('scene'\)"):
        list(format_of(path).read(path))


def test_an_image_folder_of_others_is_read_by_path(tmp_path: Path) -> None:
    path = tmp_path / "folder.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("train/coat/1.PNG", "train/shirt/2.jpg", "__MACOSX/train/coat/._1.png", "README.md"):
            archive.writestr(name, b"")
    assert rows_of(format_of(path), path) == [
        {"key": "train/coat/1.PNG", "class": "coat"},
        {"key": "train/shirt/2.jpg", "class": "shirt"},
    ]


def test_yolo_as_ultralytics_writes_it(tmp_path: Path) -> None:
    path = tmp_path / "data.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data.yaml", "path: ../x\ntrain: images/train\nnames:\n  0: coat\n  2: shirt\n")
        archive.writestr("images/train/1.jpg", b"")
        archive.writestr("labels/train/1.txt", "2 0.5 0.5 0.1 0.1\n")
        archive.writestr("labels/train/2.txt", "")
        archive.writestr("labels/train/3.txt", "7 0.5 0.5 0.1 0.1\n")
        archive.writestr("labels/train/4.txt", "0 0.5 x 0.1 0.1\n")
    found = [row for _, row in format_of(path).read(path)]
    assert found[0] == {
        "key": "train/1.jpg",
        "class": "shirt",
        "annotation": {"yolo": [{"class": "shirt", "values": "0.5 0.5 0.1 0.1"}]},
    }
    assert [row.field for row in found[1:] if isinstance(row, NoRow)] == ["class", "line"]
    assert len(found) == 3
