"""Pascal VOC: a zip of XML files, one an image (http://host.robots.ox.ac.uk/pascal/VOC/)."""

import xml.etree.ElementTree as ET
from collections.abc import Generator, Iterator
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any

import defusedxml
import defusedxml.ElementTree

from service.formats import Format, Labels, NoRow, NumberedRow, Row, row_of
from service.formats.archives import ZipReader, ZipWriter, any_name, flat_name, key_of, opened

_XML = "Annotations/"
_SETS = "ImageSets/Main/"


class PascalVoc(Format):
    """Classes as `ImageSets/Main/<class>_trainval.txt` has them, 1 or -1 an image, and boxes as
    `Annotations/<image>.xml` does. `torchvision.datasets.VOCDetection` reads it. The images themselves are not in
    it."""

    name = "voc"
    endings = (".zip",)
    media_type = "application/zip"

    def fits(self, path: Path) -> bool:
        return super().fits(path) and any_name(path, _is_annotation)

    def read(self, path: Path) -> Generator[NumberedRow]:
        with opened(path) as archive:
            positive = _positives(archive)
            number = 0
            for entry in archive.files:
                if _is_annotation(entry.filename):
                    number += 1
                    image = key_of(PurePosixPath(entry.filename).stem)
                    yield number, _row(archive.read(entry), image, positive.pop(image, []))
            for image, classes in positive.items():  # classes without boxes need no XML
                number += 1
                yield number, row_of({"key": image}, classes, repr(image))

    def write(self, labels: Labels) -> Iterator[bytes]:
        archive = ZipWriter()
        images: dict[str, list[str]] = {}
        for row in labels.rows():
            stem = flat_name(
                str(PurePosixPath(row["key"]).with_suffix("")) if "." in row["key"] else row["key"]
            )
            image = stem if stem not in images else flat_name(row["key"])
            images[image] = row["classes"] if "classes" in row else [row["class"]]
            regions = labels.regions(row, "voc")
            yield archive.add(f"{_XML}{image}.xml", _xml(row, regions))
        yield archive.add(f"{_SETS}trainval.txt", "".join(f"{image}\n" for image in images).encode())
        for name in dict.fromkeys([*labels.classes, *chain.from_iterable(images.values())]):
            lines = (f"{image} {1 if name in of else -1:2}\n" for image, of in images.items())
            yield archive.add(f"{_SETS}{flat_name(name)}_trainval.txt", "".join(lines).encode())
        yield archive.close(labels.notes)


def _is_annotation(name: str) -> bool:
    return name.endswith(".xml") and PurePosixPath(name).parent.name == "Annotations"


def _positives(archive: ZipReader) -> dict[str, list[str]]:
    """Classes by image."""
    found: dict[str, list[str]] = {}
    for entry in archive.files:
        file = PurePosixPath(entry.filename)
        name, _, split = file.stem.rpartition("_")
        if file.parent.name != "Main" or not name or split not in ("train", "val", "trainval", "test"):
            continue
        for line in archive.text(entry).splitlines():
            image, _, said = line.strip().rpartition(" ")
            if said == "1" and key_of(name) not in found.setdefault(key_of(image.strip()), []):
                found[key_of(image.strip())].append(key_of(name))
    return {image: classes for image, classes in found.items() if classes}


def _row(data: bytes, image: str, positive: list[str]) -> Row | NoRow:
    try:
        root = defusedxml.ElementTree.fromstring(data)
    except (ET.ParseError, defusedxml.DefusedXmlException) as error:
        return NoRow("line", f"the XML of {image!r} cannot be read: {error}")
    key = root.findtext("filename") or image
    regions = [_plain(element) for element in root.iter("object")]
    objects = [region for region in regions if isinstance(region, dict)]
    drawn = [region.get("name") for region in objects]
    found = positive if len(positive) == 1 or not objects else drawn
    more = {"annotation": {"voc": objects}} if objects else {}
    label = row_of({"key": key}, found, repr(key), [*positive, *drawn], **more)
    # Of an image that has a file, but no object, somebody has found that nothing is there.
    return label if found or isinstance(label, dict) else label._replace(instead={"key": key, "classes": []})


def _plain(element: ET.Element) -> Any:
    """Its text, or its children by name; several of one name are a list."""
    if len(element) == 0:
        return (element.text or "").strip()
    found: dict[str, Any] = {}
    for child in element:
        value = _plain(child)
        if child.tag not in found:
            found[child.tag] = value
        elif isinstance(found[child.tag], list):
            found[child.tag].append(value)
        else:
            found[child.tag] = [found[child.tag], value]
    return found


def _xml(row: Row, regions: list[Row]) -> bytes:
    root = ET.Element("annotation")
    _add(root, "filename", row["key"])
    if row.get("width") is not None and row.get("height") is not None:
        _add(root, "size", {"width": row["width"], "height": row["height"], "depth": 3})
    for region in regions:
        _add(root, "object", region)
    return bytes(ET.tostring(root, encoding="utf-8", xml_declaration=True))


def _add(parent: ET.Element, name: str, value: Any) -> None:
    for one in value if isinstance(value, list) else [value]:
        element = ET.SubElement(parent, name)
        if isinstance(one, dict):
            for child, inner in one.items():
                _add(element, child, inner)
        else:
            element.text = str(one)


FORMAT = PascalVoc()
