"""A network that is trained from scratch on the labels alone, the backbone `small` with a last layer.

The recipe was chosen by accuracy on 3,000 unlabeled items of the pool, with 300 labels and two other
seeds; the test items decided nothing. AdamW at 2e-3 with decay 0.05, warm-up and cosine, 300 steps of 64: 78.2 %.
At 5e-3: 78.5; with half of the embedding dropped: 78.0; with labels smoothed by 0.1: 79.0; 600 steps of 32: 79.0.
The last two are taken.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.labels.pools import Pixels
from worker.arrays import Ints
from worker.modalities.image.backbones import SmallBackbone
from worker.modalities.image.pixels import augmented, normalised

SIDE = 32  # at which photographs are read for it
_BATCH = 32
_RATE, _DECAY, _SMOOTHING, _WARM_UP = 2e-3, 0.05, 0.1, 0.1
_PREDICTED_AT_ONCE = 200


def steps_for(labels: int) -> int:
    return round(500 + 0.18 * labels)


def from_scratch(pixels: Pixels, classes: Ints, n_classes: int, seed: int, steps: int) -> nn.Module:
    """Trained with augmentation on pixels (m, 3, s, s) of classes (m,)."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    images, truth = torch.from_numpy(pixels), torch.from_numpy(classes)
    net = nn.Sequential(SmallBackbone(), nn.Linear(SmallBackbone.dimensions, n_classes))
    net = net.to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(net.parameters(), weight_decay=_DECAY)
    rows = torch.empty(0, dtype=torch.int64)
    for step in range(1, steps + 1):
        done = step / steps
        rate = done / _WARM_UP if done < _WARM_UP else 0.5 * (1 + math.cos(math.pi * (done - _WARM_UP) / 0.9))
        for group in optimizer.param_groups:
            group["lr"] = _RATE * rate
        if len(rows) < min(_BATCH, len(truth)):
            rows = torch.cat([rows, torch.randperm(len(truth), generator=generator)])
        now, rows = rows[:_BATCH], rows[_BATCH:]
        logits = net(_batch(augmented(images[now], generator)))
        loss = functional.cross_entropy(logits, truth[now], label_smoothing=_SMOOTHING)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
    return net.eval()


def told(net: nn.Module, pixels: Pixels) -> Ints:
    """(t, 3, s, s) -> (t,) the most probable class of each."""
    with torch.no_grad():
        parts = torch.split(torch.from_numpy(pixels), _PREDICTED_AT_ONCE)
        found: Ints = torch.cat([net(_batch(part)).argmax(dim=1) for part in parts]).numpy()
    return found


def _batch(pixels: Tensor) -> Tensor:
    return normalised(pixels).contiguous(memory_format=torch.channels_last)
