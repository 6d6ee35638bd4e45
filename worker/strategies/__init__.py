"""Query strategies: rules that order items. One file each; being there is registering (`worker.registry`)."""

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict

from worker.registry import plug_ins
from worker.selection.pool_view import PoolView, Selection


class ColdStart(Exception):
    """The strategy needs a head and there is none yet; the project's cold-start strategy ranks instead."""


class Strategy(BaseModel, ABC):
    """Fields are the parameters; the docstring is the help people read, with paper and link."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: ClassVar[str]

    @abstractmethod
    def select(self, pool: PoolView, n: int, rng: np.random.Generator) -> Selection:
        """The `min(n, available)` items to label next, best first. Same pool, n and rng state, same answer."""


def strategies() -> dict[str, type[Strategy]]:
    return plug_ins(Strategy, "worker.strategies")
