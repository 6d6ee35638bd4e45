"""The order of clips, and the arrow of time, are learned from videos in which something moves."""

import pytest
import torch

from service.content.contract import Limits
from tests.journeys.films import RATE, film
from worker.modalities.video import Video
from worker.modalities.video.pretext.arrow_of_time import ArrowOfTime
from worker.modalities.video.pretext.temporal_order import TemporalOrder, orders
from worker.pretext import PretextTask
from worker.scoring.score import score

LIMITS = Limits(max_pixels=10**6, max_text_bytes=10**6)
VIDEO = Video(side=16, step=1 / RATE, frames=4)


def test_all_orders_are_asked_for() -> None:
    assert len({tuple(order) for order in orders(3).tolist()}) == 6


def test_the_loss_is_the_mean_over_the_orders() -> None:
    """As a plain loop has it, with the clips shuffled before the network sees them."""
    torch.manual_seed(0)
    task = TemporalOrder()
    net = task.make_net(*VIDEO.make_backbone("small", False), VIDEO).eval()
    batch = VIDEO.prepare(VIDEO.dummy(4))
    known = orders(3)
    with torch.no_grad():
        found = task.losses(net, batch, torch.Generator())
        expected = torch.zeros(4)
        for place, order in enumerate(known):
            logits = net(batch[:, order])[:, 0]  # as they lie: the first order changes nothing
            expected -= logits.log_softmax(1)[:, place] / len(known)

    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("task", [TemporalOrder(), ArrowOfTime()], ids=["order", "arrow"])
def test_what_is_learned(task: PretextTask) -> None:
    """All move to the left: the order follows, and so does the direction of time. In those that stand still, neither
    can be told, and their loss is highest.
    """
    moving = torch.stack([VIDEO.decode(film("left", seed, 1.0), LIMITS)[0] for seed in range(48)])
    still = torch.stack([VIDEO.decode(film("still", seed, 1.0), LIMITS)[0] for seed in range(8)])
    torch.manual_seed(0)
    net = task.make_net(*VIDEO.make_backbone("small", False), VIDEO)
    optimizer = torch.optim.AdamW(net.parameters(), 3e-3)
    batch = VIDEO.prepare(moving)
    for _ in range(50):
        loss = task.losses(net.train(), batch, torch.Generator()).mean()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    with torch.no_grad():
        losses = task.losses(net.eval(), batch, torch.Generator())
        unordered = task.losses(net, VIDEO.prepare(still), torch.Generator())

    assert losses.mean() < 0.3
    assert unordered.mean() > 2 * losses.mean()
    assert min(task.diagnostics(net, batch).values()) > 0.9


@pytest.mark.parametrize("task", [TemporalOrder(), ArrowOfTime()], ids=["order", "arrow"])
def test_scoring_takes_the_embeddings_from_the_pass_of_the_losses(task: PretextTask) -> None:
    torch.manual_seed(0)
    net = task.make_net(*VIDEO.make_backbone("small", False), VIDEO).eval()
    batch = VIDEO.prepare(VIDEO.dummy(4))
    passes = []
    net.get_submodule("backbone").register_forward_hook(lambda *_: passes.append(1))

    found = score(net, task, batch)

    assert len(passes) == 1
    with torch.no_grad():
        torch.testing.assert_close(
            found.embeddings, net.get_submodule("backbone")(batch), rtol=1e-4, atol=1e-4
        )
