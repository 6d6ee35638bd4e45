"""Small images for tests, all different, all made from a number."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def picture(number: int, width: int = 12, height: int = 12) -> Image.Image:
    pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def write_pictures(folder: Path, count: int, first: int = 0, **size: int) -> Path:
    """`00000.png`, … in the folder, which is made when missing."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        picture(number, **size).save(folder / f"{number:05}.png")
    return folder


def write_parquet(path: Path, columns: dict[str, list[Any]], row_group_size: int = 3) -> Path:
    pq.write_table(pa.table(columns), path, row_group_size=row_group_size)
    return path
