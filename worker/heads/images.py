"""Heads that train on the images themselves, with a backbone of their own."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from worker.arrays import Floats, Halves, Ints
from worker.heads import Head
from worker.heads.pool_graph import PoolGraph


@dataclass(frozen=True, kw_only=True)
class Images:
    """What an `ImageHead` is given beside the embeddings. An image that cannot be read any more is all black.

    labeled   (n, 3, s, s) uint8, in the order of the embeddings
    read      rows (b,) of the pool -> uint8 (b, 3, s, s)
    backbone  a new copy of the pretext model's, on the device
    flips     whether a mirrored item is as good to train on
    report    share done 0..1 and what is being done; cheap
    """

    labeled: Tensor
    read: Callable[[Ints], Tensor]
    backbone: Callable[[], nn.Module]
    device: torch.device
    flips: bool
    report: Callable[[float, str], None]


class FittedImageHead(Protocol):
    """Like `worker.heads.FittedHead`, but it needs the pixels, so its probabilities are worked out once, for all
    items, when it has been trained.

    held_out  (n, c) probabilities of the labeled items, each by a training that saw neither its label nor a
              temperature fitted to it; None in a loaded head, or where the head is not calibrated
    """

    @property
    def name(self) -> str: ...

    @property
    def temperature(self) -> float: ...

    @property
    def held_out_loss(self) -> float | None: ...

    @property
    def held_out(self) -> Floats | None: ...

    def probabilities_of(self, pixels: Tensor) -> Floats:
        """uint8 (b, 3, s, s) -> (b, c) float32 calibrated softmax, rows sum to 1."""
        ...

    def arrays(self) -> dict[str, npt.NDArray[np.float32]]: ...


class ImageHead(Head):
    """`fit` and `load` are for where there are embeddings only: a head of another kind, which it starts from."""

    @abstractmethod
    def fit_images(
        self,
        images: Images,
        embeddings: Halves | Floats,
        classes: Ints,
        n_classes: int,
        rng: np.random.Generator,
        pool: PoolGraph,
    ) -> FittedImageHead:
        """As `fit`; `images.read` takes what `pool.rows` gives."""

    @abstractmethod
    def load_images(
        self, arrays: dict[str, npt.NDArray[np.float32]], backbone: nn.Module, device: torch.device
    ) -> FittedImageHead:
        """The inverse of `FittedImageHead.arrays`; `backbone` is of the same kind, with any weights."""
