"""Job train_pretext on several devices: torchrun's processes, here on the CPU, and what becomes of lost ones."""

import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from multiprocessing.connection import Client, Connection
from multiprocessing.reduction import recv_handle
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
import torch

from service.errors import ArtifactNotStored
from service.settings import Settings
from service.store.jobs import LeaseLost
from service.store.pipeline import queue_train_pretext
from service.store.session import write_session
from service.store.tables import Job, PretextModel, Project
from tests.worker.jobs.test_train_pretext import models, tensors, training
from tests.worker.processes import descendants, listening
from tests.worker.running import claim, run
from worker.errors import JobFailed
from worker.jobs import train_pretext
from worker.jobs.context import JobContext
from worker.jobs.train_pretext.pool import TrainingPool
from worker.modalities.image import Image
from worker.models.spec import ModelSpec
from worker.pool.reader import Decoded, ItemReader
from worker.pool.shared import SharedPool
from worker.pretraining.launcher import (
    Assignment,
    Checkpoint,
    Ended,
    Failed,
    Message,
    Progress,
    Raised,
    Trainers,
    TrainersLost,
    Warned,
    packed,
    unpacked,
)
from worker.pretraining.loop import State
from worker.pretraining.recipe import Recipe
from worker.pretraining.train import Callbacks

__all__ = ["training"]  # a fixture

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def on_two_devices(context: JobContext, **settings: Any) -> JobContext:
    context.settings = context.settings.model_copy(update={"devices": 2} | settings)
    return context


def trainers_of(pid: int) -> dict[int, int]:
    """Their pids, by place."""
    found = {}
    for child in descendants(pid):
        try:
            command, variables = (
                Path(f"/proc/{child}/{name}").read_bytes().split(b"\0") for name in ("cmdline", "environ")
            )
        except (FileNotFoundError, ProcessLookupError):
            continue
        if b"worker.pretraining.trainer" in command:
            found[next(int(each[11:]) for each in variables if each.startswith(b"LOCAL_RANK="))] = child
    return found


