"""The speed of scoring and training on images, against the plain way and against what the machine can do.

The pool is generated: soft random pictures, as JPEG files and as one Parquet file. In each round all of these are
timed, one after the other, so that a busy machine is unfair to none; the median over the rounds counts.

- ours: `ShardScorer` with the local engine, as job score_pool uses them; `Training`, as job train_pretext does
- the limit: the bare forward (and for training the backward and the optimizer) of the same network, with the same
  batch size, on normalised views that lie in memory
- the plain way, as the PT4AL reference scores: item by item, the file opened and four forwards for each
  (https://github.com/johnsk95/PT4AL)

`--million` instead trains on and scores 1,000,000 generated images of 8 x 8 pixels in Parquet, by the jobs
themselves, and says how much memory their process took. That is half an hour on two quiet cores.

`make bench-pretext`, or `python -m benchmarks.pretext --items 4096 --rounds 3`.
"""

import argparse
import io
import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy as sa
import torch
from PIL import Image
from rich.console import Console
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.report import RESULTS, Figure, write_report
from service.settings import Settings
from service.store import jobs, migrate, pipeline
from service.store.artifacts import Artifacts
from service.store.session import make_engine, read_session, write_session
from service.store.tables import Item, PretextModel, Project, Round, ScoreRun
from worker.arrays import Floats
from worker.device import autocast, available_cores, choose_device, use_threads
from worker.engines.local import LocalEngine
from worker.evaluation.diagnostics import peak_memory_gb
from worker.jobs import score_pool, train_pretext
from worker.jobs.context import JobContext
from worker.jobs.score_pool import shard_of, work_of
from worker.jobs.specs import open_net, spec_of, store_net
from worker.modalities.image.pixels import augmented, normalised, to_pixels
from worker.modalities.image.pretext.rotation import Rotation
from worker.models.nets import new_net
from worker.pool.dataset import Dataset
from worker.pretraining.loop import Training
from worker.pretraining.recipe import Recipe
from worker.scoring.pool_scoring import OpenPoolScoring

MILLION = 1_000_000
_OF_MILLION = "_1m"  # ends the names of its figures
SHARD = 512
PLAIN_ITEMS = 128  # one by one they take long
EPOCHS = 3
TASK = Rotation()


@dataclass(frozen=True)
class Bench:
    """A project over a generated pool, with an untrained network of that backbone: timing needs no other."""

    settings: Settings
    engine: sa.Engine
    artifacts: Artifacts
    run: ScoreRun
    model: PretextModel
    paths: list[Path]

    @property
    def context(self) -> JobContext:
        job = jobs.ClaimedJob(1, self.run.project_id, "score_pool", "long", {}, 1, 3, 1, None, None)
        return JobContext(
            job=job,
            settings=self.settings,
            engine=self.engine,
            artifacts=self.artifacts,
            report=lambda done, message: None,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--items", type=int, default=4_096)
    parser.add_argument("--side", type=int, default=32, help="pixels of an image")
    parser.add_argument("--rounds", type=int, default=3, help="everything is timed so often, in turns")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--million", action="store_true", help="memory at 1,000,000 images, and nothing else")
    parser.add_argument("--no-write", action="store_true", help="leave benchmarks/results as it is")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="shortlist-bench-") as name:
        folder = Path(name)
        if options.million:
            figures = _kept(of_million=False) | _alone(memory, folder, MILLION)
            command, run = "python -m benchmarks.pretext --million", _OF_MILLION
        else:
            figures, run = _kept(of_million=True) | speed(folder, options), ""
            command = (
                f"python -m benchmarks.pretext --items {options.items} --side {options.side} --rounds {options.rounds} "
                f"--device {options.device}"
            )
        write_report("pretext", figures, command, folder if options.no_write else RESULTS, run=run)


def _kept(*, of_million: bool) -> dict[str, Figure]:
    """Figures of earlier runs of the other kind, with their command and date."""
    path = RESULTS / "pretext.json"
    before: dict[str, Figure] = json.loads(path.read_text()) if path.exists() else {}
    return {name: value for name, value in before.items() if name.endswith(_OF_MILLION) == of_million}


def _alone(function: Callable[..., dict[str, Figure]], *arguments: object) -> dict[str, Figure]:
    """In a fresh process, so that its peak memory is its own."""
    with multiprocessing.get_context("spawn").Pool(1) as process:
        return process.apply(function, arguments)


# ---- speed ----


