"""Sentences for journeys, of two subjects; a key tells which."""

import csv
from pathlib import Path

import numpy as np

SUBJECTS = {
    "sea": ["wave", "tide", "harbour", "sail", "anchor", "gull", "reef", "shore", "salt", "storm"],
    "kitchen": ["bread", "oven", "butter", "knife", "onion", "spoon", "simmer", "flour", "plate", "spice"],
}
FILLER = [
    "the",
    "a",
    "of",
    "and",
    "with",
    "near",
    "over",
    "under",
    "slowly",
    "again",
    "old",
    "new",
    "small",
    "bright",
]


def write_table(path: Path, texts: int) -> Path:
    """Sentences of two subjects; a key tells which."""
    rng = np.random.default_rng(0)
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        table = csv.writer(file)
        table.writerow(("key", "text"))
        for number in range(texts):
            subject = list(SUBJECTS)[number % 2]
            words = [*rng.choice(SUBJECTS[subject], 6), *rng.choice(FILLER, 8)]
            table.writerow((f"{subject}-{number}", " ".join(rng.permutation(words))))
    return path
