"""Which layer embeddings come from: chosen once, by rank or by labels, and kept to by all who embed."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
import torch
from PIL import Image
from torch import nn

from service.settings import Settings
from service.store.artifacts import Artifacts
from service.store.pipeline import queue_score_pool
from service.store.session import read_session, write_session
from service.store.tables import Item, Job, PretextModel, Project, ScoreRun
from tests.factories import make_item, make_label, make_pretext_model, make_project, make_score_run
from tests.pictures import write_pictures
from tests.worker.running import claim, run
from worker.jobs.probe_sets import Sample
from worker.jobs.score_pool.layer_choice import _DEFAULT as DEFAULT
from worker.jobs.score_pool.layer_choice import by_labels, by_rank
from worker.jobs.specs import open_net, spec_of, store_net
from worker.modalities.image.pixels import normalised
from worker.models.layers import at_layer
from worker.models.nets import new_net
from worker.scoring.scored_items import ScoredItems

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def noise(n: int, dimensions: int, seed: int) -> torch.Tensor:
    return torch.randn(n, dimensions, generator=torch.Generator().manual_seed(seed))


def test_the_largest_rank_is_taken_whatever_the_scale() -> None:
    flat = 1000 * noise(200, 3, seed=0) @ noise(3, 30, seed=1)  # wide, but of rank 3
    rich, constant = 0.001 * noise(200, 20, seed=2), torch.zeros(200, 40)

    found = by_rank({None: flat, "rich": rich, "constant": constant})

    assert (found.layer, found.by) == ("rich", "rank")
    assert found.measured["output"] == pytest.approx(3, abs=0.1)
    assert found.measured["rich"] > 15


@pytest.mark.parametrize(("signal", "layer"), [(5.0, "inner"), (1.0, None)])
def test_labels_take_another_layer_only_if_it_is_surely_better(signal: float, layer: str | None) -> None:
    """The default's embeddings know the classes by half; 60 items judge, which is too few for a close race."""
    classes = np.arange(100) % 2
    bright = torch.from_numpy(classes).float()[:, None]
    embeddings = {None: noise(100, 4, seed=0) + bright, "inner": noise(100, 4, seed=1) + signal * bright}
    everything = np.ones(100, np.bool_)
    sample = Sample(np.arange(100), classes, everything, np.arange(100) < 60, "control")

    found = by_labels(embeddings, sample, DEFAULT)

    assert (found.layer, found.by, found.items) == (layer, "labels", 60)


def test_without_any_layer_to_choose_the_output_stays() -> None:
    """And the scoring says what is wrong with it."""
    sample = Sample(np.arange(4), np.arange(4) % 2, np.ones(4, np.bool_), np.ones(4, np.bool_), "control")

    assert by_rank({}) == DEFAULT
    assert by_labels({"inner": noise(4, 4, seed=0)}, sample, DEFAULT) == DEFAULT


class Scoring:
    """A project over pictures with an untrained pretext model, and its scoring."""

    def __init__(
        self, engine: sa.Engine, settings: Settings, artifacts: Artifacts, folder: Path, backbone: str
    ) -> None:
        self.engine, self.settings, self.artifacts = engine, settings, artifacts
        config = {"image_size": 32, "seed": 0, "pretrained": False}
        self.paths = sorted(write_pictures(folder, 60, width=32, height=32).iterdir())
        with write_session(engine) as session:
            project = make_project(session, settings={"control_fraction": 1})
            for path in self.paths:
                make_item(session, project=project, key=path.name, uri=str(path))
            model = make_pretext_model(
                session, project=project, backbone=backbone, config=config, artifact="m.safetensors"
            )
            self.project_id, self.model_id = project.id, model.id
        self.store(new_net(spec_of(model)), model)

    def store(self, net: nn.Module, model: PretextModel) -> None:
        store_net(net, model, self.artifacts, "m.safetensors")

    def spoil(self, layer: str, change: Callable[[torch.Tensor], object]) -> None:
        """Change the weights of its batch norms."""
        with read_session(self.engine) as session:
            model = session.get_one(PretextModel, self.model_id)
        net = new_net(spec_of(model))
        for module in net.get_submodule(f"backbone.{layer}").modules():
            if isinstance(module, nn.BatchNorm2d):
                with torch.no_grad():
                    change(module.weight)
        self.store(net, model)

    def run(self) -> tuple[PretextModel, ScoredItems]:
        with write_session(self.engine) as session:
            session.execute(sa.delete(Job))
            queue_score_pool(session, session.get_one(Project, self.project_id), self.model_id)
        run(claim(self.engine, self.settings, self.artifacts))
        with read_session(self.engine) as session:
            project = session.get_one(Project, self.project_id)
            scored = ScoredItems.open(
                self.artifacts, str(session.get_one(ScoreRun, project.score_run_id).artifact)
            )
            return session.get_one(PretextModel, self.model_id), scored


