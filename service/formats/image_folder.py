"""ImageFolder: a zip with a folder a class, as torchvision, Hugging Face `datasets`, Keras and YOLO read it."""

from collections.abc import Generator, Iterator
from pathlib import Path, PurePosixPath

from service.content.image import CONTENT as IMAGES
from service.errors import ShortlistError
from service.formats import Format, Labels, NumberedRow
from service.formats.archives import ZipWriter, any_name, flat_name, key_of, opened


class ImageFolder(Format):
    """The images themselves, each in the folder of its class. A name keeps the key, with `/` as `%2F`. Annotations have
    no place in it."""

    name = "imagefolder"
    endings = (".zip",)
    media_type = "application/zip"
    streams = True
    generic = True
    several = False

    def fits(self, path: Path) -> bool:
        return super().fits(path) and any_name(path, _is_image)

    def read(self, path: Path) -> Generator[NumberedRow]:
        """By the key that this service writes beside the file, else by the path in the archive."""
        with opened(path) as archive:
            number = 0
            for entry in archive.files:
                if _is_image(entry.filename):
                    number += 1
                    key = entry.comment.decode(errors="replace") or entry.filename
                    yield number, {"key": key, "class": key_of(PurePosixPath(entry.filename).parent.name)}

    def write(self, labels: Labels) -> Iterator[bytes]:
        archive = ZipWriter()
        for row in labels.rows():
            if row.get("annotation") is not None:
                labels.left_out["the annotation has no place in folders"] += 1
            try:
                data = labels.read_item(row)
            except ShortlistError as error:
                labels.left_out[f"it could not be read ({type(error).__name__})"] += 1
                continue
            name = flat_name(row["key"]) + _ending(row["key"], data)
            yield archive.add(f"{flat_name(row['class'])}/{name}", data, comment=row["key"], stored=True)
        yield archive.close(labels.notes)


def _is_image(name: str) -> bool:
    path = PurePosixPath(name)
    return len(path.parts) > 1 and path.suffix.lower() in IMAGES.suffixes


def _ending(key: str, data: bytes) -> str:
    """The ending that a key without one lacks: readers know images by it."""
    if PurePosixPath(key).suffix.lower() in IMAGES.suffixes:
        return ""
    return next((ending for mark, ending in _MARKS if data.startswith(mark)), ".jpg")


_MARKS = (
    (b"\x89PNG", ".png"),
    (b"GIF8", ".gif"),
    (b"BM", ".bmp"),
    (b"RIFF", ".webp"),
    (b"II*\0", ".tif"),
    (b"MM\0*", ".tif"),
    (b"P5", ".pgm"),
    (b"\0" * 128 + b"DICM", ".dcm"),
)

FORMAT = ImageFolder()
