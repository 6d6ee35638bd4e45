"""Job train_pretext: backbone + pretext head, a new version of the project's pretext model.

It trains on the pool, never on the test split. After a crash the job goes on from its newest checkpoint.
"""

import math
from dataclasses import asdict
from importlib.metadata import version

import numpy as np
import sqlalchemy as sa
import structlog
import torch
from torch import Tensor

from service.store.pipeline import queue_score_pool
from service.store.project_settings import ProjectSettings
from service.store.tables import Item, PretextModel, Project, utc_now
from worker.dataset import Dataset
from worker.device import choose_device, use_threads
from worker.diagnostics import collapse, taught_nothing
from worker.jobs.choices import chosen
from worker.jobs.context import JobContext, JobFailed
from worker.jobs.item_pixels import ItemPixels
from worker.jobs.pretext_net import new_net, on_device, store_net, task_of, untrained_version
from worker.modalities.image import augmented, image_size_for, normalised
from worker.pool_view import Floats, Ints
from worker.pretext import PretextTask, pretext_tasks
from worker.recipe import RATES, Recipe
from worker.training import Diverged, State, Training

_BATCH = {"cpu": 64, "cuda": 256}
# Where the project sets no epochs. On a CPU it takes 40 s on 2 cores with `small` at 28 x 28 pixels; more
# epochs over the 8,000 images of the example did not make their embeddings better.
_IMAGES_SEEN = {"cpu": 16_000, "cuda": 1_000_000}
_LEAST_EPOCHS = 2
_MOST_EPOCHS = {"cpu": 30, "cuda": 100}
_SAMPLE = 2_048
_SAMPLE_BYTES = 2**29  # as float32; larger images make a smaller sample
_SIDES_SAMPLED = 512
_SIDES_DECODED = 64
_READ_AT_A_TIME = 1_024
_BLOCK = 256  # rows that lie together; see `worker.dataset.Dataset`
_TRAINABLE = ("available", "done", "broken")  # with what is labeled: a resumed training sees the same
_READING = 0.03  # share of the progress; reading is quick beside training

log = structlog.get_logger()


def run(context: JobContext) -> None:
    with context.read() as session:
        project = session.get_one(Project, context.job.project_id)
    use_threads(context.settings.threads)
    device = choose_device(context.settings.device)
    with ItemPixels(context.settings) as item_pixels:
        model = _interrupted(context) or _begin(context, project, item_pixels, device)
        try:
            _train(context, model, item_pixels, device)
        except JobFailed:
            with context.publish() as session:
                session.get_one(PretextModel, model.id).state = "failed"
            raise


def _interrupted(context: JobContext) -> PretextModel | None:
    """The model that this very job began. What another job left unfinished will not be finished."""
    mine = None
    with context.publish() as session:
        unfinished = sa.select(PretextModel).where(
            PretextModel.project_id == context.job.project_id, PretextModel.state == "training"
        )
        for model in session.scalars(unfinished):
            if model.config["job"] == context.job.id:
                mine = model
            else:
                model.state = "failed"
    return mine


def _begin(
    context: JobContext, project: Project, item_pixels: ItemPixels, device: torch.device
) -> PretextModel:
    settings = ProjectSettings.model_validate(project.settings)
    # A wrong choice fails before anything is read.
    task = chosen(pretext_tasks(), settings.pretext_task, "pretext_task")
    ids = _pool_ids(context, project.id)
    if not len(ids):
        raise JobFailed("There is nothing to train on: the pool is empty. Import a source first.")
    side = settings.image_size or image_size_for(
        _median_side(context, ids, settings.seed, item_pixels), device
    )
    recipe, warning = _recipe(settings, task, len(ids), device)
    config = asdict(recipe) | {
        "image_size": side,
        "pretrained": settings.pretrained,
        "device": device.type,
        "items": len(ids),
        "last_item_id": int(ids[-1]),
        "job": context.job.id,
        "code": version("shortlist"),
        "torch": torch.__version__,
    }
    with context.publish() as session:
        newest = sa.select(sa.func.max(PretextModel.version)).where(PretextModel.project_id == project.id)
        model = PretextModel(
            project_id=project.id,
            version=(session.scalar(newest) or 0) + 1,
            state="training",
            task=settings.pretext_task.model_dump(),
            backbone=settings.backbone,
            config=config,
            diagnostics={},
        )
        session.add(model)
    if warning is not None:
        _warn(context, model, warning)
    return model


