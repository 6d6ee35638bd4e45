"""Every modality must keep to this, whatever its items are; it holds the moment a modality registers."""

import copy
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from service.content import contents
from service.content.contract import Limits
from service.errors import BadItem
from worker.errors import JobFailed
from worker.modalities import Modality, modalities
from worker.models.spec import ModelSpec, input_of
from worker.pretext import pretext_tasks
from worker.scoring.duplicates import representatives, threshold
from worker.scoring.score import score

CPU = torch.device("cpu")
LIMITS = Limits(max_pixels=10**6, max_text_bytes=10**6)
SMALL = {
    "image": {"image_size": 16},
    "text": {"tokens": 16},
    "graph": {"nodes": 16, "edges": 32},
    "audio": {"rate": 8_000, "seconds": 0.5, "windows": 2},
    "video": {"side": 16, "frames": 4},
    "pair": {"image_size": 16, "tokens": 16},
}  # what would take longer than a test should
every_modality = pytest.mark.parametrize("name", modalities())


@dataclass(frozen=True)
class Pair:
    modality: str
    task: str
    backbone: str = "small"

    def __str__(self) -> str:
        return f"{self.modality}-{self.task}-{self.backbone}"


# `combined` is of tasks for images where nobody says of which.
PAIRS = [
    Pair(name, task)
    for name in modalities()
    for task in pretext_tasks(name)
    if (name == "image") or task != "combined"
]
# Networks by the names that others have for them: a transformer, a convolutional one, one over space and time.
NAMED = [
    Pair("audio", "masked_spectrogram", "test_vit"),
    Pair("audio", "masked_spectrogram", "test_resnet"),
    Pair("audio", "simclr", "test_vit"),
    Pair("audio", "dino", "test_resnet"),
    Pair("video", "temporal_order", "mc3_18"),
    Pair("video", "temporal_order", "test_vit"),
    Pair("video", "arrow_of_time", "test_resnet"),
    Pair("video", "simclr", "test_resnet"),
]


def made(name: str) -> Modality:
    return modalities()[name].model_validate(SMALL.get(name, {})).resolved([], CPU)


@every_modality
def test_both_programs_know_it(name: str) -> None:
    assert contents()[name].default_task == modalities()[name].default_task
    assert modalities()[name].default_task in pretext_tasks(name)


@every_modality
def test_resolved_it_says_the_same_of_itself_when_it_is_read_back(name: str) -> None:
    modality = modalities()[name]().resolved([], CPU)

    spec = ModelSpec({"name": modality.default_task}, "small", input_of(modality), seed=0)
    assert spec.make_modality() == modality
    assert all(value is not None for value in modality.model_dump().values())


@every_modality
@pytest.mark.parametrize("data", [b"", b"\0\0\0\0", bytes(range(256))])
def test_broken_bytes_are_a_bad_item_in_both_programs(name: str, data: bytes) -> None:
    with pytest.raises(BadItem):
        made(name).decode(data, LIMITS)
    with pytest.raises(BadItem):
        contents()[name].inspect(data, LIMITS)


@every_modality
def test_dummies_are_decoded_items(name: str) -> None:
    modality = made(name)
    items = modality.dummy(5)

    assert items.shape == (5, *modality.item_shape)
    assert items.dtype == modality.dtype
    assert torch.equal(items, modality.dummy(5))
    assert torch.equal(
        modality.augment(items, torch.Generator().manual_seed(1)),
        modality.augment(items, torch.Generator().manual_seed(1)),
    )


@every_modality
def test_the_same_seed_gives_the_same_view(name: str) -> None:
    modality = made(name)
    batch = modality.prepare(modality.dummy(6))

    def seen(seed: int, each: bool) -> torch.Tensor:
        view: torch.Tensor = modality.view(batch, torch.Generator().manual_seed(seed), each=each)
        return view

    for each in (True, False):
        assert torch.equal(seen(1, each), seen(1, each))
        assert not torch.equal(seen(1, each), seen(2, each))
    alone = modality.view(batch[2:3], torch.Generator().manual_seed(3), each=False)
    torch.testing.assert_close(seen(3, False)[2:3], alone, rtol=1e-5, atol=1e-5)