@pytest.fixture
def scoring(
    request: pytest.FixtureRequest,
    engine: sa.Engine,
    settings: Settings,
    artifacts: Artifacts,
    tmp_path: Path,
) -> Scoring:
    return Scoring(engine, settings, artifacts, tmp_path / "pool", request.param)


@on_sqlite
@pytest.mark.parametrize("scoring", ["test_resnet"], indirect=True)
def test_a_timm_backbone_gives_its_layer_of_largest_rank_from_then_on(scoring: Scoring) -> None:
    scoring.spoil("layer4", lambda weight: weight[1:].zero_())
    model, scored = scoring.run()

    told = model.diagnostics["layer"]
    assert model.config["layer"] is not None
    assert (told["by"], max(told["measured"], key=told["measured"].get)) == ("rank", model.config["layer"])
    backbone = open_net(model, scoring.artifacts, torch.device("cpu")).get_submodule("backbone")
    pictures = [torch.from_numpy(_pixels(path)) for path in scoring.paths[:3]]
    with torch.no_grad():
        expected = at_layer(backbone, model.config["layer"])(normalised(torch.stack(pictures)))
    np.testing.assert_allclose(
        scored.embeddings[:3].astype(np.float32), expected.numpy(), rtol=0.01, atol=1e-3
    )

    with write_session(scoring.engine) as session:
        row = session.get_one(PretextModel, scoring.model_id)
        row.config = row.config | {"layer": "layer1"}  # as if it had been chosen so
        session.execute(sa.update(ScoreRun).values(state="running"))
    again, scored = scoring.run()
    assert again.config["layer"] == "layer1"
    assert scored.embeddings.shape[1] == 32


@on_sqlite
@pytest.mark.parametrize("scoring", ["test_resnet"], indirect=True)
def test_a_layer_whose_values_are_too_large_to_be_stored_is_not_taken(scoring: Scoring) -> None:
    scoring.spoil("layer4", lambda weight: weight.mul_(1e6))
    model, scored = scoring.run()

    told = model.diagnostics["layer"]
    assert (told["by"], told["measured"].keys() & {"output", "layer4"}) == ("rank", set())
    assert np.isfinite(scored.embeddings).all()


@on_sqlite
@pytest.mark.parametrize("scoring", ["small"], indirect=True)
def test_small_gives_its_own_output_unless_labels_speak_against_it(scoring: Scoring) -> None:
    model, scored = scoring.run()

    assert (model.config["layer"], model.diagnostics["layer"]["by"]) == (None, "default")
    assert scored.embeddings.shape[1] == 192


@on_sqlite
@pytest.mark.parametrize("scoring", ["small"], indirect=True)
def test_labels_that_are_there_are_asked(scoring: Scoring) -> None:
    with write_session(scoring.engine) as session:
        for number, item in enumerate(session.scalars(sa.select(Item).order_by(Item.id))):
            make_label(session, item=item, class_name="cat" if number % 2 else "dog")

    told = scoring.run()[0].diagnostics["layer"]

    assert (told["by"], told["items"]) == ("labels", 60)
    assert set(told["measured"]) == {"output", "stage1", "stage2", "stage3"}


@on_sqlite
@pytest.mark.parametrize("scoring", ["test_resnet"], indirect=True)
def test_a_model_that_scored_before_stays_as_it_was(scoring: Scoring) -> None:
    with write_session(scoring.engine) as session:
        project = session.get_one(Project, scoring.project_id)
        model = session.get_one(PretextModel, scoring.model_id)
        make_score_run(session, project=project, pretext_model=model, state="complete", artifact="scores/0")
    empty: list[tuple[str, np.ndarray]] = [
        ("ids", np.empty(0, np.int64)),
        ("losses", np.empty(0, np.float32)),
        ("spreads", np.empty(0, np.float32)),
        ("embeddings", np.empty((0, 96), np.float16)),
        ("thumbnails", np.empty((0, 1026), np.uint8)),
    ]
    for name, array in empty:
        with scoring.artifacts.writing(f"scores/0/{name}.npy") as file:
            np.save(file, array)

    model, scored = scoring.run()

    assert model.config["layer"] is None
    assert scored.embeddings.shape[1] == 96


def _pixels(path: Path) -> np.ndarray:
    return np.array(Image.open(path).convert("RGB")).transpose(2, 0, 1)
