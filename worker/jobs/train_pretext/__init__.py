"""Job train_pretext: backbone + pretext head, a new version of the project's pretext model.

It trains on the pool, never on the test split. After a crash the job goes on from its newest checkpoint. On several
devices as many trainers train it together; whatever is stored is stored here.
"""

import math
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import version
from tempfile import TemporaryFile

import sqlalchemy as sa
import structlog
import torch
from torch import Tensor, nn

from service.store.jobs import progressed
from service.store.pipeline import queue_score_pool
from service.store.project_settings import ProjectSettings
from service.store.tables import PretextModel, Project, utc_now
from worker.arrays import Floats
from worker.device import available_cores, choose_device, use_threads
from worker.errors import JobFailed
from worker.evaluation.diagnostics import Diagnostics, collapse, taught_nothing
from worker.jobs.context import JobContext
from worker.jobs.score_pool.foundation import AUTO
from worker.jobs.specs import modality_of, of_other_half, spec_of, store_net, untrained_version
from worker.jobs.train_pretext.pool import TrainingPool
from worker.modalities import Modality
from worker.models.nets import new_net, on_device
from worker.models.spec import input_of
from worker.pool.reader import ItemReader
from worker.pretext import PretextTask, pretext_tasks
from worker.pretraining.launcher import Assignment, Trainers, packed, unpacked
from worker.pretraining.loop import State
from worker.pretraining.recipe import RATES, Recipe
from worker.pretraining.train import Callbacks, Trained, train
from worker.registry import plug_in_from

_BATCH = {"cpu": 64, "cuda": 256}
_LEAST_EPOCHS = 2
_MOST_EPOCHS = {"cpu": 30, "cuda": 100}
_READING = 0.03  # share of the progress; reading is quick beside training

log = structlog.get_logger()


def run(context: JobContext) -> None:
    with context.read() as session:
        project = session.get_one(Project, context.job.project_id)
    use_threads(context.settings.threads)
    device = choose_device(context.settings.device)
    with ItemReader(context.settings) as reader:
        model = _interrupted(context) or _begin(context, project, reader, device)
        try:
            _train(context, model, reader, device)
        except torch.OutOfMemoryError as error:
            raise JobFailed(
                "Training needs more memory than the device has. Set a smaller pretext_training.batch_size, "
                "image_size or backbone, and pretrain again."
            ) from error


def _interrupted(context: JobContext) -> PretextModel | None:
    """The model that this very job began. What ended jobs left unfinished says so (`service.store.abandoned_jobs`)."""
    with context.read() as session:
        mine = sa.select(PretextModel).where(
            PretextModel.project_id == context.job.project_id,
            PretextModel.state == "training",
            PretextModel.config["job"].as_integer() == context.job.id,
        )
        return session.scalars(mine).one_or_none()


def _begin(context: JobContext, project: Project, reader: ItemReader, device: torch.device) -> PretextModel:
    settings = ProjectSettings.model_validate(project.settings)
    # A wrong choice fails before anything is read.
    choice = settings.pretext_task
    task = plug_in_from(pretext_tasks(), choice.name, choice.params, "pretext_task")
    pool = TrainingPool(context, reader, settings.seed)
    ids = pool.ids()
    if not len(ids):
        raise JobFailed("There is nothing to train on: the pool is empty. Import a source first.")
    modality = _resolved(project, pool, device)
    recipe, warnings = _recipe(settings, task, modality, len(ids), device)
    folds = settings.pretext_training.out_of_fold
    if folds and not all(len(TrainingPool(context, reader, 0, half=half).ids()) for half in (0, 1)):
        warnings.append("The pool is too small to be halved, so that nothing is scored out of fold.")
        folds = None
    config = asdict(recipe) | {
        "input": input_of(modality),
        "image_size": getattr(modality, "image_size", None),  # where it stood before there were other items
        "out_of_fold": folds,
        "pretrained": settings.pretrained,
        "wanted_backbone": settings.backbone,
        "device": device.type,
        "devices": context.settings.devices,
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
            backbone=modality.default_backbone if settings.backbone == AUTO else settings.backbone,
            config=config,
            diagnostics={},
        )
        session.add(model)
    for warning in warnings:
        _warn(context, model, warning)
    return model


def _resolved(project: Project, pool: TrainingPool, device: torch.device) -> Modality:
    """The project's modality, all that the project does not set decided by a sample of the pool."""
    modality = modality_of(project)
    return modality.resolved(pool.facts(modality, device), device)


