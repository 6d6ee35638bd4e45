"""One of the trainers of a pretraining, on its device. `worker.pretraining.torchrun` starts one a device.

python -m worker.pretraining.trainer <pid of torchrun> <address of the job's socket>
"""

import os
import sys
import threading
from datetime import timedelta
from multiprocessing.connection import Client, Connection
from multiprocessing.reduction import recv_handle

import torch
import torch.distributed as dist

from worker import collectives
from worker.device import choose_devices, use_threads
from worker.die_with_parent import die_with_parent
from worker.jobs.context import JobFailed
from worker.jobs.pretext_net import new_net
from worker.pool.dataset import Dataset
from worker.pool.reader import ItemPixels
from worker.pretraining.launcher import (
    Assignment,
    Checkpoint,
    Ended,
    Failed,
    Message,
    Progress,
    Raised,
    Warned,
    packed,
    unpacked,
)
from worker.pretraining.loop import Diverged
from worker.pretraining.sync_norm import synced
from worker.pretraining.train import Told, train

_TIMEOUT = timedelta(seconds=120)  # then the others know that one hangs


def main() -> None:
    die_with_parent(int(sys.argv[1]))
    with Client(sys.argv[2], "AF_UNIX") as job:
        assignment: Assignment = job.recv()
        with open(recv_handle(job), "rb") as pixels, ItemPixels(assignment.settings) as item_pixels:
            threading.Thread(target=_end_with, args=(job,), daemon=True).start()
            try:
                _train(assignment, assignment.pool.dataset(pixels, item_pixels), job)
            except (Diverged, JobFailed) as error:
                job.send(Failed(str(error)))
            except BaseException as error:
                job.send(Raised(f"{type(error).__name__}: {error}"))
                raise
        dist.destroy_process_group()


def _end_with(job: Connection) -> None:
    """The job sends nothing more, so whatever comes is its end."""
    try:
        job.recv_bytes()
    except (EOFError, OSError):
        os._exit(1)


def _meet(device: torch.device, place: int, trainers: int) -> None:
    """By a file of these trainers; those that are started in their place have another."""
    store = dist.FileStore(  # type: ignore[attr-defined]
        f"{sys.argv[2]}-{os.environ['TORCHELASTIC_RESTART_COUNT']}", trainers
    )
    store.set_timeout(_TIMEOUT)
    # What is told in numbers goes by the CPU, so that no device is waited for.
    backends = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backends, timeout=_TIMEOUT, rank=place, world_size=trainers, store=store)


def _train(assignment: Assignment, dataset: Dataset, job: Connection) -> None:
    settings, model = assignment.settings, assignment.model()
    use_threads(settings.threads)
    place = int(os.environ["LOCAL_RANK"])
    device = choose_devices(settings.device, settings.devices)[place]
    if device.type == "cuda":
        torch.cuda.set_device(device)
    _meet(device, place, settings.devices)

    def tell(message: Message) -> None:
        if collectives.rank() == 0:
            job.send(message)

    told = Told(
        save=lambda state: tell(Checkpoint(packed(state))),
        save_interval_s=settings.checkpoint_interval_s,
        report=lambda fraction, message: tell(Progress(fraction, message)),
        warn=lambda sentence: tell(Warned(sentence)),
    )
    sample = torch.from_numpy(assignment.sample.copy())  # torch wants to be able to write
    resume = unpacked(assignment.checkpoint) if assignment.checkpoint else None
    net = synced(new_net(model), device)
    done = train(model, net, dataset, sample, assignment.traits, device, told, resume)
    net_of_all = packed(done.net.state_dict())
    tell(Ended(net_of_all, done.untrained, done.trained, done.history))


if __name__ == "__main__":
    main()
