"""The next pictures as a task of CVAT: an archive, a manifest that keeps their order, and the classes as its labels.

    SHORTLIST_KEY=… python examples/cvat_task.py ann next --count 50
    cvat-cli --server-host … task create "Next" local next/pictures.zip next/manifest.jsonl \\
        --labels next/labels.json --sorting-method predefined

When it is done, as `--annotator ann`, tags and boxes are labels of the one whom the pictures were reserved for:

    cvat-cli --server-host … task export-dataset 7 done.zip --format "CVAT for images 1.1"
    shortlist import-labels done.zip --annotator ann

A picture is called in CVAT as its item is here, by its key. Reservations last `reservation_ttl_s`, at most a week; what
comes later counts, too, but somebody else may have labeled it as well.
"""

import argparse
import io
import json
import mimetypes
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from shortlist_client import BatchItem, Project, Shortlist

_TURNED = range(5, 9)  # values of EXIF's orientation with which width and height change places
_ORIENTATION = 0x0112


def write_task(project: Project, annotator: str, count: int, folder: Path) -> int:
    """The number of pictures. Raises `ValueError` where there are none, or a key is no name of a picture's file."""
    batch = project.next_batch(annotator, size=count, new=True)
    items = batch.items
    if not items:
        raise ValueError(f"There are no pictures to label now: {batch.reason}.")
    for item in items:
        check_name(item.key)
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / "pictures.zip", "w") as archive:  # pictures are compressed already
        entries = list(add_pictures(project, items, archive))
    lines = [{"version": "1.1"}, {"type": "images"}, *entries]
    manifest = "".join(f"{json.dumps(line, separators=(',', ':'))}\n" for line in lines)
    (folder / "manifest.jsonl").write_text(manifest, encoding="ascii")
    labels = [{"name": name, "type": "any", "attributes": []} for name in project.classes]
    (folder / "labels.json").write_text(json.dumps(labels, ensure_ascii=False), encoding="utf-8")
    return len(items)


def check_name(key: str) -> None:
    path = PurePosixPath(key)
    kind, _ = mimetypes.guess_type(path.name)
    inside = not path.is_absolute() and ".." not in path.parts and "\\" not in key and str(path) == key
    if not inside or not (kind or "").startswith("image/"):
        raise ValueError(
            f"The item {key!r} cannot be a picture of a task: CVAT tells pictures by the names of their files, as "
            "pets/17.jpg. Register it under such a key."
        )


def add_pictures(
    project: Project, items: Sequence[BatchItem], archive: zipfile.ZipFile
) -> Iterator[dict[str, Any]]:
    """Each into the archive; its line of the manifest."""
    for item in items:
        data = project.read(item.id)
        archive.writestr(item.key, data)
        with Image.open(io.BytesIO(data)) as picture:
            width, height = picture.size
            if picture.getexif().get(_ORIENTATION) in _TURNED:
                width, height = height, width
        extension = PurePosixPath(item.key).suffix
        name = item.key.removesuffix(extension)
        yield {"name": name, "extension": extension, "width": width, "height": height}


def main() -> None:
    parser = argparse.ArgumentParser(description="The next pictures as a task of CVAT.")
    parser.add_argument("annotator", help="whom the pictures are reserved for")
    parser.add_argument("folder", type=Path, help="to write into")
    parser.add_argument("--project", help="by name or id; default: the only one")
    parser.add_argument("--count", type=int, default=50, help="of pictures")
    given = parser.parse_args()
    with Shortlist() as client:
        try:
            count = write_task(client.project(given.project), given.annotator, given.count, given.folder)
        except ValueError as error:
            raise SystemExit(str(error)) from None
    print(f"{count} pictures are in {given.folder}, best first.")


if __name__ == "__main__":
    main()
