"""A pretext model's row to its network, untrained or from its artifact."""

import json
from typing import Any

import safetensors.torch
import sqlalchemy as sa
import torch
from sqlalchemy.orm import Session
from torch import nn

from service.store.artifacts import Artifacts
from service.store.project_settings import Choice
from service.store.tables import PretextModel, utc_now
from worker.jobs.context import JobFailed
from worker.jobs.plug_in_from import chosen
from worker.modalities.image.backbones import BackboneUnusable, make_backbone
from worker.pretext import PretextTask, pretext_tasks


def task_of(model: PretextModel) -> PretextTask:
    """Raises `JobFailed`."""
    return chosen(pretext_tasks(), Choice.model_validate(model.task), "pretext_task")


def new_net(model: PretextModel) -> nn.Module:
    """Untrained, or with timm's pretrained weights; the same for the same seed. Raises `JobFailed`."""
    torch.manual_seed(model.config["seed"])
    return _net(model, pretrained=model.config["pretrained"])


def store_net(net: nn.Module, model: PretextModel, artifacts: Artifacts, name: str) -> None:
    """As safetensors; its metadata hold all that rebuilds it."""
    tensors = {key: tensor.cpu().contiguous().clone() for key, tensor in net.state_dict().items()}
    about = {"task": model.task, "backbone": model.backbone, "config": model.config}
    with artifacts.writing(name) as file:
        file.write(safetensors.torch.save(tensors, {key: json.dumps(value) for key, value in about.items()}))


def load_net(
    model: PretextModel, artifacts: Artifacts, device: torch.device, other_half: bool = False
) -> nn.Module:
    """The finished model in eval mode, on the device."""
    net = _net(model, pretrained=False)
    with artifacts.open(of_other_half(str(model.artifact)) if other_half else str(model.artifact)) as file:
        net.load_state_dict(safetensors.torch.load(file.read()))
    return on_device(net, device).eval()


def of_other_half(artifact: str) -> str:
    """Out of fold, a model's artifact is of the first half of the pool; the second network lies beside it."""
    return f"{artifact.removesuffix('.safetensors')}-other.safetensors"


def untrained_version(
    session: Session, model: PretextModel, project_id: int, artifact: str, reason: str
) -> PretextModel:
    """The next version of the project's pretext model: the untrained network of `model`, in its stead."""
    newest = sa.select(sa.func.max(PretextModel.version)).where(PretextModel.project_id == project_id)
    made = PretextModel(
        project_id=project_id,
        version=(session.scalar(newest) or 0) + 1,
        state="ready",
        task=model.task,
        backbone=model.backbone,
        config=model.config | {"epochs": 0, "out_of_fold": None},
        artifact=artifact,
        diagnostics={"note": f"The untrained backbone, in place of pretext model {model.version}: {reason}"},
        finished_at=utc_now(),
    )
    session.add(made)
    session.flush()
    return made


def is_untrained(model: PretextModel) -> bool:
    return model.config.get("epochs") == 0


def on_device(net: nn.Module, device: torch.device) -> nn.Module:
    options: dict[str, Any] = {"device": device, "memory_format": torch.channels_last}
    return net.to(**options)


def _net(model: PretextModel, pretrained: bool) -> nn.Module:
    image_size = model.config["image_size"]
    try:
        backbone, dimensions = make_backbone(model.backbone, pretrained, image_size)
    except BackboneUnusable as error:
        raise JobFailed(str(error)) from error
    return task_of(model).make_net(backbone, dimensions, image_size)
