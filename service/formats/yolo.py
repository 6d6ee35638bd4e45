"""YOLO, as Ultralytics trains on it (https://docs.ultralytics.com/datasets/detect/): a zip of text files."""

import json
import math
from collections.abc import Generator, Iterator
from pathlib import Path, PurePosixPath

import yaml

from service.formats import Format, Labels, NoRow, NumberedRow, Row, row_of, unreadable
from service.formats.archives import ZipReader, ZipWriter, any_name, file_name, key_of, opened

_NAMES = ("classes.txt", "obj.names")
_IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


class Yolo(Format):
    """Boxes and outlines, a line each: `class x y …` in shares of the image. There is no place in it for a class
    without a box: such items are left out. YOLO's own classification reads folders, `imagefolder`. The images
    themselves are not in it: put them into `images/`."""

    name = "yolo"
    endings = (".zip",)
    media_type = "application/zip"

    def fits(self, path: Path) -> bool:
        return super().fits(path) and any_name(path, _is_label) and any_name(path, _tells_names)

    def read(self, path: Path) -> Generator[NumberedRow]:
        with opened(path) as archive:
            names = _names(path, archive)
            images = _images(archive)
            for number, entry in enumerate((each for each in archive.files if _is_label(each.filename)), 1):
                stem = _below(entry.filename, "labels").removesuffix(".txt")
                lines = archive.text(entry).split("\n")
                if row := _row(images.get(stem, key_of(stem)), lines, names):
                    yield number, row

    def write(self, labels: Labels) -> Iterator[bytes]:
        archive = ZipWriter()
        names = list(labels.classes)
        listed: dict[str, str] = {}
        for row in labels.rows():
            regions = [each for each in labels.regions(row, "yolo") if isinstance(each.get("class"), str)]
            image = file_name(row["key"])
            stem = str(PurePosixPath(image).with_suffix("")) if PurePosixPath(image).suffix else image
            if not regions:
                labels.left_out[
                    "there is no box, and YOLO has no place for a class alone; see imagefolder"
                ] += 1
            elif stem in listed:
                labels.left_out["another image has the same name but for its ending"] += 1
            else:
                listed[stem] = image
                names += [name for name in {each["class"] for each in regions} if name not in names]
                lines = (f"{names.index(each['class'])} {each.get('values', '')}\n" for each in regions)
                yield archive.add(f"labels/{stem}.txt", "".join(lines).encode())
        yield archive.add("train.txt", "".join(f"./images/{image}\n" for image in listed.values()).encode())
        yield archive.add("classes.txt", "".join(f"{name}\n" for name in names).encode())
        told = "".join(f"  {number}: {json.dumps(name)}\n" for number, name in enumerate(names))
        yield archive.add("data.yaml", f"path: .\ntrain: train.txt\nval: train.txt\nnames:\n{told}".encode())
        yield archive.close(labels.notes)


def _is_label(name: str) -> bool:
    return name.endswith(".txt") and "labels" in PurePosixPath(name).parts[:-1]


def _tells_names(name: str) -> bool:
    file = PurePosixPath(name).name
    return file in _NAMES or file.endswith((".yaml", ".yml", ".names"))


def _below(name: str, folder: str) -> str:
    """The path below the folder of that name: `train/labels/a/1.txt` -> `a/1.txt`"""
    parts = PurePosixPath(name).parts
    return "/".join(parts[parts.index(folder) + 1 :])


def _images(archive: ZipReader) -> dict[str, str]:
    """Keys by what the files with labels are called: images that are listed, or in the archive."""
    found: dict[str, str] = {}
    places = [entry.filename for entry in archive.files]
    for entry in archive.files:
        file = PurePosixPath(entry.filename)
        if file.suffix == ".txt" and "labels" not in file.parts[:-1] and file.name not in _NAMES:
            places += archive.text(entry).splitlines()
    for place in map(str.strip, places):
        path = PurePosixPath(place)
        if path.suffix.lower() in _IMAGES or "images" in path.parts[:-1]:
            below = _below(place, "images") if "images" in path.parts[:-1] else place
            found[str(PurePosixPath(below).with_suffix(""))] = key_of(below)
            found.setdefault(below, key_of(below))
    return found


def _names(path: Path, archive: ZipReader) -> list[str]:
    """Classes by their numbers. Raises `SourceUnreadable`."""
    for entry in archive.files:
        if PurePosixPath(entry.filename).name in _NAMES or entry.filename.endswith(".names"):
            return [line.strip() for line in archive.text(entry).splitlines() if line.strip()]
    for entry in archive.files:
        if entry.filename.endswith((".yaml", ".yml")):
            try:
                told = yaml.safe_load(archive.text(entry))
            except (yaml.YAMLError, RecursionError) as error:
                raise unreadable(path, f"{entry.filename!r} is no YAML: {error}") from error
            names = told.get("names") if isinstance(told, dict) else None
            if isinstance(names, list):
                return [str(name) for name in names]
            if isinstance(names, dict) and all(isinstance(number, int) for number in names):
                return [
                    str(names.get(number, "")) for number in range(min(max(names, default=-1) + 1, 100_000))
                ]
    raise unreadable(path, "it has neither a `classes.txt` nor a `data.yaml` with `names`")


def _row(key: str, lines: list[str], names: list[str]) -> Row | NoRow | None:
    """None for an image without boxes."""
    regions: list[Row] = []
    for number, line in enumerate(lines, 1):
        of, _, values = line.strip().partition(" ")
        if not of:
            continue
        if not of.isdecimal() or int(of) >= len(names):
            return NoRow(
                "class", f"line {number} of {key!r} begins with {of!r}, and there are {len(names)} classes"
            )
        if not values or not all(map(_is_number, values.split())):
            return NoRow("line", f"line {number} of {key!r} is not `class x y width height`")
        regions.append({"class": names[int(of)], "values": values.strip()})
    if not regions:
        return None
    return row_of({"key": key}, [one["class"] for one in regions], repr(key), annotation={"yolo": regions})


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


FORMAT = Yolo()
