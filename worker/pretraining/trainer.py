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
from worker.errors import JobFailed
from worker.models.nets import new_net
from worker.pool.dataset import Dataset
from worker.pool.reader import ItemReader
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
from worker.pretraining.sync_norm import synced
from worker.pretraining.train import Callbacks, train

_TIMEOUT = timedelta(seconds=120)  # then the others know that one hangs


def main() -> None:
    die_with_parent(int(sys.argv[1]))
    with Client(sys.argv[2], "AF_UNIX") as job:
        assignment: Assignment = job.recv()
        with open(recv_handle(job), "rb") as items, ItemReader(assignment.settings) as reader:
            threading.Thread(target=_end_with, args=(job,), daemon=True).start()
            try:
                _train(assignment, assignment.pool.dataset(items, reader), job)
            except JobFailed as error:
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


def _meet(devices: list[torch.device], rank: int) -> None:
    """By a file of these trainers; those that are started in their place have another."""
    store = dist.FileStore(  # type: ignore[attr-defined]
        f"{sys.argv[2]}-{os.environ['TORCHELASTIC_RESTART_COUNT']}", len(devices)
    )
    store.set_timeout(_TIMEOUT)
    # What is told in numbers goes by the CPU, so that no device is waited for. Nccl wants a device for each.
    apart = devices[rank].type == "cuda" and len(set(devices)) == len(devices)
    backends = "cpu:gloo,cuda:nccl" if apart else "gloo"
    dist.init_process_group(backends, timeout=_TIMEOUT, rank=rank, world_size=len(devices), store=store)


def _train(assignment: Assignment, dataset: Dataset, job: Connection) -> None:
    settings, spec = assignment.settings, assignment.spec
    use_threads(settings.threads)
    rank = int(os.environ["LOCAL_RANK"])
    devices = choose_devices(settings.device, settings.devices)
    device = devices[rank]
    if device.type == "cuda":
        torch.cuda.set_device(device)
    _meet(devices, rank)

    def tell(message: Message) -> None:
        if collectives.rank() == 0:
            job.send(message)

    callbacks = Callbacks(
        save=lambda state: tell(Checkpoint(packed(state))),
        save_interval_s=settings.checkpoint_interval_s,
        report=lambda fraction, message: tell(Progress(fraction, message)),
        warn=lambda sentence: tell(Warned(sentence)),
    )
    sample = torch.from_numpy(assignment.sample.copy())  # torch wants to be able to write
    resume = unpacked(assignment.checkpoint) if assignment.checkpoint else None
    net = synced(new_net(spec), device)
    done = train(spec, assignment.recipe, net, dataset, sample, assignment.traits, device, callbacks, resume)
    net_of_all = packed(done.net.state_dict())
    tell(Ended(net_of_all, done.untrained, done.trained, done.history))


if __name__ == "__main__":
    main()
