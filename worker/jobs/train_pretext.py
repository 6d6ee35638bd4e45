"""Job train_pretext: backbone + pretext head, a new version of the project's pretext model.

It trains on the pool, never on the test split. After a crash the job goes on from its newest checkpoint.
"""

import math
from dataclasses import asdict
from importlib.metadata import version

import numpy as np
import sqlalchemy as sa
import torch
from torch import Tensor, nn

from service.store.pipeline import queue_score_pool
from service.store.project_settings import ProjectSettings
from service.store.tables import Item, PretextModel, Project, utc_now
from worker.dataset import Dataset
from worker.device import choose_device, use_threads
from worker.jobs.choices import chosen
from worker.jobs.context import JobContext, JobFailed
from worker.jobs.item_pixels import ItemPixels
from worker.jobs.pretext_net import new_net, on_device, store_net, task_of
from worker.modalities.image import augmented, image_size_for, normalised
from worker.pool_view import Ints
from worker.pretext import pretext_tasks
from worker.training import Diverged, Recipe, State, Training

_BATCH = {"cpu": 64, "cuda": 256}
# Where the project sets no epochs. On a CPU it takes 40 s on 2 cores with `small` at 28 x 28 pixels; more
# epochs over the 8,000 images of the example did not make their embeddings better.
_IMAGES_SEEN = {"cpu": 16_000, "cuda": 1_000_000}
_LEAST_EPOCHS = 2
_MOST_EPOCHS = {"cpu": 30, "cuda": 100}
_WATCHED = 512
_SIDES_SAMPLED = 512
_SIDES_DECODED = 64
_READ_AT_A_TIME = 1_024
_BLOCK = 256  # rows that lie together; see `worker.dataset.Dataset`
_TRAINABLE = ("available", "done", "broken")  # with what is labeled: a resumed training sees the same
_READING = 0.03  # share of the progress; reading is quick beside training


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
    chosen(pretext_tasks(), settings.pretext_task, "pretext_task")
    ids = _pool_ids(context, project.id)
    if not len(ids):
        raise JobFailed("There is nothing to train on: the pool is empty. Import a source first.")
    side = settings.image_size or image_size_for(
        _median_side(context, ids, settings.seed, item_pixels), device
    )
    kind = "cpu" if device.type == "cpu" else "cuda"
    by_size = min(max(math.ceil(_IMAGES_SEEN[kind] / len(ids)), _LEAST_EPOCHS), _MOST_EPOCHS[kind])
    recipe = Recipe(epochs=settings.pretext_epochs or by_size, batch_size=_BATCH[kind], seed=settings.seed)
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
        )
        session.add(model)
    return model


def _train(context: JobContext, model: PretextModel, item_pixels: ItemPixels, device: torch.device) -> None:
    task = task_of(model)
    net = on_device(new_net(model), device)
    recipe = Recipe(**{name: model.config[name] for name in Recipe.__dataclass_fields__})
    dataset = _dataset(context, model, item_pixels)
    watched = dataset.load(np.random.default_rng(recipe.seed).permutation(dataset.size)[:_WATCHED])
    if not len(watched):
        raise JobFailed("No item of the pool can be read. Check the items' addresses, then try again.")

    def prepare(pixels: Tensor, generator: torch.Generator | None) -> Tensor:
        return normalised(augmented(pixels, generator, task.flips) if generator else pixels)

    training = Training(
        net=net,
        task=task,
        dataset=dataset,
        recipe=recipe,
        device=device,
        prepare=prepare,
        watched=watched,
        save=lambda state: _save_checkpoint(context, model, state),
        save_interval_s=context.settings.checkpoint_interval_s,
        report=lambda done, message: context.report(_READING + (1 - _READING) * done, message),
    )
    if not model.diagnostics:  # nothing was learned yet
        model.diagnostics = {"untrained": training.watch()}
        with context.publish() as session:
            session.get_one(PretextModel, model.id).diagnostics = model.diagnostics
    try:
        history = training.run(_checkpoint(context, model))
    except Diverged as error:
        raise JobFailed(str(error)) from error
    _finish(context, model, net, history)


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


def _finish(
    context: JobContext, model: PretextModel, net: nn.Module, history: list[dict[str, float]]
) -> None:
    name = f"pretext/{model.id}/model-{context.job.token}.safetensors"
    store_net(net, model, context.artifacts, name)
    with context.finish({"pretext_model": model.version, "epochs": len(history), **history[-1]}) as session:
        row = session.get_one(PretextModel, model.id)
        row.state, row.artifact, row.checkpoint, row.finished_at = "ready", name, None, utc_now()
        row.history = history
        row.diagnostics = model.diagnostics | {"trained": history[-1]}
        queue_score_pool(session, session.get_one(Project, model.project_id), model.id)
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
