import numpy as np
import pytest
import torch

from worker.arrays import Floats
from worker.scoring.principal_components import principal_components


def pixels(rng: np.random.Generator, items: int = 400) -> Floats:
    """(n, 300) of rank 20 with falling variance, and a little noise."""
    parts = rng.standard_normal((items, 20)) / np.arange(1, 21)
    return (parts @ rng.standard_normal((20, 300)) + 0.001 * rng.standard_normal((items, 300)) + 7).astype(
        np.float32
    )


def test_they_are_those_of_the_exact_decomposition() -> None:
    features = pixels(np.random.default_rng(0))
    found = principal_components(features, 5, np.random.default_rng(1))
    left, values, _ = np.linalg.svd(features - features.mean(axis=0), full_matrices=False)
    exact = left[:, :5] * values[:5] / (left[:, 0] * values[0]).std()
    assert np.abs(np.abs(found) - np.abs(exact)).max() < 0.02  # their signs are free


def test_the_unit_is_the_first_ones_standard_deviation() -> None:
    found = principal_components(1_000 * pixels(np.random.default_rng(0)), 5, np.random.default_rng(1))
    assert found[:, 0].std() == pytest.approx(1, abs=1e-3)
    assert (np.diff(found.std(axis=0)) < 0).all()


def test_same_seed_same_components_whatever_torch_drew_before() -> None:
    features = pixels(np.random.default_rng(0))
    once = principal_components(features, 5, np.random.default_rng(1))
    torch.rand(100)
    assert np.array_equal(once, principal_components(features, 5, np.random.default_rng(1)))


def test_torchs_own_random_numbers_go_on_as_before() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)[1]
    torch.manual_seed(3)
    torch.rand(1)
    principal_components(pixels(np.random.default_rng(0)), 5, np.random.default_rng(1))
    assert torch.rand(1)[0] == expected


@pytest.mark.parametrize(("items", "dimensions"), [(1, 1), (3, 3), (400, 128)])
def test_no_more_of_them_than_there_are_items(items: int, dimensions: int) -> None:
    found = principal_components(pixels(np.random.default_rng(0), items), 128, np.random.default_rng(1))
    assert found.shape == (items, dimensions)
    assert np.isfinite(found).all()
