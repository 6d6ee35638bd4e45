from pathlib import Path

import numpy as np
import pytest

from benchmarks.labels import embeddings, spaces
from benchmarks.labels.pools import Pool
from benchmarks.labels.spaces import in_space
from tests.benchmarks.clusters import make_embedded


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Clusters, whose pictures and pretrained features are made up."""
    pool = make_embedded()
    n, t = len(pool.classes), len(pool.test_classes)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (n + t, 3, 40, 40), np.uint8)
    made = Pool(
        pixels=pixels[:n],
        classes=pool.classes,
        groups=pool.groups,
        test_pixels=pixels[n:],
        test_classes=pool.test_classes,
    )
    monkeypatch.setattr(spaces, "make_pool", lambda name: made)
    np.save(tmp_path / "features.npy", rng.normal(size=(n + t, 200)).astype(np.float16))
    monkeypatch.setattr(spaces, "features", lambda judge, name: tmp_path / "features.npy")
    path = tmp_path / "clusters.npz"
    embeddings.write(path, pool)
    embeddings.write_beside(path, pool.copies, pool.thumbnails)
    return path


@pytest.mark.parametrize(("name", "dimensions"), [("raw", 128), ("pretrained", 128), ("joined", 8 + 128)])
def test_a_space_has_other_embeddings_of_the_same_items(path: Path, name: str, dimensions: int) -> None:
    before, made = embeddings.load(path), embeddings.load(in_space(name, "clusters", path))
    assert made.key != before.key  # else runs in one would be taken for runs in the other
    assert made.embeddings.shape == (len(before.classes), dimensions)
    assert made.test_embeddings.shape == (len(before.test_classes), dimensions)
    for same in ("classes", "groups", "test_classes", "copies", "thumbnails"):
        assert np.array_equal(getattr(made, same), getattr(before, same))


def test_a_provisional_score_run_has_no_pretext_losses(path: Path) -> None:
    assert not embeddings.load(in_space("raw", "clusters", path)).pretext_losses.any()
    assert embeddings.load(in_space("joined", "clusters", path)).pretext_losses.any()


def test_it_is_made_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = in_space("joined", "clusters", path)
    monkeypatch.delattr(spaces, "features")
    assert in_space("joined", "clusters", path) == made
    assert in_space("trained", "clusters", path) == path
