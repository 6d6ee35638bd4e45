"""Spaces of embeddings: as they are, by the foundation, or joined."""

import numpy as np

from worker.heads.calibration import scale_of
from worker.scoring.space import DIRECTIONS, Frame
from worker.selection.spaces import WhitenedSpace, of_equal_length


def parts(n: int = 300) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    trained = 3 + rng.normal(size=(n, 20))
    pretrained = np.abs(rng.normal(size=(n, 200)) * np.geomspace(1, 0.01, 200))
    return trained.astype(np.float16), pretrained.astype(np.float16)


def test_the_pretext_model_alone_stays_as_it_is() -> None:
    trained, pretrained = parts()
    assert Frame.fitted(trained, pretrained).embeddings("trained", trained, pretrained) is trained


def test_pretrained_are_centred_directions_of_length_one_in_the_order_of_their_variance() -> None:
    trained, pretrained = parts()
    found = Frame.fitted(trained, pretrained).embeddings("pretrained", trained, pretrained).astype(np.float32)

    assert found.shape == (300, DIRECTIONS)
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=2e-3)
    assert abs(found.mean(axis=0)).max() < 0.1
    centred = pretrained.astype(np.float32) - pretrained.astype(np.float32).mean(axis=0)
    _, _, directions = np.linalg.svd(centred, full_matrices=False)
    expected = centred @ directions[:DIRECTIONS].T
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert np.allclose(abs(found[:, :5]), abs(expected[:, :5]), atol=1e-2)


def test_joined_is_both_the_pretext_models_part_counting_less() -> None:
    trained, pretrained = parts()
    frame = Frame.fitted(trained, pretrained)
    found = frame.embeddings("joined", trained, pretrained).astype(np.float32)

    assert found.shape == (300, 20 + DIRECTIONS)
    assert np.allclose(np.linalg.norm(found[:, :20], axis=1), 0.3, atol=2e-3)
    assert np.array_equal(found[:, 20:], frame.embeddings("pretrained", trained, pretrained))


def test_few_items_have_few_directions() -> None:
    trained, pretrained = parts(3)
    frame = Frame.fitted(trained, pretrained[:, :50])
    assert np.isfinite(frame.embeddings("joined", trained, pretrained[:, :50])).all()


def test_a_frame_survives_being_stored() -> None:
    trained, pretrained = parts()
    frame = Frame.fitted(trained, pretrained)
    again = Frame.load(frame.arrays())
    assert np.array_equal(
        again.embeddings("joined", trained, pretrained), frame.embeddings("joined", trained, pretrained)
    )


def test_heads_and_neighbours_know_these_spaces_by_their_length() -> None:
    trained, pretrained = parts()
    joined = Frame.fitted(trained, pretrained).embeddings("joined", trained, pretrained).astype(np.float32)

    assert of_equal_length(joined)
    assert len(set(scale_of(joined).tolist())) == 1
    space = WhitenedSpace(joined, None)
    centred = joined - joined.mean(axis=0)
    assert np.allclose(space.of(joined, None), centred / np.linalg.norm(centred, axis=1)[:, None], atol=1e-5)
    as_they_are = trained.astype(np.float32)
    assert not of_equal_length(as_they_are)
    assert len(set(scale_of(as_they_are).tolist())) > 1
