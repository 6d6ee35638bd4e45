"""Job train_pretext, from a project's pool to a finished model, also across crashes."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import pytest
import safetensors.torch
import sqlalchemy as sa
import torch
from PIL import Image

from service.errors import ArtifactNotStored
from service.settings import Settings
from service.store import jobs
from service.store.artifacts import Artifacts
from service.store.pipeline import queue_train_pretext
from service.store.session import read_session, write_session
from service.store.tables import Job, PretextModel, Project
from tests.factories import make_item, make_project
from tests.pictures import write_pictures
from tests.worker.running import claim, hand_back, run
from worker.device import Sent
from worker.errors import JobFailed, Unsuited
from worker.jobs import train_pretext
from worker.jobs.context import JobContext
from worker.jobs.specs import open_net, spec_of
from worker.modalities.image.pretext.rotation import Rotation
from worker.models.nets import new_net
from worker.pretraining.loop import Diverged, State, Training

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


class Crash(BaseException):
    pass


@pytest.fixture
def training(
    engine: sa.Engine, settings: Settings, artifacts: Artifacts, tmp_path: Path
) -> Callable[..., JobContext]:
    """Makes a project over `count` pictures and claims its training."""

    def make(count: int = 11, size: int = 12, sized: bool = True, **project_settings: Any) -> JobContext:
        folder = write_pictures(tmp_path / "pool", count, width=size, height=size)
        sizes = {"facts": {"width": size, "height": size}} if sized else {}
        with write_session(engine) as session:
            project = make_project(session, settings={"pretext_epochs": 2} | project_settings)
            for path in sorted(folder.iterdir()):
                make_item(session, project=project, key=path.name, uri=str(path), **sizes)
            queue_train_pretext(session, project)
        return claim(engine, settings, artifacts)

    return make


def models(context: JobContext) -> list[PretextModel]:
    with read_session(context.engine) as session:
        return list(session.scalars(sa.select(PretextModel).order_by(PretextModel.id)))


def tensors(context: JobContext) -> dict[str, torch.Tensor]:
    with context.artifacts.open(str(models(context)[-1].artifact)) as file:
        return safetensors.torch.load(file.read())


def test_a_model_is_trained_stored_and_scored_next(training: Callable[..., JobContext]) -> None:
    context = training()
    run(context)

    (model,) = models(context)
    assert (model.state, model.version, model.checkpoint) == ("ready", 1, None)
    assert len(model.history) == 2
    assert model.config["image_size"] == 12
    assert {"seed", "code", "torch", "epochs", "batch_size", "learning_rate"} <= set(model.config)
    assert model.diagnostics["untrained"]["rank_me"] > 1
    trained = model.diagnostics["trained"]
    assert trained == {name: model.history[-1][name] for name in trained}
    assert {"loss_rho_brightness", "loss_rho_pixel_variance"} <= set(trained)
    assert open_net(model, context.artifacts, torch.device("cpu"))(torch.zeros(1, 3, 12, 12)).shape == (1, 4)
    with read_session(context.engine) as session:
        job = session.scalars(sa.select(Job).where(Job.state == "queued")).one()
    assert (job.kind, job.payload) == ("score_pool", {"pretext_model_id": model.id})
    files = list((context.settings.data_dir / "artifacts" / "pretext").rglob("*.*"))
    assert [file.suffix for file in files] == [".safetensors"]  # no checkpoint is left


@on_sqlite
@pytest.mark.parametrize("streamed", [False, True])
def test_a_killed_training_goes_on_and_ends_the_same(
    streamed: bool, training: Callable[..., JobContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = training()
    if streamed:
        undisturbed.settings = undisturbed.settings.model_copy(update={"memory_cache_bytes": 0})
    monkeypatch.setattr(train_pretext, "_BATCH", {"cpu": 4})
    run(undisturbed)
    expected = tensors(undisturbed)

    with write_session(undisturbed.engine) as session:
        session.execute(sa.delete(Job))
        queue_train_pretext(session, session.get_one(Project, undisturbed.job.project_id))
    settings = undisturbed.settings.model_copy(update={"checkpoint_interval_s": 1e-9})
    first = claim(undisturbed.engine, settings, undisturbed.artifacts)
    saved = 0

    def save_and_crash(context: JobContext, model: PretextModel, state: State) -> None:
        nonlocal saved
        save(context, model, state)
        saved += 1
        if saved == 2:
            raise Crash

    save = train_pretext._save_checkpoint
    monkeypatch.setattr(train_pretext, "_save_checkpoint", save_and_crash)
    with pytest.raises(Crash):
        run(first)
    monkeypatch.setattr(train_pretext, "_save_checkpoint", save)
    unfinished = models(first)[-1]
    assert unfinished.checkpoint == f"pretext/{unfinished.id}/checkpoints/{first.job.token}-2.pt"
    folder = first.settings.data_dir / "artifacts" / "pretext" / str(unfinished.id)
    (folder / "checkpoints" / ".1-3.pt.tmp").write_bytes(b"cut off")
    hand_back(first)
    second = claim(undisturbed.engine, undisturbed.settings, undisturbed.artifacts)
    steps = count_steps(monkeypatch)
    run(second)

    assert len(steps) == 4  # of 6: 2 were stored
    assert [(model.version, model.state) for model in models(second)] == [(1, "ready"), (2, "ready")]
    found = tensors(second)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert [file.suffix for file in folder.iterdir()] == [".safetensors"]


def count_steps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    steps: list[float] = []
    learn = Training._learn

    def counting(self: Training, items: Sent, rate: float) -> None:
        steps.append(rate)
        learn(self, items, rate)

    monkeypatch.setattr(Training, "_learn", counting)
    return steps


@on_sqlite
def test_nothing_is_left_of_a_cancelled_training(
    training: Callable[..., JobContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor of the checkpoint that its runner was writing when it was cancelled, and may not publish."""
    context = training()
    save = train_pretext._save_checkpoint

    def save_late(context: JobContext, model: PretextModel, state: State) -> None:
        save(context, model, state)
        with write_session(context.engine) as session:
            jobs.request_cancel(session, context.job.id)
        jobs.mark_cancelled(context.engine, context.job)
        save(context, model, state | {"part": 1})

    monkeypatch.setattr(train_pretext, "_save_checkpoint", save_late)
    with pytest.raises(jobs.LeaseLost):
        run(context)
    folder = context.settings.data_dir / "artifacts" / "pretext"
    assert len(list(folder.rglob("*.pt"))) == 2
    with write_session(context.engine) as session:
        session.execute(sa.update(Job).values(run_at=0))
    deletion = claim(context.engine, context.settings, context.artifacts)
    run(deletion)

    assert deletion.job.kind == "delete_artifacts"
    assert not list(folder.iterdir())
    (model,) = models(context)
    assert (model.state, model.checkpoint) == ("cancelled", None)


