"""What is exported gives the same embeddings in plain timm, in a folder of its own."""

import io
import json
import zipfile
from pathlib import Path

import pytest
import safetensors.torch
import sqlalchemy as sa
import timm
import torch

from service.errors import BackboneNotExported
from service.models import backbones
from service.settings import Settings
from service.store.artifacts import Artifacts
from service.store.session import write_session
from service.store.tables import Project
from tests import factories
from tests.worker import running
from worker.jobs.export_backbone import write_backbone
from worker.jobs.specs import spec_of, store_net
from worker.modalities import modalities
from worker.modalities.image.backbones import SmallBackbone
from worker.models.nets import new_net
from worker.models.spec import ModelSpec, input_of


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("backbone", ["small", "test_resnet", "test_vit"])
def test_it_loads_in_plain_timm(
    backbone: str, engine: sa.Engine, settings: Settings, artifacts: Artifacts, tmp_path: Path
) -> None:
    with write_session(engine) as session:
        model = factories.make_pretext_model(
            session,
            project=factories.make_project(session),
            version=1,
            backbone=backbone,
            artifact="pretext/1/model.safetensors",
            config={"image_size": 32, "seed": 0, "pretrained": False, "layer": "stage2"},
        )
        net = new_net(spec_of(model))
        store_net(net, model, artifacts, str(model.artifact))
    with write_session(engine) as session:
        with pytest.raises(BackboneNotExported):
            backbones.read(settings, model)
        backbones.export(session, backbones.find(session, session.get_one(Project, 1), 1))
    running.run(running.claim(engine, settings, artifacts))
    exported = b"".join(backbones.read(settings, model))
    folder = tmp_path / "exported"
    zipfile.ZipFile(io.BytesIO(exported)).extractall(folder)
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors"}

    assert json.loads((folder / "config.json").read_text())["embedding_layer"] == "stage2"
    if backbone == "small":
        config = json.loads((folder / "config.json").read_text())
        assert (config["class"], config["num_features"]) == (
            "worker.modalities.image.backbones.SmallBackbone",
            192,
        )
        loaded: torch.nn.Module = SmallBackbone()
        loaded.load_state_dict(safetensors.torch.load_file(folder / "model.safetensors"))
    else:
        loaded = timm.create_model(f"local-dir:{folder}", pretrained=True)
        data = loaded.pretrained_cfg
        assert isinstance(data, dict)
        assert (tuple(data["input_size"]), tuple(data["mean"])) == ((3, 32, 32), (0.485, 0.456, 0.406))
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        expected = net.get_submodule("backbone").eval()(images)
        torch.testing.assert_close(loaded.eval()(images), expected)


@pytest.mark.parametrize(
    ("name", "network"),
    [*((name, "small") for name in sorted(modalities())), ("audio", "test_vit"), ("video", "test_resnet")],
)
def test_another_network_is_made_again_by_what_its_config_says(
    name: str, network: str, tmp_path: Path
) -> None:
    modality = modalities()[name]().resolved([], torch.device("cpu"))
    backbone, dimensions = modality.make_backbone(network, pretrained=False)
    spec = ModelSpec({"name": modality.default_task}, network, input_of(modality), seed=0)
    write_backbone(backbone, spec, tmp_path)

    config = json.loads((tmp_path / "config.json").read_text())
    assert config["class"] == f"{type(backbone).__module__}.{type(backbone).__name__}"
    assert (config["num_features"], config["input"]) == (dimensions, spec.input)
    kind = modalities()[config["input"].pop("modality")].model_validate(config["input"])
    again, _ = kind.make_backbone(config["backbone"], pretrained=False)
    again.load_state_dict(safetensors.torch.load_file(tmp_path / "model.safetensors"))
