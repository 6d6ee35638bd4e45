"""Pictures to pixels, and batches that are augmented on their device."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from service.content.contract import Limits
from service.content.image import CONTENT
from tests.pictures import encoded, picture
from worker.modalities.image import Image as ImageModality
from worker.modalities.image.pixels import augmented, image_size_for, normalised, to_pixels
from worker.models.spec import input_of

LIMITS = Limits(max_pixels=10**6, max_text_bytes=1)


@pytest.mark.parametrize(
    ("median", "device", "size"),
    [
        (28, "cpu", 28),
        (500, "cpu", 64),
        (32.5, "cpu", 32),
        (3, "cpu", 8),
        (500, "cuda", 224),
        (96, "cuda", 96),
    ],
)
def test_the_size_follows_the_pool(median: float, device: str, size: int) -> None:
    assert image_size_for(median, torch.device(device)) == size


def test_an_image_of_the_right_size_is_taken_as_it_is() -> None:
    found = to_pixels(picture(1, 16, 16), 16)

    assert found.dtype == torch.uint8
    assert (found.permute(1, 2, 0).numpy() == np.asarray(picture(1, 16, 16))).all()


def test_the_centre_square_is_taken() -> None:
    wide = Image.new("RGB", (40, 10), "red")
    wide.paste((0, 0, 255), (15, 0, 25, 10))

    found = to_pixels(wide, 8)

    assert found.shape == (3, 8, 8)
    assert found[2].min() > 200  # but for interpolation at the border
    assert found[0].max() < 50


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1)])
def test_extreme_shapes(size: tuple[int, int]) -> None:
    assert to_pixels(Image.new("RGB", size, "white"), 8).min() == 255


def test_normalised_has_zero_mean_and_unit_variance_for_imagenet() -> None:
    mean = torch.tensor([0.485, 0.456, 0.406]).mul(255).round().byte().view(1, 3, 1, 1).expand(1, 3, 4, 4)

    assert normalised(mean).abs().max() < 0.02


def _slowly(image: torch.Tensor, dy: int, dx: int, flip: bool) -> torch.Tensor:
    """The same by padding and cutting."""
    padded = torch.nn.functional.pad(image[None].float(), (3, 3, 3, 3), mode="reflect")[0]
    size = image.shape[1]
    cut = padded[:, 3 + dy : 3 + dy + size, 3 + dx : 3 + dx + size]
    return (cut.flip(2) if flip else cut).byte()


def test_augmentation_is_a_shift_with_reflected_border_and_a_flip() -> None:
    pixels = torch.stack([to_pixels(picture(number), 12) for number in range(40)])

    found = augmented(pixels, torch.Generator().manual_seed(0))

    candidates = [(dy, dx, flip) for dy in range(-3, 4) for dx in range(-3, 4) for flip in (False, True)]
    chosen = [
        {one for one in candidates if torch.equal(_slowly(before, *one), after)}
        for before, after in zip(pixels, found, strict=True)
    ]
    assert all(len(matches) == 1 for matches in chosen)
    assert len(set.union(*chosen)) > 20


def test_augmentation_is_reproducible() -> None:
    pixels = torch.stack([to_pixels(picture(number), 12) for number in range(4)])

    one, two = (augmented(pixels, torch.Generator().manual_seed(5)) for _ in range(2))

    assert torch.equal(one, two)


def test_training_sees_the_bits_that_a_preview_shows() -> None:
    values = (np.arange(48 * 48).reshape(48, 48) * 4095 // (48 * 48 - 1)).astype(np.uint16)
    dim = (values // 2).astype(np.uint16)
    files = [encoded(Image.fromarray(each), kind) for each in (values, dim) for kind in ("PNG", "TIFF")]
    facts = [CONTENT.inspect(data, LIMITS) for data in files]

    modality = ImageModality(image_size=48).resolved(facts, torch.device("cpu"))

    assert modality.bits == 12
    assert input_of(modality)["bits"] == 12
    assert ImageModality(image_size=9).resolved(facts, torch.device("cpu")).bits == 12
    assert ImageModality().for_raw_features(facts).bits == 12
    shown = [CONTENT.preview(data, LIMITS, 48, {"bits": modality.bits}).data for data in files]
    for data, preview in zip(files, shown, strict=True):
        pixels, found = modality.decode(data, LIMITS)
        assert (pixels.permute(1, 2, 0).numpy() == np.asarray(Image.open(io.BytesIO(preview)))).all()
        assert found == CONTENT.inspect(data, LIMITS)
    seen, _ = modality.for_foundation().decode(files[0], LIMITS)  # pretrained weights see the same range
    assert (int(seen.min()), int(seen.max())) == (0, 255)
    brightest = [int(modality.decode(data, LIMITS)[0].max()) for data in files]
    assert brightest == [255, 255, 127, 127]  # of one pool: half as bright stays half as bright


def test_a_pool_without_deep_images_keeps_the_input_that_it_had() -> None:
    modality = ImageModality().resolved([{"width": 40, "height": 30}], torch.device("cpu"))

    assert input_of(modality) == {"modality": "image", "image_size": 30}
