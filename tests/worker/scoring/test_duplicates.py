import numpy as np
import pytest
import torch

from tests.worker.modalities.image.test_sketches import images
from worker.modalities.image.sketches import (
    ImageSketcher,
    Thumbnails,
    changed_slightly,
    differences,
    thumbnails,
)
from worker.scoring.duplicates import representatives, threshold

LARGEST = 7.0


def with_copies(pictures: int, copies: int, seed: int = 0) -> tuple[Thumbnails, np.ndarray]:
    """Thumbnails of pictures and of slightly changed copies of them, mixed; and which picture each shows."""
    originals = images(pictures, seed=seed)
    changed = changed_slightly(originals.repeat(copies, 1, 1, 1), torch.Generator().manual_seed(1))
    shows = np.tile(np.arange(pictures), copies + 1)
    order = np.random.default_rng(seed).permutation(len(shows))
    return thumbnails(torch.cat([originals, changed]))[order], shows[order]


def nothing_known(rows: Thumbnails) -> list[str | None]:
    return [None] * len(rows)


@pytest.mark.parametrize("copies", [1, 4, 60])
def test_the_first_of_all_copies_represents_them(copies: int) -> None:
    rows, shows = with_copies(pictures=40, copies=copies)

    found = representatives(ImageSketcher(), rows, nothing_known(rows), LARGEST)

    first = np.unique(shows, return_index=True)[1]
    assert (found == first[shows]).mean() > 0.95  # two copies moved apart show different borders
    assert (shows[found] == shows).all()
    assert (found[found] == found).all()


def test_different_pictures_stand_for_themselves() -> None:
    rows = thumbnails(images(200))

    assert representatives(ImageSketcher(), rows, nothing_known(rows), LARGEST).tolist() == list(range(200))


def test_groups_are_stars_not_chains() -> None:
    """Each is near the one before it; the last is far from the first."""
    start, end = images(2).float()
    steps = torch.linspace(0, 1, 41)[:, None, None, None]
    rows = thumbnails((start + steps * (end - start)).round().to(torch.uint8))

    found = representatives(ImageSketcher(), rows, nothing_known(rows), LARGEST)

    assert 3 < len(set(found.tolist())) < 20
    assert differences(rows, np.arange(41), found[:, None]).max() <= LARGEST


def test_equal_content_is_a_duplicate_whatever_the_threshold() -> None:
    rows = thumbnails(images(6))

    assert representatives(ImageSketcher(), rows, ["a", "b", None, None, "b", "a"], 0.0).tolist() == [
        0,
        1,
        2,
        3,
        1,
        0,
    ]


def test_equal_content_goes_before_equal_thumbnails() -> None:
    rows = thumbnails(images(2))[[0, 1, 1]]

    assert representatives(ImageSketcher(), rows, ["a", "a", "b"], 0.0).tolist() == [0, 0, 2]


def test_more_equal_pictures_than_neighbours_are_looked_at() -> None:
    rows = thumbnails(images(3))[np.tile([0, 1, 2], 50)]

    assert representatives(ImageSketcher(), rows, nothing_known(rows), 0.0).tolist() == [0, 1, 2] * 50


@pytest.mark.parametrize("n", [1, 2])
def test_a_tiny_pool(n: int) -> None:
    rows = thumbnails(images(n))

    assert representatives(ImageSketcher(), rows, nothing_known(rows), LARGEST).tolist() == list(range(n))


def test_the_threshold_is_just_above_what_slight_changes_do() -> None:
    views = np.linspace(4, 6, 101, dtype=np.float32)

    assert threshold(ImageSketcher(), views, np.full(101, 90, np.float32)) == pytest.approx(1.1 * 5.98)


def test_where_contrast_is_low_the_threshold_is_too() -> None:
    views = np.full(50, 5, np.float32)

    assert threshold(ImageSketcher(), views, np.full(50, 12, np.float32)) == pytest.approx(1.2)


def test_nothing_to_calibrate_on_groups_only_equal_pictures() -> None:
    assert threshold(ImageSketcher(), np.empty(0, np.float32), np.empty(0, np.float32)) == 0
