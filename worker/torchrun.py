"""torchrun, made to end with the runner: it starts the trainers of one training, and all of them again when one is
lost.

    python -m worker.torchrun <pid of the runner> <trainers> <address>
"""

import os
import sys

from torch.distributed.run import main as torchrun

from worker.lifeline import die_with

_RESTARTS = 3  # then the job is tried again, from its checkpoint


def main() -> None:
    runner_pid, trainers, address = sys.argv[1:]
    die_with(int(runner_pid))
    torchrun(
        [
            "--standalone", f"--nproc-per-node={trainers}", "--local-addr=127.0.0.1",
            f"--max-restarts={_RESTARTS}", f"--log-dir={os.devnull}",
            "--module", "worker.jobs.trainer", str(os.getpid()), address,
        ]
    )  # fmt: skip


if __name__ == "__main__":
    main()
