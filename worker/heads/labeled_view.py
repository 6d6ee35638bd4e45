"""The view of a project that a head learns from: labeled items, the pool around them and, where a head trains on
them, the items themselves. Plain data and functions, whatever kind of items they are.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from worker.arrays import Bools, Floats, Halves, Ints

if TYPE_CHECKING:
    from worker.heads.pool_graph import PoolGraph

Rows = Bools | Ints  # a mask (n,), or rows (m,)


@dataclass(frozen=True)
class Decoded:
    """Items (n, *shape) as their modality decodes them.

    readable  (n,) False for an item whose bytes are gone: its row is all 0, and it must teach nothing
    """

    items: Tensor
    readable: Bools

    def keep(self, rows: Rows) -> "Decoded":
        return Decoded(self.items[torch.from_numpy(rows)], self.readable[rows])


@dataclass(frozen=True, kw_only=True)
class ItemNetwork:
    """The network that embedded the pool, so that it can be trained further.

    backbone  makes a new copy on the device: prepared batch -> (n, d)
    prepare   decoded items (n, *shape) on the device -> the batch that a backbone takes
    """

    backbone: Callable[[], nn.Module]
    prepare: Callable[[Tensor], Any]
    device: torch.device


@dataclass(frozen=True, kw_only=True)
class LabeledItems:
    """The items themselves, for heads that need them (`Head.needs_items`).

    labeled  the n labeled items
    read     rows (b,) of the scored items, as in `PoolGraph.rows` -> those b items
    augment  decoded items (b, *shape) on the device -> the same, each changed a little at random
    report   takes the share done, 0 to 1, and a message; cheap
    """

    network: ItemNetwork
    labeled: Decoded
    read: Callable[[Ints], Decoded]
    augment: Callable[[Tensor, torch.Generator], Tensor]
    report: Callable[[float, str], None]

    def keep(self, rows: Rows) -> "LabeledItems":
        return replace(self, labeled=self.labeled.keep(rows))


@dataclass(frozen=True)
class LabeledView:
    """Embeddings (n, d) of labeled items, and their classes (n,) in [0, n_classes); where an item may have several, and
    may have none, classes (n, n_classes): 1 for each that it has, else 0.

    make_graph  gives the graph of the whole pool, labeled or not, the same one at every call; None where there is no
                pool. It is called only for heads that ask for `graph`.
    items       is None for heads on embeddings
    """

    embeddings: Halves | Floats
    classes: Ints
    n_classes: int
    make_graph: "Callable[[], PoolGraph] | None" = None
    items: LabeledItems | None = None

    def __len__(self) -> int:
        """The number of labeled items."""
        return len(self.classes)

    @property
    def several(self) -> bool:
        """An item may have several classes: each is told for itself."""
        return self.classes.ndim == 2

    @cached_property
    def graph(self) -> "PoolGraph | None":
        return self.make_graph() if self.make_graph is not None else None

    def keep(self, rows: Rows) -> "LabeledView":
        """The view of some of the labeled items; the pool stays whole."""
        return replace(
            self,
            embeddings=self.embeddings[rows],
            classes=self.classes[rows],
            items=self.items.keep(rows) if self.items is not None else None,
        )