@every_modality
def test_a_sketch_finds_a_slightly_changed_twin(name: str) -> None:
    modality = made(name)
    sketcher = modality.sketcher
    if sketcher is None:
        pytest.skip(f"Of {name}s only equal bytes are copies.")
    items = modality.dummy(40)
    twins = sketcher.changed_slightly(items[:4], torch.Generator().manual_seed(1))
    sketches = sketcher.sketch(torch.cat([items, twins]))
    again = [
        sketcher.sketch(sketcher.changed_slightly(items, torch.Generator().manual_seed(s))) for s in (2, 3)
    ]
    own = np.arange(40)
    largest = threshold(
        sketcher,
        sketcher.differences(np.concatenate(again), own, own[:, None] + 40)[:, 0],
        sketcher.differences(again[0], own, np.roll(own, 1)[:, None])[:, 0],
    )

    found = representatives(sketcher, sketches, [None] * 44, largest)

    unresolved = modalities()[name]().sketcher
    assert unresolved is not None
    shown, expected = unresolved.appearance(sketches), sketcher.appearance(sketches)
    assert (shown is None) == (expected is None)
    assert np.array_equal(unresolved.places(sketches), sketcher.places(sketches))
    assert sketches.dtype == np.uint8
    assert (found[:40] == own).all()
    assert (found[40:] == own[:4]).sum() >= 3


@every_modality
def test_raw_features_and_traits_are_numbers(name: str) -> None:
    modality = made(name)
    items = modality.dummy(30)
    rng = np.random.default_rng(0)

    found = modality.raw_features(iter(torch.split(items, 8)), rng)

    assert found.shape[0] == 30
    assert np.isfinite(found).all()
    assert found.std() > 0
    for values in modality.traits(items, np.arange(1, 31)).values():
        assert values.shape == (30,)
        assert np.isfinite(values).all()


@pytest.mark.parametrize("pair", [*PAIRS, *NAMED], ids=str)
def test_dummies_go_through_each_of_its_tasks(pair: Pair) -> None:
    """Trained by a step, scored alone as in a batch, and again the same."""
    modality = made(pair.modality)
    spec = ModelSpec({"name": pair.task}, pair.backbone, input_of(modality), seed=0)
    task = spec.make_task()
    torch.manual_seed(0)
    net = task.make_net(*modality.make_backbone(spec.backbone, pretrained=False), modality)
    batch = modality.prepare(modality.dummy(6))

    losses = task.losses(net.train(), batch, torch.Generator().manual_seed(0))
    torch.autograd.backward(losses.mean())
    assert losses.shape == (6,)
    assert losses.isfinite().all()
    assert any(parameter.grad is not None for parameter in net.get_submodule("backbone").parameters())

    task.finalise(net.eval(), batch, torch.Generator().manual_seed(0))
    found, again = score(net, task, batch), score(copy.deepcopy(net), task, batch)
    alone = score(net, task, batch[3:4])
    assert torch.equal(found.losses, again.losses)
    torch.testing.assert_close(found.losses[3:4], alone.losses, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.embeddings[3:4], alone.embeddings, rtol=1e-4, atol=1e-4)
    assert all(np.isfinite(value) for value in task.diagnostics(net, batch).values())


def test_a_combination_of_tasks_for_other_items_is_refused() -> None:
    modality = made("text")
    combined = pretext_tasks()["combined"]()

    with pytest.raises(JobFailed, match=r"'rotation' is no task for texts. Combine some of .*masked_tokens"):
        combined.make_net(*modality.make_backbone("small", pretrained=False), modality)
