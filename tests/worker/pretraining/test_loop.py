"""The training loop: it learns, it goes on exactly where it was, and it says when it cannot."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from worker.device import Sent
from worker.evaluation.diagnostics import collapse
from worker.modalities import Modality
from worker.modalities.image import Image
from worker.modalities.image.backbones import make_backbone
from worker.modalities.image.pixels import augmented, normalised
from worker.modalities.image.pretext.rotation import Rotation
from worker.pool.dataset import Dataset
from worker.pretext import PretextTask
from worker.pretext.byol import BYOL
from worker.pretraining.loop import Diverged, State, Training
from worker.pretraining.recipe import RATES, Recipe

CPU = torch.device("cpu")


SPEED = {"images_per_s", "peak_memory_gb"}


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
        "net": task.make_net(backbone, dimensions, Image(image_size=images.shape[2])),
        "task": task,
        "dataset": Dataset(len(images), lambda rows: images[torch.from_numpy(rows)]),
        "recipe": Recipe(epochs=2, batch_size=4, seed=0),
        "device": CPU,
        "prepare": lambda batch, generator: normalised(augmented(batch, generator) if generator else batch),
        "sample": images[:8],
        "save": lambda state: None,
        "save_interval_s": 1e9,
        "report": lambda done, message: None,
        "warn": lambda sentence: None,
    }
    return Training(**defaults | values)


def weights(training: Training) -> list[Tensor]:
    return [tensor.clone() for tensor in training.net.state_dict().values()]


def without_speed(history: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{name: value for name, value in epoch.items() if name not in SPEED} for epoch in history]


def test_it_learns_and_tells_how() -> None:
    upright = torch.zeros(16, 3, 12, 12, dtype=torch.uint8)
    upright[:, :, :6] = pixels(16)[:, :, :6]
    training = make_training(upright, recipe=Recipe(epochs=12, batch_size=8, seed=0))

    trained = training.run()
    history = training.history

    assert [epoch["epoch"] for epoch in history] == list(range(1, 13))
    assert history[-1]["loss"] < 0.5 * history[0]["loss"]
    assert history[-1]["rotation_accuracy"] > 0.8
    measured = {"rotation_accuracy", "embedding_std", "rank_me", "loss_ties", "loss_iqr_over_median"}
    assert set(trained) == set(training.untrained) == measured
    assert set(history[0]) == measured | {"epoch", "loss"} | SPEED
    assert {name: history[-1][name] for name in measured} == trained


@pytest.mark.parametrize("at", [1, 2, 3, 4, 5], ids=lambda at: f"checkpoint {at}")
def test_resumed_is_the_same_as_undisturbed(at: int) -> None:
    """3 batches an epoch, a checkpoint after each: the third is the end of an epoch."""
    images = pixels(11)
    undisturbed = make_training(images)
    trained = undisturbed.run()
    saved: list[State] = []

    def save(state: State) -> None:
        saved.append(copy.deepcopy(state))
        if len(saved) == at:
            raise Interrupted

    with pytest.raises(Interrupted):
        make_training(images, save=save, save_interval_s=0.0).run()
    resumed = make_training(images)

    assert resumed.run(saved[-1]) == trained
    assert without_speed(resumed.history) == without_speed(undisturbed.history)
    assert resumed.untrained == undisturbed.untrained
    assert all(map(torch.equal, weights(resumed), weights(undisturbed)))


def test_another_seed_is_another_result() -> None:
    one, two = (make_training(pixels(8), recipe=Recipe(epochs=1, batch_size=4, seed=seed)) for seed in (0, 1))
    one.run()
    two.run()

    assert not all(map(torch.equal, weights(one), weights(two)))


@pytest.mark.parametrize("images", [pixels(1), pixels(3), pixels(1).repeat(9, 1, 1, 1), 0 * pixels(5)])
def test_tiny_and_identical_pools(images: Tensor) -> None:
    training = make_training(images, recipe=Recipe(epochs=2, batch_size=64, seed=0))
    training.run()

    assert all(math.isfinite(value) for epoch in training.history for value in epoch.values())


def test_batches_without_a_readable_item_are_passed_over() -> None:
    images = pixels(9)
    dataset = Dataset(9, lambda rows: images[torch.from_numpy(rows[rows > 6])])

    training = make_training(images, dataset=dataset)
    training.run()

    assert training.history[-1]["loss"] > 0


class Failing(Rotation):
    """Gives bad losses from its n-th call in training on, as many times as said. NaN; much too large; or good
    losses whose gradients are NaN.
    """

    def losses(self, net: nn.Module, batch: Tensor, generator: torch.Generator) -> Tensor:
        good = super().losses(net, batch, generator)
        if not net.training:
            return good
        calls["made"] += 1
        if not calls["first"] <= calls["made"] < calls["first"] + calls["bad"]:
            return good
        return {"nan": good * torch.nan, "huge": good * 100, "hidden": good + (0 * good).sqrt()}[calls["how"]]


calls: dict[str, Any] = {}


@pytest.mark.parametrize(
    ("first", "bad", "how", "sentence"),
    [
        (5, 1, "nan", "was no number"),
        (5, 4, "nan", "was no number"),
        (7, 2, "huge", "rose to"),
        (8, 1, "hidden", "no numbers"),
    ],
)
def test_an_unsound_loss_rolls_back_and_lowers_the_rate(
    first: int, bad: int, how: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """4 batches an epoch; what is spoilt in the second shows at its end, and it starts again."""
    calls.update(made=0, first=first, bad=bad, how=how)
    rates: list[float] = []
    warnings: list[str] = []
    learn = Training._learn

    def recording(self: Training, batch: Sent, rate: float) -> None:
        rates.append(rate)
        learn(self, batch, rate)

    monkeypatch.setattr(Training, "_learn", recording)
    training = make_training(pixels(16), task=Failing(), warn=warnings.append)
    training.run()

    assert rates[8:] == [rate / 4 for rate in rates[4:8]]
    assert len(training.history) == 2
    assert all(math.isfinite(value) for epoch in training.history for value in epoch.values())
    assert all(weight.isfinite().all() for weight in training.net.parameters())
    assert len(warnings) == 1
    assert sentence in warnings[0]


@pytest.mark.parametrize(
    ("how", "sentence"), [("nan", "was no number"), ("huge", r"rose to 1\d\d from 1\.\d+")]
)
def test_after_two_rollbacks_it_says_so(how: str, sentence: str) -> None:
    calls.update(made=0, first=5, bad=10**6, how=how)

    with pytest.raises(Diverged, match=sentence):
        make_training(pixels(16), task=Failing()).run()


class Settling(Rotation):
    """With a teacher that follows, and a bank that is settled at the end."""

    def make_net(self, backbone: nn.Module, dimensions: int, modality: Modality) -> nn.Module:
        net = super().make_net(backbone, dimensions, modality)
        net.teacher = nn.Parameter(torch.zeros(1), requires_grad=False)
        net.register_buffer("settled", torch.zeros(2))
        return net

    def after_step(self, net: nn.Module, done: float) -> None:
        net.get_parameter("teacher").data += done

    def finalise(self, net: nn.Module, sample: Tensor, generator: torch.Generator) -> None:
        assert not net.training
        assert not torch.is_grad_enabled()
        net.get_buffer("settled").copy_(torch.tensor([len(sample), sample.mean()]))


def test_a_task_is_told_of_each_step_and_settled_at_the_end() -> None:
    training = make_training(pixels(9), task=Settling())
    training.run()

    assert training.net.get_parameter("teacher").item() == pytest.approx((1 + 2 + 3 + 4 + 5 + 6) / 6)
    assert training.net.get_buffer("settled")[0] == 8


def test_an_average_of_the_weights_is_the_result_and_resumes() -> None:
    recipe, images, saved = Recipe(epochs=2, batch_size=4, seed=0, average=0.99), pixels(11), list[State]()
    training = make_training(images, recipe=recipe, save=lambda state: saved.append(copy.deepcopy(state)))
    trained = training.run()
    resumed = make_training(images, recipe=recipe)

    assert resumed.run(saved[0]) == trained
    assert not torch.equal(
        training.result.get_parameter("head.weight"), training.net.get_parameter("head.weight")
    )
    states = (training.result.state_dict(), resumed.result.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


class NoPredictor(BYOL):
    """Nothing keeps it from saying the same of all images."""

    def make_net(self, backbone: nn.Module, dimensions: int, modality: Modality) -> nn.Module:
        net = super().make_net(backbone, dimensions, modality)
        net.predictor = nn.Identity()
        return net


@pytest.mark.parametrize(
    ("task", "rate", "sign"),
    [(BYOL(), 1, None), (NoPredictor(), 100, "projections"), (Rotation(), 100, "RankMe")],
    ids=["BYOL", "BYOL without predictor at rate x 100", "rotation at rate x 100"],
)
def test_a_collapse_is_seen_early_and_at_the_end(task: PretextTask, rate: int, sign: str | None) -> None:
    recipe = Recipe(epochs=3, batch_size=16, seed=0, learning_rate=2e-3 * rate)
    images, warnings = pixels(96), list[str]()
    training = make_training(images, task=task, recipe=recipe, sample=images, warn=warnings.append)
    trained = training.run()

    named = collapse(training.untrained, trained, len(images))
    early = [warning for warning in warnings if "After 15% of the steps: The training collapsed" in warning]
    assert (named is not None) == (len(early) == 1) == (sign is not None)
    assert (sign or "") in (named or "")


@pytest.mark.parametrize("patience", [1, 3])
def test_a_plateau_ends_it(patience: int) -> None:
    recipe = Recipe(epochs=9, batch_size=8, seed=0, learning_rate=1e-9, patience=patience)
    training = make_training(pixels(8), recipe=recipe)
    training.run()

    assert len(training.history) == patience + 1


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_optimizers_learn(optimizer: Any) -> None:
    upright = torch.zeros(16, 3, 12, 12, dtype=torch.uint8)
    upright[:, :, :6] = pixels(16)[:, :, :6]
    recipe = Recipe(epochs=10, batch_size=8, seed=0, optimizer=optimizer, learning_rate=RATES[optimizer])
    training = make_training(upright, recipe=recipe)
    training.run()

    assert training.history[-1]["loss"] < 0.6 * training.history[0]["loss"]


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