def _recipe(
    settings: ProjectSettings, task: PretextTask, modality: Modality, items: int, device: torch.device
) -> tuple[Recipe, list[str]]:
    """With sentences about what is not as the project has set it."""
    kind = "cpu" if device.type == "cpu" else "cuda"
    wanted, warnings = settings.pretext_training, list[str]()
    epochs = min(max(math.ceil(modality.items_seen[kind] / items), _LEAST_EPOCHS), _MOST_EPOCHS[kind])
    batch_size = wanted.batch_size or _BATCH[kind]
    if task.largest_batch is not None and batch_size > task.largest_batch:
        warnings.append(
            f"The batch of {batch_size:,} was cut to {task.largest_batch:,}: {task.name} compares the items of a "
            "batch with each other, so that time and memory grow with its square, and larger ones teach no better."
        )
        batch_size = task.largest_batch
    gently = settings.pretrained and wanted.optimizer == "adamw"
    recipe = Recipe(
        epochs=settings.pretext_epochs or epochs,
        batch_size=batch_size,
        seed=settings.seed,
        optimizer=wanted.optimizer,
        learning_rate=wanted.learning_rate
        or (gently and modality.pretrained_rate)
        or RATES[wanted.optimizer],
        average=wanted.average,
        patience=wanted.patience,
        compile=wanted.compile,
    )
    return recipe, warnings


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


def _train(context: JobContext, model: PretextModel, reader: ItemReader, device: torch.device) -> None:
    """The whole pool; or, out of fold, each half: the first network then gives the embeddings."""
    saved = _checkpoint(context, model)
    halves: tuple[int | None, ...] = (0, 1) if model.config["out_of_fold"] else (None,)
    done: list[nn.Module] = []
    history: list[Diagnostics] = []
    for number, half in enumerate(halves):
        if saved is not None and number < saved["part"]:  # trained before the job was interrupted
            net = new_net(spec_of(model))
            net.load_state_dict(saved["done"][number])
            done.append(on_device(net, device))
            history = saved["past"]
            continue
        resume = saved["training"] if saved is not None and number == saved["part"] else None
        part = _train_part(context, model, reader, device, half, resume, done, history)
        done.append(part.net)
        history = history + part.history
    _finish(context, model, done, history)


def _train_part(
    context: JobContext,
    model: PretextModel,
    reader: ItemReader,
    device: torch.device,
    half: int | None,
    resume: State | None,
    done: list[nn.Module],
    past: list[Diagnostics],
) -> Trained:
    """One network, after those that are `done`, whose epochs are `past`. Raises `JobFailed`."""
    parts, spec = 1 if half is None else 2, spec_of(model)
    modality = spec.make_modality()
    pool = TrainingPool(context, reader, model.config["seed"], model.config["last_item_id"], half)
    begin, share = len(done) / parts, 1 / parts

    def report_reading(part: float, message: str) -> None:
        context.report(begin + share * _READING * part, message)

    def save(state: State) -> None:
        nets = [{name: value.cpu() for name, value in net.state_dict().items()} for net in done]
        _save_checkpoint(context, model, {"part": len(done), "done": nets, "past": past, "training": state})

    callbacks = Callbacks(
        save=save,
        save_interval_s=context.settings.checkpoint_interval_s,
        report=lambda part, message: context.report(
            begin + share * (_READING + (1 - _READING) * part), message
        ),
        warn=lambda sentence: _warn(context, model, sentence),
    )
    sample, traits = pool.sample(modality)
    if context.settings.devices > 1:
        found = _by_trainers(pool, model, device, sample, traits, report_reading, callbacks, resume)
    else:
        dataset = pool.dataset(modality, report_reading)
        recipe, net = _recipe_of(model), new_net(spec)
        found = train(spec, recipe, net, dataset, sample, traits, device, callbacks, resume)
    little = taught_nothing(found.untrained, found.trained)
    if little is not None:
        _warn(context, model, little)
    collapsed = model.diagnostics.get("collapse") or collapse(
        found.untrained,
        found.trained,
        len(sample),
        least_spread=modality.least_spread,
        least_rank=modality.least_rank,
    )
    measured = {"untrained": found.untrained, "trained": found.trained} if not done else {}
    _diagnose(context, model, collapse=collapsed, **measured)
    return found


