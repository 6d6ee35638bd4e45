"""Views show parts of the image in other colours; what is drawn for a batch does not depend on the batch."""

import pytest
import torch
from torch import Tensor
from torchvision.transforms import functional as reference

from worker.modalities.image.pixels import normalised
from worker.modalities.image.views import (
    blurred,
    brightness_of,
    crops,
    from_colours,
    random_boxes,
    recoloured,
    to_colours,
    view,
)

CPU = torch.device("cpu")


def images(n: int, size: int = 16) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return normalised(torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8, generator=generator))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("size", [8, 16, 64])
def test_a_view_is_an_image_of_the_side_asked_for(size: int) -> None:
    made = view(images(3, size), seeded(), each=True, side=size // 2)

    assert made.shape == (3, 3, size // 2, size // 2)
    assert made.is_contiguous(memory_format=torch.channels_last)
    assert (to_colours(made) > -1e-5).all()
    assert (to_colours(made) < 1 + 1e-5).all()


@pytest.mark.parametrize("size", [16, 64])
def test_one_draw_for_all_or_one_for_each(size: int) -> None:
    twice = images(1, size).repeat(2, 1, 1, 1)

    alike = view(twice, seeded(), each=False)
    unlike = view(twice, seeded(), each=True)

    assert torch.equal(alike[0], alike[1])
    assert not torch.allclose(unlike[0], unlike[1], atol=0.1)


@pytest.mark.parametrize("size", [16, 64])
def test_a_shared_draw_gives_an_image_the_same_view_in_any_batch(size: int) -> None:
    batch = images(5, size)

    together = view(batch, seeded(), each=False)
    alone = torch.cat([view(image[None], seeded(), each=False) for image in batch])

    assert torch.allclose(together, alone, atol=1e-5)


def test_the_whole_the_mirrored_and_a_quarter() -> None:
    batch = images(1)

    assert torch.allclose(crops(batch, torch.tensor([[0.0, 0, 1, 1]]), 16), batch, atol=1e-5)
    assert torch.allclose(crops(batch, torch.tensor([[1.0, 0, -1, 1]]), 16), batch.flip(3), atol=1e-5)
    assert torch.allclose(crops(batch, torch.tensor([[0.5, 0, 0.5, 0.5]]), 8), batch[:, :, :8, 8:], atol=1e-5)


def test_boxes_lie_inside_and_have_the_area_and_ratio_asked_for() -> None:
    left, top, width, height = random_boxes(2_000, seeded(), (0.2, 0.5), CPU).unbind(1)
    ends = torch.stack([left, left + width, top, top + height])
    areas = width.abs() * height

    assert (ends > -1e-6).all()
    assert (ends < 1 + 1e-6).all()
    assert areas.min() > 0.2 - 1e-5
    assert areas.max() < 0.5 + 1e-5
    assert areas.mean().item() == pytest.approx(0.35, abs=0.01)
    assert (width.abs() / height).max() < 4 / 3 + 1e-5
    assert (width < 0).float().mean().item() == pytest.approx(0.5, abs=0.05)


def test_a_fifth_is_grey_and_the_rest_is_coloured() -> None:
    colours = to_colours(recoloured(images(1_000, 4), seeded(), 1_000, 0.5))
    grey = (colours.amax(1) - colours.amin(1)).amax((1, 2)) < 1e-4

    assert grey.float().mean().item() == pytest.approx(0.2, abs=0.04)


def test_the_jitter_is_that_of_the_reference() -> None:
    """Without hue, which is turned in another space, and where nothing is clipped."""
    pale = from_colours(0.4 + 0.2 * to_colours(images(64)))
    draw = torch.rand((6, 64), generator=seeded())
    jitter = 0.5 * (draw[0] < 0.8)
    brightness, contrast, saturation = 1 + 0.8 * jitter * (2 * draw[1:4] - 1)
    still = (jitter == 0) & (draw[5] >= 0.2)

    made = to_colours(recoloured(pale, seeded(), 64, 0.5))

    for row, image in enumerate(to_colours(pale)):
        expected = reference.adjust_brightness(image, brightness[row].item())
        expected = reference.adjust_contrast(expected, contrast[row].item())
        expected = reference.adjust_saturation(expected, saturation[row].item() * (draw[5, row] >= 0.2))
        # The hue moves no brightness: the reference's luminance is rounded otherwise, hence the tolerance.
        assert torch.allclose(
            brightness_of(made[row][None]), brightness_of(expected[None].clamp(0, 1)), atol=5e-3
        )
        if still[row]:
            assert torch.allclose(made[row], image, atol=1e-5)
    assert still.any()


def test_a_blur_keeps_what_is_flat_and_smooths_what_is_not() -> None:
    noise = torch.rand(40, 3, 64, 64, generator=seeded())

    flat = blurred(torch.full((4, 3, 64, 64), 0.3), seeded(), 4)
    smooth = blurred(noise, seeded(), 40)

    untouched = torch.isclose(smooth, noise, atol=1e-6).flatten(1).all(1)
    assert torch.allclose(flat, torch.full_like(flat, 0.3), atol=1e-6)
    assert 5 < untouched.sum() < 35
    assert (smooth.std((1, 2, 3)) < noise.std((1, 2, 3)) - 1e-4)[~untouched].any()


def test_colours_there_and_back() -> None:
    assert torch.allclose(from_colours(to_colours(images(2))), images(2), atol=1e-6)
    assert to_colours(normalised(torch.full((1, 3, 1, 1), 51, dtype=torch.uint8))).flatten().tolist() == (
        pytest.approx([0.2] * 3)
    )


def test_lower_precision_moves_nothing() -> None:
    """As on CUDA, where networks compute in bf16."""
    some, boxes = images(4, 64), random_boxes(4, seeded(), (0.1, 0.4), CPU)
    exact = crops(some, boxes, 32), recoloured(some, seeded(), 4, 1.0)
    with torch.autocast("cpu", torch.bfloat16):
        found = crops(some, boxes, 32), recoloured(some, seeded(), 4, 1.0)

    assert all(torch.equal(one, other) for one, other in zip(found, exact, strict=True))
