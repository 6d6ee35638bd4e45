"""What every head must keep to, whatever it is."""

import numpy as np
import pytest

from worker.arrays import Halves, Ints
from worker.heads import FittedHead, Head, heads
from worker.heads.pool_graph import PoolGraph

every_head = pytest.mark.parametrize("head", [kind() for kind in heads().values()], ids=heads())


def _clusters(n: int, n_classes: int = 3, seed: int = 0) -> tuple[Halves, Ints]:
    rng = np.random.default_rng(seed)
    classes = np.arange(n) % n_classes
    centers = np.random.default_rng(99).normal(size=(n_classes, 8)) * 2
    return (centers[classes] + rng.normal(size=(n, 8))).astype(np.float16), classes


def _fit(head: Head, embeddings: Halves, classes: Ints, n_classes: int, seed: int = 0) -> FittedHead:
    """With a pool as the job gives it: the labeled items, and others."""
    pool = np.concatenate([embeddings, embeddings[:40] + np.float16(0.1)])
    graph = PoolGraph(pool, np.random.default_rng(seed))
    return head.fit(embeddings, classes, n_classes, np.random.default_rng(seed), graph)


@every_head
@pytest.mark.parametrize("n", [1, 2, 3, 11, 60])
def test_probabilities_are_probabilities(head: Head, n: int) -> None:
    embeddings, classes = _clusters(n)

    fitted = _fit(head, embeddings, classes, 3)
    probabilities = fitted.probabilities(_clusters(40, seed=1)[0])

    assert probabilities.shape == (40, 3)
    assert probabilities.dtype == np.float32
    assert (probabilities >= 0).all()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)


@every_head
def test_learns_clusters(head: Head) -> None:
    embeddings, classes = _clusters(60)
    unseen, truth = _clusters(300, seed=1)

    probabilities = _fit(head, embeddings, classes, 3).probabilities(unseen)

    assert (probabilities.argmax(axis=1) == truth).mean() > 0.9


@every_head
def test_learns_without_a_pool(head: Head) -> None:
    embeddings, classes = _clusters(60)
    unseen, truth = _clusters(300, seed=1)

    fitted = head.fit(embeddings, classes, 3, np.random.default_rng(0))

    assert (fitted.probabilities(unseen).argmax(axis=1) == truth).mean() > 0.9


@every_head
def test_says_what_it_lost_on_labels_held_out(head: Head) -> None:
    embeddings, classes = _clusters(60)
    unseen, truth = _clusters(300, seed=1)

    fitted = _fit(head, embeddings, classes, 3)
    loss = -np.log(fitted.probabilities(unseen)[np.arange(300), truth]).mean()

    assert fitted.held_out_loss == pytest.approx(loss, abs=0.15)
    assert fitted.name in heads()


@every_head
def test_a_class_never_seen_is_unlikely_but_possible(head: Head) -> None:
    embeddings, classes = _clusters(60)

    probabilities = _fit(head, embeddings, classes, 5).probabilities(embeddings)

    assert (probabilities[:, 3:] > 0).all()
    assert probabilities[:, 3:].sum(axis=1).max() < 0.1


@every_head
def test_one_class_only_is_likely_but_not_certain(head: Head) -> None:
    embeddings, _ = _clusters(20)

    fitted = _fit(head, embeddings, np.full(20, 1), 3)
    probabilities = fitted.probabilities(embeddings)

    assert (probabilities[:, 1] > 0.9).all()
    assert (probabilities[:, 1] < 1).all()


@every_head
def test_identical_items_of_two_classes_get_the_classes_shares(head: Head) -> None:
    classes = np.repeat([0, 1], [30, 10])
    embeddings = np.ones((40, 4), np.float16)

    probabilities = _fit(head, embeddings, classes, 2).probabilities(embeddings[:1])

    assert probabilities[0, 0] == pytest.approx(0.75, abs=0.1)


@every_head
def test_same_seed_same_head(head: Head) -> None:
    embeddings, classes = _clusters(60)

    once, again = (_fit(head, embeddings, classes, 3, seed=5).arrays() for _ in range(2))

    assert once.keys() == again.keys()
    for name in once:
        np.testing.assert_array_equal(once[name], again[name])


@every_head
def test_comes_back_from_its_arrays(head: Head) -> None:
    embeddings, classes = _clusters(60)
    fitted = _fit(head, embeddings, classes, 3)

    loaded = head.load(fitted.arrays())

    np.testing.assert_array_equal(loaded.probabilities(embeddings), fitted.probabilities(embeddings))
    for array in loaded.arrays().values():
        assert array.dtype == np.float32


@every_head
def test_refuses_embeddings_that_are_not_finite(head: Head) -> None:
    embeddings, classes = _clusters(60)
    embeddings[3] = np.nan

    with pytest.raises(ValueError, match="not finite"):
        _fit(head, embeddings, classes, 3)


@every_head
def test_explains_itself(head: Head) -> None:
    assert len(type(head).__doc__ or "") > 60
    for name, field in type(head).model_fields.items():
        assert field.description, name