def _recipe(
    settings: ProjectSettings, task: PretextTask, items: int, device: torch.device
) -> tuple[Recipe, str | None]:
    """With a sentence about what is not as the project has set it."""
    kind = "cpu" if device.type == "cpu" else "cuda"
    wanted, warning = settings.pretext_training, None
    epochs = min(max(math.ceil(_IMAGES_SEEN[kind] / items), _LEAST_EPOCHS), _MOST_EPOCHS[kind])
    batch_size = wanted.batch_size or _BATCH[kind]
    if task.largest_batch is not None and batch_size > task.largest_batch:
        warning = (
            f"The batch of {batch_size:,} was cut to {task.largest_batch:,}: {task.name} compares the items of a "
            "batch with each other, so that time and memory grow with its square, and larger ones teach no better."
        )
        batch_size = task.largest_batch
    recipe = Recipe(
        epochs=settings.pretext_epochs or epochs,
        batch_size=batch_size,
        seed=settings.seed,
        optimizer=wanted.optimizer,
        learning_rate=wanted.learning_rate or RATES[wanted.optimizer],
        average=wanted.average,
        patience=wanted.patience,
        compile=wanted.compile,
    )
    return recipe, warning


def _warn(context: JobContext, model: PretextModel, sentence: str) -> None:
    """Once in the log and in the model's diagnostics, also when the job is run again."""
    warnings = model.diagnostics.get("warnings", [])
    if sentence not in warnings:
        log.warning("pretraining", job=context.job.id, pretext_model=model.version, warning=sentence)
        _diagnose(context, model, warnings=[*warnings, sentence])


def _diagnose(context: JobContext, model: PretextModel, **found: object) -> None:
    model.diagnostics = model.diagnostics | found
    with context.publish() as session:
        session.get_one(PretextModel, model.id).diagnostics = model.diagnostics


def _train(context: JobContext, model: PretextModel, item_pixels: ItemPixels, device: torch.device) -> None:
    task = task_of(model)
    net = on_device(new_net(model), device)
    recipe = Recipe(**{name: model.config[name] for name in Recipe.__dataclass_fields__})
    dataset = _dataset(context, model, item_pixels)
    sample, traits = _sample(context, model, item_pixels)

    def prepare(pixels: Tensor, generator: torch.Generator | None) -> Tensor:
        return normalised(augmented(pixels, generator, task.flips) if generator else pixels)

    training = Training(
        net=net,
        task=task,
        dataset=dataset,
        recipe=recipe,
        device=device,
        prepare=prepare,
        sample=sample,
        traits=traits,
        save=lambda state: _save_checkpoint(context, model, state),
        save_interval_s=context.settings.checkpoint_interval_s,
        report=lambda done, message: context.report(_READING + (1 - _READING) * done, message),
        warn=lambda sentence: _warn(context, model, sentence),
    )
    try:
        trained = training.run(_checkpoint(context, model))
    except Diverged as error:
        raise JobFailed(str(error)) from error
    little = taught_nothing(training.untrained, trained)
    if little is not None:
        _warn(context, model, little)
    collapsed = collapse(training.untrained, trained, len(sample))
    _diagnose(context, model, untrained=training.untrained, trained=trained, collapse=collapsed)
    _finish(context, model, training, collapsed)


def _save_checkpoint(context: JobContext, model: PretextModel, state: State) -> None:
    """A new artifact each time; the row points at it only if the job is still ours."""
    again = f"-{state['rollbacks']}" if state["rollbacks"] else ""  # the same step, a second time
    name = f"pretext/{model.id}/ckpt-{context.job.token}-{state['step']}{again}.pt"
    with context.artifacts.writing(name) as file:
        torch.save(state, file)
    with context.publish() as session:
        row = session.get_one(PretextModel, model.id)
        row.checkpoint, row.history = name, state["history"]
    if model.checkpoint is not None:
        context.artifacts.delete(model.checkpoint)
    model.checkpoint = name


def _checkpoint(context: JobContext, model: PretextModel) -> State | None:
    if model.checkpoint is None:
        return None
    with context.artifacts.open(model.checkpoint) as file:
        state: State = torch.load(file, map_location="cpu", weights_only=True)
    return state


def _finish(context: JobContext, model: PretextModel, training: Training, collapsed: str | None) -> None:
    """The pool is scored next; by the untrained network where the training collapsed."""
    name = f"pretext/{model.id}/model-{context.job.token}.safetensors"
    untrained = f"pretext/{model.id}/untrained-{context.job.token}.safetensors"
    store_net(training.result, model, context.artifacts, name)
    if collapsed is not None:
        log.warning("pretraining", job=context.job.id, pretext_model=model.version, warning=collapsed)
        store_net(new_net(model), model, context.artifacts, untrained)
    result = {"pretext_model": model.version, "epochs": len(training.history), "collapse": collapsed}
    with context.finish(result | training.history[-1]) as session:
        row = session.get_one(PretextModel, model.id)
        row.state, row.artifact, row.checkpoint, row.finished_at = "ready", name, None, utc_now()
        row.history = training.history
        if collapsed is not None:
            row.state = "collapsed"
            session.flush()
            row = untrained_version(session, row, row.project_id, untrained, collapsed)
        queue_score_pool(session, session.get_one(Project, model.project_id), row.id)
    if model.checkpoint is not None:
        context.artifacts.delete(model.checkpoint)


