"""What every head that trains on images must keep to, whatever it is."""

from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from worker.arrays import Halves, Ints
from worker.heads import heads
from worker.heads.images import FittedImageHead, ImageHead, Images
from worker.heads.pool_graph import PoolGraph
from worker.modalities.image.backbones import SmallBackbone
from worker.modalities.image.pixels import normalised

POOL, LABELS, N_CLASSES = 90, 45, 3
CPU = torch.device("cpu")

every_image_head = pytest.mark.parametrize(
    "head",
    [kind.model_validate({"steps": 30}) for kind in heads().values() if issubclass(kind, ImageHead)],
    ids=[name for name, kind in heads().items() if issubclass(kind, ImageHead)],
)


def _images(n: int, seed: int) -> tuple[Tensor, Ints]:
    """Stripes of three widths in noise: whatever is flipped or shifted stays what it is."""
    rng = np.random.default_rng(seed)
    classes = np.arange(n) % N_CLASSES
    stripes = (np.arange(12) // np.array([1, 2, 4])[:, None]) % 2
    pixels = stripes[classes][:, None, None, :] * 120.0 + rng.normal(60, 30, (n, 3, 12, 12))
    return torch.from_numpy(pixels.clip(1, 255).astype(np.uint8)), classes


def _backbone() -> nn.Module:
    torch.manual_seed(0)
    return SmallBackbone()


def _embedded(pixels: Tensor) -> Halves:
    with torch.no_grad():
        found: Halves = _backbone().eval()(normalised(pixels)).half().numpy()
    return found


class _Fit:
    """The first 45 of a pool of 90 are labeled."""

    def __init__(self, head: ImageHead, classes: Ints | None = None, black: slice = slice(0)) -> None:
        pixels, truth = _images(POOL, seed=0)
        self.classes = truth[:LABELS] if classes is None else classes
        embeddings = _embedded(pixels)
        pixels = pixels.clone()
        pixels[black] = 0
        self.reported: list[float] = []
        images = Images(
            labeled=pixels[: len(self.classes)],
            read=lambda rows: pixels[torch.from_numpy(rows)],
            backbone=_backbone,
            device=CPU,
            flips=True,
            report=lambda done, message: self.reported.append(done),
        )
        graph = PoolGraph(embeddings, np.random.default_rng(0))
        rng = np.random.default_rng(5)
        self.fitted: FittedImageHead = head.fit_images(
            images, embeddings[: len(self.classes)], self.classes, N_CLASSES, rng, graph
        )


@cache
def _fit(head: ImageHead) -> _Fit:
    """One fit for the tests that ask no more of it."""
    return _Fit(head)


@every_image_head
def test_learns_what_images_show(head: ImageHead) -> None:
    unseen, truth = _images(150, seed=1)
    fit = _fit(head)

    probabilities = fit.fitted.probabilities_of(unseen)

    assert probabilities.shape == (150, N_CLASSES)
    assert probabilities.dtype == np.float32
    assert (probabilities >= 0).all()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    assert (probabilities.argmax(axis=1) == truth).mean() > 0.9
    assert fit.fitted.name in heads()
    assert len(fit.reported) > 20
    assert fit.reported == sorted(fit.reported)
    assert fit.reported[-1] == pytest.approx(1)
    assert fit.fitted.held_out is not None
    assert (fit.fitted.held_out.argmax(axis=1) == fit.classes).mean() > 0.8


@every_image_head
def test_held_out_probabilities_know_nothing_of_their_labels(head: ImageHead) -> None:
    """Labels by the dice: a head that had seen them could repeat them, one that had not is right by chance."""
    classes = np.random.default_rng(3).permutation(np.arange(LABELS) % N_CLASSES)

    fit = _Fit(head, classes)

    assert fit.fitted.held_out is not None
    np.testing.assert_allclose(fit.fitted.held_out.sum(axis=1), 1, atol=1e-5)
    assert (fit.fitted.held_out.argmax(axis=1) == classes).mean() < 0.6
    assert fit.fitted.held_out_loss is not None
    assert fit.fitted.held_out_loss > 0.9


@every_image_head
def test_an_answer_depends_on_nothing_but_its_image(head: ImageHead) -> None:
    unseen, _ = _images(150, seed=1)
    fitted = _fit(head).fitted

    together = fitted.probabilities_of(unseen)

    np.testing.assert_allclose(fitted.probabilities_of(unseen[70:71]), together[70:71], atol=1e-5)
    assert fitted.probabilities_of(unseen[:0]).shape == (0, N_CLASSES)


@every_image_head
def test_same_seed_same_head_and_it_comes_back_from_its_arrays(head: ImageHead) -> None:
    unseen, _ = _images(30, seed=1)
    once, again = _fit(head).fitted, _Fit(head).fitted
    arrays = once.arrays()

    for name, array in again.arrays().items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, arrays[name])
    loaded = head.load_images(arrays, SmallBackbone(), CPU)
    np.testing.assert_array_equal(loaded.probabilities_of(unseen), once.probabilities_of(unseen))
    assert loaded.temperature == pytest.approx(once.temperature)
    assert loaded.held_out is None


@every_image_head
def test_images_that_cannot_be_read_teach_nothing(head: ImageHead) -> None:
    unseen, truth = _images(150, seed=1)

    fitted = _Fit(head, black=slice(30, 60)).fitted

    assert (fitted.probabilities_of(unseen).argmax(axis=1) == truth).mean() > 0.9


@every_image_head
def test_two_labels_are_enough_to_begin(head: ImageHead) -> None:
    fitted = _Fit(head.model_copy(update={"steps": 2}), classes=np.array([0, 1])).fitted

    assert fitted.held_out is not None
    assert np.isfinite(fitted.held_out).all()
    assert np.isfinite(fitted.probabilities_of(_images(5, seed=1)[0])).all()