@on_sqlite
@pytest.mark.parametrize("saved_before", [2, 6])
def test_out_of_fold_a_network_is_trained_on_each_half_also_across_a_crash(
    saved_before: int, training: Callable[..., JobContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    """2 epochs of 2 or 3 batches for each half; a checkpoint after each batch: the sixth is of the second half."""
    monkeypatch.setattr(train_pretext, "_BATCH", {"cpu": 3})
    undisturbed = training(pretext_training={"out_of_fold": 2})
    run(undisturbed)
    with write_session(undisturbed.engine) as session:
        session.execute(sa.delete(Job))
        queue_train_pretext(session, session.get_one(Project, undisturbed.job.project_id))
    settings = undisturbed.settings.model_copy(update={"checkpoint_interval_s": 1e-9})
    first = claim(undisturbed.engine, settings, undisturbed.artifacts)
    save, saved = train_pretext._save_checkpoint, 0

    def save_and_crash(context: JobContext, model: PretextModel, state: State) -> None:
        nonlocal saved
        save(context, model, state)
        saved += 1
        if saved == saved_before:
            raise Crash

    monkeypatch.setattr(train_pretext, "_save_checkpoint", save_and_crash)
    with pytest.raises(Crash):
        run(first)
    monkeypatch.setattr(train_pretext, "_save_checkpoint", save)
    hand_back(first)
    run(claim(undisturbed.engine, settings, undisturbed.artifacts))

    expected, found = models(first)
    assert [epoch["epoch"] for epoch in found.history] == [1, 2, 1, 2]
    halves = [head_weight(first, found, other) for other in (False, True)]
    assert not torch.equal(*halves)
    for other in (False, True):
        assert torch.equal(halves[other], head_weight(first, expected, other))


def head_weight(context: JobContext, model: PretextModel, other_half: bool) -> torch.Tensor:
    net = open_net(model, context.artifacts, torch.device("cpu"), other_half)
    return net.get_parameter("head.weight")


@on_sqlite
def test_the_recipe_is_the_projects(training: Callable[..., JobContext]) -> None:
    wanted = {"optimizer": "sgd", "batch_size": 5, "average": 0.9, "patience": 1}
    context = training(pretext_training=wanted)
    run(context)

    config = models(context)[0].config
    assert {name: config[name] for name in wanted} == wanted
    assert config["learning_rate"] == 0.05


@on_sqlite
def test_a_batch_that_is_too_large_is_cut_and_says_why(
    training: Callable[..., JobContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Rotation, "largest_batch", 4)
    context = training()
    run(context)

    (model,) = models(context)
    assert model.config["batch_size"] == 4
    assert "cut to 4: rotation compares" in model.diagnostics["warnings"][0]


@on_sqlite
def test_a_collapsed_model_is_kept_but_the_untrained_one_scores(training: Callable[..., JobContext]) -> None:
    context = training(70, pretext_training={"learning_rate": 0.2, "batch_size": 14})
    run(context)

    collapsed, untrained = models(context)
    assert (collapsed.state, untrained.state) == ("collapsed", "ready")
    assert "RankMe" in collapsed.diagnostics["collapse"]
    assert collapsed.diagnostics["collapse"] in untrained.diagnostics["note"]
    assert len(collapsed.history) == 2
    nets = [open_net(model, context.artifacts, torch.device("cpu")) for model in (collapsed, untrained)]
    expected = new_net(spec_of(collapsed)).get_parameter("head.weight")
    assert [torch.equal(net.get_parameter("head.weight"), expected) for net in nets] == [False, True]
    with read_session(context.engine) as session:
        job = session.scalars(sa.select(Job).where(Job.state == "queued")).one()
        result = session.get_one(Job, context.job.id).result
    assert (job.kind, job.payload) == ("score_pool", {"pretext_model_id": untrained.id})
    assert result is not None
    assert result["collapse"] == collapsed.diagnostics["collapse"]


@on_sqlite
@pytest.mark.parametrize("out_of_fold", [None, 2])
@pytest.mark.parametrize("count", [1, 3])
def test_tiny_pools(count: int, out_of_fold: int | None, training: Callable[..., JobContext]) -> None:
    context = training(count, pretext_training={"out_of_fold": out_of_fold})
    run(context)

    (model,) = models(context)
    assert model.state == "ready"
    if count == 1 and out_of_fold:
        assert "too small to be halved" in model.diagnostics["warnings"][0]


@on_sqlite
def test_any_timm_backbone(training: Callable[..., JobContext]) -> None:
    context = training(3, size=32, backbone="resnet18", pretext_epochs=1)
    run(context)

    net = open_net(models(context)[0], context.artifacts, torch.device("cpu"))
    assert net.get_submodule("backbone")(torch.zeros(1, 3, 32, 32)).shape == (1, 512)


@on_sqlite
def test_sizes_that_are_not_known_are_found_out(training: Callable[..., JobContext]) -> None:
    context = training(size=20, sized=False)
    run(context)

    assert models(context)[0].config["image_size"] == 20


@on_sqlite
def test_unreadable_items_are_left_out(training: Callable[..., JobContext], tmp_path: Path) -> None:
    context = training()
    (tmp_path / "pool" / "00003.png").unlink()
    (tmp_path / "pool" / "00004.png").write_bytes(b"x")
    run(context)

    assert models(context)[0].state == "ready"


@on_sqlite
def test_epochs_follow_the_pool_unless_set(training: Callable[..., JobContext]) -> None:
    context = training(3, pretext_epochs=None)
    run(context)

    assert models(context)[0].config["epochs"] == train_pretext._MOST_EPOCHS["cpu"]


@on_sqlite
@pytest.mark.parametrize(
    ("count", "project_settings", "sentence"),
    [
        (0, {}, "pool is empty"),
        (2, {"pretext_task": "rotate"}, "rotation"),
        (2, {"pretext_task": {"name": "rotation", "params": {"x": 1}}}, "cannot take x"),
        (2, {"backbone": "resnet81"}, "Close: .*resnet18"),
        (2, {"pretrained": True}, "no pretrained weights"),
    ],
)
def test_what_cannot_be_trained_says_so(
    count: int, project_settings: dict[str, Any], sentence: str, training: Callable[..., JobContext]
) -> None:
    context = training(count, **project_settings)

    with pytest.raises((JobFailed, Unsuited), match=sentence):
        run(context)


@on_sqlite
def test_a_pool_of_which_nothing_can_be_read(training: Callable[..., JobContext], tmp_path: Path) -> None:
    context = training()
    for path in (tmp_path / "pool").iterdir():
        path.unlink()

    with pytest.raises(JobFailed, match="No item of the pool can be read"):
        run(context)


@on_sqlite
def test_a_training_that_diverges_fails_with_a_sentence(
    training: Callable[..., JobContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    context = training()

    def diverge(self: Training, resume: State | None = None) -> list[dict[str, float]]:
        raise Diverged("The training diverged")

    monkeypatch.setattr(Training, "run", diverge)

    with pytest.raises(JobFailed, match="The training diverged"):
        run(context)


@on_sqlite
def test_without_room_for_a_checkpoint_the_last_one_stays_whole(
    training: Callable[..., JobContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job is tried again, and goes on from it once there is room."""
    context = training()
    save, saved = torch.save, 0

    def save_once(state: State, file: IO[bytes]) -> None:
        nonlocal saved
        saved += 1
        save(state, file)
        if saved == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(torch, "save", save_once)
    with pytest.raises(ArtifactNotStored, match=r"no space left on device\. Make room") as raised:
        run(context)
    assert raised.value.status >= 500  # so that the runner has the job tried again

    folder = context.settings.data_dir / "artifacts" / "pretext" / "1" / "checkpoints"
    (checkpoint,) = folder.iterdir()
    assert models(context)[0].checkpoint == f"pretext/1/checkpoints/{checkpoint.name}"
    assert torch.load(checkpoint, weights_only=True)["training"]["step"] == 1
    hand_back(context)
    run(claim(context.engine, context.settings, context.artifacts))
    assert models(context)[0].state == "ready"


@on_sqlite
def test_a_pool_that_is_all_black(training: Callable[..., JobContext], tmp_path: Path) -> None:
    context = training(70)
    for path in (tmp_path / "pool").iterdir():
        Image.new("RGB", (12, 12)).save(path)
    run(context)

    assert models(context)[-1].state == "ready"
    assert all("NaN" not in str(model.history) for model in models(context))
