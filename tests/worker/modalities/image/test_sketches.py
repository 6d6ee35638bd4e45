import numpy as np
import torch
from torch import Tensor

from worker.modalities.image.sketches import changed_slightly, differences, spectra, thumbnails, width


def images(n: int, side: int = 20, seed: int = 0) -> Tensor:
    """(n, 3, side, side) uint8: smooth, as pictures are."""
    coarse = torch.randint(0, 256, (n, 3, 6, 6), generator=torch.Generator().manual_seed(seed)).float()
    smooth = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bilinear")
    return smooth.round().to(torch.uint8)


def pairs(first: Tensor, second: Tensor) -> np.ndarray:
    rows = np.concatenate([thumbnails(first), thumbnails(second)])
    own = np.arange(len(first))
    return differences(rows, own, own[:, None] + len(own))[:, 0]


def test_differences_are_those_of_a_plain_loop() -> None:
    rows = thumbnails(images(6, side=10))
    first, others = np.array([0, 3]), np.array([[1, 2], [4, 3]])

    found = differences(rows, first, others)

    for i, one in enumerate(first):
        for j, other in enumerate(others[i]):
            mine, theirs = (rows[row, :-2].reshape(10, 10).astype(float) for row in (one, other))
            laid = [
                np.sqrt(((mine[y : y + 6, x : x + 6] - theirs[2:8, 2:8]) ** 2).mean())
                for y in range(5)
                for x in range(5)
            ]
            colours = np.abs(rows[one, -2:].astype(float) - rows[other, -2:]).max()
            assert abs(found[i, j] - max(min(laid), colours)) < 0.02


def test_a_moved_picture_is_the_same_picture() -> None:
    pictures = images(5)
    moved = torch.roll(pictures, (2, -1), dims=(2, 3))

    assert pairs(pictures, moved).max() < 1
    assert pairs(pictures, pictures.flip(0)).min(where=np.arange(5) != 2, initial=99) > 10


def test_another_colour_is_another_picture() -> None:
    grey = images(4).float().mean(dim=1, keepdim=True).expand(-1, 3, -1, -1) / 2
    luminance = torch.tensor([0.299, 0.587, 0.114])
    tint = torch.tensor([60.0, 0.0, 0.0])
    tinted = grey + (tint - (tint * luminance).sum())[:, None, None]  # as light as before

    assert pairs((grey + 40).to(torch.uint8), (tinted + 40).to(torch.uint8)).min() > 15


def test_slight_changes_are_slight_and_seeded() -> None:
    pictures = images(8)
    views = [changed_slightly(pictures, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]

    assert (views[0] == views[1]).all()
    assert (views[0] != views[2]).any()
    assert 2 < pairs(views[0], views[2]).max() < 9


def test_large_images_are_made_small() -> None:
    small = thumbnails(images(2, side=50))

    assert small.shape == (2, 32 * 32 + 2) == (2, width(50))
    assert thumbnails(images(2, side=8)).shape == (2, 66) == (2, width(8))


def test_moving_hardly_changes_the_spectrum() -> None:
    pictures = images(30)
    moved = torch.roll(pictures, (1, 1), dims=(2, 3))
    places, others = spectra(thumbnails(pictures)), spectra(thumbnails(moved))

    nearest = ((places[:, None] - others[None]) ** 2).sum(axis=2).argmin(axis=1)

    assert nearest.tolist() == list(range(30))
