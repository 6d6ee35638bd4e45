"""Job export_backbone: a trained backbone as a zip of `model.safetensors` and `config.json`.

A timm backbone is written by timm itself: unpacked to a folder, `timm.create_model("local-dir:<folder>",
pretrained=True)` gives the network, and its data configuration how images go in. Others are networks of this package,
`small` or around one of timm or torchvision: `backbone` is the name by which the modality that `input` describes makes
it again, and `class` what it is.
`embedding_layer` names the module whose output, averaged over its places, is the embedding that this project uses; null
is the network's own output.
"""

import json
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import safetensors.torch
import torch
from torch import nn

from service.store.tables import PretextModel
from worker.errors import JobFailed
from worker.jobs.context import JobContext
from worker.jobs.specs import open_net, spec_of
from worker.modalities.image.pixels import MEAN, STD
from worker.models.spec import ModelSpec


def run(context: JobContext) -> dict[str, Any]:
    with context.read() as session:
        model = session.get(PretextModel, context.job.payload["pretext_model_id"])
    if model is None or model.artifact is None:
        raise JobFailed("The pretext model is not there any more, or was never finished: pretrain again.")
    net = open_net(model, context.artifacts, torch.device("cpu"))
    backbone = net.get_submodule("backbone").to(
        memory_format=torch.contiguous_format
    )  # safetensors wants that
    with TemporaryDirectory(prefix="shortlist-") as folder:
        write_backbone(backbone, spec_of(model), Path(folder))
        with (
            context.artifacts.writing(context.job.payload["artifact"]) as file,
            zipfile.ZipFile(file, "w") as archive,
        ):
            for path in sorted(Path(folder).iterdir()):
                archive.write(path, path.name)
    return {"pretext_model": model.version, "backbone": model.backbone}


def write_backbone(backbone: nn.Module, spec: ModelSpec, folder: Path) -> None:
    kind, data = type(backbone), dict[str, Any]()
    if (size := spec.input.get("image_size")) is not None:
        data = {
            "input_size": (3, size, size),
            "mean": MEAN,
            "std": STD,
            "interpolation": "bilinear",
            "crop_pct": 1.0,
        }
    config_file = folder / "config.json"
    if kind.__module__.startswith("worker."):  # no timm model
        safetensors.torch.save_file(backbone.state_dict(), folder / "model.safetensors")
        own = {
            "class": f"{kind.__module__}.{kind.__qualname__}",
            "backbone": spec.backbone,
            "num_features": backbone.dimensions,
        }
        config = own | data
    else:
        from timm.models import save_for_hf  # here, as only this needs it, and it takes two seconds

        save_for_hf(backbone, str(folder), data_config=data, safe_serialization=True)
        config = json.loads(config_file.read_text(encoding="utf-8"))
    config |= {"embedding_layer": spec.layer, "input": spec.input}
    config_file.write_text(json.dumps(config, indent=2), encoding="utf-8")
