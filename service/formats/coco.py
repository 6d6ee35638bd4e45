"""COCO, the JSON of detection and segmentation data sets (https://cocodataset.org/#format-data)."""

import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

from service.formats import Format, Labels, NoRow, NumberedRow, Row, classes_of, row_of, unreadable
from service.formats.json_files import dumped, load, peek

_OWN = ("id", "image_id", "category_id")  # numbers of a file, made anew
_DRAWN = ("bbox", "segmentation", "keypoints")
_PIECE = 2**20


class Coco(Format):
    """Classes, boxes and masks. An image's class without boxes is an annotation that has a `category_id` and no `bbox`,
    as Datumaro and CVAT write it; `pycocotools` reads both."""

    name = "coco"
    endings = (".json",)
    media_type = "application/json"

    def fits(self, path: Path) -> bool:
        found = peek(path) if super().fits(path) else None
        return isinstance(found, dict) and {"images", "annotations"} <= found.keys()

    def read(self, path: Path) -> Generator[NumberedRow]:
        found = load(path)
        parts = {
            name: found.get(name) if isinstance(found, dict) else None for name in ("images", "annotations")
        }
        for name, part in parts.items():
            if not isinstance(part, list):
                raise unreadable(path, f"this is no COCO file: it has no list `{name}`")
        categories = found.get("categories") or []
        names = {each.get("id"): each.get("name") for each in categories if isinstance(each, dict)}
        of_image: dict[object, list[Row]] = {}
        for annotation in parts["annotations"] or ():
            if isinstance(annotation, dict) and isinstance(annotation.get("image_id"), int | str):
                of_image.setdefault(annotation["image_id"], []).append(annotation)
        for number, image in enumerate(parts["images"] or (), 1):
            if not isinstance(image, dict) or not isinstance(image.get("file_name"), str):
                yield number, NoRow(f"images[{number - 1}]", "an image is an object with a `file_name`")
            elif annotations := of_image.get(
                image.get("id") if isinstance(image.get("id"), int | str) else None
            ):
                yield number, _row(image["file_name"], annotations, names)

    def write(self, labels: Labels) -> Iterator[bytes]:
        """Annotations follow the images, so they wait on the disk."""
        numbers = {name: number for number, name in enumerate(labels.classes, 1)}
        with tempfile.TemporaryFile() as annotations:
            written = 0
            before = b'{"images": [\n'
            for number, row in enumerate(labels.rows(), 1):
                size = {name: row[name] for name in ("width", "height") if row.get(name) is not None}
                yield before + dumped({"id": number, "file_name": row["key"], **size})
                before = b",\n"
                for region in _regions(labels, row):
                    written += 1
                    category = numbers.setdefault(region.pop("category"), len(numbers) + 1)
                    own = {"id": written, "image_id": number, "category_id": category}
                    annotations.write((b",\n" if written > 1 else b"") + dumped({**own, **region}))
            yield (b"" if before == b",\n" else before) + b'\n], "annotations": [\n'
            annotations.seek(0)
            while piece := annotations.read(_PIECE):
                yield piece
        categories = [{"id": number, "name": name} for name, number in numbers.items()]
        info = {"description": "Labels of Shortlist", "left_out": labels.notes}
        yield b'\n], "categories": ' + dumped(categories) + b', "info": ' + dumped(info) + b"}\n"


def _regions(labels: Labels, row: Row) -> list[Row]:
    """Copies; the class of the item goes with them where none of them has it, or where it is not theirs alone."""
    regions = [
        dict(region) for region in labels.regions(row, "coco") if isinstance(region.get("category"), str)
    ]
    drawn, classes = {region["category"] for region in regions}, classes_of(labels, row)
    if "classes" in row:
        return [*regions, *({"category": name} for name in classes if name not in drawn)]
    return regions if drawn == set(classes) else [*regions, {"category": classes[0]}]


def _row(key: str, annotations: list[Row], names: dict[Any, Any]) -> Row | NoRow:
    regions: list[Row] = []
    for annotation in annotations:
        category = names.get(annotation.get("category_id"))
        if not isinstance(category, str):
            told = f"{key!r} has the category {annotation.get('category_id')!r}, which `categories` does not name"
            return NoRow("category_id", told)
        kept = {name: value for name, value in annotation.items() if name not in _OWN}
        regions.append({"category": category, **kept})
    drawn = [region for region in regions if any(region.get(name) for name in _DRAWN)]
    of_all = [region["category"] for region in regions if region not in drawn]
    everything = [region["category"] for region in regions]
    more = {"annotation": {"coco": drawn}} if drawn else {}
    return row_of({"key": key}, of_all or everything, repr(key), everything, **more)


FORMAT = Coco()
