"""Head `finetune`: the pretext model's backbone, trained further on labels and on classes spread over the pool."""

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor, nn

from worker.arrays import Floats, Halves, Ints
from worker.device import autocast, to_device
from worker.heads import FittedHead
from worker.heads.calibration import calibrate, seen_in, softened, softmax, stratified_folds, sureness_of
from worker.heads.images import FittedImageHead, ImageHead, Images
from worker.heads.pool_graph import PoolGraph
from worker.heads.propagate import PropagateHead
from worker.modalities.image.pixels import augmented, normalised

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


class FinetuneHead(ImageHead):
    """Trains the backbone itself, from where the pretext task left it: minutes a head instead of seconds, and
    probabilities for the whole pool by a pass of all its images. A little more accurate than `propagate` on
    Fashion-MNIST with few labels (`make bench-system`). Set `retrain_min_interval_s` to some minutes with it.

    A quarter of each batch or more are labeled items; the others are of 4,000 random items of the pool with the
    classes that label spreading gives them, drawn as often as they are sure (see `propagate`; on labels alone a
    small network forgets more than it learns). AdamW (Loshchilov and Hutter 2019,
    https://arxiv.org/abs/1711.05101), shifts and flips, warm-up and cosine. It is trained four times: three times
    without a third of the labels, which calibrates it and, on control items, measures it; then on all of them.
    There is no estimate of what random selection would have reached: that would take nine more trainings.

    Lee 2013, Pseudo-Label, https://www.kaggle.com/blobs/download/forum-message-attachment-files/746/pseudo_label_final.pdf;
    Iscen et al. 2019, Label Propagation for Deep Semi-supervised Learning, https://arxiv.org/abs/1904.04717
    """

    name = "finetune"
    uses_pool = True

    steps: int = Field(
        300,
        ge=1,
        le=100_000,
        description="at least, of 64 images; more where that is not 8 passes over the labels",
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

    def fit(
        self,
        embeddings: Halves | Floats,
        classes: Ints,
        n_classes: int,
        rng: np.random.Generator,
        pool: PoolGraph | None = None,
    ) -> FittedHead:
        return PropagateHead().fit(embeddings, classes, n_classes, rng, pool)

    def load(self, arrays: dict[str, npt.NDArray[np.float32]]) -> FittedHead:
        return PropagateHead().load(arrays)

    def fit_images(
        self,
        images: Images,
        embeddings: Halves | Floats,
        classes: Ints,
        n_classes: int,
        rng: np.random.Generator,
        pool: PoolGraph,
    ) -> FittedImageHead:
        n = len(classes)
        folds = stratified_folds(classes, rng, _FOLDS)
        seen = seen_in(folds, _FOLDS)
        chosen = rng.choice(len(pool), min(_PSEUDO_LABELS, len(pool)), replace=False)
        reached = pool.classes_reached(embeddings, classes, n_classes, seen, chosen)
        pixels = torch.cat([images.labeled, images.read(pool.rows[chosen])])
        readable = pixels.flatten(1).any(dim=1).numpy()
        logits = np.empty((n, n_classes), np.float32)
        problems = range(0 if self.calibrated else _FOLDS, _FOLDS + 1)
        for done, problem in enumerate(problems):
            targets = np.concatenate([softened(classes, n_classes), reached[:, problem]])
            shares = _shares(seen[:, problem] * readable[:n], sureness_of(reached[:, problem]) * readable[n:])
            net = _Net(images.backbone(), embeddings.shape[1], n_classes).to(images.device)

            def report(share: float, done: int = done) -> None:
                images.report((done + share) / len(problems), f"training {done + 1} of {len(problems)}")

            self._train(net, images, pixels, torch.from_numpy(targets), shares, n, rng, report)
            held_out = np.flatnonzero(folds == problem)
            logits[held_out] = _logits(net, pixels[torch.from_numpy(held_out)], images.device)
        if not self.calibrated:
            return FittedFinetuneHead(net, images.device, 1.0, None, None)
        temperature, loss = calibrate(logits, classes)
        return FittedFinetuneHead(net, images.device, temperature, loss, _by_others(logits, classes, folds))

    def load_images(
        self, arrays: dict[str, npt.NDArray[np.float32]], backbone: nn.Module, device: torch.device
    ) -> FittedImageHead:
        n_classes, dimensions = arrays["layer.weight"].shape
        net = _Net(backbone, dimensions, n_classes)
        net.load_state_dict({key: torch.from_numpy(arrays[key]) for key in net.state_dict()})
        return FittedFinetuneHead(net.to(device), device, float(arrays["temperature"]), None, None)

    def _train(
        self, net: "_Net", images: Images, pixels: Tensor, targets: Tensor, shares: _Doubles, n_labels: int,
        rng: np.random.Generator, report: Callable[[float], None],
    ) -> None:  # fmt: skip
        """targets (m, c) of the pixels (m, 3, s, s); shares (m,): how often each is drawn, the labeled ones first."""
        seed = int(rng.integers(2**63))
        torch.manual_seed(seed)  # for dropout inside the network
        generator = torch.Generator(images.device).manual_seed(seed)
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
            batch = to_device(pixels[rows], images.device)
            batch = normalised(augmented(batch, generator, images.flips))
            with autocast(images.device):
                logits = net(batch)
            misses = -(targets[rows].to(images.device) * torch.log_softmax(logits.float(), dim=1)).sum(dim=1)
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(misses.mean())
            nn.utils.clip_grad_norm_(net.parameters(), _GRADIENT_NORM)
            optimizer.step()
            report(step / steps)


class _Net(nn.Module):
    def __init__(self, backbone: nn.Module, dimensions: int, n_classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.layer = nn.Linear(dimensions, n_classes)
        nn.init.zeros_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)

    def forward(self, batch: Tensor) -> Tensor:
        logits: Tensor = self.layer(self.backbone(batch))
        return logits


class FittedFinetuneHead:
    name = FinetuneHead.name

    def __init__(
        self, net: _Net, device: torch.device, temperature: float, held_out_loss: float | None,
        held_out: Floats | None,
    ) -> None:  # fmt: skip
        self._net, self._device = net, device
        self.temperature, self.held_out_loss, self.held_out = temperature, held_out_loss, held_out

    def probabilities_of(self, pixels: Tensor) -> Floats:
        return softmax(_logits(self._net, pixels, self._device) / np.float32(self.temperature))

    def arrays(self) -> dict[str, npt.NDArray[np.float32]]:
        state = {key: value.float().cpu().numpy() for key, value in self._net.state_dict().items()}
        return state | {"temperature": np.array(self.temperature, np.float32)}


def _shares(labels: Floats, sureness: Floats) -> _Doubles:
    """labels (n,) 1 where one counts, sureness (k,) of the pseudo-labels -> (n + k,) chances, their sum is 1."""
    labeled = max(_LABELED, labels.sum() / (labels.sum() + len(sureness)))
    parts = [(labeled, labels), (1 - labeled, sureness)]
    chances = np.concatenate([share * part / max(part.sum(), 1e-12) for share, part in parts]).astype(
        np.float64
    )
    return np.asarray(chances / chances.sum())


def _rate(done: float) -> float:
    """Linear start, then a cosine down to 0."""
    if done < _WARM_UP:
        return done / _WARM_UP
    return 0.5 * (1 + math.cos(math.pi * (done - _WARM_UP) / (1 - _WARM_UP)))


@torch.no_grad()
def _logits(net: _Net, pixels: Tensor, device: torch.device) -> Floats:
    """uint8 (b, 3, s, s) -> (b, c) float32"""
    net.eval()
    found = [np.empty((0, net.layer.out_features), np.float32)]
    for part in torch.split(pixels, _PREDICTED_AT_ONCE["cpu" if device.type == "cpu" else "cuda"]):
        with autocast(device):
            found.append(net(normalised(to_device(part, device))).float().cpu().numpy())
    return np.concatenate(found)


def _by_others(logits: Floats, classes: Ints, folds: Ints) -> Floats:
    """(n, c) probabilities from held-out logits; the temperature of a fold is that of the other folds."""
    found = np.empty_like(logits)
    for fold in range(_FOLDS):
        mine = folds == fold
        temperature, _ = calibrate(logits[~mine], classes[~mine])
        found[mine] = softmax(logits[mine] / np.float32(temperature))
    return found