def _by_trainers(
    pool: TrainingPool,
    model: PretextModel,
    device: torch.device,
    sample: Tensor,
    traits: dict[str, Floats],
    report_reading: Callable[[float, str], None],
    callbacks: Callbacks,
    resume: State | None,
) -> Trained:
    """On all devices; on one if there is too little for more. Raises as `train`, and `TrainersLost`."""
    spec, recipe, settings = spec_of(model), _recipe_of(model), pool.context.settings
    net = new_net(spec)  # a backbone that cannot be built is found out here
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    with TemporaryFile(dir=settings.data_dir) as items:  # without a name: nothing of it is ever left behind
        shared = pool.shared(spec.make_modality(), report_reading, items)
        trainers = min(settings.devices, model.config["batch_size"], shared.size)
        if trainers == 1:
            dataset = shared.dataset(items, pool.reader)
            return train(spec, recipe, net, dataset, sample, traits, device, callbacks, resume)
        threads = max(1, (settings.threads or available_cores()) // trainers)
        assignment = Assignment(
            spec=spec,
            recipe=recipe,
            settings=settings.model_copy(update={"devices": trainers, "threads": threads}),
            pool=shared,
            sample=sample.numpy(),
            traits=traits,
            checkpoint=packed(resume) if resume else None,
        )
        torch.cuda.empty_cache()  # a trainer needs the room on this process's device
        with Trainers(trainers, assignment, items) as working:
            ended = working.train(callbacks)
    net.load_state_dict(unpacked(ended.net))
    return Trained(
        net=on_device(net, device), untrained=ended.untrained, trained=ended.trained, history=ended.history
    )


def _recipe_of(model: PretextModel) -> Recipe:
    return Recipe(**{name: model.config[name] for name in Recipe.__dataclass_fields__})


def _save_checkpoint(context: JobContext, model: PretextModel, state: State) -> None:
    """A new artifact each time; the row points at it only if the job is still ours."""
    training = state["training"]
    again = f"-{training['rollbacks']}" if training["rollbacks"] else ""  # the same step, a second time
    part = f"part-{state['part']}-" if state["part"] else ""
    name = f"{_checkpoints(model)}/{context.job.token}-{part}{training['step']}{again}.pt"
    with context.artifacts.writing(name) as file:
        torch.save(state, file)
    with context.publish() as session:
        row = session.get_one(PretextModel, model.id)
        row.checkpoint, row.history = name, state["past"] + training["history"]
        progressed(session, context.job)
    if model.checkpoint is not None:
        context.artifacts.delete(model.checkpoint)
    model.checkpoint = name


def _checkpoints(model: PretextModel) -> str:
    """The folder. In it may also be what a crash left of one, or one that was stored but not published."""
    return f"pretext/{model.id}/checkpoints"


def _checkpoint(context: JobContext, model: PretextModel) -> State | None:
    if model.checkpoint is None:
        return None
    with context.artifacts.open(model.checkpoint) as file:
        state: State = torch.load(file, map_location="cpu", weights_only=True)
    return state


def _finish(
    context: JobContext, model: PretextModel, nets: list[nn.Module], history: list[Diagnostics]
) -> None:
    """The pool is scored next; by the untrained network where the training collapsed."""
    collapsed = model.diagnostics["collapse"]
    name = f"pretext/{model.id}/model-{context.job.token}.safetensors"
    untrained = f"pretext/{model.id}/untrained-{context.job.token}.safetensors"
    store_net(nets[0], model, context.artifacts, name)
    if len(nets) > 1:
        store_net(nets[1], model, context.artifacts, of_other_half(name))
    if collapsed is not None:
        log.warning("pretraining", job=context.job.id, pretext_model=model.version, warning=collapsed)
        store_net(new_net(spec_of(model)), model, context.artifacts, untrained)
    result = {"pretext_model": model.version, "epochs": len(history), "collapse": collapsed}
    with context.finish(result | history[-1]) as session:
        row = session.get_one(PretextModel, model.id)
        row.state, row.artifact, row.checkpoint, row.finished_at = "ready", name, None, utc_now()
        row.history = history
        if collapsed is not None:
            row.state = "collapsed"
            session.flush()
            row = untrained_version(session, row, row.project_id, untrained, collapsed)
        queue_score_pool(session, session.get_one(Project, model.project_id), row.id)
    context.artifacts.delete(_checkpoints(model))
