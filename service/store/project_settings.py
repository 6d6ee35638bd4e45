"""Settings of a project, with documented defaults. Stored as JSON in `projects.settings`; read by both programs."""

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from service.content.pair import IMAGE_AND_TEXT, Kind


class Choice(BaseModel):
    """A plug-in by name, with its parameters: ``"margin"`` or ``{"name": "margin", "params": {...}}``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, max_length=100)
    params: dict[str, Any] = Field(default_factory=dict)

    def __hash__(self) -> int:
        """Pydantic copies a default that has none, deeply, whenever settings are read: at every request."""
        return hash(self.name)


def _by_name(value: object) -> object:
    return {"name": value} if isinstance(value, str) else value


PluginChoice = Annotated[Choice, BeforeValidator(_by_name, json_schema_input_type=Choice | str)]


class PretextTraining(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    optimizer: Literal["adamw", "sgd"] = Field("adamw", description="sgd has Nesterov's momentum of 0.9")
    learning_rate: float | None = Field(
        None, gt=0, le=100, description="default: 0.002 with adamw, 0.05 with sgd"
    )
    batch_size: int | None = Field(
        None, ge=1, le=65_536, description="default: 64 on a CPU, 256 on a GPU; contrastive tasks cap it"
    )
    average: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="decay of a moving average of the weights, e.g. 0.999; it is then stored",
    )
    patience: int | None = Field(
        None, ge=1, description="ends after that many epochs without a loss 1 % smaller; default: never"
    )
    out_of_fold: Literal[2] | None = Field(
        None,
        description="2 trains a network on each half of the pool and scores each half by the other's, so that what "
        "was learned by heart does not look easy; scoring takes half as long again",
    )
    compile: bool = Field(False, description="by torch.compile; pays on a GPU in trainings of hours")


class ProjectSettings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    pretext_task: PluginChoice = Field(
        Choice(name="rotation"),
        description="self-supervised task; the default is that of images, a project of another modality gets its own",
    )
    backbone: str = Field(
        "auto",
        max_length=200,
        description="`auto` trains `small` and, for images, texts and recordings, joins it with pretrained weights "
        "where the worker has some. Alone stand `small` and, for images, recordings and videos, any timm model by "
        "name, for videos also a video network of torchvision, as `r2plus1d_18`, and for texts any encoder or causal "
        "model of Hugging Face by name or folder on the workers (extra `[text]`)",
    )
    pretrained: bool = Field(
        False,
        description="start the pretraining of a model that is named from its pretrained weights, which are "
        "downloaded once, or lie in the cache folder of the worker",
    )
    image_size: int | None = Field(
        None,
        ge=8,
        le=1024,
        description="pixels; default: the pool's median side, at most 64 on a CPU, 224 on a GPU",
    )
    pair_of: tuple[Kind, Kind] = Field(
        IMAGE_AND_TEXT,
        strict=False,  # JSON has lists only
        description="kinds of both halves where items are pairs, two of `image`, `text`, `audio`, `video`, `graph`, or "
        "one twice; fixed once there are items",
    )
    pretext_epochs: int | None = Field(None, ge=1, le=10_000, description="default: by the size of the pool")
    pretext_training: PretextTraining = Field(PretextTraining(), description="how it is trained")
    strategy: PluginChoice = Field(
        Choice(name="shortlist"), description="query strategy: the rule that orders items"
    )
    cold_start: PluginChoice = Field(
        Choice(name="shortlist"), description="ranks while there is no head, where the strategy needs one"
    )
    head: PluginChoice = Field(Choice(name="propagate"), description="downstream classifier")
    round_size: int = Field(
        50,
        ge=1,
        le=100_000,
        description="labels that close a round. A ranking holds the items of four rounds, 200 at least; what a batch "
        "asks for beyond them is random",
    )
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
    gold_fraction: float = Field(
        0.0, ge=0, le=0.5, description="share of gold items in batches, while there are any"
    )
    max_labels_per_annotator: int | None = Field(
        None, ge=1, description="items an annotator may label in all; gold items do not count"
    )
    max_held_per_annotator: int = Field(
        1000, ge=1, le=100_000, description="items an annotator may hold at a time"
    )
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
        """The number of items, the first of the pool in `shuffle` order, that are kept for the control arm.

        No strategy ever sees them, so what they measure is unbiased. Fixed by settings and pool size, because a
        prefix that grew with the labels would grow over items that a strategy has already taken.
        """
        labels = min(pool_size, self.budget or 20_000)
        return math.ceil(self.control_share(has_test_split) * labels)
