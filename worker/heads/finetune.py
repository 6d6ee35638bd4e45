"""Head `finetune`: the pretext model's backbone, trained further on labels and on classes spread over the pool."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor, nn

from worker.arrays import Floats, Ints
from worker.device import autocast, to_device
from worker.heads import FittedHead, Head
from worker.heads.calibration import (
    calibrate,
    calibrate_each,
    seen_in,
    sigmoid,
    softened,
    softmax,
    stratified_folds,
    sureness_of,
)
from worker.heads.labeled_view import Decoded, ItemNetwork, LabeledItems, LabeledView
from worker.heads.linear import mean_of

_Doubles = npt.NDArray[np.float64]

_FOLDS = 3  # each is a training; the embeddings' heads have five
_PSEUDO_LABELS = 4_000
_LABELED = 0.25  # of each batch at least, however few the labels are
_PASSES = 8  # over the labels at least
_BATCH = 64
_PREDICTED_AT_ONCE = {"cpu": 64, "cuda": 512}
_WARM_UP = 0.1  # share of the steps
_LAYER_RATE = 10.0  # times that of the backbone
_DECAY = 0.05
_GRADIENT_NORM = 1.0


class FinetuneHead(Head):
    """Trains the backbone itself, from where the pretext task left it: minutes a head instead of seconds, and
    probabilities for the whole pool by a pass of all its items. A little more accurate than `propagate` on
    Fashion-MNIST with few labels (`make bench-system`). Set `retrain_min_interval_s` to some minutes with it.

    A quarter of each batch or more are labeled items; the others are of 4,000 random items of the pool with the
    classes that label spreading gives them, drawn as often as they are sure (see `propagate`; on labels alone a
    small network forgets more than it learns). AdamW (Loshchilov and Hutter 2019,
    https://arxiv.org/abs/1711.05101), the items changed a little at random, warm-up and cosine. It is trained four
    times: three times without a third of the labels, which calibrates it and, on control items, measures it; then
    on all of them. There is no estimate of what random selection would have reached: that would take nine more
    trainings. Where an item has several classes, each is told from all else, with a temperature of its own.

    Lee 2013, Pseudo-Label, https://www.kaggle.com/blobs/download/forum-message-attachment-files/746/pseudo_label_final.pdf;
    Iscen et al. 2019, Label Propagation for Deep Semi-supervised Learning, https://arxiv.org/abs/1904.04717
    """

    name = "finetune"
    several = True
    needs_items = True
    asks_pool = True

    steps: int = Field(
        300,
        ge=1,
        le=100_000,
        description="at least, of 64 items; more where that is not 8 passes over the labels",
    )
    calibrated: bool = Field(
        True,
        description="off: one training instead of four, for projects with a test split; probabilities as they come, "
        "and nothing is measured on control items",
    )
    learning_rate: float = Field(
        1e-3,
        gt=0,
        le=0.1,
        description="of the backbone; the last layer's is ten times that; 1e-4 suits pretrained ones",
    )

    def fit(self, view: LabeledView, rng: np.random.Generator) -> FittedHead:
        """Without a graph of the pool it trains on the labels alone."""
        items = view.items
        if items is None:
            raise ValueError(f"head {self.name!r} trains on the items themselves, and the view has none")
        classes, n_classes, n = view.classes, view.n_classes, len(view)
        folds = stratified_folds(classes, rng, _FOLDS)
        seen = seen_in(folds, _FOLDS)
        decoded, reached = _with_pseudo_labels(view, items, seen, rng)
        readable = decoded.readable.astype(np.float32)
        logits = np.empty((n, n_classes), np.float32)
        problems = range(0 if self.calibrated else _FOLDS, _FOLDS + 1)
        for done, problem in enumerate(problems):
            targets = np.concatenate([softened(classes, n_classes), reached[:, problem]])
            sureness = sureness_of(reached[:, problem], view.several)
            shares = _shares(seen[:, problem] * readable[:n], sureness * readable[n:])
            net = _Net(items.network, view.embeddings.shape[1], n_classes)

            def report(share: float, done: int = done) -> None:
                items.report((done + share) / len(problems), f"training {done + 1} of {len(problems)}")

            self._train(net, items, decoded.items, torch.from_numpy(targets), shares, view, rng, report)
            held_out = np.flatnonzero(folds == problem)
            logits[held_out] = _logits(net, decoded.items[torch.from_numpy(held_out)])
        if not self.calibrated:
            as_they_come = np.ones(n_classes, np.float32) if view.several else 1.0
            return FittedFinetuneHead(net, as_they_come, None, None)
        temperature, loss = (calibrate_each if view.several else calibrate)(logits, classes)
        return FittedFinetuneHead(net, temperature, loss, _by_others(logits, classes, folds))

    def load(
        self, arrays: dict[str, npt.NDArray[np.float32]], network: ItemNetwork | None = None
    ) -> FittedHead:
        if network is None:
            raise ValueError(
                f"head {self.name!r} answers by the network it was trained from, and none is given"
            )
        n_classes, dimensions = arrays["layer.weight"].shape
        net = _Net(network, dimensions, n_classes)
        net.load_state_dict({key: torch.from_numpy(arrays[key]) for key in net.state_dict()})
        temperature = arrays["temperature"]
        return FittedFinetuneHead(net, temperature if temperature.ndim else float(temperature), None, None)

    def _train(
        self,
        net: "_Net",
        items: LabeledItems,
        decoded: Tensor,
        targets: Tensor,
        shares: _Doubles,
        view: LabeledView,
        rng: np.random.Generator,
        report: Callable[[float], None],
    ) -> None:
        """Targets (m, c) of the decoded items (m, *shape); shares (m,): how often each is drawn, the labeled ones of
        the view first. Where all are 0 there is nothing to learn from.
        """
        device, n_labels = net.network.device, len(view)
        seed = int(rng.integers(2**63))
        if not shares.any():
            return
        torch.manual_seed(seed)  # for dropout inside the network
        generator = torch.Generator(device).manual_seed(seed)
        steps = max(
            self.steps, math.ceil(_PASSES * n_labels / (_BATCH * max(shares[:n_labels].sum(), _LABELED)))
        )
        optimizer = torch.optim.AdamW(
            [{"params": net.backbone.parameters()}, {"params": net.layer.parameters()}], weight_decay=_DECAY
        )
        net.train()
        for step in range(1, steps + 1):
            for group, times in zip(optimizer.param_groups, (1.0, _LAYER_RATE), strict=True):
                group["lr"] = self.learning_rate * times * _rate(step / steps)
            rows = torch.from_numpy(rng.choice(len(shares), _BATCH, p=shares))
            batch = net.network.prepare(items.augment(to_device(decoded[rows], device), generator))
            with autocast(device):
                logits = net(batch)
            misses = _misses(logits.float(), targets[rows].to(device), view.several)
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(misses.mean())
            nn.utils.clip_grad_norm_(net.parameters(), _GRADIENT_NORM)
            optimizer.step()
            report(step / steps)


class _Net(nn.Module):
    """A copy of the backbone and a last layer, on the device: prepared batch -> logits (b, c)."""

    def __init__(self, network: ItemNetwork, dimensions: int, n_classes: int) -> None:
        super().__init__()
        self.network = network
        self.backbone = network.backbone()
        self.layer = nn.Linear(dimensions, n_classes)
        nn.init.zeros_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)
        self.to(network.device)

    def forward(self, batch: Any) -> Tensor:
        logits: Tensor = self.layer(self.backbone(batch))
        return logits


class FittedFinetuneHead:
    """Its probabilities are those of decoded items (b, *shape). temperature: of each class (c,), where an item may have
    several; as told, their mean.
    """

    name = FinetuneHead.name

    def __init__(
        self, net: _Net, temperature: float | Floats, held_out_loss: float | None, held_out: Floats | None
    ) -> None:
        self._net, self._temperature = net, temperature
        self.temperature, self.held_out_loss, self.held_out = mean_of(temperature), held_out_loss, held_out

    def probabilities(self, inputs: Tensor) -> Floats:
        return _calibrated(_logits(self._net, inputs), self._temperature)

    def arrays(self) -> dict[str, npt.NDArray[np.float32]]:
        state = {key: value.float().cpu().numpy() for key, value in self._net.state_dict().items()}
        return state | {"temperature": np.array(self._temperature, np.float32)}


def _with_pseudo_labels(
    view: LabeledView, items: LabeledItems, seen: Floats, rng: np.random.Generator
) -> tuple[Decoded, Floats]:
    """The n labeled items and k random ones of the pool (n + k, *shape), and the soft classes (k, f, c) that these
    get in each of f problems, which see (n, f) part of the labels.
    """
    graph = view.graph
    if graph is None:
        return items.labeled, np.empty((0, seen.shape[1], view.n_classes), np.float32)
    chosen = graph.some(_PSEUDO_LABELS, rng)
    reached = graph.classes_reached(view.embeddings, view.classes, view.n_classes, seen, chosen)
    others = items.read(graph.rows[chosen])
    decoded = Decoded(
        torch.cat([items.labeled.items, others.items]),
        np.concatenate([items.labeled.readable, others.readable]),
    )
    return decoded, reached


def _shares(labels: Floats, sureness: Floats) -> _Doubles:
    """Labels (n,) 1 where one counts, sureness (k,) of the pseudo-labels -> (n + k,) chances that sum to 1, or are
    all 0 where nothing counts and nothing is sure.
    """
    labeled = max(_LABELED, labels.sum() / max(labels.sum() + len(sureness), 1))
    parts = [(labeled, labels), (1 - labeled, sureness)]
    chances = np.concatenate([share * part / max(part.sum(), 1e-12) for share, part in parts]).astype(
        np.float64
    )
    return np.asarray(chances / max(chances.sum(), 1e-300))


def _misses(logits: Tensor, targets: Tensor, several: bool) -> Tensor:
    """(b, c), (b, c) -> (b,) cross-entropy; several: of each class for itself, summed."""
    if several:
        return nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none").sum(dim=1)
    return -(targets * torch.log_softmax(logits, dim=1)).sum(dim=1)


def _calibrated(logits: Floats, temperature: float | Floats) -> Floats:
    """(b, c) -> (b, c) probabilities; with a temperature of each class (c,), of each for itself."""
    divisor: Floats = np.asarray(temperature, np.float32)
    divided: Floats = logits / divisor
    return softmax(divided) if isinstance(temperature, float) else sigmoid(divided)


def _rate(done: float) -> float:
    """Linear start, then a cosine down to 0."""
    if done < _WARM_UP:
        return done / _WARM_UP
    return 0.5 * (1 + math.cos(math.pi * (done - _WARM_UP) / (1 - _WARM_UP)))


@torch.no_grad()
def _logits(net: _Net, decoded: Tensor) -> Floats:
    """Decoded items (b, *shape) -> (b, c) float32."""
    net.eval()
    device = net.network.device
    found = [np.empty((0, net.layer.out_features), np.float32)]
    for part in torch.split(decoded, _PREDICTED_AT_ONCE["cpu" if device.type == "cpu" else "cuda"]):
        with autocast(device):
            found.append(net(net.network.prepare(to_device(part, device))).float().cpu().numpy())
    return np.concatenate(found)


def _by_others(logits: Floats, classes: Ints, folds: Ints) -> Floats:
    """(n, c) probabilities from held-out logits; the temperature of a fold is that of the other folds."""
    found = np.empty_like(logits)
    for fold in range(_FOLDS):
        mine = folds == fold
        temperature, _ = (calibrate_each if classes.ndim == 2 else calibrate)(logits[~mine], classes[~mine])
        found[mine] = _calibrated(logits[mine], temperature)
    return found
