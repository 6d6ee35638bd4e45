"""The training loop: it learns, it goes on exactly where it was, and it says when it cannot."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from worker.backbone import make_backbone
from worker.dataset import Dataset
from worker.modalities.image import augmented, normalised
from worker.pretext.rotation import Rotation
from worker.training import Diverged, Recipe, State, Training, spread

CPU = torch.device("cpu")


class Interrupted(Exception):
    pass


def pixels(n: int, size: int = 12) -> Tensor:
    return torch.randint(
        0, 256, (n, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(3)
    )


def make_training(images: Tensor, **values: Any) -> Training:
    torch.manual_seed(0)
    task = values.pop("task", Rotation())
    backbone, dimensions = make_backbone("small", pretrained=False, image_size=images.shape[2])
    defaults: dict[str, Any] = {
        "net": task.make_net(backbone, dimensions, images.shape[2]),
        "task": task,
        "dataset": Dataset(len(images), lambda rows: images[torch.from_numpy(rows)]),
        "recipe": Recipe(epochs=2, batch_size=4, seed=0),
        "device": CPU,
        "prepare": lambda batch, generator: normalised(
            augmented(batch, generator, True) if generator else batch
        ),
        "watched": images[:8],
        "save": lambda state: None,
        "save_interval_s": 1e9,
        "report": lambda done, message: None,
    }
    return Training(**defaults | values)


def weights(training: Training) -> list[Tensor]:
    return [tensor.clone() for tensor in training.net.state_dict().values()]


def without_speed(history: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{name: value for name, value in epoch.items() if name != "images_per_s"} for epoch in history]


def test_it_learns_and_tells_how() -> None:
    upright = torch.zeros(16, 3, 12, 12, dtype=torch.uint8)
    upright[:, :, :6] = pixels(16)[:, :, :6]
    training = make_training(upright, recipe=Recipe(epochs=12, batch_size=8, seed=0))

    history = training.run()

    assert [epoch["epoch"] for epoch in history] == list(range(1, 13))
    assert history[-1]["loss"] < 0.5 * history[0]["loss"]
    assert history[-1]["rotation_accuracy"] > 0.8
    assert set(history[0]) == {
        "epoch",
        "loss",
        "images_per_s",
        "rotation_accuracy",
        "embedding_std",
        "rank_me",
    }


@pytest.mark.parametrize("at", [1, 2, 3, 4, 5], ids=lambda at: f"checkpoint {at}")
def test_resumed_is_the_same_as_undisturbed(at: int) -> None:
    """3 batches an epoch, a checkpoint after each: the third is the end of an epoch."""
    images = pixels(11)
    undisturbed = make_training(images)
    history = undisturbed.run()
    saved: list[State] = []

    def save(state: State) -> None:
        saved.append(copy.deepcopy(state))
        if len(saved) == at:
            raise Interrupted

    with pytest.raises(Interrupted):
        make_training(images, save=save, save_interval_s=0.0).run()
    resumed = make_training(images)

    assert without_speed(resumed.run(saved[-1])) == without_speed(history)
    assert all(map(torch.equal, weights(resumed), weights(undisturbed)))


def test_another_seed_is_another_result() -> None:
    one, two = (make_training(pixels(8), recipe=Recipe(epochs=1, batch_size=4, seed=seed)) for seed in (0, 1))
    one.run()
    two.run()

    assert not all(map(torch.equal, weights(one), weights(two)))


@pytest.mark.parametrize("images", [pixels(1), pixels(3), pixels(1).repeat(9, 1, 1, 1), 0 * pixels(5)])
def test_tiny_and_identical_pools(images: Tensor) -> None:
    history = make_training(images, recipe=Recipe(epochs=2, batch_size=64, seed=0)).run()

    assert all(math.isfinite(value) for epoch in history for value in epoch.values())


def test_batches_without_a_readable_item_are_passed_over() -> None:
    images = pixels(9)
    dataset = Dataset(9, lambda rows: images[torch.from_numpy(rows[rows > 6])])

    assert make_training(images, dataset=dataset).run()[-1]["loss"] > 0


class Failing(Rotation):
    """Gives NaN from its n-th call on, as many times as said; or good losses whose gradients are NaN."""

    def losses(self, net: nn.Module, batch: Tensor, generator: torch.Generator) -> Tensor:
        calls["made"] += 1
        good = super().losses(net, batch, generator)
        if not calls["first"] <= calls["made"] < calls["first"] + calls["bad"]:
            return good
        return good + (0 * good).sqrt() if calls["hidden"] else good * torch.nan


calls = {"made": 0, "first": 0, "bad": 0, "hidden": 0}


@pytest.mark.parametrize(("first", "bad", "hidden"), [(5, 1, 0), (5, 4, 0), (8, 1, 1)])
def test_a_loss_that_is_no_number_rolls_back_and_halves_the_rate(
    first: int, bad: int, hidden: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """4 batches an epoch; what is spoilt in the second shows at its end, and it starts again."""
    calls.update(made=0, first=first, bad=bad, hidden=hidden)
    rates: list[float] = []
    learn = Training._learn

    def recording(self: Training, batch: Tensor, rate: float) -> None:
        rates.append(rate)
        learn(self, batch, rate)

    monkeypatch.setattr(Training, "_learn", recording)
    training = make_training(pixels(16), task=Failing())

    history = training.run()

    assert rates[8:] == [rate / 2 for rate in rates[4:8]]
    assert len(history) == 2
    assert all(math.isfinite(value) for epoch in history for value in epoch.values())
    assert all(weight.isfinite().all() for weight in training.net.parameters())


def test_after_two_rollbacks_it_says_so() -> None:
    calls.update(made=0, first=5, bad=10**6, hidden=0)

    with pytest.raises(Diverged, match="no number"):
        make_training(pixels(16), task=Failing()).run()


def test_the_rate_warms_up_and_falls_to_nothing() -> None:
    rate = Recipe(epochs=1, batch_size=1, seed=0).rate

    assert rate(0.05) == pytest.approx(1e-3)
    assert rate(0.1) == pytest.approx(2e-3)
    assert rate(0.55) == pytest.approx(1e-3)
    assert rate(1.0) == pytest.approx(0)


def test_progress_says_where_it_is() -> None:
    told: list[tuple[float, str]] = []
    make_training(pixels(84), report=lambda done, message: told.append((done, message))).run()

    assert told[0][1].startswith("epoch 1 of 2, loss 1.")
    assert told[0][1].endswith(" left")
    assert [done for done, _ in told] == sorted(done for done, _ in told)


class Given(nn.Module):
    def __init__(self, embeddings: Tensor) -> None:
        super().__init__()
        self.backbone = nn.Identity()
        self.embeddings = embeddings


@pytest.mark.parametrize(("rank", "expected"), [(1, 1), (4, 4), (8, 8)])
def test_rank_me_is_the_number_of_directions_used(rank: int, expected: int) -> None:
    embeddings = torch.eye(8)[torch.arange(64) % rank]

    found = spread(Given(embeddings), [embeddings], CPU)

    assert found["rank_me"] == pytest.approx(expected, rel=0.01)
    assert (found["embedding_std"] == 0) == (rank == 1)
