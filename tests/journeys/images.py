"""Folders of tiny images that a person, and a small network, can tell apart. The folder's name is the class."""

import re
from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"red": (200, 60, 60), "green": (60, 190, 60), "blue": (60, 60, 200)}
SIDE = 16


def write_images(folder: Path, count: int, classes: tuple[str, ...] = tuple(COLOURS), seed: int = 0) -> Path:
    """`<class>/<number>.png`: the class's colour, a ramp that knows where up is, and noise."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(-50, 50, SIDE)[:, None, None]
    for number in range(count):
        name = classes[number % len(classes)]
        pixels = np.array(COLOURS[name]) + ramp + rng.normal(0, 20, (SIDE, SIDE, 3))
        path = folder / name / f"{seed}-{number:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
    return folder


def true_class(key: str) -> str:
    """`red/0-0001.png` is red, and so is `red-1`."""
    return re.split("[/-]", key)[0]