def _pool(project_id: int, last_item_id: int | None) -> tuple[sa.ColumnElement[bool], ...]:
    """Fixed by the last id, so that a resumed training sees the items it saw before."""
    upto = () if last_item_id is None else (Item.id <= last_item_id,)
    return (Item.project_id == project_id, Item.split == "pool", Item.state.in_(_TRAINABLE), *upto)


def _pool_ids(context: JobContext, project_id: int, last_item_id: int | None = None) -> Ints:
    with context.read() as session:
        query = sa.select(Item.id).where(*_pool(project_id, last_item_id)).order_by(Item.id)
        rows = session.scalars(query.execution_options(yield_per=10_000))
        return np.fromiter(rows, np.int64)


def _items(context: JobContext, ids: Ints) -> list[sa.Row[int, str, int | None, int | None]]:
    """(id, uri, width, height) in the order of the ids."""
    with context.read() as session:
        query = sa.select(Item.id, Item.uri, Item.width, Item.height).where(Item.id.in_(ids.tolist()))
        rows = {row.id: row for row in session.execute(query)}
    return [rows[item_id] for item_id in ids.tolist() if item_id in rows]


def _median_side(context: JobContext, ids: Ints, seed: int, item_pixels: ItemPixels) -> float:
    """Of the short sides in a sample. What was registered without sizes is decoded."""
    sample = np.random.default_rng(seed).permutation(ids)[:_SIDES_SAMPLED]
    items = _items(context, np.sort(sample))
    sides = [min(item.width, item.height) for item in items if item.width and item.height]
    if not sides:
        decoded = item_pixels.decode([item.uri for item in items[:_SIDES_DECODED]], image_size=8)
        sides = [min(one.width, one.height) for one in decoded if one.width and one.height]
    if not sides:
        raise JobFailed(f"No item of the pool can be read. The first says: {decoded[0].reason}")
    return float(np.median(sides))


def _sample(
    context: JobContext, model: PretextModel, item_pixels: ItemPixels
) -> tuple[Tensor, dict[str, Floats]]:
    """Random items: (m, 3, s, s) uint8, and what is trivial about each, (m,)."""
    ids = _pool_ids(context, model.project_id, model.config["last_item_id"])
    side = model.config["image_size"]
    size = min(_SAMPLE, max(1, _SAMPLE_BYTES // (4 * 3 * side * side)))
    items = _items(context, np.random.default_rng(model.config["seed"]).permutation(ids)[:size])
    decoded = item_pixels.decode([item.uri for item in items], side)
    readable = [(one.pixels, one.file_size) for one in decoded if one.pixels is not None]
    if not readable:
        raise JobFailed(
            f"No item of the pool can be read. Check the items' addresses, then try again. The first says: "
            f"{decoded[0].reason if decoded else 'it is gone'}"
        )
    sample = torch.stack([pixels for pixels, _ in readable])
    pixels = sample.flatten(1).float()
    return sample, {
        "pixel_variance": pixels.var(1, correction=0).numpy(),
        "brightness": pixels.mean(1).numpy(),
        "file_size": np.array([file_size for _, file_size in readable], np.float32),
    }


def _dataset(context: JobContext, model: PretextModel, item_pixels: ItemPixels) -> Dataset:
    """The pool in memory if it fits, else read again in each epoch."""
    ids = _pool_ids(context, model.project_id, model.config["last_item_id"])
    side = model.config["image_size"]

    def read(rows: Ints) -> Tensor:
        return item_pixels.stack([item.uri for item in _items(context, ids[rows])], side)

    if 3 * side * side * len(ids) > context.settings.memory_cache_bytes:
        return Dataset(len(ids), read, _BLOCK)
    pixels = torch.empty((len(ids), 3, side, side), dtype=torch.uint8)
    filled = 0
    for start in range(0, len(ids), _READ_AT_A_TIME):
        part = read(np.arange(start, min(start + _READ_AT_A_TIME, len(ids))))
        pixels[filled : filled + len(part)] = part
        filled += len(part)
        context.report(_READING * start / len(ids), f"reading images, {start:,} of {len(ids):,}")
    return Dataset(filled, lambda rows: pixels[torch.from_numpy(rows)])
