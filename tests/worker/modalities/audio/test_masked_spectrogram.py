"""A recording's loss is its own: of its masked patches, and of nothing else in the batch."""

from typing import cast

import pytest
import torch

from worker.modalities.audio import Audio
from worker.modalities.audio.pretext.masked_spectrogram import MaskedSpectrogram, MaskedSpectrogramNet
from worker.modalities.audio.spectrograms import heard

AUDIO = Audio(rate=8_000, seconds=0.5, windows=2)
TASK = MaskedSpectrogram()
BATCH = AUDIO.prepare(AUDIO.dummy(12))


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def net() -> MaskedSpectrogramNet:
    torch.manual_seed(0)
    return cast(MaskedSpectrogramNet, TASK.make_net(*AUDIO.make_backbone("small", False), AUDIO))


@pytest.mark.parametrize("each", [True, False])
def test_every_recording_has_a_mask(each: bool) -> None:
    masks = TASK.masks(BATCH, seeded(), each=each) & heard(BATCH)[:, :, None]
    share = masks.sum((1, 2, 3)) / (64 * heard(BATCH).sum((1, 2)))

    assert masks.flatten(1).any(1).all()
    long = heard(BATCH).sum((1, 2)) > 40
    assert share[long].min() > 0.3
    assert share[long].max() < 0.9
    assert torch.equal(masks, TASK.masks(BATCH, seeded(), each=each) & heard(BATCH)[:, :, None])


@torch.no_grad()
def test_it_is_the_mean_squared_error_of_a_plain_loop() -> None:
    made = net().eval()
    masks = TASK.masks(BATCH, seeded(), each=False)
    losses = TASK.losses(made, BATCH, seeded())
    for row in range(4):
        shown = heard(BATCH)[row][:, None]
        places = (masks[row] & shown).nonzero().tolist()
        covered = BATCH[row].clone()
        for place in places:
            covered[tuple(place)] = made.cover[place[1], 0]
        guessed = made(covered[None])[0]
        slowly = [float(guessed[tuple(place)] - BATCH[row][tuple(place)]) ** 2 for place in places]
        assert float(losses[row]) == pytest.approx(sum(slowly) / len(slowly), rel=1e-3)


def test_it_learns() -> None:
    made, generator = net().train(), seeded()
    optimizer = torch.optim.AdamW(made.parameters(), lr=2e-3)

    def error() -> float:
        with torch.no_grad():
            found = float(TASK.losses(made.eval(), BATCH, seeded()).mean())
        made.train()
        return found

    before = error()
    for _ in range(30):
        loss = TASK.losses(made, BATCH, generator).mean()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()

    assert error() < 0.8 * before
    assert all(parameter.grad is not None for parameter in made.parameters())
