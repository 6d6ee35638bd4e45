"""Pairs for journeys: a coloured square and what is said of it; a key tells the colour."""

import csv
from pathlib import Path

import numpy as np
from PIL import Image

from tests.pictures import encoded

COLOURS = {"red": (200, 40, 40), "green": (40, 180, 60)}
_SAID = ("a {} square", "this is {}", "somebody painted it {}", "{}, as {} can be", "look how {} it is")


def picture(colour: str, seed: int) -> bytes:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 60, (24, 24, 3))
    top, left = rng.integers(2, 8, 2)
    pixels[top : top + 14, left : left + 14] = np.array(COLOURS[colour]) + rng.integers(-20, 20, 3)
    return encoded(Image.fromarray(pixels.astype(np.uint8)))


def caption(colour: str, seed: int) -> str:
    return f"{_SAID[seed % len(_SAID)].format(colour, colour)}, number {seed}"


def write_pairs(folder: Path, count: int) -> Path:
    """A CSV file, and the images beside it."""
    folder.mkdir(exist_ok=True)
    table = folder / "pairs.csv"
    with table.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["key", "image_path", "caption"])
        for number in range(count):
            colour = tuple(COLOURS)[number % 2]
            (folder / f"{number}.png").write_bytes(picture(colour, number))
            rows.writerow([f"{colour}-{number}", f"{number}.png", caption(colour, number)])
    return table
