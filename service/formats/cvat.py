"""CVAT for images 1.1 (https://docs.cvat.ai/docs/manual/advanced/formats/format-cvat/): one XML file."""

import xml.etree.ElementTree as ET
from collections.abc import Generator, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import defusedxml
import defusedxml.ElementTree

from service.formats import Format, Labels, NoRow, NumberedRow, Row, classes_of, row_of, unreadable
from service.formats.archives import any_name, opened

_FILE = "annotations.xml"


class Cvat(Format):
    """Tags of images, and shapes. The archive that CVAT exports is read as well as the XML in it."""

    name = "cvat"
    endings = (".xml", ".zip")
    media_type = "application/xml"

    def fits(self, path: Path) -> bool:
        if not super().fits(path):
            return False
        return path.suffix.lower() == ".xml" or any_name(path, lambda name: PurePosixPath(name).name == _FILE)

    def read(self, path: Path) -> Generator[NumberedRow]:
        try:
            root = defusedxml.ElementTree.fromstring(_data(path))
        except (ET.ParseError, defusedxml.DefusedXmlException) as error:
            raise unreadable(path, f"this is no XML: {error}") from error
        if root.tag != "annotations":
            raise unreadable(path, f"this is no file of CVAT: its root is <{root.tag}>, not <annotations>")
        for number, image in enumerate(root.iter("image"), 1):
            if row := _row(image):
                yield number, row

    def write(self, labels: Labels) -> Iterator[bytes]:
        yield b'<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>\n'
        names = ET.Element("labels")
        for name in labels.classes:
            label = ET.SubElement(names, "label")
            ET.SubElement(label, "name").text = name
        meta = ET.Element("meta")
        ET.SubElement(meta, "task").append(names)
        yield ET.tostring(meta) + b"\n"
        for number, row in enumerate(labels.rows()):
            size = {name: str(row[name]) for name in ("width", "height") if row.get(name) is not None}
            image = ET.Element("image", {"id": str(number), "name": row["key"], **size})
            for name in classes_of(labels, row):
                ET.SubElement(image, "tag", {"label": name, "source": "manual"})
            for region in labels.regions(row, "cvat"):
                _add(image, region)
            yield ET.tostring(image) + b"\n"
        yield b"</annotations>\n"


def _data(path: Path) -> bytes:
    if path.suffix.lower() != ".zip":
        try:
            return path.read_bytes()
        except OSError as error:
            raise unreadable(path, error.strerror) from error
    with opened(path) as archive:
        for entry in archive.files:
            if PurePosixPath(entry.filename).name == _FILE:
                return archive.read(entry)
    raise unreadable(path, f"it holds no {_FILE}")


def _row(image: ET.Element) -> Row | NoRow | None:
    """None for an image that nobody has annotated."""
    key = image.get("name")
    if not key:
        return NoRow("key", "an <image> has no `name`")
    tags = [element.get("label") for element in image.iter("tag")]
    shapes = [element for element in image if element.tag != "tag" and element.get("label")]
    if not tags and not shapes:
        return None
    drawn = [_plain(element) for element in shapes]
    on_shapes = [element.get("label") for element in shapes]
    more = {"annotation": {"cvat": drawn}} if drawn else {}
    return row_of({"key": key}, tags or on_shapes, repr(key), [*tags, *on_shapes], **more)


def _plain(element: ET.Element) -> Row:
    """`attributes` are those that people made for a label, in CVAT's words."""
    made = {each.get("name", ""): each.text or "" for each in element.iter("attribute")}
    return {"shape": element.tag, **dict(element.attrib), **({"attributes": made} if made else {})}


def _add(image: ET.Element, region: Row) -> None:
    made: Any = region.get("attributes") or {}
    plain = {name: str(value) for name, value in region.items() if name not in ("shape", "attributes")}
    shape = ET.SubElement(image, str(region.get("shape", "box")), plain)
    for name, value in made.items() if isinstance(made, dict) else ():
        ET.SubElement(shape, "attribute", {"name": str(name)}).text = str(value)


FORMAT = Cvat()
