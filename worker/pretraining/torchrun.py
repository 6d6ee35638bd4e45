"""torchrun, made to end with the runner: it starts the trainers of one training, and all of them again when one is
lost.

    python -m worker.pretraining.torchrun <pid of the runner> <trainers> <address>

Trainers and torchrun find each other by files beside the address: torch's usual store listens on every interface of
the machine, lets anyone in, and torchrun unpickles what it finds there.
"""

import os
import sys
from pathlib import Path

from torch.distributed.run import main as torchrun

from worker.die_with_parent import die_with_parent

_RESTARTS = 3  # then the job is tried again, from its checkpoint
_RENDEZVOUS = "store_type=file,keep_alive_interval=600"  # the file grows with each; there is nobody to notice


def main() -> None:
    runner_pid, trainers, address = sys.argv[1:]
    die_with_parent(int(runner_pid))
    torchrun(
        [
            f"--nproc-per-node={trainers}",
            "--local-addr=127.0.0.1",
            "--rdzv-backend=c10d",
            f"--rdzv-endpoint={Path(address).with_name('rendezvous')}",
            f"--rdzv-conf={_RENDEZVOUS}",
            f"--max-restarts={_RESTARTS}",
            f"--log-dir={os.devnull}",
            "--module",
            "worker.pretraining.trainer",
            str(os.getpid()),
            address,
        ]
    )


if __name__ == "__main__":
    main()
