"""What a recording is decoded to, and what of it counts."""

import numpy as np
import pytest
import torch

from service.content.contract import Limits
from tests.journeys.sounds import recording
from worker.modalities.audio import Audio
from worker.modalities.audio.spectrograms import ABSENT, heard, there

CPU = torch.device("cpu")
LIMITS = Limits(max_pixels=10**6, max_text_bytes=10**6)
AUDIO = Audio(rate=8_000, seconds=0.5, windows=2)


def decoded(*recordings: bytes) -> torch.Tensor:
    return torch.stack([AUDIO.decode(data, LIMITS)[0] for data in recordings])


def test_the_pool_decides_what_is_open() -> None:
    short = [{"seconds": 0.4 + 0.001 * i, "rate": 8_000} for i in range(100)]
    assert Audio().resolved(short, CPU) == Audio(rate=8_000, seconds=0.5, windows=1)
    long = [{"seconds": 600.0, "rate": 44_100}] * 3
    assert Audio().resolved(long, CPU) == Audio(rate=16_000, seconds=4.0, windows=4)
    assert Audio(seconds=2.0).resolved(long, torch.device("cuda")) == Audio(
        rate=32_000, seconds=2.0, windows=8
    )


def test_frames_end_where_the_sound_does() -> None:
    found = there(decoded(recording("rise", 1, 0.25), recording("rise", 1, 0.75), recording("rise", 1, 9.0)))

    assert found.sum(2).tolist() == [[25, 0], [50, 25], [50, 50]]


def test_a_long_one_is_heard_from_its_beginning_to_its_end() -> None:
    """A rising tone: the first window is low, the last one high."""
    levels = decoded(recording("rise", 1, 20.0))[0].float().mean(2)  # (2, 64)

    assert int(levels[0].argmax()) + 20 < int(levels[1].argmax())


@pytest.mark.parametrize("rate", [11_025, 16_000, 44_100])
def test_a_rate_changes_little(rate: int) -> None:
    plain, other = decoded(recording("rise", 3, 0.5), recording("rise", 3, 0.5, rate=rate)).float()
    loudest = plain[0, :, 5:45].argmax(0), other[0, :, 5:45].argmax(0)

    assert (loudest[0] - loudest[1]).abs().float().mean() < 2


def test_how_loud_it_was_recorded_is_taken_out() -> None:
    items = decoded(recording("rise", 1)).clamp_min(60)
    items = torch.cat([items, torch.where(there(items)[:, :, None], items - 20, 0)])
    batch = AUDIO.prepare(items * there(items)[:, :, None])

    shown = heard(batch)
    assert torch.equal(shown[0], shown[1])
    torch.testing.assert_close(batch[0], batch[1])
    assert (batch.movedim(2, 3)[~shown] == ABSENT).all()


def test_a_view_shows_no_more_frames_than_there_are() -> None:
    batch = AUDIO.prepare(AUDIO.dummy(30))
    for seed in range(4):
        view = AUDIO.view(batch, torch.Generator().manual_seed(seed), each=True, strength=1.0)
        assert view.shape == batch.shape
        assert torch.equal(heard(view).any(2), heard(batch).any(2))
        assert (view.movedim(2, 3)[~heard(view)] == ABSENT).all()


def test_absent_frames_change_nothing() -> None:
    """The same sound in a modality with longer windows has the same embedding."""
    torch.manual_seed(0)
    net = AUDIO.make_backbone("small", False)[0].eval()
    batch = AUDIO.prepare(decoded(recording("fall", 1, 0.3)))
    longer = torch.nn.functional.pad(batch, (0, 40), value=ABSENT)
    more = torch.cat([longer, torch.full_like(longer, ABSENT)], 1)
    with torch.no_grad():
        plain, padded = net(batch), net(more)
        nothing = net(torch.full_like(batch, ABSENT))

    torch.testing.assert_close(plain, padded, rtol=1e-3, atol=1e-3)
    assert nothing.isfinite().all()


def test_traits() -> None:
    items = decoded(recording("rise", 1, 0.25), recording("rise", 1, 0.75))
    items[0] //= 2
    found = AUDIO.traits(items, np.array([10, 20]))

    assert found["seconds"] == pytest.approx([0.25, 0.75])
    assert found["loudness"][0] < found["loudness"][1]
    assert found["silence"].max() <= 1
