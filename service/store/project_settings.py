"""What a project may set, with documented defaults. Stored as JSON in `projects.settings`; read by both programs."""

import math
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


class Choice(BaseModel):
    """A plug-in by name, with its parameters: ``"margin"`` or ``{"name": "margin", "params": {...}}``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, max_length=100)
    params: dict[str, Any] = Field(default_factory=dict)


def _by_name(value: object) -> object:
    return {"name": value} if isinstance(value, str) else value


PluginChoice = Annotated[Choice, BeforeValidator(_by_name)]


class ProjectSettings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    pretext_task: PluginChoice = Field(Choice(name="rotation"), description="self-supervised task")
    backbone: str = Field("small", max_length=200, description="`small`, or any timm model by name")
    pretrained: bool = Field(False, description="start from timm's pretrained weights")
    image_size: int | None = Field(
        None,
        ge=8,
        le=1024,
        description="pixels; default: the pool's median side, at most 64 on a CPU, 224 on a GPU",
    )
    pretext_epochs: int | None = Field(None, ge=1, le=10_000, description="default: by the size of the pool")
    strategy: PluginChoice = Field(
        Choice(name="shortlist"), description="query strategy: the rule that orders items"
    )
    cold_start: PluginChoice = Field(
        Choice(name="shortlist"), description="ranks while there is no head, where the strategy needs one"
    )
    head: PluginChoice = Field(Choice(name="linear"), description="downstream classifier")
    round_size: int = Field(50, ge=1, le=100_000, description="labels that close a round")
    control_fraction: float | None = Field(
        None,
        ge=0,
        le=1,
        description="share of uniformly random items in batches; default 0.1, or 0 with a test split",
    )
    collapse_duplicates: bool = Field(
        True, description="rankings offer one item of each group of duplicates and near-duplicates"
    )
    overlap: int = Field(1, ge=1, le=20, description="annotators per item")
    reservation_ttl_s: int = Field(1800, ge=1, le=7 * 86400, description="how long a batch is held")
    retrain_min_labels: int = Field(10, ge=1, description="no head before that many labels")
    retrain_min_interval_s: float = Field(
        5.0, ge=0, le=86400, description="at least this long between trainings"
    )
    budget: int | None = Field(None, ge=1, description="labels the project may use in all")
    seed: int = Field(0, ge=0, lt=2**31, description="all random choices of the project come from it")

    def control_share(self, has_test_split: bool) -> float:
        """The share of control items in batches. A test split measures better, so it switches them off."""
        if self.control_fraction is not None:
            return self.control_fraction
        return 0.0 if has_test_split else 0.1

    def control_items(self, pool_size: int, has_test_split: bool) -> int:
        """How many items, the first of the pool in `shuffle` order, are kept for the control arm.

        No strategy ever sees them, so what they measure is unbiased. Fixed by settings and pool size, because a
        prefix that grew with the labels would grow over items that a strategy has already taken.
        """
        labels = min(pool_size, self.budget or 20_000)
        return math.ceil(self.control_share(has_test_split) * labels)
