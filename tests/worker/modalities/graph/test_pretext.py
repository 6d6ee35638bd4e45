"""A graph's loss is its own: of its masked nodes, and of nothing else in the batch."""

import pytest
import torch
from torch.nn import functional

from worker.modalities.graph import Graph
from worker.modalities.graph.packed import ABSENT
from worker.modalities.graph.pretext.attribute_masking import AttributeMasking
from worker.modalities.graph.pretext.graphmae import GraphMAE
from worker.modalities.graph.pretext.masks import node_masks

GRAPHS = Graph(nodes=24, edges=40)
BATCH = GRAPHS.dummy(12).long()
TASKS = (AttributeMasking(), GraphMAE())
each_task = pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def net(task: AttributeMasking | GraphMAE) -> torch.nn.Module:
    torch.manual_seed(0)
    return task.make_net(*GRAPHS.make_backbone("small", False), GRAPHS)


@pytest.mark.parametrize("each", [True, False])
def test_every_graph_has_a_mask(each: bool) -> None:
    masks = node_masks(BATCH, 24, 0.5, seeded(), each=each)

    assert masks.any(1).all()
    assert not (masks & (BATCH[:, :24] == ABSENT)).any()
    assert torch.equal(masks, node_masks(BATCH, 24, 0.5, seeded(), each=each))


@torch.no_grad()
@each_task
def test_it_is_the_mean_of_a_plain_loop(task: AttributeMasking | GraphMAE) -> None:
    made = net(task).eval()
    losses = task.losses(made, BATCH, seeded())
    for row in range(4):
        item = BATCH[row : row + 1]
        mask = node_masks(item, 24, task.masked, seeded(), each=False)
        values = made(item, mask)[0]
        slowly = []
        for place, tag in enumerate(item[0, :24][mask[0]].tolist()):
            if isinstance(task, AttributeMasking):
                slowly.append(float(functional.cross_entropy(values[place], torch.tensor(tag))))
            else:
                truth = functional.one_hot(torch.tensor(tag), values.shape[1]).float()
                slowly.append(
                    float((1 - functional.cosine_similarity(values[place], truth, dim=0)) ** task.power)
                )
        assert float(losses[row]) == pytest.approx(sum(slowly) / len(slowly), rel=1e-3)


@each_task
def test_it_learns(task: AttributeMasking | GraphMAE) -> None:
    """Whose neighbours say what it is: all tags of a graph are alike."""
    batch = BATCH.clone()
    tags = torch.arange(12)[:, None] % 3 + 2
    batch[:, :24] = torch.where(batch[:, :24] == ABSENT, ABSENT, tags)
    batch = batch[(batch[:, :24] > 0).sum(1) > 4]
    made, generator = net(task).train(), seeded()
    optimizer = torch.optim.AdamW(made.parameters(), lr=2e-3)
    with torch.no_grad():
        before = float(task.losses(made, batch, seeded()).mean())
    for _ in range(60):
        loss = task.losses(made, batch, generator).mean()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()

    assert float(loss.detach()) < 0.5 * before
    used = [name for name, value in made.named_parameters() if value.grad is None]
    assert used == []
    if isinstance(task, AttributeMasking):
        assert task.diagnostics(made.eval(), batch)["masked_tag_accuracy"] > 0.6
