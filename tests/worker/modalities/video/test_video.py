"""What a video is decoded to, and what of it counts."""

import numpy as np
import pytest
import torch

from service.content.contract import Limits
from tests.journeys.films import RATE, SIDE, encoded, film, pictures
from worker.modalities.video import Video
from worker.modalities.video.backbones import SmallVideoBackbone

CPU = torch.device("cpu")
LIMITS = Limits(max_pixels=10**6, max_text_bytes=10**6)
VIDEO = Video(side=32, step=1 / RATE)


def decoded(*films: bytes) -> torch.Tensor:
    return torch.stack([VIDEO.decode(data, LIMITS)[0] for data in films])


def columns(item: torch.Tensor) -> torch.Tensor:
    """(C, F) where the middle of the square is, as an angle: it goes around."""
    bright = item.float().mean((2, 3)) - 20  # (C, F, s)
    angle = 2 * torch.pi * torch.arange(SIDE) / SIDE
    return torch.atan2((bright * angle.sin()).sum(-1), (bright * angle.cos()).sum(-1))


def test_the_pool_decides_what_is_open() -> None:
    small = [{"seconds": 1.6 + 0.001 * i, "width": 40, "height": 34} for i in range(100)]
    assert Video().resolved(small, CPU) == Video(side=32, step=0.0515)
    hours = [{"seconds": 3_600.0, "width": 1_920, "height": 1_080}] * 3
    assert Video().resolved(hours, CPU) == Video(side=48, step=0.125)
    assert Video(step=2.0).resolved(hours, torch.device("cuda")) == Video(side=96, step=2.0)
    assert Video().resolved([{"seconds": 0.0, "width": 3, "height": 2}], CPU) == Video(
        side=16, step=round(1 / 120, 4)
    )


@pytest.mark.parametrize("form", ["mp4", "webm", "matroska", "avi", "gif"])
def test_clips_show_the_motion_at_its_own_pace(form: str) -> None:
    item = decoded(film("right", 1, 4.0, form=form))[0]

    assert item.shape == VIDEO.item_shape
    moved = columns(item).diff(dim=1).remainder(2 * torch.pi) * SIDE / (2 * torch.pi)
    assert moved.mean() == pytest.approx(2, abs=0.3)  # pixels a frame


def test_clips_are_spread_from_the_beginning_to_the_end() -> None:
    lighter = (np.full((SIDE, SIDE, 3), number, np.uint8) for number in range(0, 240, 2))
    levels = decoded(encoded(lighter))[0].float().mean((2, 3, 4))

    assert levels[0, 0] == pytest.approx(0, abs=4)
    assert levels[1, 0] == pytest.approx(112, abs=6)
    assert levels[2, -1] == pytest.approx(238, abs=4)
    assert (levels.diff(dim=1) > 0).all()


@pytest.mark.parametrize("count", [2, 3, 9])
def test_a_short_one_is_shown_slower(count: int) -> None:
    """No clip shows what comes before the clip before it."""
    lighter = (np.full((SIDE, SIDE, 3), 20 * number, np.uint8) for number in range(count))
    levels = decoded(encoded(lighter))[0].float().mean((2, 3, 4))

    assert (levels.flatten().diff() > -4).all()
    assert levels[2, -1] - levels[0, 0] == pytest.approx(20 * (count - 1), abs=4)


def test_the_centre_is_seen_and_nothing_is_squeezed() -> None:
    """Black to the left and right of a grey square."""
    pads = ((0, 0), (SIDE, SIDE), (0, 0))
    wide = (np.pad(np.full_like(picture, 150), pads) for picture in pictures("still", 1, 20))

    assert decoded(encoded(wide))[0].float()[..., 2:-2].mean() == pytest.approx(150, abs=3)


def test_static_videos_are_told_by_their_traits() -> None:
    found = VIDEO.traits(
        decoded(film("still", 1, 2.0), film("left", 1, 2.0), film("right", 2, 2.0)), np.array([1, 2, 3])
    )

    assert found["static"].tolist() == [1, 0, 0]
    assert found["motion"][0] < 1 < 5 < found["motion"][1:].min()


def test_raw_features_tell_where_something_moves() -> None:
    items = decoded(film("still", 1), film("left", 1))
    raw = VIDEO.raw_features([items[:1], items[1:]], np.random.default_rng(0))

    assert raw.shape == (2, 48 + 16 + 48 + 21)
    assert raw[0, 48:].max() < 1.5
    assert raw[1, 48:].max() > 10


def test_a_view_changes_all_frames_alike() -> None:
    """Of a picture that stands still, a view stands still."""
    still = VIDEO.prepare(decoded(film("left", 1))[:, :1, :1].expand(4, *VIDEO.item_shape).contiguous())
    view = VIDEO.view(still, torch.Generator().manual_seed(1), each=True, strength=1.0)

    assert (view - view[:, :1, :1]).abs().max() < 1e-4
    assert (view[0] - view[1]).abs().max() > 0.1


def test_the_same_film_encoded_again_is_a_copy_and_another_one_is_not() -> None:
    sketcher = VIDEO.sketcher
    sketches = sketcher.sketch(
        decoded(
            film("left", 1, 2.0),
            film("left", 1, 2.0, form="webm"),
            film("right", 1, 2.0),
            film("left", 2, 2.0),
        )
    )
    same, backwards, other = sketcher.differences(sketches, np.array([0]), np.array([[1, 2, 3]]))[0]

    assert same < 4 < 15 < min(backwards, other)


def test_a_video_is_the_mean_of_its_clips_and_their_change() -> None:
    torch.manual_seed(0)
    net = SmallVideoBackbone().eval()
    batch = VIDEO.prepare(VIDEO.dummy(3))
    with torch.no_grad():
        clips = net.with_clips(batch)
        torch.testing.assert_close(net(batch), torch.cat([clips.mean(1), clips[:, -1] - clips[:, 0]], 1))
        torch.testing.assert_close(
            net.with_clips(batch)[:, 1], net.clip_net(batch[:, 1]), rtol=1e-4, atol=1e-5
        )
        assert (
            net(torch.cat([batch, batch[:, :, :5]], 2)[:, :, :11]).isfinite().all()
        )  # an odd number of frames
