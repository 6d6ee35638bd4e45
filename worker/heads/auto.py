"""Head `auto`: whichever of the others the labels themselves speak for."""

import numpy as np
import numpy.typing as npt

from worker.arrays import Floats, Halves
from worker.heads import FittedHead, Head
from worker.heads.labeled_view import ItemNetwork, LabeledView
from worker.heads.linear import LinearHead
from worker.heads.mlp import MlpHead
from worker.heads.propagate import PropagateHead

CANDIDATES: dict[str, Head] = {kind.name: kind() for kind in (LinearHead, MlpHead, PropagateHead)}


class AutoHead(Head):
    """Trains `linear`, `mlp` and `propagate`, and keeps the one with the lowest cross-validated loss.

    The loss is the negative log-likelihood of labels that a head did not see (5 stratified folds, the same for
    all three). It takes as long as the three together.
    """

    name = "auto"
    several = True
    asks_pool = True

    def fit(self, view: LabeledView, rng: np.random.Generator) -> FittedHead:
        seed = int(rng.integers(2**63))
        fits = [head.fit(view, np.random.default_rng(seed)) for head in CANDIDATES.values()]
        return FittedAutoHead(min(fits, key=lambda fit: fit.held_out_loss or 0.0))

    def load(
        self, arrays: dict[str, npt.NDArray[np.float32]], network: ItemNetwork | None = None
    ) -> FittedHead:
        name = next(iter(arrays)).partition(".")[0]
        own = {key.removeprefix(f"{name}."): array for key, array in arrays.items()}
        return FittedAutoHead(CANDIDATES[name].load(own))


class FittedAutoHead:
    """The chosen head; `name` says which. Its arrays carry that name in front."""

    held_out: Floats | None = None

    def __init__(self, chosen: FittedHead) -> None:
        self._chosen = chosen
        self.name, self.temperature, self.held_out_loss = (
            chosen.name,
            chosen.temperature,
            chosen.held_out_loss,
        )

    def probabilities(self, embeddings: Halves | Floats) -> Floats:
        return self._chosen.probabilities(embeddings)

    def arrays(self) -> dict[str, npt.NDArray[np.float32]]:
        return {f"{self.name}.{key}": array for key, array in self._chosen.arrays().items()}
