"""What tells good training from bad: known embeddings and losses give known figures."""

import numpy as np
import pytest
import torch

from worker.evaluation.diagnostics import collapse, of_embeddings, of_losses, peak_memory_gb, taught_nothing
from worker.modalities.text import Text


@pytest.mark.parametrize("rank", [1, 4, 8])
def test_rank_me_is_the_number_of_directions_used(rank: int) -> None:
    found = of_embeddings(torch.eye(8)[torch.arange(64) % rank])

    assert found["rank_me"] == pytest.approx(rank, rel=0.01)
    assert (found["embedding_std"] == 0) == (rank == 1)


def test_losses_that_follow_a_trait_show_it() -> None:
    losses = torch.arange(40.0)
    traits = {
        "brightness": -losses.numpy(),
        "pixel_variance": np.random.default_rng(0).random(40, np.float32),
        "file_size": np.ones(40, np.float32),
    }

    found = of_losses(losses, traits)

    assert found["loss_rho_brightness"] == pytest.approx(-1)
    assert abs(found["loss_rho_pixel_variance"]) < 0.5
    assert "loss_rho_file_size" not in found
    assert found["loss_iqr_over_median"] == pytest.approx(1)
    assert found["loss_ties"] == 0


def test_ties_are_counted() -> None:
    assert of_losses(torch.tensor([1.0, 2.0, 1.0, 3.0]), {})["loss_ties"] == 0.5
    assert of_losses(torch.zeros(5), {})["loss_ties"] == 1


@pytest.mark.parametrize(
    ("rank", "std", "projected", "items", "named"),
    [
        (40, 0.05, 0.2, 512, []),
        (21, 0.036, 0.15, 512, []),
        (19, 0.05, 0.2, 512, ["RankMe"]),
        (40, 0.03, 0.2, 512, ["spread of the embeddings"]),
        (40, 0.05, 0.1, 512, ["projections"]),
        (1, 0.0, 0.0, 512, ["RankMe", "spread of the embeddings", "projections"]),
        (1, 0.0, 0.0, 63, []),
    ],
)
def test_collapse_is_named(rank: float, std: float, projected: float, items: int, named: list[str]) -> None:
    sentence = collapse(
        {"rank_me": 40, "embedding_std": 0.05, "projection_std": 0.2},
        {"rank_me": rank, "embedding_std": std, "projection_std": projected},
        items,
    )

    assert [
        word for word in ("RankMe", "spread of the embeddings", "projections") if word in (sentence or "")
    ] == named


@pytest.mark.parametrize(
    ("rank", "std", "told"), [(44.2, 0.052, False), (20, 0.052, True), (44.2, 0.014, True)]
)
def test_texts_may_keep_less(rank: float, std: float, told: bool) -> None:
    """The first figures are of `next_token` on Subjectivity, whose embeddings are worth more than untrained ones."""
    now = {"rank_me": rank, "embedding_std": std}
    least = {"least_spread": Text.least_spread, "least_rank": Text.least_rank}
    assert (collapse({"rank_me": 94.9, "embedding_std": 0.064}, now, 512, **least) is not None) == told


@pytest.mark.parametrize(
    ("before", "after", "told"), [(0.25, 0.3, True), (0.25, 0.6, False), (0.8, 0.85, False)]
)
def test_a_task_that_taught_nothing_is_named(before: float, after: float, told: bool) -> None:
    sentence = taught_nothing({"rotation_accuracy": before}, {"rotation_accuracy": after, "rank_me": 2})

    assert (sentence is not None) == told


def test_peak_memory_is_plausible() -> None:
    assert 0.05 < peak_memory_gb(torch.device("cpu")) < 100