def test_killed_trainers_are_started_again_and_the_result_is_the_same(
    training: Callable[..., JobContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    """6 steps with a checkpoint after each. The first trainer is killed after the second step; where
    SHORTLIST_TEST_KILLS says 2 or 3, later the second one, and the first again. Nobody beyond this machine can
    connect to any of them.
    """
    kills = min(int(os.environ.get("SHORTLIST_TEST_KILLS", "1")), 3)
    wanted = training(12, pretext_training={"batch_size": 4})
    context = on_two_devices(wanted, checkpoint_interval_s=1e-9)
    run(context)
    expected = tensors(context)
    with write_session(context.engine) as session:
        session.execute(sa.delete(Job))
        queue_train_pretext(session, session.get_one(Project, context.job.project_id))
    context = on_two_devices(claim(context.engine, context.settings, context.artifacts))
    save, saved, killed = train_pretext._save_checkpoint, list[int](), list[int]()
    addresses = set[IPv4Address | IPv6Address]()

    def save_and_kill(context: JobContext, model: PretextModel, state: State) -> None:
        save(context, model, state)
        saved.append(state["training"]["step"])
        addresses.update(listening(descendants(os.getpid())))
        if len(killed) < kills and len(saved) == 2 * (len(killed) + 1):
            killed.append(trainers_of(os.getpid())[len(killed) % 2])
            os.kill(killed[-1], signal.SIGKILL)

    monkeypatch.setattr(train_pretext, "_save_checkpoint", save_and_kill)
    run(context)

    first, second = models(context)
    assert len(killed) == kills
    assert saved[-1] == 6
    assert {address.is_loopback for address in addresses} == {True}
    assert first.config["devices"] == 2
    assert [epoch["loss"] for epoch in second.history] == pytest.approx(
        [epoch["loss"] for epoch in first.history], abs=1e-4
    )
    for name, found in tensors(context).items():
        torch.testing.assert_close(found, expected[name], rtol=0, atol=1e-4)
    assert trainers_of(os.getpid()) == {}


@pytest.mark.parametrize("count", [1, 3])
def test_a_pool_too_small_for_two_is_trained_by_one(
    count: int, training: Callable[..., JobContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the 3 items only one can be read."""
    context = on_two_devices(training(count))
    folder = next(context.settings.data_dir.parent.glob("pool"))
    for path in sorted(folder.iterdir())[1:]:
        path.unlink()
    monkeypatch.setattr(subprocess, "Popen", None)
    run(context)

    assert models(context)[0].state == "ready"


def test_the_shared_pool_is_the_pool(
    training: Callable[..., JobContext], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In memory, in the cache, or where there is no room for either."""
    context = training(11)
    (tmp_path / "pool" / "00003.png").unlink()
    decode, decoded = ItemReader._decode, list[str]()

    def counting(this: ItemReader, uri: str, *more: Any) -> Decoded:
        decoded.append(Path(uri).name)
        return decode(this, uri, *more)

    monkeypatch.setattr(ItemReader, "_decode", counting)
    with ItemReader(context.settings) as reader:
        for cache, room, each_epoch in ((0, 0, 11), (0, 2**20, 1), (2**20, 0, 0)):
            changed = {"memory_cache_bytes": cache, "decoded_cache_bytes": room}
            context.settings = context.settings.model_copy(update=changed)
            pool = TrainingPool(context, reader, seed=0)
            with TemporaryFile() as file:
                shared = pool.shared(Image(image_size=12), lambda part, message: None, file)
                found = pickle.loads(pickle.dumps(shared)).dataset(file, reader)
                decoded.clear()
                batches = list(found.batches(0, 1, 4))
                assert len(decoded) == each_epoch
            expected = list(pool.dataset(Image(image_size=12), lambda part, message: None).batches(0, 1, 4))
            assert (shared.cached is None) == bool(cache)
            assert [len(one) for one in batches] == [len(one) for one in expected]
            assert all(map(torch.equal, batches, expected))


def test_without_room_for_the_pool_it_says_so(training: Callable[..., JobContext]) -> None:
    context = training(11)
    with ItemReader(context.settings) as reader, open("/dev/full", "wb") as full:
        pool = TrainingPool(context, reader, seed=0)
        with pytest.raises(ArtifactNotStored, match="no space left on device"):
            pool.shared(Image(image_size=12), lambda part, message: None, full)


# ---- what trainers say, said here by threads ----


class Heard:
    def __init__(self) -> None:
        self.all: list[object] = []
        self.told = Callbacks(
            save=self.all.append,
            save_interval_s=1.0,
            report=lambda fraction, message: self.all.append(message),
            warn=self.all.append,
        )


@pytest.fixture
def assignment(settings: Settings) -> Assignment:
    return Assignment(
        spec=ModelSpec({"name": "rotation"}, "small", {"modality": "image", "image_size": 8}, seed=0),
        recipe=Recipe(epochs=1, batch_size=2, seed=0),
        settings=settings,
        pool=SharedPool(3, Image(image_size=8)),
        sample=np.zeros((1, 3, 8, 8), np.uint8),
        traits={},
        checkpoint=None,
    )


@contextmanager
def acting(
    monkeypatch: pytest.MonkeyPatch, *acts: Callable[[Connection, Assignment], None]
) -> Iterator[None]:
    """In place of torchrun a process that sleeps, and threads that connect one after the other, and act."""
    start = subprocess.Popen

    def act(address: str) -> None:
        for each in acts:
            with Client(address, "AF_UNIX") as job:
                assignment = job.recv()
                os.close(recv_handle(job))
                each(job, assignment)

    def start_other(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        thread.append(threading.Thread(target=act, args=(command[-1],)))
        thread[0].start()
        return start([sys.executable, "-c", "import time; time.sleep(600)"], **options)

    thread: list[threading.Thread] = []
    monkeypatch.setattr(subprocess, "Popen", start_other)
    yield
    thread[0].join()


def say(*messages: Message) -> Callable[[Connection, Assignment], None]:
    def act(job: Connection, _: Assignment) -> None:
        for message in messages:
            job.send(message)

    return act


def test_what_the_first_trainer_says_is_told(assignment: Assignment, monkeypatch: pytest.MonkeyPatch) -> None:
    """And whoever connects later is sent the newest checkpoint."""
    checkpoint, sent = packed({"step": 3}), list[bytes | None]()
    words = say(Progress(0.5, "half"), Warned("careful"), Checkpoint(checkpoint), Raised("KeyError: 1"))

    def go_on(job: Connection, assignment: Assignment) -> None:
        sent.append(assignment.checkpoint)
        job.send(Ended(packed({}), {}, {"loss": 1.0}, []))

    heard = Heard()
    with (
        acting(monkeypatch, words, go_on),
        TemporaryFile() as pixels,
        Trainers(1, assignment, pixels) as trainers,
    ):
        ended = trainers.train(heard.told)

    assert ended.trained == {"loss": 1.0}
    assert heard.all == ["half", "careful", {"step": 3}]
    assert [unpacked(each) for each in sent if each] == [{"step": 3}]


def test_a_training_that_a_person_must_look_at_fails(
    assignment: Assignment, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        acting(monkeypatch, say(Failed("The training diverged."))),
        TemporaryFile() as pixels,
        Trainers(1, assignment, pixels) as trainers,
        pytest.raises(JobFailed, match="diverged"),
    ):
        trainers.train(Heard().told)


def test_without_its_lease_the_job_ends_its_trainers(
    assignment: Assignment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save(state: State) -> None:
        raise LeaseLost(1)

    with (
        acting(monkeypatch, say(Checkpoint(packed({})))),
        TemporaryFile() as pixels,
        pytest.raises(LeaseLost),
        Trainers(1, assignment, pixels) as trainers,
    ):
        trainers.train(replace(Heard().told, save=save))
    assert trainers._torchrun.returncode == -signal.SIGKILL


@pytest.mark.parametrize("said", ["RuntimeError: no memory", None])
def test_trainers_that_are_lost_again_and_again(
    said: str | None, assignment: Assignment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job is then tried again."""

    def end_torchrun(job: Connection, _: Assignment) -> None:
        if said:
            job.send(Raised(said))
            job.send(Raised("RuntimeError: connection closed by peer"))  # of another, because of the first
        trainers._torchrun.kill()

    with (
        acting(monkeypatch, end_torchrun),
        TemporaryFile() as pixels,
        Trainers(1, assignment, pixels) as trainers,
        pytest.raises(TrainersLost, match=said or "did not say why") as raised,
    ):
        trainers.train(Heard().told)
    assert raised.value.status >= 500
