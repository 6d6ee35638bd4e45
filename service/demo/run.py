"""Start service and worker as processes, label as two annotators, print and draw what was measured."""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from service.demo import DemoFailed
from service.demo.curves import MeanPoint, Point, label_efficiency, mean_curve
from service.demo.oracle import label_rounds
from service.demo.report import Report, write_report
from shortlist_client import Job, Project, Shortlist, ShortlistError

EXAMPLE = Path(__file__).parents[2] / "examples" / "fashion_mnist"
STRATEGIES = ("shortlist", "random")


def run(output: Path = Path("demo"), *, seeds: int = 3, labels: int = 500, round_size: int = 50) -> None:
    """The whole demo; `DemoFailed` with the reason when anything went wrong."""
    if not (EXAMPLE / "pool.parquet").exists():
        raise DemoFailed(
            f"the bundled pool is missing: {EXAMPLE / 'pool.parquet'}; run the demo from a clone"
        )
    started = time.monotonic()
    output.mkdir(parents=True, exist_ok=True)
    data_dir = output / "data"
    shutil.rmtree(data_dir, ignore_errors=True)
    truth = _truth(EXAMPLE / "pool.parquet")
    classes = sorted(set(truth.values()))
    console = Console()
    with _running(data_dir, output) as client, _progress(console) as progress:
        curves: dict[str, list[list[Point]]] = {strategy: [] for strategy in STRATEGIES}
        first: Project | None = None  # its pretext model and score run serve all projects
        for seed in range(seeds):
            for strategy in STRATEGIES:
                name = f"{strategy}, seed {seed}"
                project = client.create_project(
                    name,
                    classes,
                    strategy=strategy,
                    seed=seed,
                    round_size=round_size,
                    retrain_min_labels=round_size,
                    retrain_min_interval_s=0,
                    pretext_from=first.id if first else None,
                    backbone="small",  # pretrained weights would take it another minute, where there are some
                )
                _prepare(project, progress, name)
                first = first or project
                bar = progress.add_task(f"{name}: labeling", total=labels // round_size, message="")
                curves[strategy].append(
                    label_rounds(
                        project,
                        truth,
                        round_size=round_size,
                        rounds=labels // round_size,
                        done=partial(progress.advance, bar),
                    )
                )
        assert first is not None
        means = {strategy: mean_curve(curves[strategy]) for strategy in STRATEGIES}
        report = Report.of(first, curves, means, seconds=time.monotonic() - started)
    write_report(report, output)
    console.print(_table(means, seeds, report.test_items))
    console.print(f"[bold]{report.verdict}[/bold]")
    console.print(
        f"{report.seconds:.0f} s in all. Written: {output / 'report.html'}, {output / 'learning_curve.png'}. "
        f"Look at the projects: shortlist up --data-dir {data_dir}"
    )


def _truth(pool: Path) -> dict[str, str]:
    columns = pq.read_table(pool, columns=["key", "class"]).to_pydict()
    return dict(zip(columns["key"], columns["class"], strict=True))


def _prepare(project: Project, progress: Progress, name: str) -> None:
    """Import both splits, pretrain where there is no pretext model to share, score the pool."""
    for split, column in (("test", "class"), ("pool", None)):  # so that one look at raw features covers both
        job = project.add_source(str(EXAMPLE / f"{split}.parquet"), split=split, label_column=column)
        _follow(project, job, progress, f"{name}: importing the {split}")
    job = project.pretrain()
    if job.kind == "train_pretext":
        _follow(project, job, progress, f"{name}: pretraining on rotations")
        (job, *_) = project.jobs("score_pool")
    _follow(project, job, progress, f"{name}: scoring")


def _follow(project: Project, job: Job, progress: Progress, what: str) -> None:
    bar = progress.add_task(what, total=1.0, message="")

    def shown(job: Job) -> None:
        progress.update(bar, completed=job.progress, message=job.message or job.state)

    project.wait_for(job, on_progress=shown)
    progress.update(bar, completed=1.0, message="")


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("[dim]{task.fields[message]}"),
        console=console,
    )


def _table(means: dict[str, list[MeanPoint]], seeds: int, test_items: int) -> Table:
    table = Table(
        title=f"Accuracy on {test_items:,} test images, mean ± std over {seeds} seeds [95 % interval]",
        title_justify="left",
    )
    for heading in ("labels", *STRATEGIES, "label efficiency"):
        table.add_column(heading, justify="right")
    for ours, theirs in zip(means["shortlist"], means["random"], strict=True):
        table.add_row(
            str(ours.labels), _cell(ours), _cell(theirs), f"{label_efficiency(ours, means['random'])} ×"
        )
    return table


def _cell(point: MeanPoint) -> str:
    interval = f"\\[{100 * point.low:.1f}, {100 * point.high:.1f}]"
    return f"{100 * point.accuracy:.1f} ± {100 * point.deviation:.1f} {interval}"


@contextlib.contextmanager
def _running(data_dir: Path, output: Path) -> Iterator[Shortlist]:
    """Service and worker as processes of their own; both are stopped at the end, whatever happens."""
    port, key = _free_port(), secrets.token_urlsafe(32)
    environment = os.environ | {
        "SHORTLIST_DATA_DIR": str(data_dir),
        "SHORTLIST_DATABASE_URL": "",
        "SHORTLIST_ARTIFACTS_URL": "",
        "SHORTLIST_HOST": "127.0.0.1",
        "SHORTLIST_PORT": str(port),
        "SHORTLIST_ADMIN_KEY": key,
        "SHORTLIST_SOURCE_ROOTS": str(EXAMPLE),
        "SHORTLIST_LOG_FORMAT": "console",
    }
    command = [sys.executable, "-m", "service.cli"]
    subprocess.run([*command, "migrate"], env=environment, check=True, stdout=subprocess.DEVNULL)
    with contextlib.ExitStack() as stack:
        processes: dict[str, subprocess.Popen[bytes]] = {}
        for part in ("serve", "worker"):
            log = stack.enter_context((output / f"{part}.log").open("wb"))
            processes[part] = subprocess.Popen([*command, part], env=environment, stdout=log, stderr=log)
            stack.callback(_stop, processes[part])
        with Shortlist(f"http://127.0.0.1:{port}", key) as client:
            _wait_until_ready(client, processes, output)
            try:
                yield client
            except ShortlistError as error:
                raise DemoFailed(str(error)) from error


def _wait_until_ready(client: Shortlist, processes: dict[str, subprocess.Popen[bytes]], output: Path) -> None:
    deadline = time.monotonic() + 90
    while True:
        for part, process in processes.items():
            if process.poll() is not None:
                raise DemoFailed(
                    f"`shortlist {part}` ended with {process.returncode}; see {output / part}.log"
                )
        if client.ready():
            return
        if time.monotonic() > deadline:
            raise DemoFailed(f"not ready after 90 s; see the logs in {output}")
        time.sleep(0.2)


def _stop(process: subprocess.Popen[Any]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