def speed(folder: Path, options: argparse.Namespace) -> dict[str, Figure]:
    device = choose_device(options.device)
    use_threads(None)
    small = make_bench(folder / "small", options.items, options.side, "small", options.device)
    larger = make_bench(folder / "resnet18", options.items // 4, options.side, "resnet18", options.device)
    timed: dict[str, list[float]] = {}
    losses: dict[str, Floats] = {}
    for number in range(options.rounds):
        for name, measure in _measures(small, larger, device, losses):
            timed.setdefault(name, []).append(measure())
            Console(stderr=True).print(f"round {number + 1}, {name}: {timed[name][-1]:.0f} images/s")
    rates: dict[str, Figure] = {f"{name}_images_per_s": median(rates) for name, rates in timed.items()}

    def over(name: str, other: str) -> float:
        return median(a / b for a, b in zip(timed[name], timed[other], strict=True))

    pairs = [("small", "plain_small"), ("small", "parquet_small"), ("resnet18", "plain_resnet18")]
    shared = [(losses[one], losses[other]) for one, other in pairs]
    differences = [float(np.abs(one[: len(other)] - other).max()) for one, other in shared]
    return rates | {
        "scoring_over_limit": min(
            over("scoring_small", "scoring_limit_small"), over("scoring_parquet_small", "scoring_limit_small")
        ),
        "scoring_over_limit_jpeg": over("scoring_small", "scoring_limit_small"),
        "scoring_over_limit_parquet": over("scoring_parquet_small", "scoring_limit_small"),
        "scoring_over_limit_resnet18": over("scoring_resnet18", "scoring_limit_resnet18"),
        "scoring_over_plain_resnet18": over("scoring_resnet18", "scoring_plain_resnet18"),
        "scoring_over_plain_small": over("scoring_small", "scoring_plain_small"),
        "training_over_limit": over("training_small", "training_limit_small"),
        "loss_max_abs_diff": max(differences),
        "device": device.type,
        "device_peak_gb": peak_memory_gb(device),
        "items": options.items,
        "side": options.side,
        "rounds": options.rounds,
    }


def _measures(
    small: Bench, larger: Bench, device: torch.device, losses: dict[str, Floats]
) -> Iterator[tuple[str, Callable[[], float]]]:
    """The measures that are timed in a round; `losses` are kept to be compared."""
    yield "scoring_small", lambda: ours(small, device, False, losses, "small")
    yield "scoring_parquet_small", lambda: ours(small, device, True, losses, "parquet_small")
    yield "scoring_limit_small", lambda: limit(small, device)
    yield "scoring_plain_small", lambda: plain(small, device, losses, "plain_small")
    yield "scoring_resnet18", lambda: ours(larger, device, False, losses, "resnet18")
    yield "scoring_limit_resnet18", lambda: limit(larger, device)
    yield "scoring_plain_resnet18", lambda: plain(larger, device, losses, "plain_resnet18")
    yield "training_small", lambda: our_training(small, device)
    yield "training_limit_small", lambda: training_limit(small, device)


def ours(bench: Bench, device: torch.device, parquet: bool, losses: dict[str, Floats], name: str) -> float:
    """Images a second from their files to stored shards."""
    with read_session(bench.engine) as session:
        ids = list(session.scalars(sa.select(Item.id).where(Item.split == "pool").order_by(Item.id)))
    with write_session(bench.engine) as session:
        for number, item_id in enumerate(ids):
            folder = bench.paths[number].parent
            uri = f"{folder}/pool.parquet#row={number}" if parquet else str(bench.paths[number])
            session.execute(sa.update(Item).where(Item.id == item_id).values(uri=uri))
    size = bench.settings.shard_size
    numbers = range((ids[0] - 1) // size, (ids[-1] - 1) // size + 1)
    shards = [shard_of(bench.context, bench.run, [], number) for number in numbers]
    work = _Opened(work_of(bench.context, bench.run, bench.model, [], len(ids)).open(str(device)))
    begun = time.perf_counter()
    stored = list(LocalEngine().map(work, shards, device=str(device)))
    seconds = time.perf_counter() - begun
    parts = [np.load(bench.artifacts.local_path(one.artifact))["losses"] for one in stored]
    losses[name] = np.concatenate(parts)
    return len(ids) / seconds


@dataclass(frozen=True)
class _Opened:
    """Work that is open already: building and tuning are not what is timed."""

    running: OpenPoolScoring

    def open(self, device: str) -> OpenPoolScoring:
        return self.running


def limit(bench: Bench, device: torch.device) -> float:
    """Images a second of the network alone, four views each, folded as ours is."""
    scorer = work_of(bench.context, bench.run, bench.model, [], 0).open(str(device))
    batch = normalised(_pixels(bench, scorer.batch)).to(device)
    views = torch.cat([torch.rot90(batch, turn, (2, 3)) for turn in range(4)])
    views = views.contiguous(memory_format=torch.channels_last)
    net, rounds = scorer.net, max(1, len(bench.paths) // scorer.batch)
    with torch.no_grad(), autocast(device):
        net(views)
        begun = time.perf_counter()
        for _ in range(rounds):
            found = net(views)
        found.cpu()
        return rounds * scorer.batch / (time.perf_counter() - begun)


def plain(bench: Bench, device: torch.device, losses: dict[str, Floats], name: str) -> float:
    net, found = open_net(bench.model, bench.artifacts, device), []
    use_threads(None)
    begun = time.perf_counter()
    with torch.no_grad():
        for path in bench.paths[:PLAIN_ITEMS]:
            image = to_pixels(Image.open(path).convert("RGB"), bench.model.config["image_size"])
            item = normalised(image[None]).to(device)
            views = [
                functional.cross_entropy(net(torch.rot90(item, turn, (2, 3))), _class(turn, device))
                for turn in range(4)
            ]
            found.append(torch.stack(views).mean().item())
    seconds = time.perf_counter() - begun
    losses[name] = np.array(found, np.float32)
    return len(found) / seconds


def _class(turn: int, device: torch.device) -> Tensor:
    return torch.tensor([turn], device=device)


def _pixels(bench: Bench, count: int) -> Tensor:
    side = bench.model.config["image_size"]
    return torch.stack([to_pixels(Image.open(path).convert("RGB"), side) for path in bench.paths[:count]])


def our_training(bench: Bench, device: torch.device) -> float:
    pixels, recipe = _pixels(bench, len(bench.paths)), _recipe(device)
    use_threads(None)
    training = Training(
        net=_net(bench, device),
        task=TASK,
        dataset=Dataset(len(pixels), lambda rows: pixels[torch.from_numpy(rows)]),
        recipe=recipe,
        device=device,
        prepare=lambda batch, generator: normalised(augmented(batch, generator) if generator else batch),
        sample=pixels[:512],
        save=lambda state: None,
        save_interval_s=60,
        report=lambda done, message: None,
        warn=print,
    )
    training.run()
    return EPOCHS / sum(1 / epoch["images_per_s"] for epoch in training.history)


def training_limit(bench: Bench, device: torch.device) -> float:
    recipe, net = _recipe(device), _net(bench, device).train()
    use_threads(None)
    optimizer = recipe.make_optimizer(net.parameters())
    batch = normalised(_pixels(bench, recipe.batch_size)).to(device)
    views = torch.cat([torch.rot90(batch, turn, (2, 3)) for turn in range(4)])
    views = views.contiguous(memory_format=torch.channels_last)
    turns = torch.arange(4, device=device).repeat_interleave(len(batch))

    def step() -> Tensor:
        with autocast(device):
            loss = functional.cross_entropy(net(views).float(), turns)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        optimizer.step()
        return loss.detach()

    step().item()
    steps = max(2, len(bench.paths) // len(batch))
    begun = time.perf_counter()
    for _ in range(steps):
        loss = step()
    loss.item()
    return steps * len(batch) / (time.perf_counter() - begun)


def _recipe(device: torch.device) -> Recipe:
    return Recipe(epochs=EPOCHS, batch_size=64 if device.type == "cpu" else 256, seed=0)


def _net(bench: Bench, device: torch.device) -> nn.Module:
    return new_net(spec_of(bench.model)).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


# ---- pools ----


def make_bench(folder: Path, items: int, side: int, backbone: str, device: str) -> Bench:
    """JPEG files, and the same bytes in `pool.parquet`."""
    images = folder / "pool"
    images.mkdir(parents=True)
    paths = [images / f"{number:07}.jpg" for number in range(items)]
    encoded = list(_pictures(items, side, "JPEG"))
    for path, data in zip(paths, encoded, strict=True):
        path.write_bytes(data)
    pq.write_table(pa.table({"image": encoded}), images / "pool.parquet", row_group_size=1_024)
    settings = Settings(
        data_dir=folder / "data", source_roots=(str(folder.resolve()),), device=device, shard_size=SHARD
    )
    engine = _database(settings)
    artifacts = Artifacts(settings.artifacts, settings.data_dir / "cache")
    model = _insert(engine, [str(path) for path in paths], side, backbone)
    store_net(new_net(spec_of(model)), model, artifacts, str(model.artifact))
    with write_session(engine) as session:
        last = session.scalar(sa.select(sa.func.max(Item.id)))
        run = ScoreRun(
            project_id=model.project_id, pretext_model_id=model.id, state="running", last_item_id=last
        )
        session.add(run)
    return Bench(settings, engine, artifacts, run, model, paths)


def _database(settings: Settings) -> sa.Engine:
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    engine = make_engine(settings.database)
    migrate.upgrade(engine)
    return engine


def _insert(engine: sa.Engine, uris: list[str], side: int, backbone: str) -> PretextModel:
    """A project with these items and an unfinished pretext model."""
    with write_session(engine) as session:
        project = Project(
            name="bench", classes=["a", "b"], settings={"pretext_epochs": 1, "image_size": side}
        )
        session.add(project)
        session.flush()
        session.add(Round(project_id=project.id, number=1, labels_before=0))
        shuffle = np.random.default_rng(0).integers(2**31, size=len(uris)).tolist()
        for start in range(0, len(uris), 50_000):
            rows = [
                {
                    "project_id": project.id,
                    "key": f"{number:08}",
                    "uri": uris[number],
                    "shuffle": shuffle[number],
                    "width": side,
                    "height": side,
                }
                for number in range(start, min(start + 50_000, len(uris)))
            ]
            session.execute(sa.insert(Item), rows)
        config = {"image_size": side, "seed": 0, "pretrained": False, "epochs": 1}
        model = PretextModel(
            project_id=project.id,
            version=1,
            state="ready",
            task={"name": TASK.name, "params": {}},
            backbone=backbone,
            config=config,
            artifact="bench.safetensors",
            history=[],
            diagnostics={},
        )
        session.add(model)
    return model


def _pictures(count: int, side: int, kind: str) -> Iterator[bytes]:
    """Soft random pictures: noise of a quarter of the side, enlarged."""
    rng = np.random.default_rng(0)
    for _ in range(count):
        noise = rng.integers(0, 256, (max(2, side // 4), max(2, side // 4), 3), np.uint8)
        image = Image.fromarray(noise).resize((side, side), Image.Resampling.BILINEAR)
        buffer = io.BytesIO()
        image.save(buffer, kind, quality=90)
        yield buffer.getvalue()


# ---- memory ----


def memory(folder: Path, items: int) -> dict[str, Figure]:
    """Train one epoch on the pool and score it, by the jobs; the peak of this process, which made the pool too."""
    side, group = 8, 8_192
    path = folder / "pool.parquet"
    schema = pa.schema({"image": pa.binary()})
    pictures = _pictures(items, side, "BMP")
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, items, group):
            part = [next(pictures) for _ in range(min(group, items - start))]
            writer.write_table(pa.table({"image": part}, schema))
    settings = Settings(data_dir=folder / "data", source_roots=(str(folder.resolve()),))
    engine = _database(settings)
    model = _insert(engine, [f"{path.resolve()}#row={row}" for row in range(items)], side, "small")
    peaks: dict[str, Figure] = {"pool_made_gb_1m": peak_memory_gb(torch.device("cpu"))}
    artifacts = Artifacts(settings.artifacts, settings.data_dir / "cache")
    for job in (train_pretext, score_pool):
        with write_session(engine) as session:
            project = session.get_one(Project, model.project_id)
            if job is train_pretext:
                pipeline.queue_train_pretext(session, project)
        claimed = jobs.claim(engine, "bench", ("long",), lease_s=24 * 3600)
        assert claimed is not None
        begun = time.monotonic()
        context = JobContext(job=claimed, settings=settings, engine=engine, artifacts=artifacts, report=_say)
        job.run(context)
        name = job.__name__.rsplit(".", 1)[-1]
        peaks |= {
            f"{name}_s_1m": time.monotonic() - begun,
            f"{name}_peak_gb_1m": peak_memory_gb(torch.device("cpu")),
        }
    return peaks | {
        "peak_gb_1m": peaks["score_pool_peak_gb_1m"],
        "items_1m": items,
        "cores_1m": available_cores(),
    }


def _say(done: float, message: str) -> None:
    if int(1000 * done) % 50 == 0:
        Console(stderr=True).print(f"{done:.0%} {message}")


if __name__ == "__main__":
    main()
